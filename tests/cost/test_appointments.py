"""Appointments of one transaction: checked against each other and the store, they cost what their number says.

A ratio of times in one run; each is the best of some tries, so that what else the machine does counts little.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fhir_server.app import Knowledge
from tests.conftest import Client
from tests.cost.measuring import measure_bundles
from tests.operations.scheduling.booking_clinic import practice, visit

pytestmark = pytest.mark.anyio

JSON = {"content-type": "application/fhir+json"}
TRIES = 3
PAIRS_A_DAY = 40
FIRST = datetime(2026, 3, 3, 14, 0, tzinfo=UTC)


def bundle(count: int, first_day: int) -> dict[str, Any]:
    """New visits of ten minutes, one after the other, two at a time with different people and rooms."""
    written = []
    for number in range(count):
        day, place = divmod(number // 2, PAIRS_A_DAY)
        start = FIRST + timedelta(days=first_day + day, minutes=10 * place)
        actors = (
            ("Practitioner/pine", "Location/room-1", "Patient/ada"),
            ("Practitioner/elm", "Location/room-2", "Patient/ben"),
        )[number % 2]
        resource = visit(start.isoformat(), (start + timedelta(minutes=10)).isoformat(), *actors)
        written.append({"resource": resource, "request": {"method": "POST", "url": "Appointment"}})
    return {"resourceType": "Bundle", "type": "transaction", "entry": written}


async def seconds(client: Client, count: int, first_day: int) -> float:
    """The least CPU time of this process for a bundle of new Appointments."""
    days = count // PAIRS_A_DAY + 1
    return await measure_bundles(client, *(bundle(count, first_day + attempt * days) for attempt in range(TRIES)))


@pytest.mark.long
async def test_four_hundred_appointments_cost_what_their_number_says(known: Knowledge, tmp_path: Path) -> None:
    async with practice(known, f"sqlite:///{tmp_path}/fhir.db") as client:
        half, whole = await seconds(client, 200, 0), await seconds(client, 400, 100)
        assert whole <= 3 * half, (half, whole)
