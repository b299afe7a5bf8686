"""Free times out of what is stored: the days of a request are read one by one, until there are enough."""

from __future__ import annotations

import hmac
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import replace
from functools import partial
from hashlib import sha256

from fhir_server.fhir.datetimes import format_instant
from fhir_server.fhir.outcome import Issue
from fhir_server.requests.context import Context
from fhir_server.scheduling.site import site_of
from fhir_server.scheduling.surroundings import Wanted, read_all, read_surroundings
from fhir_server.security.access import Reader
from mappers.scheduling.calendars import Calendar, Practice, list_open_of, patient_calendar, takes_time
from mappers.scheduling.elements import Resource, list_types, members, reference_of
from mappers.scheduling.free_times import (
    FreeTime,
    FreeTimesRequest,
    Position,
    compute_free_times,
    find_reasons,
    find_window_reasons,
    list_chunks,
    widen_chunk,
)
from mappers.scheduling.intervals import DAY, HOUR, MINUTE, Interval
from mappers.scheduling.occupied import Occupied, list_takings
from mappers.scheduling.proposals import Knowledge
from mappers.scheduling.slots import make_schedule

MOST_FREE = 3
"""Free times that a refusal names."""

_NEAR = 14 * DAY
_MANY = 50
"""Calendars of which a day is read hour by hour, until there are enough free times."""


async def find_free_times(
    context: Context, request: FreeTimesRequest, practice: Practice, position: Position | None, reasons: set[str]
) -> AsyncIterator[FreeTime]:
    """The free times of a request, earliest first; `reasons` is filled with why days had none."""
    reasons |= find_window_reasons(request)
    many = bool(request.pools) and len(request.pools[0]) > _MANY
    for chunk in list_chunks(request, position):
        nothing, parts = True, _list_parts(request, chunk) if many else []
        async for time in _find_by_parts(context, request, parts, practice, position):
            nothing = False
            yield time
        if nothing:
            # days after one that was full are read as a whole
            many = many and (not parts or (position is not None and position.start >= chunk.start))
            occupied = await _read_occupied(context, request, widen_chunk(request, chunk, practice), practice)
            for time in compute_free_times(request, chunk, occupied, position):
                nothing = False
                yield time
            if nothing:
                reasons |= find_reasons(request, chunk, occupied)


def _list_parts(request: FreeTimesRequest, day: Interval) -> list[Interval]:
    """A day in parts: what is before the first opening, an hour from it, longer ones; none for a closed day."""
    opening = min((each.start for calendar in request.pools[0] for each in list_open_of(calendar, day)), default=None)
    if opening is None:
        return []
    parts = [Interval(day.start, opening)] if opening > day.start else []
    start, length = opening, HOUR
    while start < day.end:
        parts.append(Interval(start, min(start + length, day.end)))
        start, length = start + length, 2 * length
    return parts


async def _find_by_parts(
    context: Context,
    request: FreeTimesRequest,
    parts: Iterable[Interval],
    practice: Practice,
    position: Position | None,
) -> AsyncIterator[FreeTime]:
    """The free times of a day of many calendars, part by part.

    Whole days, by which those who are free at one time are put in order, are read of these alone.
    """
    alone = replace(request, pools=request.pools[:1])
    for part in parts:
        occupied = await _read_occupied(context, alone, widen_chunk(request, part, practice, days=False), practice)
        free = tuple(dict.fromkeys(each.calendars[0] for each in compute_free_times(alone, part, occupied)))
        if free:
            fewer = replace(request, pools=(free, *request.pools[1:]))
            occupied = await _read_occupied(context, fewer, widen_chunk(request, part, practice), practice)
            for time in compute_free_times(fewer, part, occupied, position):
                yield time


async def _read_occupied(context: Context, request: FreeTimesRequest, window: Interval, practice: Practice) -> Occupied:
    """What is occupied of the calendars of a request in a window."""
    actors = {calendar.actor for pool in request.pools for calendar in pool}
    find = partial(read_unseen, context)
    return (await read_surroundings(find, actors, window, practice, request.now, stored=True)).occupied


async def read_unseen(context: Context, wanted: Wanted) -> list[Resource]:
    """All resources that match, whoever asks: what is hidden takes its time as well. Raises TooCostly for too many."""
    return await read_all(Reader(context.unrestricted, None), wanted)


def list_calendars(
    context: Context, schedules: Iterable[Resource], types: frozenset[str], practice: Practice
) -> tuple[list[Calendar], list[Issue]]:
    """The calendars of the Schedules by id, and what is wrong with those that have none."""
    found, issues = [], []
    for schedule in sorted(schedules, key=reference_of):
        calendar, wrong = site_of(context).build_calendar(schedule, types, practice)
        if calendar is None:
            issues += wrong
        else:
            found.append(calendar)
    return found, issues


def add_rooms(context: Context, rooms: Iterable[str], practice: Practice) -> Practice:
    """The practice with a Schedule for each of these actors that has none yet; it is made when it is booked."""
    made = [make_schedule(room) for room in rooms if room not in practice.schedules]
    return site_of(context).lay_over(practice, {reference_of(each): each for each in made})


def list_bare_rooms(practice: Practice) -> list[str]:
    """Rooms without a Schedule."""
    return [
        name
        for name in practice.directory
        if name.startswith("Location/") and name not in practice.schedules and takes_time(name, practice)
    ]


async def list_alternatives(context: Context, appointment: Resource, practice: Practice) -> list[FreeTime]:
    """The next times from the start of an Appointment at which those whom it names are free."""
    takings = list_takings(appointment, practice)
    if not takings:
        return []
    types, now = list_types(appointment), context.clock()
    pools: list[tuple[Calendar, ...]] = []
    for taking in sorted(takings, key=lambda each: each.actor.startswith("Patient/")):
        if taking.schedule is not None:
            pools.append(tuple(list_calendars(context, [taking.schedule], types, practice)[0]))
        elif taking.actor.startswith("Patient/"):
            pools.append((patient_calendar(taking.actor),))
    time = takings[0].time
    window = Interval(max(time.start, now), max(time.start, now) + _NEAR)
    request = FreeTimesRequest(window, now, tuple(pools), (time.end - time.start) // MINUTE or 1)
    found: list[FreeTime] = []
    async for free in find_free_times(context, request, practice, None, set()):
        found.append(free)
        if len(found) == MOST_FREE:
            break
    return found


def explain_alternatives(times: Sequence[FreeTime]) -> Issue:
    """The next free times as an issue."""
    if not times:
        return Issue("information", "informational", "No free time was found in the next 14 days.")
    listed = ", ".join(f"{format_instant(each.start)} ({each.calendars[0].schedule})" for each in times)
    return Issue("information", "informational", f"Free instead: {listed}.")


def proposal_key(context: Context) -> bytes:
    """The key of proposals; it follows from the store's, and is the same in every process."""
    return hmac.digest(context.page_key, b"proposed appointments", sha256)


def know_proposals(context: Context, practice: Practice, patient: str) -> Knowledge:
    """What the ids of proposals are read with."""
    schedules = [name for name in practice.directory if name.startswith("Schedule/")]
    schedules += [reference_of(make_schedule(room)) for room in list_bare_rooms(practice)]
    types = {frozenset((each,)) for each in list_known_types(practice)}
    return Knowledge(proposal_key(context), tuple(schedules), tuple(types), patient)


def list_known_types(practice: Practice) -> set[str]:
    """`system|code` of every appointment type that the site speaks of."""
    found = {each for rows in practice.rows.values() for row in rows for each in row.types}
    for resource in practice.directory.values():
        if resource["resourceType"] in ("Schedule", "HealthcareService"):
            found |= list_types(resource)
    return found


def list_healthcare(schedule: Resource) -> set[str]:
    """The HealthcareServices that a Schedule names."""
    actors = (actor.get("reference", "") for actor in members(schedule, "actor"))
    return {actor for actor in actors if actor.startswith("HealthcareService/")}
