"""`$schedule-report` over HTTP: the figures of a small week worked out by hand, in both forms."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fhir_server.app import Knowledge, Seams
from fhir_server.search.query import EVERYTHING, NOTHING, Clause
from fhir_server.security.policy import AllowAll, Principal
from tests.conftest import Client, serving
from tests.mappers.scheduling.scheduling_resources import schedule
from tests.operations.scheduling.booking_clinic import (
    CHICAGO,
    Clock,
    call,
    doctors,
    patch_status,
    patients,
    post,
    practice,
    room,
    store,
    visit,
)
from tests.workers.hl7v2_messages import choose_store

pytestmark = pytest.mark.anyio

PINE, ADA, BEN = "Practitioner/pine", "Patient/ada", "Patient/ben"
DAY = "start=2026-03-02T00:00:00-06:00&end=2026-03-03T00:00:00-06:00"
URL = f"Schedule/$schedule-report?{DAY}"


@pytest.fixture(params=["memory", "sqlite", "mongo"])
def store_uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh store of each kind."""
    return choose_store(request, tmp_path)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def clinic(known: Knowledge, store_uri: str, clock: Clock) -> AsyncIterator[Client]:
    async with practice(known, store_uri, clock) as client:
        yield client


async def read_figures(client: Client, url: str = URL) -> dict[tuple[str, str, str], float | None]:
    answer = await client.fhir("GET", url, headers={"accept": "text/csv"})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/csv; charset=utf-8; header=present"
    rows = csv.DictReader(io.StringIO(answer.text))
    return {(row["figure"], row["by"], row["key"]): float(row["value"]) if row["value"] else None for row in rows}


async def fill(client: Client) -> None:
    """Pine, open for 600 minutes: 60 attended, 30 booked, 30 cancelled; created one day before their start."""
    more = {"created": "2026-03-01T09:00:00-06:00"}
    first = await post(client, visit("09:00", "10:00", PINE, ADA, **more))
    await post(client, visit("10:00", "10:30", PINE, BEN, **more))
    gone = await post(client, visit("11:00", "11:30", PINE, "Patient/cy", **more))
    await patch_status(client, first, "fulfilled")
    await patch_status(client, gone, "cancelled")


async def test_the_figures_are_those_worked_out_by_hand(clinic: Client) -> None:
    await fill(clinic)
    figures = await read_figures(clinic)
    assert figures["utilisation", "schedule", "Schedule/pine"] == 0.1
    assert figures["fill-rate", "schedule", "Schedule/pine"] == 0.15
    assert figures["utilisation", "schedule", "Schedule/elm"] == 0
    assert figures["cancellation-rate", "provider", PINE] == round(1 / 3, 4)
    assert figures["no-show-rate", "provider", PINE] == 0
    assert figures["lead-time-days-median", "all", "all"] == round(25 / 24, 4)  # of 24, 25 and 26 hours
    # on Sunday 2026-03-01 at 06:00 Chicago, open at 08:00 that day: 08:00, 08:15, 08:30
    assert figures["third-next-available-days", "schedule", "Schedule/pine"] == round(2.5 / 24, 4)


async def test_the_measure_report_is_valid_and_has_the_same_figures(clinic: Client) -> None:
    await fill(clinic)
    answer = await clinic.fhir("GET", URL)
    report = answer.json()
    assert report["resourceType"] == "MeasureReport"
    assert clinic.server.context.validator.find_issues(report) == ()
    told = {
        (group["code"]["text"], each["code"][0]["text"], stratum["value"]["text"]): stratum.get("measureScore", {}).get(
            "value"
        )
        for group in report["group"]
        for each in group["stratifier"]
        for stratum in each["stratum"]
    }
    assert told == await read_figures(clinic)
    posted = await call(
        clinic, "Schedule/$schedule-report", start="2026-03-02T00:00:00-06:00", end="2026-03-03T00:00:00-06:00"
    )
    assert posted.json()["group"] == report["group"]


async def test_a_person_with_two_schedules_is_counted_in_the_one_of_the_visit(clinic: Client) -> None:
    await store(clinic, [schedule("pine-room", PINE, "Location/room-2", extension=[CHICAGO])])
    await post(clinic, visit("10:00", "11:00", PINE, ADA, "Location/room-2"))
    figures = await read_figures(clinic)
    assert figures["fill-rate", "schedule", "Schedule/pine-room"] == 0.1
    assert figures["fill-rate", "schedule", "Schedule/pine"] == 0


async def test_a_hold_that_nobody_took_counts_nowhere(clinic: Client, clock: Clock) -> None:
    for start, end, patient in (("10:00", "10:30", ADA), ("11:00", "11:30", BEN)):
        held = await call(clinic, "Appointment/$hold", appointment_resource=visit(start, end, PINE, patient))
        assert held.status_code == 201
    assert (await read_figures(clinic))["fill-rate", "schedule", "Schedule/pine"] == 0.1
    clock.set("2026-03-01T12:11:00Z")
    await patch_status(clinic, held.json(), "cancelled")  # as the worker does
    figures = await read_figures(clinic)
    assert figures["fill-rate", "schedule", "Schedule/pine"] == 0
    assert ("cancellation-rate", "provider", PINE) not in figures


async def test_it_is_narrowed_to_what_is_asked_for(clinic: Client) -> None:
    for more in ("schedule=Schedule/pine", "practitioner=Practitioner/pine", "practitioner=PractitionerRole/pine-role"):
        figures = await read_figures(clinic, f"{URL}&{more}")
        assert {key for _, by, key in figures if by == "schedule"} == {"Schedule/pine"}
    assert await read_figures(clinic, f"Schedule/pine/$schedule-report?{DAY}") == figures


async def test_a_schedule_without_a_zone_is_said_to_be_left_out(clinic: Client) -> None:
    await store(clinic, [{"resourceType": "Practitioner", "id": "oak"}, schedule("oak", "Practitioner/oak")])
    assert (await read_figures(clinic))["left-out-without-time-zone", "schedule", "Schedule/oak"] == 1


@pytest.mark.parametrize(
    ("url", "status", "says"),
    [
        ("Schedule/$schedule-report?end=2026-03-02", 400, "needs `start`"),
        ("Schedule/$schedule-report?start=2026-03-02", 400, "needs `end`"),
        ("Schedule/$schedule-report?start=2026-03-02&end=2026-03-01", 400, "not after its start"),
        ("Schedule/$schedule-report?start=2024-03-02&end=2026-03-01", 400, "366 days"),
        ("Schedule/$schedule-report?start=2026-02-30&end=2026-03-01", 400, "start"),
        (f"{URL}&schedule=Schedule/nobody", 400, "`Schedule/nobody`"),
        (f"{URL}&practitioner=Practitioner/nobody", 400, "Schedule like that"),
        (f"{URL}&colour=red", 400, "no parameter `colour`"),
        (f"{URL}&_format=application/pdf", 406, "text/csv"),
    ],
)
async def test_what_makes_no_sense_is_said(clinic: Client, url: str, status: int, says: str) -> None:
    answer = await clinic.fhir("GET", url)
    assert (answer.status_code, says in answer.text) == (status, True), answer.text


class HideAda(AllowAll):
    """No Appointment may be seen."""

    def restricts(self, principal: Principal) -> bool:
        return True

    def restriction(self, principal: Principal, type: str) -> Clause:
        return NOTHING if type == "Appointment" else EVERYTHING


async def test_figures_are_of_what_the_caller_may_see(known: Knowledge) -> None:
    seams: Any = Seams(clock=Clock(), policy=HideAda())
    async with serving(known, seams, store="memory://") as client:
        await store(client, [*doctors(), room(), *patients()])
        await fill(client)
        figures = await read_figures(client)
        assert figures["fill-rate", "schedule", "Schedule/pine"] == 0
        assert ("cancellation-rate", "provider", PINE) not in figures
