"""Intervals as sets of instants, and wall-clock time over clock changes (dates from the IANA time zone database)."""

from __future__ import annotations

from datetime import date, time, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from fhir_server.fhir.datetimes import format_instant
from fhir_server.fhir.outcome import Issue
from mappers.scheduling.intervals import DAY, MINUTE, Interval, intersect, subtract, unite
from mappers.scheduling.wall_clock import Span, day_interval, list_grid, read_zone, to_instants, to_intervals

CHICAGO, HOWE, PHOENIX = ZoneInfo("America/Chicago"), ZoneInfo("Australia/Lord_Howe"), ZoneInfo("America/Phoenix")

lists = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)).map(lambda pair: Interval(*pair)), max_size=8)


def instants(intervals: list[Interval]) -> set[int]:
    return {at for start, end in intervals for at in range(start, end)}


@given(lists, lists)
def test_operations_are_those_of_sets(left: list[Interval], right: list[Interval]) -> None:
    one, two = unite(left), unite(right)
    assert instants(one) == instants(left)
    assert all(earlier.end < later.start for earlier, later in pairwise(one))
    assert instants(intersect(one, two)) == instants(one) & instants(two)
    assert instants(subtract(one, two)) == instants(one) - instants(two)


def shown(intervals: list[Interval]) -> list[tuple[str, str]]:
    return [(format_instant(start)[:16], format_instant(end)[:16]) for start, end in intervals]


def test_a_day_of_clock_change_has_23_or_25_hours() -> None:
    assert day_interval(date(2026, 3, 8), CHICAGO)[1] - day_interval(date(2026, 3, 8), CHICAGO)[0] == 23 * 60 * MINUTE
    assert day_interval(date(2026, 11, 1), CHICAGO)[1] - day_interval(date(2026, 11, 1), CHICAGO)[0] == 25 * 60 * MINUTE
    start, end = day_interval(date(2026, 4, 5), HOWE)
    assert end - start == 24 * 60 * MINUTE + 30 * MINUTE
    assert day_interval(date(2026, 3, 8), PHOENIX)[1] - day_interval(date(2026, 3, 8), PHOENIX)[0] == DAY


def test_a_time_that_the_clock_jumps_over_does_not_exist() -> None:
    assert to_instants(date(2026, 3, 8), time(2, 30), CHICAGO) == []
    assert to_intervals(date(2026, 3, 8), [Span(2 * 3600, 3 * 3600)], CHICAGO) == []
    assert to_instants(date(2026, 10, 4), time(2, 15), HOWE) == []


def test_a_time_that_the_clock_shows_twice_is_two_instants() -> None:
    assert [format_instant(at)[:16] for at in to_instants(date(2026, 11, 1), time(1, 30), CHICAGO)] == [
        "2026-11-01T06:30",
        "2026-11-01T07:30",
    ]
    # on Lord Howe the clock goes from 02:00 (+11) back to 01:30 (+10:30)
    assert [format_instant(at)[:16] for at in to_instants(date(2026, 4, 5), time(1, 45), HOWE)] == [
        "2026-04-04T14:45",
        "2026-04-04T15:15",
    ]


def test_a_block_inside_the_doubled_hour_is_two_intervals() -> None:
    block = [Span(3600 + 15 * 60, 3600 + 45 * 60)]
    assert shown(to_intervals(date(2026, 11, 1), block, CHICAGO)) == [
        ("2026-11-01T06:15", "2026-11-01T06:45"),
        ("2026-11-01T07:15", "2026-11-01T07:45"),
    ]


def test_the_grid_is_on_the_wall_clock() -> None:
    day = day_interval(date(2026, 4, 5), HOWE)
    walls = [(at - day.start) // MINUTE for at in list_grid(day, 60, HOWE)]
    # 00:00, 01:00, then 02:00 ninety minutes later, because 01:30 to 02:00 comes twice
    assert walls[:4] == [0, 60, 150, 210]
    assert len(walls) == 24
    assert list(list_grid(Interval(day.start, day.start), 60, HOWE)) == []


@given(st.dates(date(2025, 1, 1), date(2027, 12, 31)), st.sampled_from([CHICAGO, HOWE, PHOENIX]))
def test_days_follow_each_other_without_gap(day: date, zone: ZoneInfo) -> None:
    assert day_interval(day, zone).end == day_interval(day + timedelta(days=1), zone).start


def test_an_unknown_zone_is_an_issue() -> None:
    issue = read_zone("America/Chikago", "Schedule.extension[0]")
    assert isinstance(issue, Issue)
    assert "`America/Chikago` is not a time zone" in issue.diagnostics
    assert isinstance(read_zone("../zone", "x"), Issue)
