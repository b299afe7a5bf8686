"""The worker that tidies holds: it cancels those that have expired, and only those."""

from __future__ import annotations

import pytest

from fhir_server.app import Knowledge
from fhir_server.workers.holds import release, select_expired, tidy_holds
from mappers.scheduling.slots import mark_hold
from tests.mappers.scheduling.scheduling_resources import at
from tests.operations.scheduling.booking_clinic import Clock, call, entries, practice, visit
from tests.workers.teams import take_turn

pytestmark = pytest.mark.anyio


def test_only_expired_pending_holds_are_selected() -> None:
    hold = mark_hold(visit("10:00", "10:30", "Practitioner/pine"), at("2026-03-01T12:10:00Z"))
    request, booked = {**hold, "extension": []}, {**hold, "status": "booked"}
    assert select_expired([hold, request, booked], at("2026-03-01T12:10:00Z")) == [hold]
    assert select_expired([hold], at("2026-03-01T12:09:59Z")) == []
    assert release(hold)["status"] == "cancelled"


async def test_expired_holds_are_cancelled_and_their_slots_deleted(known: Knowledge, store_uri: str) -> None:
    clock = Clock()
    async with practice(known, store_uri, clock) as clinic:
        for start, end in (("10:00", "10:30"), ("11:00", "11:30")):
            resource = visit(start, end, "Practitioner/pine")
            held = await call(clinic, "Appointment/$hold", appointment_resource=resource)
            assert held.status_code == 201
            clock.set("2026-03-01T12:05:00Z")
        clock.set("2026-03-01T12:11:00Z")  # the first has expired, the second has four minutes left
        for _ in range(2):
            await tidy_holds(await take_turn(clinic.server.context, "holds", "test"))
            statuses = {each["start"][11:13]: each["status"] for each in await entries(clinic, "Appointment")}
            assert statuses == {"10": "cancelled", "11": "pending"}
            assert len(await entries(clinic, "Slot")) == 1
