"""Date criteria: https://hl7.org/fhir/R4/search.html#prefix, #date."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fhir_server.fhir.datetimes import parse_interval
from fhir_server.fhir.outcome import Invalid
from fhir_server.search.entries import OPEN_HIGH, OPEN_LOW
from fhir_server.search.index import Index
from fhir_server.search.query import Bound, DateRange, LastUpdated, Or

DAY, MONTH, INSTANT = "2026-11-23", "2026-11", "2026-11-23T08:00:00Z"


def observation(**effective: Any) -> dict[str, Any]:
    return {"resourceType": "Observation", **effective}


def period(start: str | None, end: str | None) -> dict[str, Any]:
    given = {key: value for key, value in (("start", start), ("end", end)) if value}
    return observation(effectivePeriod=given)


@pytest.mark.parametrize(
    ("stored", "found_by"),
    [
        # The search value is the day 2026-11-23. Each row: a stored value, and the prefixes that find it.
        # eq "the range of the search value fully contains the range of the target value"; ne is its opposite.
        # gt/lt "the range above/below the search value intersects with the range of the target value".
        # ge/le: gt/lt or eq. sa/eb: "does not overlap", entirely after or before. ap on the day itself: overlap of the
        # range, widened by a tenth of the gap to now (here none: now is in that day).
        ("2026-11-23", {"eq", "ge", "le", "ap"}),
        ("2026-11-23T08:00:00Z", {"eq", "ge", "le", "ap"}),
        ("2026-11-23T00:00:00Z", {"eq", "ge", "le", "ap"}),
        ("2026-11-23T23:59:59.999Z", {"eq", "ge", "le", "ap"}),
        ("2026-11-22", {"ne", "lt", "le", "eb"}),
        ("2026-11-22T23:59:59Z", {"ne", "lt", "le", "eb"}),
        ("2026-11-24", {"ne", "gt", "ge", "sa"}),
        ("2026-11-24T00:00:00Z", {"ne", "gt", "ge", "sa"}),
        # A stored month reaches below and above the day: neither contained nor apart.
        ("2026-11", {"ne", "gt", "ge", "lt", "le", "ap"}),
        ("2026", {"ne", "gt", "ge", "lt", "le", "ap"}),
        ("2025", {"ne", "lt", "le", "eb"}),
        # An offset moves the instant: 01:00+02:00 is the day before in UTC.
        ("2026-11-23T01:00:00+02:00", {"ne", "lt", "le", "eb"}),
    ],
)
def test_every_prefix_of_a_day(finds: Callable[..., bool], stored: str, found_by: set[str]) -> None:
    resource = observation(effectiveDateTime=stored)
    prefixes = {"eq", "ne", "gt", "lt", "ge", "le", "sa", "eb", "ap"}
    assert {prefix for prefix in prefixes if finds(resource, "date", f"{prefix}{DAY}")} == found_by
    assert finds(resource, "date", DAY) == ("eq" in found_by)


@pytest.mark.parametrize(
    ("start", "end", "found_by"),
    [
        ("2026-11-23", "2026-11-23", {"eq", "ge", "le", "ap"}),
        ("2026-11-20", "2026-11-23", {"ne", "lt", "le", "ap"}),
        ("2026-11-23", "2026-11-25", {"ne", "gt", "ge", "ap"}),
        ("2026-11-20", "2026-11-25", {"ne", "lt", "le", "gt", "ge", "ap"}),
        # "a missing start or end means that the period is open on that side"
        ("2026-11-23", None, {"ne", "gt", "ge", "ap"}),
        (None, "2026-11-23", {"ne", "lt", "le", "ap"}),
        ("2026-11-24", None, {"ne", "gt", "ge", "sa"}),
        (None, "2026-11-22", {"ne", "lt", "le", "eb"}),
        (None, None, set()),
    ],
)
def test_every_prefix_against_a_period(
    finds: Callable[..., bool], start: str | None, end: str | None, found_by: set[str]
) -> None:
    resource = period(start, end)
    prefixes = {"eq", "ne", "gt", "lt", "ge", "le", "sa", "eb", "ap"}
    assert {prefix for prefix in prefixes if finds(resource, "date", f"{prefix}{DAY}")} == found_by


@pytest.mark.parametrize(
    ("value", "stored", "found"),
    [
        ("2026", "2026-11-23", True),
        ("2026-11", "2026-11-23", True),
        ("2026-10", "2026-11-23", False),
        # "a search for a time to the minute finds what lies in that minute"
        ("2026-11-23T08:00Z", "2026-11-23T08:00:59.9Z", True),
        ("2026-11-23T08:01Z", "2026-11-23T08:00:59.9Z", False),
        ("2026-11-23T08:00:00Z", "2026-11-23T08:00:00.500Z", True),
        ("2026-11-23T08:00:00.500Z", "2026-11-23T08:00:00Z", False),
        ("2026-11-23T09:00:00%2B01:00".replace("%2B", "+"), "2026-11-23T08:00:00Z", True),
    ],
)
def test_eq_contains_by_precision(finds: Callable[..., bool], value: str, stored: str, found: bool) -> None:
    assert finds(observation(effectiveDateTime=stored), "date", value) is found


def test_ap_widens_by_a_tenth_of_the_gap_to_now(finds: Callable[..., bool]) -> None:
    # Now is 2026-11-23T08:00Z. 2026-11-03 ends 19 days and 8 hours before it: a tenth is 1 day, 22 hours, 24 minutes.
    assert finds(observation(effectiveDateTime="2026-11-05T21:00:00Z"), "date", "ap2026-11-03")
    assert not finds(observation(effectiveDateTime="2026-11-05T23:00:00Z"), "date", "ap2026-11-03")
    assert finds(observation(effectiveDateTime="2026-11-01T02:00:00Z"), "date", "ap2026-11-03")
    assert not finds(observation(effectiveDateTime="2026-11-01T01:00:00Z"), "date", "ap2026-11-03")


def test_of_a_timing_only_the_outer_limits_matter(index: Index) -> None:
    # "the specified scheduling details are ignored and only the outer limits matter"
    events = observation(effectiveTiming={"event": ["2026-03-01", "2026-01-01", "2026-02-01"]})
    bounds = observation(effectiveTiming={"repeat": {"boundsPeriod": {"start": "2026-01-01"}, "frequency": 1}})
    neither = observation(effectiveTiming={"code": {"text": "BID"}})
    assert index.make_entries("Observation", events).dates["date"] == (
        (parse_interval("2026-01-01")[0], parse_interval("2026-03-01")[1]),
    )
    assert index.make_entries("Observation", bounds).dates["date"] == ((parse_interval("2026-01-01")[0], OPEN_HIGH),)
    assert "date" not in index.make_entries("Observation", neither).dates
    assert index.make_entries("Observation", period(None, "2026")).dates["date"] == (
        (OPEN_LOW, parse_interval("2026")[1]),
    )


def test_eq_is_one_bounded_range(clause_of: Callable[..., Any]) -> None:
    low, high = parse_interval(MONTH)
    assert clause_of("Observation", "date", MONTH) == DateRange(
        "date", (Bound("low", "ge", low), Bound("low", "le", high), Bound("high", "le", high))
    )


def test_last_updated_is_a_point(clause_of: Callable[..., Any]) -> None:
    low, high = parse_interval(INSTANT)
    at_least, at_most = Bound("low", "ge", low), Bound("low", "le", high)
    below, above = Bound("low", "lt", low), Bound("low", "gt", high)
    expected = {
        "eq": LastUpdated((at_least, at_most)),
        "ne": Or((LastUpdated((below,)), LastUpdated((above,)))),
        "gt": LastUpdated((above,)),
        "sa": LastUpdated((above,)),
        "lt": LastUpdated((below,)),
        "eb": LastUpdated((below,)),
        "ge": LastUpdated((at_least,)),
        "le": LastUpdated((at_most,)),
    }
    for prefix, clause in expected.items():
        assert clause_of("Observation", "_lastUpdated", f"{prefix}{INSTANT}") == clause


@pytest.mark.parametrize("value", ["", "gt", "2026-02-30", "xx2026", "eqeq2026", "2026-11-23T08:00:00 01:00", "now"])
def test_a_bad_date_is_named(clause_of: Callable[..., Any], value: str) -> None:
    with pytest.raises(Invalid) as error:
        clause_of("Observation", "date", value)
    assert f"`date={value}` of `Observation` is not valid" in str(error.value)
    assert "Prefixes: eq, ne" in str(error.value)


def test_a_day_without_calendar_cannot_be_indexed(index: Index) -> None:
    with pytest.raises(Invalid, match="`2026-02-30` is not a day"):
        index.make_entries("Observation", observation(effectiveDateTime="2026-02-30"))
