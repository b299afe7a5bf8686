"""Every door by which something comes in that is no plain write: none keeps the event loop, however large the body is.

What the loop may be kept for is told in processor time, by what the same machine needs to count to ten million in
Python: 250 ms where that takes 0.8 s, for bodies up to 1 MB; larger ones are refused or read in a thread.
"""

from __future__ import annotations

import base64
import threading
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import orjson
import pytest

from fhir_server.api import binary, response
from fhir_server.app import Knowledge
from fhir_server.operations import OPERATIONS
from fhir_server.operations.operation import MOST_BYTES
from fhir_server.scheduling.settle import MOST_PARTICIPANTS
from mappers.billing.libraries import LARGEST_ATTACHMENT
from tests.conftest import Client, serving
from tests.cost.measuring import JSON, LONG_WAIT, check_loop_turns
from tests.cost.test_limits import refused
from tests.operations.scheduling.booking_clinic import doctors, patients, room, store, visit
from tests.workers.hl7v2_messages import msh, pid

pytestmark = pytest.mark.anyio

ER7 = {"content-type": "x-application/hl7-v2+er7"}


@pytest.fixture
async def client(known: Knowledge, tmp_path: Path) -> AsyncIterator[Client]:
    (tmp_path / "partners").mkdir()
    (tmp_path / "partners" / "north.toml").write_text(
        'name = "north"\nformats = ["hl7v2"]\ndefault_authority = "MRN"\n[systems]\nMRN = "urn:oid:1.2"\n'
        '[hl7v2]\nsenders = [{ application = "EHR" }]\n'
    )
    async with serving(known, store=f"sqlite:///{tmp_path}/fhir.db", profiles=str(tmp_path), **LONG_WAIT) as client:
        await store(client, [*doctors(), room(), *patients()])
        yield client


async def post(client: Client, url: str, body: bytes, number: int) -> httpx.Response:
    return await client.post(url, content=body, headers=JSON)


async def put(client: Client, url: str, body: bytes, number: int) -> httpx.Response:
    return await client.put(url, content=body, headers=JSON)


def parameters(*parts: tuple[str, str]) -> bytes:
    listed = [{"name": name, "valueString": value} for name, value in parts]
    return orjson.dumps({"resourceType": "Parameters", "parameter": listed})


WINDOW = (("start", "2027-03-02"), ("end", "2027-03-09"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("location-reference", "Location/room-1"),
        ("practitioner", "Practitioner/pine"),
        ("specialty", "s{}"),
        ("visit-type", "t{}"),
        ("practitioner", "Practitioner/p{}"),
        ("n{}", "x"),
    ],
)
async def test_free_times_by_very_many_parameters(client: Client, name: str, value: str) -> None:
    body = parameters(*WINDOW, *((name.format(number), value.format(number)) for number in range(12_000)))
    answer = await check_loop_turns(partial(post, client, "/Appointment/$find", body))
    assert answer.status_code in (200, 400, 404)


async def test_operations_take_bodies_up_to_a_size(client: Client) -> None:
    """All that are posted to with FHIR JSON; those of messages are read in a thread."""
    unbounded = {code for code, operation in OPERATIONS.items() if operation.most_bytes is None}
    assert unbounded == {"hl7v2", "x12"}
    for url in ("Appointment/$find", "Claim/$scrub", "Patient/ada/$meta-add", "Observation/$lastn", "$reindex"):
        body = parameters(("x", "y" * MOST_BYTES))
        refused(await client.post(f"/{url}", content=body, headers=JSON), url.rpartition("/")[2])


async def test_an_appointment_has_a_number_of_participants(client: Client) -> None:
    """Whose Schedule a participant has depends on all the others: the square of their number is bounded."""
    actors = [f"Practitioner/{'pine' if number % 2 else 'elm'}" for number in range(MOST_PARTICIPANTS)]
    for count, statuses in ((1, {422}), (0, {200, 201})):
        body = orjson.dumps({**visit("10:00", "10:20", *actors, *["Patient/ada"] * count), "id": "many"})
        answer = await check_loop_turns(partial(put, client, "/Appointment/many", body))
        assert answer.status_code in statuses
    assert (await client.get("/Appointment?_summary=count")).json()["total"] == 1


@pytest.mark.parametrize("operation", ["$hold", "$book"])
async def test_nor_does_an_operation_take_more_participants(client: Client, operation: str) -> None:
    """Neither in its body, nor those of an Appointment that takes no time yet and may have as many as it likes."""
    actors = [f"Practitioner/{'pine' if number % 2 else 'elm'}" for number in range(11_000)]
    large = visit("10:00", "10:20", *actors, "Patient/ada", status="proposed")
    stored = await client.post("/Appointment", json=large, headers=JSON)
    assert stored.status_code == 201
    reference = f"Appointment/{stored.json()['id']}"
    for part in (
        {"name": "appointment-resource", "resource": large},
        {"name": "appointment-reference", "valueString": reference},
    ):
        body = orjson.dumps({"resourceType": "Parameters", "parameter": [part]})
        answer = await check_loop_turns(partial(post, client, f"/Appointment/{operation}", body))
        assert answer.status_code == 422 and answer.json()["issue"][0]["code"] == "too-costly", answer.text[:500]


def library(attachment: bytes) -> bytes:
    content = {"contentType": "application/json", "data": base64.b64encode(attachment).decode()}
    kind = {"text": "claim-split-rules"}
    return orjson.dumps(
        {"resourceType": "Library", "status": "active", "name": "r", "type": kind, "content": [content]}
    )


async def test_rule_sets_have_a_size_and_their_faults_a_number(client: Client) -> None:
    wrong: dict[str, Any] = {"name": "x", "rules": [1] * 100_000}
    answer = await check_loop_turns(partial(post, client, "/Library", library(orjson.dumps(wrong))))
    assert answer.status_code == 422
    assert len(answer.json()["issue"]) == 101 and "more faults" in answer.json()["issue"][-1]["diagnostics"]
    large = library(b"[" + b" " * (LARGEST_ATTACHMENT + 8) + b"]")
    answer = await check_loop_turns(partial(post, client, "/Library", large))
    assert answer.status_code == 422 and answer.json()["issue"][0]["code"] == "too-long"


@pytest.mark.parametrize(
    "segments",
    [
        ["OBR|1|||24323-8^x^LN", *(f"OBX|{n}|NM|1234-5^x^LN||{n}|mg/dL|||||F" for n in range(4000))],
        [f"Z{n % 10}{n % 7}|a" for n in range(100_000)],
        ["NTE|1||" + "\\" * 900_000],
        ["NTE|1||" + "\\X41\\" * 180_000],
        [f"AL1|{n}|DA|a{n}^x" for n in range(4000)],
    ],
    ids=["results", "unknown segments", "escapes", "hexadecimal", "allergies"],
)
async def test_messages_are_read_beside_the_loop(client: Client, segments: list[str]) -> None:
    rest = pid() + "".join(f"{each}\r" for each in segments)

    async def send(number: int) -> httpx.Response:
        return await client.post("/$hl7v2", content=(msh("ORU^R01", f"M{number}") + rest).encode(), headers=ER7)

    answer = await check_loop_turns(send)
    assert answer.status_code == 200 and b"MSA|A" in answer.content


async def test_large_contents_are_coded_beside_the_loop(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Binary in its own type, and an answer that is indented: what is large is worked on in another thread."""
    threads: dict[str, bool] = {}

    def overhear(module: ModuleType, name: str) -> None:
        real = getattr(module, name)

        def work(*arguments: Any) -> Any:
            threads[name] = threading.current_thread() is threading.main_thread()
            return real(*arguments)

        monkeypatch.setattr(module, name, work)

    for name in ("content_to_resource", "resource_to_content"):
        overhear(binary, name)
    overhear(response, "indent")
    pdf = {"content-type": "application/pdf", "accept": "application/pdf"}
    for size, on_loop in ((1000, True), (1_000_000, False)):
        content = bytes(range(250)) * (size // 250)
        assert (await client.put("/Binary/b", content=content, headers=pdf)).status_code == 201 + (0 if on_loop else -1)
        assert (await client.get("/Binary/b", headers={"accept": "application/pdf"})).content == content
        assert (await client.get("/Binary/b?_pretty=true", headers={"accept": JSON["content-type"]})).json()[
            "contentType"
        ] == "application/pdf"
        assert threads == dict.fromkeys(("content_to_resource", "resource_to_content", "indent"), on_loop)
