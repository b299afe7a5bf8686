"""`fhir-server schedule` on an invented practice: a day, a week, and what makes no sense."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from fhir_server.__main__ import cli
from fhir_server.app import Knowledge, Seams
from tests.conftest import serving
from tests.mappers.scheduling.scheduling_resources import schedule, slot
from tests.operations.scheduling.booking_clinic import (
    Clock,
    call,
    doctors,
    patch_status,
    patients,
    post,
    room,
    store,
    visit,
)

PINE, ADA, ROOM = "Practitioner/pine", "Patient/ada", "Location/room-1"
NAMED = [
    {"resourceType": "Practitioner", "id": "pine", "name": [{"prefix": ["Dr."], "family": "Pine"}]},
    {"resourceType": "Patient", "id": "ada", "name": [{"family": "Quill", "given": ["Ada", "[red]May\u202e"]}]},
    {**room(), "name": "Room 1"},
    {"resourceType": "Practitioner", "id": "oak"},
    schedule("oak", "Practitioner/oak"),
]


@pytest.fixture
def uri(known: Knowledge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """On Monday 2026-03-02: a visit of Pine at 10:00, one called off, a hold that has expired, a block at noon."""
    uri = f"sqlite:///{tmp_path}/fhir.db"

    async def fill() -> None:
        async with serving(known, Seams(clock=Clock()), store=uri) as client:
            await store(client, [*doctors(), *patients(), *NAMED])
            await post(client, visit("10:00", "10:30", PINE, ADA, ROOM, appointmentType={"text": "check"}))
            await patch_status(client, await post(client, visit("11:00", "11:30", PINE, ADA)), "cancelled")
            held = await call(client, "Appointment/$hold", appointment_resource=visit("15:00", "15:30", PINE, ADA))
            assert held.status_code == 201
            noon = slot("noon", "Schedule/pine", "2026-03-02T18:00:00Z", "2026-03-02T19:00:00Z", "busy-unavailable")
            await store(client, [noon])

    asyncio.run(fill())
    monkeypatch.setenv("COLUMNS", "500")
    return uri


def run(uri: str, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["schedule", *arguments, "--store", uri])


def cells(result: Result) -> list[list[str]]:
    """The rows of the table, without its lines."""
    rows = [re.split(r"[│┃]", line) for line in result.output.splitlines() if "│" in line or "┃" in line]
    return [[cell.strip() for cell in row[1:-1]] for row in rows]


def test_a_day_shows_who_comes_when_and_what_is_blocked(uri: str) -> None:
    result = run(uri, "--day", "2026-03-02")
    assert result.exit_code == 0, result.output
    assert "Monday 2026-03-02 (America/Chicago)" in result.output
    rows = cells(result)[1:]
    assert rows[:2] == [
        ["10:00–10:30", "Dr. Pine", "Ada [red]May\\x202e Quill", "Room 1", "booked", "check"],
        ["12:00–13:00", "Dr. Pine", "", "", "blocked", ""],
    ]
    # today is after that day, so that nothing of it is free any more; elm has no name
    assert rows[2:] == [
        ["", "Dr. Pine", "", "", "", "1 visit, 0:30 of 9:00 h, nothing free"],
        ["", "Practitioner/elm", "", "", "", "0 visits, 0:00 of 10:00 h, nothing free"],
        ["", "Room 1", "", "", "", "1 visit, 0:30 of 24:00 h, nothing free"],
    ]
    assert "No time zone is known for `Schedule/oak`" in result.output


def test_a_week_shows_each_day_of_each_calendar(uri: str) -> None:
    result = run(uri, "--week", "2026-03-04", "--actor", "PractitionerRole/pine-role")
    assert result.exit_code == 0, result.output
    title, pine = cells(result)
    assert title[1:] == ["Mon 03-02", "Tue 03-03", "Wed 03-04", "Thu 03-05", "Fri 03-06", "Sat 03-07", "Sun 03-08"]
    assert pine[:3] == ["Dr. Pine", "1 visit, 0:30 of 9:00 h, nothing free", "0 visits, 0:00 of 10:00 h, nothing free"]


def test_a_day_to_come_says_what_is_free(uri: str) -> None:
    result = run(uri, "--day", "2126-03-04", "--actor", PINE)
    assert "0 visits, 0:00 of 10:00 h, nothing free" in result.output  # beyond the horizon
    assert run(uri).exit_code == 0  # today


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["--day", "2026-02-30"], 2, "`2026-02-30` is no day"),
        (["--day", "2026-03-02", "--week", "2026-03-02"], 2, "either --day or --week"),
        (["--actor", "Practitioner/nobody"], 1, "no active Schedule"),
        (["--actor", "Practitioner/oak"], 1, "No time zone is known"),
    ],
)
def test_what_makes_no_sense_is_said(uri: str, arguments: list[str], status: int, says: str) -> None:
    result = run(uri, *arguments)
    assert (result.exit_code, says in result.output) == (status, True), result.output


def test_a_database_that_is_not_there_is_said(tmp_path: Path) -> None:
    result = run(f"sqlite:///{tmp_path}/none.db")
    assert result.exit_code == 1 and "There is no database" in result.output
    assert list(tmp_path.iterdir()) == []
