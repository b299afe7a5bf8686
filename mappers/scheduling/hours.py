"""Open hours: availableTime, notAvailable, hoursOfOperation, holidays (https://hl7.org/fhir/R4/practitionerrole.html)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, tzinfo
from functools import lru_cache
from typing import Any, NamedTuple

from fhir_server.fhir.outcome import Issue
from mappers.scheduling.elements import Resource, members, read_period, reference_of, texts
from mappers.scheduling.intervals import Interval, intersect, subtract, unite
from mappers.scheduling.wall_clock import Span, list_days, to_intervals

# The codes of https://hl7.org/fhir/R4/valueset-days-of-week.html in the order of date.weekday().
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY_SECONDS = 86_400

# The spans of each weekday, Monday first.
Week = tuple[tuple[Span, ...], ...]


class Holiday(NamedTuple):
    """A local day on which a place, service or role (`scope`, a reference) is closed; without scope all are."""

    day: date
    name: str = ""
    scope: str = ""


@dataclass(frozen=True, slots=True)
class Hours:
    """What one resource says: its week on the wall clock of its zone (None: nothing said) and when it is closed."""

    zone: tzinfo
    week: Week | None = None
    closed: tuple[Interval, ...] = ()
    holidays: frozenset[date] = frozenset()


class _Names(NamedTuple):
    """The elements in which a type of resource says its hours."""

    rows: str
    start: str
    end: str


_HOURS_IN = {
    "Location": _Names("hoursOfOperation", "openingTime", "closingTime"),
    "PractitionerRole": _Names("availableTime", "availableStartTime", "availableEndTime"),
    "HealthcareService": _Names("availableTime", "availableStartTime", "availableEndTime"),
}


def read_hours(resource: Resource, zone: tzinfo, holidays: Iterable[Holiday] = ()) -> tuple[Hours, list[Issue]]:
    """The hours of a PractitionerRole, HealthcareService or Location, and what is wrong with them.

    Unavailability has the scope of where it stands: it closes the calendars that this resource is part of and no other.
    """
    issues: list[Issue] = []
    kind, own = str(resource.get("resourceType")), reference_of(resource)
    names = _HOURS_IN.get(kind)
    rows = members(resource, names.rows) if names else []
    week = _read_week(rows, names, kind, issues) if names and rows else None
    closed = []
    for position, row in enumerate(members(resource, "notAvailable")):
        # without `during` the unavailability has no time and closes nothing
        period = read_period(row.get("during"), zone) if row.get("during") else Interval(0, 0)
        if period is None:
            path = f"{kind}.notAvailable[{position}].during"
            issues.append(Issue("error", "value", f"`{path}` is no period of dates; it was not applied.", (path,)))
        else:
            closed.append(period)
    days = frozenset(each.day for each in holidays if each.scope in ("", own))
    return Hours(zone, week, tuple(unite(closed)), days), issues


def _read_week(rows: Sequence[Resource], names: _Names, kind: str, issues: list[Issue]) -> Week:
    week: list[list[Span]] = [[] for _ in WEEKDAYS]
    for position, row in enumerate(rows):
        path = f"{kind}.{names.rows}[{position}]"
        span = _read_span(row, names, path, issues)
        if span is None:
            continue
        start, end = span
        for day in _read_days(row, path, issues):
            pieces = [(day, Span(start, min(end, _DAY_SECONDS)))]
            if end > _DAY_SECONDS:  # over midnight: the rest belongs to the next day
                pieces.append(((day + 1) % 7, Span(0, end - _DAY_SECONDS)))
            for weekday, piece in pieces:
                if any(piece.start < other.end and other.start < piece.end for other in week[weekday]):
                    text = f"`{path}` overlaps another row on {WEEKDAYS[weekday]}; the two were joined."
                    issues.append(Issue("warning", "business-rule", text, (path,)))
                week[weekday].append(piece)
    return tuple(tuple(sorted(spans)) for spans in week)


def _read_span(row: Resource, names: _Names, path: str, issues: list[Issue]) -> tuple[int, int] | None:
    """Seconds after midnight; the end is beyond 24 hours for a span over midnight."""
    if row.get("allDay") is True:
        return 0, _DAY_SECONDS
    start, end = (
        _read_clock(row.get(name), default) for name, default in ((names.start, 0), (names.end, _DAY_SECONDS))
    )
    if start is None or end is None:
        name = names.start if start is None else names.end
        text = f"`{row.get(name)}` is no time of day: write `09:00:00`. The row was not applied."
        issues.append(Issue("error", "value", text, (f"{path}.{name}",)))
        return None
    if start == end:
        text = f"`{path}` begins and ends at `{row.get(names.start)}` and was not applied; `allDay` is the whole day."
        issues.append(Issue("error", "value", text, (path,)))
        return None
    return start, end if end > start else end + _DAY_SECONDS


def _read_clock(text: Any, default: int) -> int | None:
    """Seconds after midnight of `09:30:00` or `09:30`; None for what is no time of day."""
    if text is None:
        return default
    parts = text.split(":") if isinstance(text, str) else []
    if len(parts) not in (2, 3) or not all(len(part) >= 2 and part[:2].isdecimal() for part in parts):
        return None
    hour, minute, second = (*(int(part[:2]) for part in parts), 0)[:3]
    return hour * 3600 + minute * 60 + second if hour < 24 and minute < 60 and second < 60 else None


def _read_days(row: Resource, path: str, issues: list[Issue]) -> list[int]:
    """The weekdays of a row; all where it names none."""
    names = texts(row, "daysOfWeek")
    wrong = [name for name in names if name not in WEEKDAYS]
    if wrong:
        text = f"`{wrong[0]}` is no day of the week; there are {', '.join(WEEKDAYS)}. It was left out."
        issues.append(Issue("error", "value", text, (f"{path}.daysOfWeek",)))
    return [WEEKDAYS.index(name) for name in dict.fromkeys(names) if name in WEEKDAYS] if names else list(range(7))


# most people of a practice keep the same hours, and a search asks for one window of all of them
@lru_cache(4096)
def list_open(hours: Hours, window: Interval) -> tuple[Interval, ...]:
    """When these hours are open in a window, united; always, where nothing is said about the week."""
    if hours.week is None:
        opened = [window]
        if hours.holidays:
            days = (day for day in list_days(window, hours.zone) if day in hours.holidays)
            shut = [part for day in days for part in to_intervals(day, (Span(0, _DAY_SECONDS),), hours.zone)]
            opened = subtract(opened, unite(shut))
    else:
        opened = []
        for day in list_days(window, hours.zone):
            spans = hours.week[day.weekday()]
            if spans and day not in hours.holidays:
                opened += to_intervals(day, spans, hours.zone)
        opened = intersect(unite(opened), [window])
    return tuple(subtract(opened, hours.closed) if hours.closed else opened)


@lru_cache(4096)
def list_open_of_all(every: tuple[Hours, ...], window: Interval) -> tuple[Interval, ...]:
    """When all of these hours are open."""
    opened = [window] if window.start < window.end else []
    for hours in every:
        opened = intersect(opened, list_open(hours, window))
    return tuple(opened)
