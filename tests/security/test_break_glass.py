"""Break-glass: who may read what is hidden for one request, what that opens, and ways to have it otherwise."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner

from fhir_server.__main__ import cli
from fhir_server.app import Knowledge
from fhir_server.security.break_glass import lift_scopes
from fhir_server.security.clients import Client as Registered
from fhir_server.security.clients import add_client
from fhir_server.security.scopes import parse_scopes
from fhir_server.security.static_tokens import StaticToken, create_token
from fhir_server.security.users import change_user
from tests.conftest import Client
from tests.security.smart import (
    NOW,
    ask_by_assertion,
    authorize,
    launch,
    make_claims,
    make_key,
    open_clinic,
    sign,
    wait,
)

pytestmark = pytest.mark.anyio

LABEL = "http://terminology.hl7.org/CodeSystem/v3-Confidentiality"
GLASS = {"x-break-glass": 'purpose=ETREAT; reason="Unconscious, allergies unknown"'}
SECRET = "Observation/secret"


@pytest.fixture
async def client(known: Knowledge, tmp_path: Path) -> AsyncIterator[Client]:
    """The clinic with a restricted Observation of Ada, and one of Bo."""
    async with open_glass(known, "memory://", tmp_path) as client:
        yield client


@pytest.fixture
async def clinic(known: Knowledge, any_store_uri: str, tmp_path: Path) -> AsyncIterator[Client]:
    """The same on each store, for what stores could answer in different ways."""
    async with open_glass(known, any_store_uri, tmp_path) as client:
        yield client


@asynccontextmanager
async def open_glass(known: Knowledge, uri: str, folder: Path) -> AsyncIterator[Client]:
    async with open_clinic(known, uri, audit_folder=str(folder / "audit")) as client:
        headers = await act_by_token(client, f"system/*.cruds system/*.cruds?_security={LABEL}|R,{LABEL}|V")
        for id, patient in (("secret", "ada"), ("other", "bo")):
            resource = {
                "resourceType": "Observation",
                "id": id,
                "meta": {"security": [{"system": LABEL, "code": "R"}]},
                "status": "final",
                "code": {"text": "x"},
                "subject": {"reference": f"Patient/{patient}"},
            }
            answer = await client.put(f"Observation/{id}", json=resource, headers=headers)
            assert answer.status_code == 201, answer.text
        yield client


async def act_by_token(client: Client, scopes: str, role: str = "", patient: str = "") -> dict[str, str]:
    made = StaticToken(f"t{scopes}{role}"[:40], scopes, role, patient, NOW, (NOW + 10_000) * 1_000_000)
    context = client.server.context
    return {"authorization": f"Bearer {await create_token(context.unrestricted, made, context.roles)}"}


async def count(client: Client, url: str, headers: dict[str, str]) -> int:
    answer = await client.get(url, headers=headers)
    assert answer.status_code == 200, answer.text
    return int(answer.json()["total"])


async def read_events(client: Client, folder: Path) -> list[dict[str, Any]]:
    audit = client.server.context.audit
    assert audit is not None
    await audit.settle()
    (file,) = (folder / "audit").iterdir()
    return [orjson.loads(line.partition(b"\t")[0]) for line in file.read_bytes().splitlines()]


async def test_a_clinician_sees_labelled_resources_for_one_request(clinic: Client, tmp_path: Path) -> None:
    quill = authorize(await launch(clinic, "quill", "user/*.rs"))
    for url in (SECRET, f"{SECRET}/_history/1"):
        assert (await clinic.get(url, headers=quill)).status_code == 404
        assert (await clinic.get(url, headers={**quill, **GLASS})).status_code == 200
        assert (await clinic.get(url, headers=quill)).status_code == 404
    assert await count(clinic, "Observation", {**quill, **GLASS}) == 4
    assert await count(clinic, "Observation?_summary=count", quill) == 2
    assert await count(clinic, "Patient/ada/$everything", {**quill, **GLASS}) == 1 + await count(
        clinic, "Patient/ada/$everything", quill
    )
    events = [event for event in await read_events(clinic, tmp_path) if "purposeOfEvent" in event]
    assert len(events) == 4
    coding = {"system": "http://terminology.hl7.org/CodeSystem/v3-ActReason", "code": "ETREAT"}
    assert events[0]["purposeOfEvent"] == [{"coding": [coding], "text": "Unconscious, allergies unknown"}]
    assert events[0]["entity"][0]["what"]["reference"] == SECRET
    assert [each["code"] for each in events[0]["subtype"]] == ["read", "110127"]
    assert events[0]["agent"][0]["who"]["identifier"]["value"] == "user:quill"


@pytest.mark.parametrize("first", ["broken", "whole"])
async def test_what_is_remembered_of_a_token_is_not_mixed(clinic: Client, first: str) -> None:
    """One token, with the header and without: neither sees what was found for the other, whichever came first."""
    quill = authorize(await launch(clinic, "quill", "user/*.rs"))
    turns = [("broken", {**quill, **GLASS}), ("whole", quill)] * 2
    for turn, headers in turns[0 if first == "broken" else 1 :]:
        opened = turn == "broken"
        for url in (SECRET, f"{SECRET}/_history/1", f"{SECRET}/_history"):
            assert (await clinic.get(url, headers=headers)).is_success == opened, (turn, url)
        included = await clinic.get("Patient?_id=ada&_revinclude=Observation:subject", headers=headers)
        everything = await clinic.get("Patient/ada/$everything", headers=headers)
        assert await count(clinic, "Observation?_id=secret", headers) == int(opened)
        assert ('"secret"' in included.text, '"secret"' in everything.text) == (opened, opened), turn


async def test_the_event_is_there_before_the_answer_and_is_a_valid_resource(client: Client, tmp_path: Path) -> None:
    quill = authorize(await launch(client, "quill", "user/*.rs"))
    await client.get(SECRET, headers={**quill, **GLASS})
    (file,) = (tmp_path / "audit").iterdir()
    assert b"Unconscious" in file.read_bytes()
    await client.delete(SECRET, headers={**quill, **GLASS})
    store = await act_by_token(client, "system/AuditEvent.c")
    for event in (await read_events(client, tmp_path))[-2:]:
        answer = await client.post("AuditEvent", json=event, headers=store)
        assert answer.status_code == 201, answer.text


async def test_the_token_stays_the_limit(clinic: Client) -> None:
    """The app asked for one patient's observations; the role opens labels, not other patients or types."""
    app = authorize(await launch(clinic, "quill", "patient/Observation.rs", patient="ada"))
    assert (await clinic.get(SECRET, headers={**app, **GLASS})).status_code == 200
    assert (await clinic.get("Observation/other", headers={**app, **GLASS})).status_code == 404
    assert await count(clinic, "Observation", {**app, **GLASS}) == 2
    assert (await clinic.get("Patient/ada", headers={**app, **GLASS})).status_code == 403


async def test_a_page_link_is_good_for_those_who_break_the_glass_again(clinic: Client) -> None:
    quill = authorize(await launch(clinic, "quill", "user/*.rs"))
    page = (await clinic.get("Observation?_count=1", headers={**quill, **GLASS})).json()
    (link,) = [each["url"] for each in page["link"] if each["relation"] == "next"]
    assert (await clinic.get(link, headers=quill)).status_code >= 400
    assert (await clinic.get(link, headers={**quill, **GLASS})).status_code == 200


@pytest.mark.parametrize("who", ["ada", "desk", "token", "role token", "client", "disabled"])
async def test_others_are_refused_and_recorded(client: Client, tmp_path: Path, who: str) -> None:
    if who in ("ada", "desk"):
        headers = authorize(await launch(client, who, "patient/*.rs" if who == "ada" else "user/*.rs"))
    elif who == "token":
        headers = await act_by_token(client, "user/*.cruds break-glass:user/*.rs")
    elif who == "role token":
        headers = await act_by_token(client, "", "clinician", "ada")
    elif who == "client":
        key = make_key("one")
        added = Registered("lab", "system/*.rs break-glass:user/*.rs", [key.as_dict(private=False)], NOW)
        await add_client(client.server.context.unrestricted, added)
        _, tokens = await ask_by_assertion(client, sign(make_claims(), key))
        headers = authorize(tokens)
    else:
        headers = authorize(await launch(client, "quill", "user/*.rs"))
        assert (await client.get(SECRET, headers={**headers, **GLASS})).status_code == 200
        await change_user(client.server.context.unrestricted, "quill", disabled=True)
    url = "Appointment" if who == "desk" else "Observation"
    answer = await client.get(url, headers={**headers, **GLASS})
    assert answer.status_code == 403 and "secret" not in answer.text
    event = (await read_events(client, tmp_path))[-1]
    assert (event["subtype"][0]["code"], event["outcome"]) == ("break-glass", "4")
    assert event["purposeOfEvent"][0]["text"] == "Unconscious, allergies unknown"


WRONG = {
    "nothing": "",
    "no reason": "purpose=ETREAT",
    "an empty reason": 'purpose=ETREAT; reason="     "',
    "a short one": 'purpose=ETREAT; reason="x"',
    "a long one": f'purpose=ETREAT; reason="{"x" * 301}"',
    "another purpose": 'purpose=HMARKT; reason="to look around"',
    "no purpose": 'reason="to look around"',
    "two": 'purpose=ETREAT; reason="emergency", purpose=ETREAT; reason="emergency"',
    "a quote": 'purpose=ETREAT; reason="emergency"; x=""',
    "a tab": 'purpose=ETREAT; reason="emer\tgency"',
}


async def test_a_header_that_does_not_say_both_is_refused(client: Client, tmp_path: Path) -> None:
    quill = authorize(await launch(client, "quill", "user/*.rs"))
    for kind, header in WRONG.items():
        answer = await client.get(SECRET, headers={**quill, "x-break-glass": header})
        assert answer.status_code == 400, kind
    events = await read_events(client, tmp_path)
    assert [event["subtype"][0]["code"] for event in events[-len(WRONG) :]] == ["break-glass"] * len(WRONG)


async def test_it_reads_and_leaves_nothing_behind(client: Client) -> None:
    quill = authorize(await launch(client, "quill", "user/*.cruds"))
    both = {**quill, **GLASS}
    entry = {"request": {"method": "GET", "url": SECRET}}
    answers = [
        await client.post("", json={"resourceType": "Bundle", "type": "batch", "entry": [entry]}, headers=both),
        await client.delete(SECRET, headers=both),
        await client.put(SECRET, json={"resourceType": "Observation", "id": "secret"}, headers=both),
        await client.post("Practitioner/quill/$calendar-link", headers=both),
        await client.post(f"{SECRET}/$meta-add", json={"resourceType": "Parameters"}, headers=both),
        await client.get("$productivity", headers={**both, "prefer": "respond-async"}),
    ]
    assert [answer.status_code for answer in answers] == [400] * len(answers)
    # the token is remembered as it was
    assert (await client.get(SECRET, headers=quill)).status_code == 404
    wait(client, 10)
    assert (await client.get(SECRET, headers=quill)).status_code == 404


async def test_an_app_cannot_ask_for_it_as_a_scope(client: Client) -> None:
    scope = f"user/Observation.rs break-glass:user/*.rs user/Observation.rs?_security={LABEL}|R"
    tokens = await launch(client, "quill", scope)
    assert "break-glass" not in tokens["scope"]
    assert (await client.get(SECRET, headers=authorize(tokens))).status_code == 404


async def test_a_site_may_have_none(known: Knowledge) -> None:
    async with open_clinic(known, "memory://", break_glass="") as client:
        quill = authorize(await launch(client, "quill", "user/*.rs"))
        assert (await client.get("Observation", headers={**quill, **GLASS})).status_code == 403


async def test_the_command_lists_them(client: Client, tmp_path: Path) -> None:
    quill = authorize(await launch(client, "quill", "user/*.rs"))
    await client.get(SECRET, headers={**quill, **GLASS})
    await client.get("Observation/ada", headers=quill)
    await read_events(client, tmp_path)
    folder = str(tmp_path / "audit")
    result = CliRunner().invoke(cli, ["audit", "list", "--break-glass", "--folder", folder])
    assert result.exit_code == 0
    (line,) = result.output.splitlines()
    for part in ("user:quill", "ETREAT", "Unconscious, allergies unknown", SECRET, "read", "HTTP 200"):
        assert part in line
    everything = CliRunner().invoke(cli, ["audit", "list", "--folder", folder])
    assert "Observation/ada" in everything.output


def test_what_a_role_opens() -> None:
    def lift(own: str, opened: str) -> list[str]:
        return list(map(str, lift_scopes(parse_scopes(own), parse_scopes(opened))))[len(parse_scopes(own)) :]

    label = f"?_security={LABEL}|R"
    assert lift("patient/Observation.rs", f"patient/*.rs{label}") == [f"patient/Observation.rs{label}"]
    assert lift("patient/*.rs", "user/Observation.rs") == ["user/Observation.rs"]
    assert lift("user/Observation.r", f"user/*.rs{label}") == [f"user/Observation.r{label}"]
    assert lift("user/Observation.cud", "user/*.cruds") == []
    assert lift("user/Patient.rs", f"user/Observation.rs{label}") == []
    narrow = "user/Observation.rs?category=laboratory"
    assert lift(narrow, f"patient/*.rs{label}") == [f"{narrow}&_security={LABEL}|R"]
