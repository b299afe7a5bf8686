"""Wall-clock time of a zone as instants (IANA time zone database): clock changes make a time vanish or come twice.

An instant is inside a wall-clock span of a day when a clock on the wall shows, at that instant, that day and a time in
the span. All rules about hours follow from this sentence: of a span that the clock jumps over nothing is left, a span
that the clock shows twice is two intervals (or a longer one).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

from fhir_server.fhir.outcome import Issue
from mappers.scheduling.intervals import DAY, MINUTE, SECOND, Interval, unite

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_ORDINAL = _EPOCH.toordinal()
# Three days from the ends of what datetime can hold, so that no offset and no next day leads beyond them.
_FIRST = (4 - _EPOCH_ORDINAL) * DAY
_LAST = (date.max.toordinal() - 3 - _EPOCH_ORDINAL) * DAY
# No offset is larger than 15 hours, and no zone changes its clock twice within six.
_MARGIN = 15 * 60 * MINUTE
_STEP = 6 * 60 * MINUTE


class Span(NamedTuple):
    """A part of a day on the wall clock, in seconds after midnight; `end` is at most 86,400."""

    start: int
    end: int


class Stretch(NamedTuple):
    """An interval in which a zone keeps one offset (µs to be added to UTC)."""

    start: int
    end: int
    offset: int


def read_zone(name: str, expression: str) -> ZoneInfo | Issue:
    """The zone of an IANA name, or an issue that says so when there is none."""
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, LookupError):
        text = f"`{name}` is not a time zone: use a name of the IANA database such as `America/Chicago`."
        return Issue("error", "value", text, (expression,))


@lru_cache(maxsize=8192)
def write_day(number: int) -> str:
    """The date of a UTC day, counted from 1970; of the first and last days of the calendar, that of the nearest one."""
    return date.fromordinal(_EPOCH_ORDINAL + min(max(number, _FIRST // DAY), _LAST // DAY)).isoformat()


def to_local(micros: int, zone: tzinfo) -> datetime:
    """What the wall clock shows at an instant; of the first and last days of the calendar, at the nearest one."""
    return (_EPOCH + timedelta(microseconds=min(max(micros, _FIRST), _LAST))).astimezone(zone)


def _offset(micros: int, zone: tzinfo) -> int:
    offset = to_local(micros, zone).utcoffset() or timedelta(0)
    return offset // timedelta(microseconds=1)


@lru_cache(maxsize=8192)
def list_stretches(day: date, zone: tzinfo) -> tuple[Stretch, ...]:
    """The stretches of one offset around a day, wide enough for every instant that the wall clock dates with it."""
    midnight = (day.toordinal() - _EPOCH_ORDINAL) * DAY
    at, end = midnight - _MARGIN, midnight + DAY + _MARGIN
    stretches, offset, start = [], _offset(at, zone), at
    while at < end:
        after = min(at + _STEP, end)
        if (changed := _offset(after, zone)) != offset:
            change = _find_change(at, after, zone)
            stretches.append(Stretch(start, change, offset))
            start, offset = change, changed
        at = after
    return (*stretches, Stretch(start, end, offset))


def _find_change(low: int, high: int, zone: tzinfo) -> int:
    """The first instant of the new offset, to the second."""
    before = _offset(low, zone)
    while high - low > SECOND:
        middle = low + (high - low) // 2 // SECOND * SECOND
        low, high = (middle, high) if _offset(middle, zone) == before else (low, middle)
    return high


def to_intervals(day: date, spans: Iterable[Span], zone: tzinfo) -> list[Interval]:
    """The instants at which the wall clock shows this day and a time in one of the spans, united."""
    midnight = (day.toordinal() - _EPOCH_ORDINAL) * DAY
    stretches = list_stretches(day, zone)
    found = []
    for span in spans:
        for start, end, offset in stretches:
            low = max(start, midnight + span.start * SECOND - offset)
            high = min(end, midnight + span.end * SECOND - offset)
            if low < high:
                found.append(Interval(low, high))
    return unite(found) if len(found) > 1 else found


def to_instants(day: date, at: time, zone: tzinfo) -> list[int]:
    """The instants at which the wall clock shows this day and time: none, one or two, in their order."""
    wall = (day.toordinal() - _EPOCH_ORDINAL) * DAY + (at.hour * 3600 + at.minute * 60 + at.second) * SECOND
    return [wall - offset for start, end, offset in list_stretches(day, zone) if start <= wall - offset < end]


def list_days(window: Interval, zone: tzinfo) -> Iterator[date]:
    """The local days that a window touches."""
    if window.end <= window.start:
        return
    day, last = to_local(window.start, zone).date(), to_local(window.end - 1, zone).date()
    while day <= last:
        yield day
        day += timedelta(days=1)


def day_interval(day: date, zone: tzinfo) -> Interval:
    """From the first to the last instant of a local day: 23, 24 or 25 hours, 24½ on Lord Howe."""
    parts = to_intervals(day, (Span(0, 86_400),), zone)
    return Interval(parts[0].start, parts[-1].end) if parts else Interval(0, 0)


def list_grid(window: Interval, grid: int, zone: tzinfo) -> Iterator[int]:
    """The instants of a window at which the wall clock shows a multiple of `grid` minutes after midnight."""
    step = grid * MINUTE
    for day in list_days(window, zone):
        midnight = (day.toordinal() - _EPOCH_ORDINAL) * DAY
        for start, end, offset in list_stretches(day, zone):
            low = max(start, window.start, midnight - offset)
            high = min(end, window.end, midnight + DAY - offset)
            past = low + offset - midnight
            yield from range(low + -past % step, high, step)
