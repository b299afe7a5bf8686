"""Appointments of one transaction: checked against each other and the store, they cost what their number says.

A ratio of times in one run, measured in turns. Of single ones the function calls are counted.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fhir_server.app import Knowledge
from tests.conftest import Client
from tests.cost.measuring import LONG_WAIT, Measure, check_ratio, measure_bundle
from tests.operations.scheduling.booking_clinic import post, practice, visit

pytestmark = pytest.mark.anyio

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


def visits(client: Client, count: int, first_day: int) -> Measure:
    """Measures bundles of Appointments on days that are new each time."""
    days = count // PAIRS_A_DAY + 1
    return lambda number: measure_bundle(client, bundle(count, first_day + number * days))


@pytest.mark.long
async def test_four_hundred_appointments_cost_what_their_number_says(known: Knowledge, tmp_path: Path) -> None:
    settings = {f"set_{name}": value for name, value in LONG_WAIT.items()}
    async with practice(known, f"sqlite:///{tmp_path}/fhir.db", **settings) as client:
        await check_ratio(visits(client, 200, 0), visits(client, 400, 100), 3)


class Calls:
    """How many functions were called inside of `with`, by the thread of the event loop."""

    number = 0

    def count(self, frame: object, event: str, argument: object) -> None:
        self.number += event in ("call", "c_call")


@contextmanager
def count_calls() -> Iterator[Calls]:
    calls = Calls()
    sys.setprofile(calls.count)
    try:
        yield calls
    finally:
        sys.setprofile(None)


async def book(client: Client, actor: str, day: int, place: int) -> None:
    start = FIRST + timedelta(days=day, minutes=10 * place)
    await post(client, visit(start.isoformat(), (start + timedelta(minutes=10)).isoformat(), f"Practitioner/{actor}"))


async def test_a_visit_costs_the_same_however_many_days_of_its_actor_are_known(
    known: Knowledge, tmp_path: Path
) -> None:
    async with practice(known, f"sqlite:///{tmp_path}/fhir.db") as client:
        for day in range(80):
            await book(client, "pine", day, 0)
        await book(client, "elm", 0, 0)
        counted = {}
        for actor in ("elm", "pine"):
            await book(client, actor, 0, 1)
            with count_calls() as calls:
                for place in range(2, 12):
                    await book(client, actor, 0, place)
            counted[actor] = calls.number
        assert counted["pine"] < 1.1 * counted["elm"], counted
