"""What is stored around a time of some actors: the Appointments and Slots that decide whether it is taken.

Appointments and Slots are found by actor or Schedule and their start, which lies within the length of a usual visit
before the window; those that are longer carry a tag by which they are found as well.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple, Protocol

import orjson

from fhir_server.fhir.outcome import TooCostly
from fhir_server.fhir.urls import code_system_url
from fhir_server.search.entries import SEPARATOR
from fhir_server.search.query import And, Bound, Clause, DateRange, Equals, Not, Or, Query, Scope
from fhir_server.security.access import Reader
from mappers.scheduling.calendars import Practice, longest_buffer
from mappers.scheduling.elements import Resource, code_of, members, read_span, reference_of, slot_origin, target_of
from mappers.scheduling.intervals import DAY, MINUTE, Interval
from mappers.scheduling.occupied import OCCUPYING, Occupied, list_occupied

# Visits of at most this length are found by their start alone; the others are few.
_USUAL = 2 * 60 * MINUTE
LONGEST = 366 * DAY
MOST_READ = 100_000
"""Resources of a type that one request may read."""
_MOST_LOOKED_AT = 500
"""Appointments and Slots of an actor's day, or of all days of a patient, that are looked at as a whole."""
_MOST_APART = 8
"""Actors that are asked about one by one."""
_PAGE, _PAGE_BYTES = 20_000, 32 * 1024 * 1024
_SYSTEM, _LONG, _MADE, _PUBLISHED = code_system_url("booking"), "long", "made", "published"
_OURS = (_LONG, _MADE, _PUBLISHED)
_TAG_OF_ORIGIN = {"booking": _MADE, "published": _PUBLISHED}
PUBLISHED = Equals("_tag", (f"{_PUBLISHED}{SEPARATOR}{_SYSTEM}",))
"""The Slots that this server publishes."""
_BUSY = frozenset(("busy", "busy-tentative", "busy-unavailable"))

Wanted = Mapping[str, Clause]
"""Resource type → what is looked for among its resources."""

Find = Callable[[Wanted], Awaitable[Sequence[Resource]]]
"""All resources that match, of each type, out of one state of the store."""


class Look(Protocol):
    """Asks for all that matches a query; `apart`: actor by actor, as each is asked for again and again."""

    apart: bool

    async def ask(self, query: Query) -> Sequence[Resource] | None:
        """All that match, out of one state of the store; None where these are more than the query counts."""
        ...


class Surroundings(NamedTuple):
    """Appointments and Slots around a time, and what they occupy."""

    appointments: tuple[Resource, ...] = ()
    slots: tuple[Resource, ...] = ()
    occupied: Occupied = Occupied()


_NOTHING = Surroundings()


def tag(resource: Resource) -> Resource:
    """An Appointment or Slot with the tags by which it is found: `long`, and for our own Slots `made`, `published`."""
    times, meta = read_span(resource), resource.get("meta") or {}
    wanted = {_LONG} if times is not None and times.end - times.start > _USUAL else set()
    if resource["resourceType"] == "Slot" and (of_ours := _TAG_OF_ORIGIN.get(slot_origin(resource))):
        wanted.add(of_ours)
    tags = members(meta, "tag")
    if not (tags or wanted):
        return resource
    own = [each for each in tags if each.get("system") == _SYSTEM and each.get("code") in _OURS]
    if tags and {each["code"] for each in own} == wanted:
        return resource
    tags = [each for each in tags if each not in own] + [{"system": _SYSTEM, "code": code} for code in sorted(wanted)]
    meta = {**meta, "tag": tags} if tags else {name: value for name, value in meta.items() if name != "tag"}
    # in the usual order, as the parts of such a text are found quickly
    first: Resource = {name: resource[name] for name in ("resourceType", "id") if name in resource}
    return {**first, "meta": meta, **{name: value for name, value in resource.items() if name not in (*first, "meta")}}


def list_references(actors: Iterable[str], practice: Practice) -> tuple[str, ...]:
    """The actors, and of each person also the roles by which Appointments may name it."""
    found: dict[str, None] = {}
    for actor in actors:
        found[actor] = None
        found.update((reference_of(role), None) for role in practice.roles.get(actor, ()))
    return tuple(found)


def list_schedules(actors: Iterable[str], practice: Practice) -> tuple[str, ...]:
    """The Schedules of the actors."""
    return tuple(reference_of(each) for actor in actors for each in practice.schedules.get(actor, ()))


def _list_names(group: tuple[str, ...], practice: Practice) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """`list_references` and `list_schedules`, worked out once for an actor that has a Schedule."""
    key = ("names", group)
    names: tuple[tuple[str, ...], tuple[str, ...]] | None = practice.memo.get(key)
    if names is None:
        names = list_references(group, practice), list_schedules(group, practice)
        if names[1] and len(group) == 1:
            practice.memo[key] = names
    return names


async def read_all(reader: Reader, wanted: Wanted, most: int = MOST_READ) -> list[Resource]:
    """All resources that match. Raises TooCostly for more than `most`."""
    found: list[Resource] = []
    scopes = tuple(Scope(type, where) for type, where in wanted.items())
    query: Query | None = Query(scopes, count=_PAGE, most_bytes=_PAGE_BYTES)
    while query is not None:
        page = await reader.search(query)
        found += [orjson.loads(match.raw or b"{}") for match in page.matches]
        if len(found) > most:
            types = " and ".join(f"`{type}`" for type in wanted)
            raise TooCostly(f"More than {most} resources of type {types} would have to be read; narrow the request.")
        query = Query(scopes, count=_PAGE, after=page.next, most_bytes=_PAGE_BYTES) if page.next is not None else None
    return found


async def read_surroundings(
    find: Find, actors: Iterable[str], window: Interval, practice: Practice, now: int, stored: bool = False
) -> Surroundings:
    """All Appointments and Slots of the actors that overlap the window; `stored`: as in `list_occupied`."""
    people = list(dict.fromkeys(actors))
    found = await find(_build_wanted(list_references(people, practice), list_schedules(people, practice), window))
    return await _complete(find, found, practice, now, window, stored)


def _build_wanted(references: tuple[str, ...], schedules: tuple[str, ...], window: Interval) -> dict[str, Clause]:
    wanted: dict[str, Clause] = {"Appointment": And((Equals("actor", references), _overlapping("date", window)))}
    if schedules:
        # the Slots that bookings made say nothing beside their Appointments
        others = Not(Equals("_tag", (f"{_MADE}{SEPARATOR}{_SYSTEM}",)))
        wanted["Slot"] = And((others, Equals("schedule", schedules), _overlapping("start", window)))
    return wanted


@lru_cache(4096)
def _build_query(references: tuple[str, ...], schedules: tuple[str, ...], start: int, end: int) -> Query:
    """What is looked for of an actor from one midnight to another; built once, as it is asked often."""
    wanted = _build_wanted(references, schedules, Interval(start, end))
    scopes = tuple(Scope(type, where) for type, where in wanted.items())
    return Query(scopes, count=_MOST_LOOKED_AT, brief=True)


@lru_cache(4096)
def _build_query_of_all(references: tuple[str, ...]) -> Query:
    """All Appointments of an actor without a Schedule, such as a patient, who has few of them."""
    return Query((Scope("Appointment", Equals("actor", references)),), count=_MOST_LOOKED_AT, brief=True)


async def _complete(
    find: Find, found: Iterable[Resource], practice: Practice, now: int, window: Interval, stored: bool
) -> Surroundings:
    """With the Appointments that name the busy Slots, and what all of them occupy."""
    appointments: list[Resource] = []
    slots: list[Resource] = []
    for each in found:
        (slots if each["resourceType"] == "Slot" else appointments).append(each)
    if bare := _list_bare(slots, appointments):
        known = {reference_of(each) for each in appointments}
        naming = await find({"Appointment": Equals("slot", bare)})
        appointments += [each for each in naming if reference_of(each) not in known]
    occupied = list_occupied(appointments, slots, practice, now, window, stored)
    return Surroundings(tuple(appointments), tuple(slots), occupied)


async def read_days(
    look: Look, find: Find, actors: Iterable[str], window: Interval, practice: Practice, now: int
) -> Surroundings:
    """As `read_surroundings`, but each actor's whole days are looked at, which many bookings ask for alike.

    Of a patient all days are. Where there is more than may be looked at, that is narrowed to the window.
    """
    people = tuple(dict.fromkeys(actors))
    groups = [(each,) for each in people] if look.apart and len(people) <= _MOST_APART else [people]
    start, end = window.start // DAY * DAY, -(-window.end // DAY) * DAY
    found: list[Resource] = []
    for group in groups:
        references, schedules = _list_names(group, practice)
        alone = look.apart and not schedules
        query = _build_query_of_all(references) if alone else _build_query(references, schedules, start, end)
        trees = await look.ask(query)
        if trees is None:
            return await read_surroundings(find, people, window, practice, now)
        found += trees
    if len(groups) > 1:
        found = list({reference_of(tree): tree for tree in found}.values())
    near = _list_near(found, window, longest_buffer(practice) * MINUTE)
    if not near:
        return _NOTHING
    return await _complete(find, near, practice, now, window, stored=True)


def _list_near(found: Sequence[Resource], window: Interval, buffer: int) -> list[Resource]:
    """The Slots that touch the window; of Appointments those that do with a buffer, all where there are such Slots."""
    low, high = window.start - buffer, window.end + buffer
    near = [each for each in found if (times := read_span(each)) and times[0] < high and low < times[1]]
    slots = [each for each in near if each["resourceType"] == "Slot" and _touches(each, window)]
    if slots:
        return [*slots, *(each for each in found if each["resourceType"] == "Appointment")]
    return [each for each in near if each["resourceType"] == "Appointment"]


def _touches(resource: Resource, window: Interval) -> bool:
    times = read_span(resource)
    return times is not None and times.overlaps(window)


def _list_bare(slots: Iterable[Resource], appointments: Iterable[Resource]) -> tuple[str, ...]:
    """The busy Slots that none of the occupying Appointments names."""
    busy = [reference_of(slot) for slot in slots if code_of(slot) in _BUSY]
    if not busy:
        return ()
    named = {target_of(slot) for each in appointments if code_of(each) in OCCUPYING for slot in members(each, "slot")}
    return tuple(name for name in busy if name not in named)


def _overlapping(parameter: str, window: Interval) -> Clause:
    """What can overlap the window: it starts shortly before its end, or is long and starts at most a year before it."""
    usual, long = (
        DateRange(parameter, (Bound("low", "ge", window.start - length), Bound("low", "lt", window.end)))
        for length in (_USUAL, LONGEST)
    )
    return Or((usual, And((long, Equals("_tag", (f"{_LONG}{SEPARATOR}{_SYSTEM}",))))))
