"""Free times of any of several providers together with rooms and devices, earliest first, computed lazily."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from heapq import merge
from typing import NamedTuple

from fhir_server.fhir.outcome import Issue
from mappers.scheduling.calendars import Calendar, Practice, list_open_of, longest_buffer
from mappers.scheduling.intervals import MINUTE, Interval, intersect, subtract, unite
from mappers.scheduling.occupied import Occupation, Occupied, find_full
from mappers.scheduling.wall_clock import day_interval, list_days, list_grid, to_local


@dataclass(frozen=True, slots=True)
class FreeTimesRequest:
    """One calendar out of each pool is needed; times are looked for on the grid of those in the first pool.

    `duration` in minutes goes before the parameters' one. The whole visit lies in the window.
    """

    window: Interval
    now: int
    pools: tuple[tuple[Calendar, ...], ...]
    duration: int | None = None


class FreeTime(NamedTuple):
    """A time at which these calendars, one of each pool, are free."""

    start: int
    end: int
    calendars: tuple[Calendar, ...]


class Position(NamedTuple):
    """The last free time of a page: its start and the Schedule of the first pool."""

    start: int
    schedule: str


def list_chunks(request: FreeTimesRequest, position: Position | None = None) -> Iterator[Interval]:
    """The window day by day, so that only the occupied time of the days that are needed is read."""
    if not request.pools or not request.pools[0]:
        return
    zone = request.pools[0][0].zone
    start = max(request.window.start, request.now, position.start if position else request.window.start)
    end = min(request.window.end, request.now + max(each.parameters.horizon for each in request.pools[0]) * MINUTE + 1)
    for day in list_days(Interval(start, end), zone):
        low, high = day_interval(day, zone)
        if max(low, start) < min(high, end):
            yield Interval(max(low, start), min(high, end))


def widen_chunk(request: FreeTimesRequest, chunk: Interval, practice: Practice, days: bool = True) -> Interval:
    """The window whose Appointments and Slots decide about a chunk: whole local days, the visit's length, buffers.

    `days` False: not the days, which decide about the order and the most visits of a day alone.
    """
    low, high = chunk
    for calendar in (each for pool in request.pools for each in pool):
        rule = calendar.parameters
        reach = (rule.buffer_before + rule.buffer_after + (request.duration or rule.duration)) * MINUTE
        low, high = min(low, chunk.start - reach), max(high, chunk.end + reach)
    for zone in {calendar.zone for pool in request.pools for calendar in pool} if days else ():
        first, last = to_local(chunk.start, zone).date(), to_local(chunk.end - 1, zone).date()
        low, high = min(low, day_interval(first, zone).start), max(high, day_interval(last, zone).end)
    others = longest_buffer(practice) * MINUTE
    return Interval(low - others, high + others)


def compute_free_times(
    request: FreeTimesRequest, chunk: Interval, occupied: Occupied, position: Position | None = None
) -> Iterator[FreeTime]:
    """The free times of a chunk, lazily: by start, then fewest booked minutes that day, then Schedule.

    Each start is given once for every provider of the first pool who is free, together with the first free calendar of
    each other pool. With a position only what comes after it; when its Schedule is not among those free at that start
    any more, the start is given again as a whole, so that nothing is missed.
    """
    if not request.pools or not all(request.pools):
        return
    days = _Days(request, chunk, occupied)
    rows = merge(*(_list_candidates(calendar, days) for calendar in request.pools[0]))
    again: list[FreeTime] = []
    waiting = position is not None
    for start, _, _, calendar in rows:
        if position and start < position.start:
            continue
        found = _assign(calendar, start, days)
        if waiting and position and start > position.start:
            yield from again
            waiting = False
        if waiting and position and found and calendar.schedule == position.schedule:
            again, waiting = [], False
        elif found and waiting:
            again.append(found)
        elif found:
            yield found
    if waiting:
        yield from again


class _Days:
    """What has been computed of each calendar for one chunk: its windows and, by local day, its visits."""

    def __init__(self, request: FreeTimesRequest, chunk: Interval, occupied: Occupied) -> None:
        self.request, self.chunk, self.occupied = request, chunk, occupied
        longest = max(self.duration(each) for each in request.pools[0])
        self._reach = Interval(chunk.start, min(chunk.end + longest, request.window.end))
        self._windows: dict[str, list[Interval]] = {}
        self._visits: dict[tuple[str, date], tuple[int, int]] = {}

    def duration(self, calendar: Calendar) -> int:
        return (self.request.duration or calendar.parameters.duration) * MINUTE

    def windows(self, calendar: Calendar) -> list[Interval]:
        """What a visit may lie in, among those that start in the chunk."""
        if calendar.schedule not in self._windows:
            self._windows[calendar.schedule] = list_visit_windows(calendar, self._reach, self.occupied)
        return self._windows[calendar.schedule]

    def starts(self, calendar: Calendar) -> Interval:
        """From the first to after the last start that notice and horizon allow."""
        low = self.request.now + calendar.parameters.minimum_notice * MINUTE
        high = self.request.now + calendar.parameters.horizon * MINUTE
        return Interval(max(low, self.chunk.start), min(high + 1, self.chunk.end))

    def visits(self, calendar: Calendar, start: int) -> tuple[int, int]:
        day = to_local(start, calendar.zone).date()
        key = (calendar.schedule, day)
        if key not in self._visits:
            self._visits[key] = count_visits(calendar, start, self.occupied)
        return self._visits[key]

    def has_room(self, calendar: Calendar, start: int) -> bool:
        """Whether the day does not have its most visits yet."""
        most = calendar.parameters.most_per_day
        return most is None or self.visits(calendar, start)[1] < most


def count_visits(calendar: Calendar, start: int, occupied: Occupied) -> tuple[int, int]:
    """(booked µs, visits that `most_per_day` counts) of the actor on the local day of a start."""
    whole = day_interval(to_local(start, calendar.zone).date(), calendar.zone)
    own = [each for each in occupied.actors.get(calendar.actor, ()) if whole.start <= each.start < whole.end]
    types = calendar.parameters.most_per_day_types
    counted = sum(1 for each in own if each.capacity and (not types or types & each.types))
    return sum(each.end - each.start for each in own), counted


def list_visit_windows(calendar: Calendar, window: Interval, occupied: Occupied) -> list[Interval]:
    """The instants that a visit may cover: open, and its own buffers kept from what is full in this calendar."""
    rule = calendar.parameters
    opened = list_open_of(calendar, window, occupied.opened.get(calendar.schedule, ()))
    closed = occupied.closed.get(calendar.schedule, ())
    if closed:
        opened = subtract(opened, unite(closed))
    before, after = rule.buffer_before * MINUTE, rule.buffer_after * MINUTE
    near = _list_near(occupied.actors.get(calendar.actor, ()), window, max(before, after))
    if opened and near:
        full = find_full(near, rule.capacity)
        opened = subtract(opened, unite(Interval(low - after, high + before) for low, high in full))
    return opened


def _list_near(occupations: Sequence[Occupation], window: Interval, margin: int) -> Sequence[Occupation]:
    low, high = window.start - margin, window.end + margin
    return [each for each in occupations if each.low < high and each.high > low]


def _list_candidates(calendar: Calendar, days: _Days) -> Iterator[tuple[int, int, str, Calendar]]:
    """(start, booked µs that day, Schedule, calendar) of each start on the grid at which this calendar is free."""
    low, high = days.starts(calendar)
    if low >= high:
        return
    duration, rule = days.duration(calendar), calendar.parameters
    for start, end in days.windows(calendar):
        first, after = max(start, low), min(end - duration + 1, high)
        if first < after:
            for at in list_grid(Interval(first, after), rule.grid, calendar.zone):
                if days.has_room(calendar, at):
                    yield at, days.visits(calendar, at)[0], calendar.schedule, calendar


def _is_free(calendar: Calendar, visit: Interval, days: _Days) -> bool:
    low, high = days.starts(calendar)
    if not low <= visit.start < high:
        return False
    windows = days.windows(calendar)
    place = bisect_right(windows, (visit.start, 2**63)) - 1
    return place >= 0 and visit.end <= windows[place].end and days.has_room(calendar, visit.start)


def _assign(calendar: Calendar, start: int, days: _Days) -> FreeTime | None:
    """One free calendar out of each further pool, no actor twice."""
    visit = Interval(start, start + days.duration(calendar))
    chosen = _choose(days.request.pools[1:], visit, (calendar,), days)
    return FreeTime(*visit, chosen) if chosen else None


def _choose(
    pools: Sequence[Sequence[Calendar]], visit: Interval, chosen: tuple[Calendar, ...], days: _Days
) -> tuple[Calendar, ...] | None:
    if not pools:
        return chosen
    actors = {each.actor for each in chosen}
    free = [each for each in pools[0] if each.actor not in actors and _is_free(each, visit, days)]
    for calendar in sorted(free, key=lambda each: (days.visits(each, visit.start)[0], each.schedule)):
        if found := _choose(pools[1:], visit, (*chosen, calendar), days):
            return found
    return None


REASONS: Mapping[str, str] = {
    "closed": "Nobody of those asked for is open in this window.",
    "horizon": "The window is beyond the horizon up to which times are given.",
    "notice": "The window is nearer than the minimum notice, or past.",
    "capacity": "All places, or the most visits of the day, are taken.",
    "booked": "All times in this window are booked.",
}


def find_window_reasons(request: FreeTimesRequest) -> set[str]:
    """Keys of `REASONS` that the window alone gives, also where it has no chunk."""
    rules = [calendar.parameters for pool in request.pools for calendar in pool]
    reasons = set()
    if any(request.now + rule.minimum_notice * MINUTE > request.window.start for rule in rules):
        reasons.add("notice")
    if any(request.now + rule.horizon * MINUTE < request.window.end for rule in rules):
        reasons.add("horizon")
    return reasons


def find_reasons(request: FreeTimesRequest, chunk: Interval, occupied: Occupied) -> set[str]:
    """Keys of `REASONS`: why a chunk has no free time, over all calendars."""
    days, reasons = _Days(request, chunk, occupied), find_window_reasons(request)
    for calendar in (each for pool in request.pools for each in pool):
        rule = calendar.parameters
        low, high = days.starts(calendar)
        if low >= high:
            continue
        bounds = [Interval(low, high)]
        if not intersect(list_open_of(calendar, chunk, occupied.opened.get(calendar.schedule, ())), bounds):
            reasons.add("closed")
        elif next(_list_candidates(calendar, days), None) is None:
            some = next((start for start, end in intersect(days.windows(calendar), bounds)), None)
            most = some is not None and not days.has_room(calendar, some)
            reasons.add("capacity" if most or rule.capacity > 1 else "booked")
    return reasons or {"booked"}


def explain_nothing(reasons: set[str]) -> list[Issue]:
    """The issues of an OperationOutcome for a search that found no time."""
    return [Issue("information", "not-found", REASONS[each]) for each in REASONS if each in reasons]
