"""Series of appointments on the wall clock: daily, or weekly by weekday, by count or until a day."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, time, timedelta, tzinfo
from heapq import nsmallest
from typing import NamedTuple

from fhir_server.fhir.datetimes import format_instant
from fhir_server.fhir.outcome import Issue
from mappers.scheduling.clashes import Refusal
from mappers.scheduling.elements import Resource, find_extension, members
from mappers.scheduling.extensions import APPOINTMENT_SERIES
from mappers.scheduling.free_times import FreeTime
from mappers.scheduling.hours import WEEKDAYS
from mappers.scheduling.intervals import MINUTE
from mappers.scheduling.wall_clock import to_instants

MOST_OCCURRENCES = 400
_LAST_DAY = timedelta(days=5 * 366)
ALTERNATIVES = 3


@dataclass(frozen=True, slots=True)
class SeriesRule:
    """`frequency` is `daily` or `weekly`; every `interval` days or weeks; `minutes` is the length of each visit."""

    first: date
    at: time
    minutes: int
    zone: tzinfo
    frequency: str = "weekly"
    interval: int = 1
    weekdays: tuple[str, ...] = ()
    count: int | None = None
    until: date | None = None


class Occurrence(NamedTuple):
    """One visit of a series, counted from 1; without a start on a day whose clock jumps over the time."""

    number: int
    day: date
    start: int | None
    end: int | None


def list_occurrences(rule: SeriesRule) -> tuple[list[Occurrence], list[Issue]]:
    """The visits of a series, or what is wrong with its rule. Of a time that comes twice the first is taken."""
    issues = _check_rule(rule)
    if issues:
        return [], issues
    found: list[Occurrence] = []
    for day in _list_days(rule):
        if (rule.until and day > rule.until) or (rule.count is not None and len(found) == rule.count):
            return found, _check_found(found)
        if len(found) == MOST_OCCURRENCES or day - rule.first > _LAST_DAY:
            break
        starts = to_instants(day, rule.at, rule.zone)
        start = starts[0] if starts else None
        found.append(
            Occurrence(len(found) + 1, day, start, start + rule.minutes * MINUTE if start is not None else None)
        )
    text = f"A series has at most {MOST_OCCURRENCES} occurrences in five years; make it shorter."
    return [], [Issue("error", "too-costly", text, ("until" if rule.until else "count",))]


def _check_found(found: list[Occurrence]) -> list[Issue]:
    return [] if found else [Issue("error", "value", "No day of the series is before its end.", ("until",))]


def _check_rule(rule: SeriesRule) -> list[Issue]:
    wrong = [day for day in rule.weekdays if day not in WEEKDAYS]
    checks = (
        (rule.frequency not in ("daily", "weekly"), "frequency", f"`{rule.frequency}` is not `daily` or `weekly`."),
        (not 1900 <= rule.first.year <= 2200, "start", "A series starts between 1900 and 2200."),
        (not 1 <= rule.interval <= 1000, "interval", "The interval has to be from 1 to 1000."),
        (rule.minutes < 1, "minutes", "A visit has to be 1 minute long or longer."),
        (bool(wrong), "weekday", f"`{''.join(wrong[:1])}` is no day of the week; there are {', '.join(WEEKDAYS)}."),
        (rule.count is None and rule.until is None, "count", "A series needs a count or a last day (`until`)."),
        (rule.count is not None and rule.count < 1, "count", "The count has to be 1 or more."),
        (rule.until is not None and rule.until < rule.first, "until", "The last day is before the first."),
        (
            rule.count is not None and rule.count > MOST_OCCURRENCES,
            "count",
            f"A series has at most {MOST_OCCURRENCES} occurrences; ask for fewer.",
        ),
    )
    return [
        Issue("error", "too-costly" if "at most" in text else "value", text, (name,))
        for broken, name, text in checks
        if broken
    ]


def _list_days(rule: SeriesRule) -> Iterator[date]:
    """The days of a rule without its end; the week of `first` is the first week."""
    if rule.frequency == "daily":
        day = rule.first
        while True:
            yield day
            day += timedelta(days=rule.interval)
    names = rule.weekdays or (WEEKDAYS[rule.first.weekday()],)
    monday = rule.first - timedelta(days=rule.first.weekday())
    while True:
        for number in sorted({WEEKDAYS.index(name) for name in names}):
            if monday + timedelta(days=number) >= rule.first:
                yield monday + timedelta(days=number)
        monday += timedelta(weeks=rule.interval)


def choose_alternatives(times: Iterable[FreeTime], wanted: int) -> list[FreeTime]:
    """The three free times nearest to the one that was wanted, in their order."""
    return sorted(nsmallest(ALTERNATIVES, times, key=lambda each: (abs(each.start - wanted), each.start)))


def explain_occurrence(
    occurrence: Occurrence, refusals: Sequence[Refusal], alternatives: Sequence[FreeTime] = ()
) -> Issue | None:
    """What is in the way of one occurrence, with other times; None when nothing is."""
    place = (f"occurrence[{occurrence.number - 1}]",)
    head = f"Occurrence {occurrence.number} on {occurrence.day.isoformat()}"
    if occurrence.start is None:
        return Issue("error", "value", f"{head}: the clock jumps over this time on that day; choose another.", place)
    if not refusals:
        return None
    reasons = " ".join(refusal.issue.diagnostics for refusal in refusals)
    others = ", ".join(format_instant(each.start) for each in alternatives)
    text = f"{head}: {reasons} {f'Free instead: {others}.' if others else 'No other time was found near it.'}"
    return Issue("error", refusals[0].issue.code, text, place)


def mark_occurrence(appointment: Resource, series: str, number: int) -> Resource:
    """The Appointment as a member of a series."""
    others = [each for each in members(appointment, "extension") if each.get("url") != APPOINTMENT_SERIES]
    parts = [{"url": "series", "valueString": series}, {"url": "number", "valuePositiveInt": number}]
    return {**appointment, "extension": [*others, {"url": APPOINTMENT_SERIES, "extension": parts}]}


def read_occurrence(appointment: Resource) -> tuple[str, int] | None:
    """(series, number) of a member of a series."""
    parts = {part.get("url"): part for part in members(find_extension(appointment, APPOINTMENT_SERIES), "extension")}
    series, number = parts.get("series", {}).get("valueString"), parts.get("number", {}).get("valuePositiveInt")
    return (series, number) if isinstance(series, str) and isinstance(number, int) else None


def select_occurrences(appointments: Iterable[Resource], chosen: Resource, scope: str) -> list[Resource] | Issue:
    """What a change of one member is about: `one`, `following` (this and the later ones) or `all`, in their order."""
    own = read_occurrence(chosen)
    if scope not in ("one", "following", "all"):
        return Issue("error", "value", f"`{scope}` is not `one`, `following` or `all`.", ("scope",))
    if own is None:
        text = "The Appointment belongs to no series."
        return [chosen] if scope == "one" else Issue("error", "business-rule", text, ("scope",))
    numbered = [(place, each) for each in appointments if (place := read_occurrence(each)) and place[0] == own[0]]
    low, high = {"one": (own[1], own[1]), "following": (own[1], MOST_OCCURRENCES), "all": (0, MOST_OCCURRENCES)}[scope]
    return [each for place, each in sorted(numbered, key=lambda row: row[0][1]) if low <= place[1] <= high]
