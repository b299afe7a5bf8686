"""What is deleted, or entered in error, after a partner was told of it: taken back by a message, or by a person."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fhir_server.app import Knowledge
from fhir_server.workers.hl7v2_sending import begin_sends
from fhir_server.workers.message_states import read_state
from tests.conftest import Client, serving
from tests.workers.hl7v2_messages import choose_store, with_partners
from tests.workers.test_hl7v2_sending import deliveries, person, put, queue, read_text, sent_to

pytestmark = pytest.mark.anyio

ROWS: list[dict[str, Any]] = [
    {"type": "Patient", "event": "ADT^A31"},
    {"type": "Appointment", "filter": "status=booked", "event": "SIU^S12", "leave_out": ["AIP"]},
    {"type": "DiagnosticReport", "filter": "status=final", "event": "ORU^R01"},
    {"type": "ChargeItem", "filter": "status=billable", "event": "DFT^P03"},
    {"type": "MedicationRequest", "filter": "status=active", "event": "OMP^O09"},
    {"type": "Encounter", "filter": "status=finished", "event": "ADT^A08"},
]
ADA = {"reference": "Patient/ada"}
CODE = {"text": "Visit"}
BOOKING: dict[str, Any] = {
    "resourceType": "Appointment",
    "id": "x",
    "status": "booked",
    "start": "2026-05-04T10:00:00Z",
    "end": "2026-05-04T10:30:00Z",
    "participant": [{"status": "accepted", "actor": ADA}],
}
REPORT: dict[str, Any] = {
    "resourceType": "DiagnosticReport",
    "id": "x",
    "status": "final",
    "code": CODE,
    "subject": ADA,
}
CHARGE: dict[str, Any] = {"resourceType": "ChargeItem", "id": "x", "status": "billable", "code": CODE, "subject": ADA}
ORDER: dict[str, Any] = {"resourceType": "MedicationRequest", "id": "x", "status": "active", "intent": "original-order"}
ORDER |= {"medicationCodeableConcept": CODE, "subject": ADA}
VISIT: dict[str, Any] = {
    "resourceType": "Encounter",
    "id": "x",
    "status": "finished",
    "class": {"code": "AMB"},
    "subject": ADA,
}

WITHDRAWN: list[tuple[dict[str, Any], str, str, int, str]] = [
    (BOOKING, "SIU^S17", "SCH", 25, "Deleted"),
    (REPORT, "ORU^R01", "OBR", 25, "X"),
    (CHARGE, "DFT^P03", "FT1", 6, "CD"),
    (ORDER, "OMP^O09", "ORC", 5, "ER"),
]
"""A resource, the event that takes it back, and the field that says so: HL70278, HL70123, HL70017 and HL70038."""


@pytest.fixture(params=["memory", "sqlite", "mongo"])
async def client(request: pytest.FixtureRequest, known: Knowledge, tmp_path: Path) -> AsyncIterator[Client]:
    async with serving(known, store=choose_store(request, tmp_path)) as client:
        with_partners(client, sent_to("north", ROWS))
        await begin_sends(client.server.context)
        await put(client, person())
        yield client


async def delete(client: Client, reference: str) -> None:
    answer = await client.fhir("DELETE", reference)
    assert answer.status_code in (200, 204), answer.text


async def list_sent(client: Client, type: str) -> list[dict[str, Any]]:
    return [each for each in await deliveries(client) if each["focus"]["reference"].startswith(type)]


@pytest.mark.parametrize("how", ["deleted", "entered in error"])
@pytest.mark.parametrize("batch", ["one", "two"])
async def test_what_was_sent_is_taken_back_once(client: Client, how: str, batch: str) -> None:
    """No row is of what is gone; a second withdrawal of the same, and the deletion of what is in error, say nothing."""
    for resource, *_ in WITHDRAWN:
        await put(client, dict(resource))
    if batch == "two":
        await queue(client)
    for resource, *_ in WITHDRAWN:
        if how == "entered in error":
            await put(client, {**resource, "status": "entered-in-error"})
            await put(client, {**resource, "status": "entered-in-error", "language": "en"})
        await delete(client, f"{resource['resourceType']}/x")
    await queue(client)
    for resource, event, name, field, value in WITHDRAWN:
        sent, taken_back = await list_sent(client, str(resource["resourceType"]))
        assert (read_state(sent), read_state(taken_back)) == ("waiting", "waiting")
        assert taken_back["for"] == ADA
        lines = (await read_text(client, taken_back)).split("\r")
        assert lines[0].split("|")[8].startswith(event)
        assert next(each for each in lines if each.startswith(name)).split("|")[field].partition("^")[0] == value
        assert "AIP" not in {each[:3] for each in lines}


async def test_what_no_event_takes_back_is_left_to_a_person_and_holds_nothing_up(client: Client) -> None:
    """ADT A29, which deletes a person, and A11, which cancels a visit, are not written."""
    await put(client, VISIT)
    await queue(client)
    await put(client, {**VISIT, "status": "entered-in-error"})
    await delete(client, "Encounter/x")
    await delete(client, "Patient/ada")
    await queue(client)
    _, visit = await list_sent(client, "Encounter")
    _, patient = await list_sent(client, "Patient")
    assert (read_state(visit), read_state(patient)) == ("parked", "parked")
    assert visit["statusReason"]["text"].startswith("`Encounter/x` was entered in error here, and no event")
    assert patient["statusReason"]["text"].startswith("`Patient/ada` was deleted here, and no event")
    assert "close this delivery" in patient["statusReason"]["text"]


async def test_what_was_never_sent_is_taken_back_from_nobody(client: Client) -> None:
    await put(client, {**BOOKING, "status": "proposed"})
    await put(client, {**REPORT, "status": "partial"})
    await put(client, {**CHARGE, "status": "entered-in-error"})
    await delete(client, "Appointment/x")
    await put(client, {**REPORT, "status": "entered-in-error"})
    await queue(client)
    assert [each["focus"]["reference"] for each in await deliveries(client)] == ["Patient/ada/_history/1"]


async def test_what_comes_back_after_its_deletion_is_told_anew(client: Client) -> None:
    await put(client, ORDER)
    await delete(client, "MedicationRequest/x")
    await put(client, ORDER)
    await delete(client, "MedicationRequest/x")
    await queue(client)
    texts = [await read_text(client, each) for each in await list_sent(client, "MedicationRequest")]
    controls = [line.split("|")[1] for text in texts for line in text.split("\r") if line.startswith("ORC")]
    assert controls == ["NW", "CA", "NW", "CA"]
