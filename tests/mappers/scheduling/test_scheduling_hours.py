"""Hours of roles, services and locations on the wall clock of their zone."""

from __future__ import annotations

from datetime import date
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from fhir_server.fhir.datetimes import format_instant
from mappers.scheduling.hours import Holiday, Hours, list_open, list_open_of_all, read_hours
from mappers.scheduling.intervals import Interval
from tests.mappers.scheduling.scheduling_resources import WORKDAYS, at, role

CHICAGO, HOWE = ZoneInfo("America/Chicago"), ZoneInfo("Australia/Lord_Howe")


def opened(hours: Hours, start: str, end: str) -> list[tuple[str, str]]:
    found = list_open(hours, Interval(at(start), at(end)))
    return [(format_instant(low)[:16], format_instant(high)[:16]) for low, high in found]


def hours_of(resource: dict[str, Any], zone: ZoneInfo = CHICAGO, *holidays: Holiday) -> Hours:
    hours, issues = read_hours(resource, zone, holidays)
    assert issues == []
    return hours


def test_workdays_are_open_on_the_wall_clock_before_and_after_the_clock_change() -> None:
    hours = hours_of(role("r", "Practitioner/p", ("09:00:00", "17:00:00"), days=WORKDAYS))
    # Friday at −06:00, Monday at −05:00
    assert opened(hours, "2026-03-06T00:00:00-06:00", "2026-03-10T00:00:00-05:00") == [
        ("2026-03-06T15:00", "2026-03-06T23:00"),
        ("2026-03-09T14:00", "2026-03-09T22:00"),
    ]


def test_a_block_over_midnight_covers_both_days() -> None:
    room = {
        "resourceType": "Location",
        "id": "room",
        "hoursOfOperation": [{"daysOfWeek": ["sun"], "openingTime": "22:00:00", "closingTime": "02:00:00"}],
    }
    hours = hours_of(room)
    assert opened(hours, "2026-01-03T00:00:00-06:00", "2026-01-07T00:00:00-06:00") == [
        ("2026-01-05T04:00", "2026-01-05T08:00")
    ]


def test_a_block_over_midnight_of_a_clock_change_follows_the_wall_clock() -> None:
    hours = hours_of(role("r", "Practitioner/p", ("22:00:00", "03:00:00"), days=["sat"]), HOWE)
    # Saturday 22:00 (+11) to Sunday 03:00 (+10:30), 2026-04-05: half an hour longer than on other nights
    assert opened(hours, "2026-04-04T00:00:00Z", "2026-04-05T00:00:00Z") == [("2026-04-04T11:00", "2026-04-04T16:30")]


def test_not_available_covers_whole_local_days() -> None:
    away = [{"description": "away", "during": {"start": "2026-12-24", "end": "2026-12-25"}}]
    hours = hours_of(role("r", "Practitioner/p", ("09:00:00", "12:00:00"), notAvailable=away))
    assert opened(hours, "2026-12-23T12:00:00-06:00", "2026-12-27T00:00:00-06:00") == [
        ("2026-12-26T15:00", "2026-12-26T18:00")
    ]


def test_not_available_in_part_of_a_day() -> None:
    away = [
        {"description": "away", "during": {"start": "2026-01-05T10:00:00-06:00", "end": "2026-01-05T11:00:00-06:00"}}
    ]
    hours = hours_of(role("r", "Practitioner/p", ("09:00:00", "12:00:00"), notAvailable=away))
    assert opened(hours, "2026-01-05T00:00:00-06:00", "2026-01-06T00:00:00-06:00") == [
        ("2026-01-05T15:00", "2026-01-05T16:00"),
        ("2026-01-05T17:00", "2026-01-05T18:00"),
    ]


def test_a_holiday_closes_its_scope() -> None:
    day = date(2026, 1, 5)
    north = role("north", "Practitioner/p", ("09:00:00", "12:00:00"))
    window = ("2026-01-05T00:00:00-06:00", "2026-01-06T00:00:00-06:00")
    assert opened(hours_of(north, CHICAGO, Holiday(day)), *window) == []
    assert opened(hours_of(north, CHICAGO, Holiday(day, "fair", "PractitionerRole/north")), *window) == []
    assert opened(hours_of(north, CHICAGO, Holiday(day, "fair", "Location/south")), *window) != []
    always = hours_of(role("any", "Practitioner/p"), CHICAGO, Holiday(day))
    assert opened(always, *window) == []


def test_all_hours_together_are_their_intersection() -> None:
    one = hours_of(role("r", "Practitioner/p", ("08:00:00", "12:00:00")))
    two = hours_of(role("s", "Practitioner/p", ("10:00:00", "14:00:00")))
    window = Interval(at("2026-01-05T00:00:00-06:00"), at("2026-01-06T00:00:00-06:00"))
    assert list(list_open_of_all((one, two), window)) == [
        Interval(at("2026-01-05T10:00:00-06:00"), at("2026-01-05T12:00:00-06:00"))
    ]


def test_overlapping_rows_are_joined_with_a_warning() -> None:
    hours, issues = read_hours(role("r", "Practitioner/p", ("08:00:00", "12:00:00"), ("11:00:00", "13:00:00")), CHICAGO)
    assert {issue.severity for issue in issues} == {"warning"}
    assert issues[0].expression == ("PractitionerRole.availableTime[1]",)
    assert opened(hours, "2026-01-05T00:00:00-06:00", "2026-01-06T00:00:00-06:00") == [
        ("2026-01-05T14:00", "2026-01-05T19:00")
    ]


@pytest.mark.parametrize(
    ("row", "expression", "words"),
    [
        ({"availableStartTime": "25:00:00"}, ".availableStartTime", "`25:00:00` is no time of day"),
        ({"availableEndTime": "noon"}, ".availableEndTime", "`noon` is no time of day"),
        ({"availableEndTime": 9}, ".availableEndTime", "`9` is no time of day"),
        ({"availableStartTime": "09:00:00", "availableEndTime": "09:00:00"}, "", "begins and ends at `09:00:00`"),
        ({"daysOfWeek": ["monday"], "allDay": True}, ".daysOfWeek", "`monday` is no day of the week"),
    ],
)
def test_wrong_rows_are_issues_and_not_applied(row: dict[str, Any], expression: str, words: str) -> None:
    hours, (issue,) = read_hours({**role("r", "Practitioner/p"), "availableTime": [row]}, CHICAGO)
    assert issue.expression == (f"PractitionerRole.availableTime[0]{expression}",)
    assert words in issue.diagnostics
    assert hours.week == ((),) * 7


def test_a_wrong_period_is_an_issue() -> None:
    away = [{"description": "x", "during": {"start": "Christmas"}}]
    _, (issue,) = read_hours(role("r", "Practitioner/p", notAvailable=away), CHICAGO)
    assert issue.expression == ("PractitionerRole.notAvailable[0].during",)
