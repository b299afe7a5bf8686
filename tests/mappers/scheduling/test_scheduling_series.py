"""Series on the wall clock, answers per occurrence, and the waitlist."""

from __future__ import annotations

from datetime import date, time
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from fhir_server.fhir.datetimes import format_instant
from fhir_server.fhir.outcome import Issue
from mappers.scheduling.calendars import build_calendar, read_practice
from mappers.scheduling.elements import Resource, extension_value, reference_of
from mappers.scheduling.extensions import HOLD_EXPIRES
from mappers.scheduling.free_times import FreeTime
from mappers.scheduling.intervals import MINUTE
from mappers.scheduling.occupied import Occupied, list_occupied
from mappers.scheduling.parameters import SchedulingParameters
from mappers.scheduling.series import (
    Occurrence,
    SeriesRule,
    choose_alternatives,
    explain_occurrence,
    list_occurrences,
    mark_occurrence,
    read_occurrence,
    select_occurrences,
)
from mappers.scheduling.waitlist import (
    list_freed,
    make_offer,
    offer_task,
    rank_candidates,
    read_offer,
    restore_waiting,
    task_of_offer,
    time_of,
)
from tests.mappers.scheduling.scheduling_resources import appointment, at, concept, role, schedule

CHICAGO, HOWE = ZoneInfo("America/Chicago"), ZoneInfo("Australia/Lord_Howe")


def days(rule: SeriesRule) -> list[str]:
    found, issues = list_occurrences(rule)
    assert issues == []
    return [each.day.isoformat() for each in found]


def test_daily_every_second_day() -> None:
    rule = SeriesRule(date(2026, 1, 30), time(9), 30, CHICAGO, "daily", 2, count=3)
    assert days(rule) == ["2026-01-30", "2026-02-01", "2026-02-03"]


def test_weekly_by_weekday_until_a_day() -> None:
    """From a Wednesday, Mondays and Wednesdays of every second week; the last day is included."""
    rule = SeriesRule(date(2026, 1, 7), time(9), 30, CHICAGO, "weekly", 2, ("wed", "mon"), until=date(2026, 2, 2))
    assert days(rule) == ["2026-01-07", "2026-01-19", "2026-01-21", "2026-02-02"]


def test_a_time_that_the_clock_jumps_over_is_told_and_one_that_comes_twice_is_the_first() -> None:
    (jumped,), _ = list_occurrences(SeriesRule(date(2026, 10, 4), time(2, 15), 30, HOWE, "daily", count=1))
    assert jumped.start is None
    issue = explain_occurrence(jumped, [])
    assert issue is not None
    assert issue.expression == ("occurrence[0]",)
    (twice,), _ = list_occurrences(SeriesRule(date(2026, 11, 1), time(1, 30), 30, CHICAGO, "daily", count=1))
    assert twice.start == at("2026-11-01T01:30:00-05:00")


@pytest.mark.parametrize(
    ("changes", "expression", "code"),
    [
        ({"count": 10_000}, "count", "too-costly"),
        ({"until": date(2200, 1, 1)}, "until", "too-costly"),
        ({}, "count", "value"),
        ({"count": 0}, "count", "value"),
        ({"until": date(2025, 1, 1)}, "until", "value"),
        ({"count": 2, "frequency": "monthly"}, "frequency", "value"),
        ({"count": 2, "weekdays": ("tuesday",)}, "weekday", "value"),
        ({"count": 2, "interval": 0}, "interval", "value"),
        ({"count": 2, "minutes": 0}, "minutes", "value"),
        ({"count": 2, "interval": 10_000}, "interval", "value"),
        ({"count": 100, "interval": 900}, "count", "too-costly"),
        ({"until": date(2026, 1, 3), "weekdays": ("mon",)}, "until", "value"),
    ],
)
def test_rules_without_sense_are_issues(changes: dict[str, Any], expression: str, code: str) -> None:
    values: dict[str, Any] = {"first": date(2026, 1, 1), "at": time(9), "minutes": 30, "zone": CHICAGO, **changes}
    found, (issue,) = list_occurrences(SeriesRule(**values))
    assert found == []
    assert (issue.expression, issue.code) == ((expression,), code)


def test_the_last_days_of_the_calendar_are_no_exception() -> None:
    rule = SeriesRule(date(9999, 12, 30), time(9), 30, CHICAGO, "daily", count=5)
    _, issues = list_occurrences(rule)
    assert [issue.severity for issue in issues] == ["error"]


def test_alternatives_are_the_three_nearest_in_their_order() -> None:
    wanted = at("2026-01-05T10:00:00Z")
    times = [FreeTime(wanted + n * 30 * MINUTE, wanted + (n + 1) * 30 * MINUTE, ()) for n in (-8, -2, -1, 3, 4, 20)]
    assert [(each.start - wanted) // MINUTE for each in choose_alternatives(times, wanted)] == [-60, -30, 90]


def test_an_occurrence_with_nothing_in_its_way_has_no_issue() -> None:
    assert explain_occurrence(Occurrence(1, date(2026, 1, 5), 0, 1), []) is None


def test_one_following_or_all_of_a_series() -> None:
    members = [mark_occurrence(appointment(f"m{n}", "", ""), "s1", n) for n in (3, 1, 2)]
    other = mark_occurrence(appointment("x", "", ""), "s2", 2)
    chosen = members[2]
    assert read_occurrence(chosen) == ("s1", 2)
    for scope, expected in (("one", ["m2"]), ("following", ["m2", "m3"]), ("all", ["m1", "m2", "m3"])):
        found = select_occurrences([*members, other], chosen, scope)
        assert isinstance(found, list)
        assert [each["id"] for each in found] == expected
    alone = appointment("a", "", "")
    assert select_occurrences([], alone, "one") == [alone]
    assert isinstance(select_occurrences([], alone, "all"), Issue)
    assert isinstance(select_occurrences([], chosen, "some"), Issue)


# The waitlist

PRACTICE, _ = read_practice(
    [
        role("r", "Practitioner/pine", ("09:00:00", "17:00:00")),
        schedule("pine", "PractitionerRole/r", serviceType=[concept("new")]),
    ],
    SchedulingParameters(zone="America/Chicago"),
)
PINE, _issues = build_calendar(PRACTICE.directory["Schedule/pine"], frozenset(), PRACTICE)
assert PINE is not None
TIME = FreeTime(at("2026-03-02T16:00:00Z"), at("2026-03-02T16:30:00Z"), (PINE,))


def waiting(id: str, *actors: str, **more: Any) -> Resource:
    people = [{"actor": {"reference": actor}, "status": "needs-action"} for actor in (f"Patient/{id}", *actors)]
    return {"resourceType": "Appointment", "id": id, "status": "waitlist", "participant": people, **more}


def ranked(*candidates: Resource, occupied: Occupied | None = None, asked: tuple[str, ...] = ()) -> list[str]:
    found = rank_candidates(candidates, TIME, occupied or Occupied(), PRACTICE, asked)
    return [each["id"] for each in found]


def test_candidates_come_by_priority_then_waiting_then_id() -> None:
    assert ranked(
        waiting("d", created="2026-01-01"),
        waiting("c", created="2026-01-02", priority=1),
        waiting("b", created="2026-01-02"),
        waiting("a", created="2026-01-02"),
        waiting("e", created="2026-01-01", priority=9),
        waiting("z", priority=0, created="2025-01-01"),
    ) == ["c", "e", "z", "d", "a", "b"]


@pytest.mark.parametrize(
    ("more", "actors", "suits"),
    [
        ({}, (), True),
        ({"requestedPeriod": [{"start": "2026-03-02", "end": "2026-03-02"}]}, (), True),
        ({"requestedPeriod": [{"start": "2026-03-03"}]}, (), False),
        ({"minutesDuration": 30}, (), True),
        ({"minutesDuration": 31}, (), False),
        ({}, ("PractitionerRole/r",), True),
        ({}, ("Practitioner/elm",), False),
        ({"serviceType": [concept("new")]}, (), True),
        ({"serviceType": [concept("check")]}, (), False),
        ({"status": "booked"}, (), False),
    ],
)
def test_whom_a_time_suits(more: dict[str, Any], actors: tuple[str, ...], suits: bool) -> None:
    assert ranked(waiting("a", *actors, **more)) == (["a"] if suits else [])


def test_nobody_is_asked_twice_or_offered_a_time_in_which_the_patient_is_busy() -> None:
    assert ranked(waiting("a"), waiting("b"), asked=("Appointment/a",)) == ["b"]
    busy = appointment("x", "2026-03-02T16:15:00Z", "2026-03-02T16:45:00Z", "Patient/b")
    assert ranked(waiting("a"), waiting("b"), occupied=list_occupied((busy,), (), PRACTICE, 0)) == ["a"]


def test_an_offer_is_a_hold_for_the_patient_and_a_task() -> None:
    until = at("2026-03-01T12:00:00Z")
    offer = make_offer(waiting("a", "Practitioner/elm"), TIME, until, PRACTICE, "Task/t")
    assert offer["status"] == "pending"
    assert at(extension_value(offer, HOLD_EXPIRES)) == until
    assert [person["actor"]["reference"] for person in offer["participant"]] == ["Patient/a", "PractitionerRole/r"]
    assert task_of_offer(offer) == "Task/t"
    assert (at(offer["start"]), at(offer["end"])) == TIME[:2]
    task = offer_task(offer, TIME, 3, until - MINUTE, until)
    assert (task["focus"], task["for"]) == ({"reference": reference_of(offer)}, {"reference": "Patient/a"})
    assert task["restriction"]["period"]["end"] == format_instant(until)
    assert read_offer(task) == (TIME[:2], 3)


def test_what_a_cancelled_appointment_leaves_is_a_time() -> None:
    cancelled = appointment("x", "2026-03-02T16:00:00Z", "2026-03-02T16:30:00Z", status="cancelled")
    assert time_of(cancelled, (PINE,)) == TIME  # type: ignore[arg-type]
    assert isinstance(time_of({**cancelled, "end": None}, ()), Issue)


def test_a_time_got_free_when_its_provider_did() -> None:
    old = appointment("x", "2026-03-02T16:00:00Z", "2026-03-02T16:30:00Z", "Practitioner/pine", "Patient/a")
    pine = [PRACTICE.directory["Schedule/pine"]]
    for status in ("cancelled", "waitlist", "noshow", "entered-in-error"):
        assert list_freed(old, {**old, "status": status}, PRACTICE) == pine
    assert list_freed(old, None, PRACTICE) == list_freed(old, {**old, "participant": []}, PRACTICE) == pine
    later = {**old, "start": "2026-03-02T16:15:00Z"}
    assert list_freed(old, later, PRACTICE) == pine
    for new in (old, {**old, "status": "fulfilled"}, {**old, "comment": "late"}):
        assert list_freed(old, new, PRACTICE) == []
    assert list_freed({**old, "status": "cancelled"}, None, PRACTICE) == []


def test_a_declined_offer_is_what_it_was_on_the_waitlist() -> None:
    before = waiting("a", "Practitioner/elm", comment="mornings")
    offer = make_offer(before, TIME, TIME.start, PRACTICE, "Task/t")
    assert restore_waiting(offer, before) == before
    assert restore_waiting({**offer, "comment": "evenings"}, before) == {**before, "comment": "evenings"}
