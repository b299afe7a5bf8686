"""The scheduling-parameters extension: reading, precedence, and what is wrong with one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mappers.scheduling.elements import read_period, read_times, target_of
from mappers.scheduling.extensions import SCHEDULING_PARAMETERS, TIME_ZONE
from mappers.scheduling.parameters import SchedulingParameters, read_parameters, resolve_parameters
from tests.mappers.scheduling.scheduling_resources import minutes, parameters, schedule

NEW, CHECK = frozenset({"urn:example:types|new"}), frozenset({"urn:example:types|check"})
OWN = schedule(
    "pine",
    "Practitioner/pine",
    extension=[parameters(duration=20, bufferAfter=5, capacity=2), parameters("check", duration=10, mostPerDay=4)],
)
PLACE = {
    "resourceType": "HealthcareService",
    "id": "s",
    "extension": [parameters("new", duration=60, zone="America/Denver"), parameters(horizon=1440, bufferAfter=7)],
}


def rows(resource: dict[str, Any]) -> list[Any]:
    found, issues = read_parameters(resource)
    assert issues == []
    return found


def test_the_most_specific_wins_parameter_by_parameter() -> None:
    places = [rows(OWN), rows(PLACE)]
    default = SchedulingParameters()
    # a row for the type goes before the Schedule's row for all types; what neither says comes from the next
    expected = replace(default, duration=60, zone="America/Denver", buffer_after=5, capacity=2, horizon=1440)
    assert resolve_parameters(places, NEW, default) == expected
    check = resolve_parameters(places, CHECK, default)
    assert (check.duration, check.most_per_day, check.most_per_day_types) == (10, 4, CHECK)
    assert resolve_parameters(places, frozenset(), default).duration == 20


def test_the_standard_time_zone_extension_is_read() -> None:
    own = schedule("s", "Location/r", extension=[{"url": TIME_ZONE, "valueCode": "Australia/Lord_Howe"}])
    assert resolve_parameters([rows(own)], frozenset(), SchedulingParameters()).zone == "Australia/Lord_Howe"


@pytest.mark.parametrize(
    ("part", "code", "words"),
    [
        ({"url": "capacity", "valuePositiveInt": 0}, "value", "`capacity` is 0; the least is 1."),
        ({"url": "duration", "valueDuration": minutes(0)}, "value", "`duration` is 0; the least is 1."),
        ({"url": "duration", "valueDuration": {"value": 1, "code": "a"}}, "value", "UCUM code min, h, d or wk"),
        ({"url": "duration", "valueDuration": "20"}, "value", "UCUM code min, h, d or wk"),
        ({"url": "grid", "valueDuration": {"value": 0.3, "code": "min"}}, "value", "whole minutes"),
        ({"url": "zone", "valueCode": "Chicago"}, "value", "`Chicago` is not a time zone"),
        ({"url": "durations", "valueDuration": minutes(20)}, "not-supported", "`durations` is no scheduling parameter"),
    ],
)
def test_a_wrong_part_is_an_issue_at_its_place(part: dict[str, Any], code: str, words: str) -> None:
    extension = {"url": SCHEDULING_PARAMETERS, "extension": [part]}
    (row,), (issue,) = read_parameters(schedule("s", "Practitioner/p", extension=[extension]))
    assert row.values == {}
    assert (issue.severity, issue.code) == ("error", code)
    assert words in issue.diagnostics
    assert issue.expression[0].startswith("Schedule.extension[0].extension[0]")


def test_half_an_hour_may_be_written_in_hours() -> None:
    extension = {
        "url": SCHEDULING_PARAMETERS,
        "extension": [{"url": "duration", "valueDuration": {"value": 0.5, "code": "h"}}],
    }
    assert rows(schedule("s", "Practitioner/p", extension=[extension]))[0].values == {"duration": 30}


def test_references_of_every_form_name_one_target() -> None:
    for text in ("Practitioner/p", "https://x.example/fhir/Practitioner/p", "Practitioner/p/_history/3"):
        assert target_of({"reference": text}) == "Practitioner/p"
    assert target_of({"display": "Dr Pine"}) == ""


def test_a_period_of_days_includes_its_last_day() -> None:
    period = read_period({"start": "2026-12-24", "end": "2026-12-25"})
    assert period is not None
    assert period.end - period.start == 2 * 86_400_000_000
    assert read_period({"start": "24.12.2026"}) is None


@pytest.mark.parametrize(
    ("times", "expression"),
    [
        ({"start": "2026-03-02T10:00:00Z", "end": "2026-03-02T09:00:00Z"}, "Appointment.end"),
        ({"start": "2026-02-30T10:00:00Z", "end": "2026-03-02T09:00:00Z"}, "Appointment.start"),
        ({"start": "2026-03-02T10:00:00Z"}, "Appointment.end"),
    ],
)
def test_times_that_make_no_sense_are_issues(times: dict[str, str], expression: str) -> None:
    issue = read_times({"resourceType": "Appointment", **times})
    assert getattr(issue, "expression", None) == (expression,)
