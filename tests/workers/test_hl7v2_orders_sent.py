"""Orders out: ORC-1 by what the partner was told before, and the answers to what it asked (HL7 table 0119)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fhir_server.app import Knowledge
from fhir_server.fhir.datetimes import DAY
from fhir_server.workers import hl7v2_told
from fhir_server.workers.hl7v2_sending import begin_sends
from fhir_server.workers.message_log import close
from tests.conftest import Client, serving
from tests.workers.hl7v2_messages import choose_store, code, msh, pid, resources, take, with_partners
from tests.workers.teams import take_turn
from tests.workers.test_hl7v2_sending import deliveries, person, put, queue, read_text, sent_to

pytestmark = pytest.mark.anyio

ORDERS = [{"type": "MedicationRequest", "filter": "status:not=draft", "event": "RDE^O11"}]
ANSWERS = [*ORDERS, {"type": "Task", "event": "RDE^O11"}]
RXE = "RXE||308182^Amoxicillin 250 MG^RXNORM|1||{capsule}^capsule^UCUM||^One a day|||30|capsule|2\r"
ORC = "ORC|NW|RX1|F9|||||||20240305120000-0600|||77^WREN^IVO\r"


@pytest.fixture(params=["memory", "sqlite", "mongo"])
async def client(request: pytest.FixtureRequest, known: Knowledge, tmp_path: Path) -> AsyncIterator[Client]:
    async with serving(known, store=choose_store(request, tmp_path)) as client:
        with_partners(client, sent_to("north", ANSWERS), sent_to("south", ORDERS))
        await begin_sends(client.server.context)
        await put(client, person())
        yield client


def order(status: str, id: str = "rx", **members: Any) -> dict[str, Any]:
    return {
        "resourceType": "MedicationRequest",
        "id": id,
        "identifier": [{"system": "https://clinic.example/rx", "value": f"N-{id}"}],
        "status": status,
        "intent": "order",
        "medicationCodeableConcept": {"text": "Amoxicillin"},
        "subject": {"reference": "Patient/ada"},
        **members,
    }


async def read_controls(client: Client, partner: str = "north") -> list[tuple[str, str]]:
    """ORC-1 and ORC-5 of what a partner is sent, in the order of sending; the reason where there is no message."""
    found = []
    for task in await deliveries(client, partner):
        if "statusReason" in task:
            found.append((task["businessStatus"]["coding"][0]["code"], task["statusReason"]["text"]))
            continue
        orc = next(each for each in (await read_text(client, task)).split("\r") if each.startswith("ORC")).split("|")
        found.append((orc[1], orc[5] if len(orc) > 5 else ""))
    return found


@pytest.mark.parametrize("batch", ["one", "each"])
async def test_a_change_of_an_order_is_asked_for_by_what_the_partner_was_told(client: Client, batch: str) -> None:
    """In one batch of the feed the earlier delivery is not written yet when the next one is decided on."""
    said = [("draft", "a"), ("active", "a"), ("active", "b"), ("on-hold", "b"), ("on-hold", "c"), ("active", "c")]
    said += [("stopped", "c"), ("stopped", "d"), ("active", "d"), ("completed", "d"), ("entered-in-error", "d")]
    for status, text in said:
        await put(client, order(status, note=[{"text": text}]))
        if batch == "each":
            await queue(client)
    await queue(client)
    expected = [("NW", ""), ("XO", ""), ("HD", "HD"), ("XO", "HD"), ("RL", ""), ("DC", "DC"), ("SC", "DC")]
    expected += [("NW", ""), ("SC", "CM"), ("CA", "ER")]
    assert await read_controls(client) == await read_controls(client, "south") == expected


async def test_an_order_that_was_withdrawn_as_a_draft_is_not_told(client: Client) -> None:
    await put(client, order("draft"))
    await put(client, order("cancelled"))
    await queue(client)
    assert await deliveries(client) == []


async def test_an_order_of_the_partner_itself_is_changed_and_new_to_another(client: Client) -> None:
    received = await take(client, msh("RDE^O11", "1") + pid() + ORC + RXE)
    assert code(received) == "AA", received.reason
    (known,) = await resources(client, "MedicationRequest")
    await put(client, {**known, "status": "stopped"})
    await queue(client)
    assert await read_controls(client, "north") == [("DC", "DC")]
    assert await read_controls(client, "south") == [("NW", ""), ("DC", "DC")]
    await put(client, {**known, "status": "active"})
    await put(client, {**known, "status": "active", "note": [{"text": "again"}]})
    await queue(client)
    assert (await read_controls(client, "north"))[1:] == [("NW", ""), ("XO", "")]


async def test_a_message_that_a_person_closed_told_nothing(client: Client) -> None:
    await put(client, order("active"))
    await queue(client)
    (task,) = await deliveries(client, "north")
    turn = await take_turn(client.server.context, "closing", "c")
    await close(turn.context, turn.caller, task["id"], "The partner does not take it.")
    await put(client, order("active", note=[{"text": "b"}]))
    await queue(client)
    assert (await read_controls(client, "north"))[1:] == [("NW", "")]
    assert (await read_controls(client, "south"))[1:] == [("XO", "")]


async def test_what_retention_has_removed_was_told(client: Client) -> None:
    north = sent_to("north", ORDERS).model_dump(by_alias=True) | {"retention_days": 30}
    await put(client, order("active"))
    await queue(client)
    for name in ("north", "south"):
        (task,) = await deliveries(client, name)
        assert (await client.fhir("DELETE", f"Task/{task['id']}")).status_code in (200, 204)
    kept = type(sent_to("north")).model_validate(north)
    with_partners(client, kept, sent_to("south", ORDERS))
    clock = client.server.context.clock
    context = replace(client.server.context, clock=lambda: clock() + 40 * DAY)
    client.server = replace(client.server, context=context)
    await put(client, order("on-hold"))
    await put(client, order("active", note=[{"text": "released"}]))
    await queue(client)
    assert await read_controls(client, "north") == [("HD", "HD"), ("RL", "")]
    await put(client, order("active", id="other"))
    await queue(client)
    assert (await read_controls(client, "north"))[2:] == [("NW", "")]


async def test_the_version_that_was_sent_is_found_behind_many_that_were_not(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hl7v2_told, "LOOK", 2)
    rows = [{"type": "MedicationRequest", "filter": "status:not=draft&intent=order", "event": "RDE^O11"}]
    with_partners(client, sent_to("north", rows))
    await put(client, order("active"))
    for number in range(6):
        await put(client, order("active", intent="plan", note=[{"text": str(number)}]))
    await put(client, order("active", note=[{"text": "back"}]))
    await queue(client)
    assert await read_controls(client) == [("NW", ""), ("XO", "")]


async def ask_for_refill(client: Client) -> dict[str, Any]:
    """A prescription that `north` sent and of which it asks for more: the Task."""
    await take(client, msh("RDE^O11", "1") + pid() + ORC + RXE)
    received = await take(client, msh("RDE^O25^RDE_O11", "2") + pid() + ORC.replace("NW", "RF") + RXE)
    assert code(received) == "AA", received.reason
    (task,) = await resources(client, "Task?code=refill-request")
    return task


async def read_last(client: Client) -> list[str]:
    """The ORC of the newest message to `north`, by its fields."""
    text = await read_text(client, (await deliveries(client, "north"))[-1])
    return next(each for each in text.split("\r") if each.startswith("ORC")).split("|")


async def test_a_refill_is_approved_when_its_renewal_becomes_active(client: Client) -> None:
    """A draft approves nothing; ORC-8 names the order that was asked for, by the numbers of both sides."""
    task = await ask_for_refill(client)
    answer = await client.fhir("POST", f"Task/{task['id']}/$renew")
    assert answer.status_code == 201, answer.text
    await queue(client)
    assert await deliveries(client, "north") == []
    await put(client, {**answer.json(), "status": "active"})
    await queue(client)
    assert await read_controls(client, "north") == [("AF", "IP")]
    orc = await read_last(client)
    assert [part.partition("&")[0] for part in orc[8].split("^")] == ["RX1", "F9"]
    assert (await read_controls(client, "south"))[-1] == ("NW", "")
    stored = (await client.fhir("GET", f"MedicationRequest/{answer.json()['id']}")).json()
    await put(client, {**stored, "status": "stopped"})
    await queue(client)
    assert (await read_controls(client, "north"))[1:] == [("DC", "DC")]


async def test_a_refill_is_denied_with_the_reason(client: Client) -> None:
    task = await ask_for_refill(client)
    reason = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0949", "code": "AF"}]}
    await put(client, {**task, "status": "rejected", "statusReason": reason})
    await put(client, {**task, "status": "rejected", "statusReason": reason, "note": [{"text": "seen"}]})
    await queue(client)
    assert await read_controls(client, "north") == [("DF", "IP")]
    orc = await read_last(client)
    assert (orc[2].partition("^")[0], orc[3].partition("^")[0]) == ("RX1", "F9")
    assert orc[16].startswith("AF^^HL70949")
    assert [control for control, _ in await read_controls(client, "south")] == ["NW"]


async def test_a_renewal_that_is_withdrawn_as_a_draft_denies_the_refill(client: Client) -> None:
    task = await ask_for_refill(client)
    draft = (await client.fhir("POST", f"Task/{task['id']}/$renew")).json()
    await put(client, {**draft, "status": "cancelled", "statusReason": {"text": "Seen today"}})
    await queue(client)
    assert await read_controls(client, "north") == [("DF", "IP")]
    orc = await read_last(client)
    assert orc[2].startswith("RX1") and orc[16] == "^Seen today"


async def test_a_request_that_is_completed_with_an_active_renewal_is_answered_once(client: Client) -> None:
    """In one transaction, and by two writes, of which the renewal is the first."""
    task = await ask_for_refill(client)
    renewal = order("active", id="again", priorPrescription=task["focus"])
    output = {
        "type": {"coding": [{"system": "https://fhir-server.example/CodeSystem/task", "code": "renewal"}]},
        "valueReference": {"reference": "MedicationRequest/again"},
    }
    done = {**task, "status": "completed", "output": [output]}
    entries = [
        {"resource": each, "request": {"method": "PUT", "url": f"{each['resourceType']}/{each['id']}"}}
        for each in (renewal, done)
    ]
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
    assert (await client.fhir("POST", "", json=bundle)).status_code == 200
    await queue(client)
    controls = [control for control, _ in await read_controls(client, "north")]
    assert controls.count("AF") == 1


async def test_what_nobody_asked_by_a_message_is_answered_to_nobody(client: Client) -> None:
    await put(client, order("active"))
    code_ = {"coding": [{"system": "https://fhir-server.example/CodeSystem/task", "code": "refill-request"}]}
    task = {"resourceType": "Task", "id": "t", "status": "requested", "intent": "order", "code": code_}
    task |= {"focus": {"reference": "MedicationRequest/rx"}, "for": {"reference": "Patient/ada"}}
    await put(client, task)
    await put(client, {**task, "status": "rejected", "statusReason": {"text": "No"}})
    await queue(client)
    assert await read_controls(client, "north") == [("NW", "")]


@pytest.mark.parametrize(
    ("asked", "status", "order_status", "expected"),
    [
        ("CA", "completed", "cancelled", ("CR", "CA")),
        ("CA", "rejected", "active", ("UC", "IP")),
        ("HD", "completed", "on-hold", ("HR", "HD")),
        ("HD", "rejected", "active", ("UH", "IP")),
    ],
)
async def test_who_asked_to_cancel_or_hold_is_answered(
    client: Client, asked: str, status: str, order_status: str, expected: tuple[str, str]
) -> None:
    await take(client, msh("RDE^O11", "1") + pid() + ORC + RXE)
    received = await take(client, msh("RDE^O11", "2", "20240306120000-0600") + pid() + ORC.replace("NW", asked) + RXE)
    assert code(received) == "AA", received.reason
    tasks = await resources(client, "Task?code=cancel-request,hold-request")
    (known,) = await resources(client, "MedicationRequest")
    await put(client, {**known, "status": order_status})
    await put(client, {**tasks[0], "status": status})
    await queue(client)
    assert (await read_controls(client, "north"))[-1] == expected
