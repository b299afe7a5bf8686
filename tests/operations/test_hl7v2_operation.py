"""`$hl7v2`: messages and files of messages by HTTP."""

from __future__ import annotations

import httpx
import pytest

from fhir_server.app import Knowledge
from tests.conftest import Client, serving
from tests.workers.hl7v2_messages import msh, pid, read_codes

pytestmark = pytest.mark.anyio

ER7 = {"Content-Type": "x-application/hl7-v2+er7"}


async def post(client: Client, body: str, query: str = "", **headers: str) -> httpx.Response:
    return await client.fhir("POST", f"$hl7v2{query}", content=body.encode(), headers={**ER7, **headers})


@pytest.fixture
async def client(known: Knowledge, tmp_path, store_uri: str):  # type: ignore[no-untyped-def]
    folder = tmp_path / "partners"
    folder.mkdir()
    (folder / "north.toml").write_text(
        'name = "north"\nformats = ["hl7v2"]\ndefault_authority = "MRN"\n[systems]\nMRN = "urn:oid:1.2"\n'
        '[hl7v2]\nsenders = [{ application = "EHR" }]\n'
    )
    async with serving(known, store=store_uri, profiles=str(tmp_path)) as client:
        yield client


async def test_a_message_is_answered_with_its_acknowledgement(client: Client) -> None:
    answer = await post(client, msh("ADT^A08", "M1") + pid())
    assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (200, ER7["Content-Type"])
    assert "\rMSA|AA|M1\r" in answer.text
    assert (await post(client, msh("ADT^A08", "M1") + pid())).content == answer.content
    assert (await client.fhir("GET", "Patient?_summary=count")).json()["total"] == 1


async def test_a_file_of_messages_is_answered_message_by_message(client: Client) -> None:
    messages = [msh("ADT^A08", str(number)) + pid(str(number)) for number in range(3)]
    file = "FHS|^~\\&|EHR\rBHS|^~\\&|EHR\r" + messages[0] + msh("ADT^A60", "x") + messages[1] + messages[2]
    answer = await post(client, (file + "BTS|4\rFTS|1\r").replace("\r", "\r\n"))
    assert read_codes(answer.content) == ["AA", "AR", "AA", "AA"]
    assert (await client.fhir("GET", "Patient?_summary=count")).json()["total"] == 3


async def test_what_wants_no_answer_gets_none(client: Client) -> None:
    assert (await post(client, msh("ADT^A08", f15="NE", f16="NE") + pid())).status_code == 204


@pytest.mark.parametrize("body", ["", "junk", "\x0bMSH|\x1c\r", "MSH|^~\\&", "\xff" * 100, "BHS|^~\\&\rBTS|0\r"])
async def test_what_is_no_message_is_refused(client: Client, body: str) -> None:
    answer = await post(client, body)
    assert answer.status_code in (200, 400)
    if answer.status_code == 200:
        assert set(read_codes(answer.content)) <= {"AE", "AR"} and answer.content


async def test_another_content_type_and_an_unknown_partner_are_refused(client: Client) -> None:
    wrong = await client.fhir("POST", "$hl7v2", content=b"{}", headers={"Content-Type": "application/fhir+json"})
    assert wrong.status_code == 415
    unknown = await post(client, msh("ADT^A08") + pid(), "?partner=south")
    assert (unknown.status_code, "`south`" in unknown.text) == (400, True)
    assert (await post(client, msh("ADT^A08", f3="X", f4="Y") + pid(), "?partner=north")).status_code == 200


async def test_too_many_messages_are_refused_before_one_is_stored(client: Client) -> None:
    answer = await post(client, (msh("ADT^A08") + pid()) * 1001)
    assert answer.status_code == 413
    assert (await client.fhir("GET", "Task?_summary=count")).json()["total"] == 0
