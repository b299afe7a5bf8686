"""Occupied time: occupying Appointments, and busy Slots that none names (https://hl7.org/fhir/R4/slot.html)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from fhir_server.fhir.outcome import Issue
from mappers.scheduling.calendars import Practice, find_schedule, owner_of, parameters_of, takes_time
from mappers.scheduling.elements import (
    AFTER_ALL,
    BEFORE_ALL,
    Resource,
    code_of,
    extension_value,
    hold_expired,
    list_types,
    members,
    person_of,
    read_instant,
    read_period,
    read_times,
    reference_of,
    slot_origin,
    target_of,
)
from mappers.scheduling.extensions import HOLD_EXPIRES
from mappers.scheduling.intervals import MINUTE, Interval, unite
from mappers.scheduling.parameters import SchedulingParameters

OCCUPYING = frozenset(("pending", "booked", "arrived", "checked-in", "fulfilled"))
_ONE_AT_A_TIME = SchedulingParameters()


class Occupation(NamedTuple):
    """One visit or block of an actor.

    `low` to `high` is its time with its buffers. `capacity` is how many it lets be there at once, itself included; a
    busy Slot without Appointment lets nobody (0). A request (`firm` false) is a pending Appointment without a hold.
    """

    start: int
    end: int
    low: int
    high: int
    capacity: int
    reference: str
    types: frozenset[str] = frozenset()
    firm: bool = True


class Occupied(NamedTuple):
    """Occupations by actor; by Schedule, what Slots of the site close (`busy-unavailable`) and open (`free`)."""

    actors: Mapping[str, Sequence[Occupation]] = MappingProxyType({})
    closed: Mapping[str, Sequence[Interval]] = MappingProxyType({})
    opened: Mapping[str, Sequence[Interval]] = MappingProxyType({})


class Taking(NamedTuple):
    """One actor of an Appointment: when, by which Schedule (None: none) and by which parameters."""

    actor: str
    time: Interval
    schedule: Resource | None
    parameters: SchedulingParameters
    position: int
    types: frozenset[str]


class _Part(NamedTuple):
    """What of a participant does not depend on the time."""

    actor: str
    schedule: Resource | None
    parameters: SchedulingParameters


_LAST, _REMEMBERED = "last takings", "stored versions"
_MOST_REMEMBERED = 50_000
"""Versions of Appointments whose occupied time is kept: some 30 MB."""


def list_takings(appointment: Resource, practice: Practice) -> list[Taking]:
    """The participants whose time an Appointment takes, not those who declined; each person, device and room once."""
    memo = practice.memo  # what many Appointments have in common
    last = memo.get(_LAST)
    if last is not None and last[0] is appointment:  # one Appointment is asked about in several places
        return list(last[1])
    found = _list_takings(appointment, practice)
    memo[_LAST] = (appointment, found)
    return list(found)


def _list_takings(appointment: Resource, practice: Practice) -> list[Taking]:
    memo = practice.memo
    time = read_times(appointment)
    if isinstance(time, Issue):
        return []
    people = members(appointment, "participant")
    actors = [target_of(person.get("actor")) for person in people]
    types = list_types(appointment)
    others = tuple(actor for actor in actors if not actor.startswith("Patient/"))
    takings: dict[str, Taking] = {}
    for position, (person, reference) in enumerate(zip(people, actors, strict=True)):
        if reference.startswith("Patient/"):
            part: _Part | None = _Part(reference, None, _ONE_AT_A_TIME)
        else:
            key = (reference, others, types)
            if key not in memo:
                memo[key] = _resolve(*key, practice)
            part = memo[key]
        if part is None or part.actor in takings or code_of(person) == "declined":
            continue
        own = _narrow(time, read_period(person["period"])) if "period" in person else time
        takings[part.actor] = Taking(part.actor, own, part.schedule, part.parameters, position, types)
    return list(takings.values())


def _resolve(reference: str, others: tuple[str, ...], types: frozenset[str], practice: Practice) -> _Part | None:
    """The actor behind a reference, its Schedule and what holds for these types; None for what takes no time."""
    if not takes_time(reference, practice):
        return None
    schedule = find_schedule(reference, others, practice)
    parameters = parameters_of(schedule, types, practice) if schedule else _ONE_AT_A_TIME
    return _Part(person_of(reference, practice.directory), schedule, parameters)


def _narrow(time: Interval, own: Interval | None) -> Interval:
    """The participant's own period where it lies inside the Appointment's time."""
    if own is None or not own.overlaps(time):
        return time
    return Interval(max(time.start, own.start), min(time.end, own.end))


def reserve(time: Interval, parameters: SchedulingParameters) -> Interval:
    """A visit's time with its buffers."""
    before, after = parameters.buffer_before, parameters.buffer_after
    return Interval(time.start - before * MINUTE, time.end + after * MINUTE) if before or after else time


def is_request(appointment: Resource) -> bool:
    """Whether a pending Appointment is a request: several may ask for one time, until one of them is booked."""
    return code_of(appointment) == "pending" and extension_value(appointment, HOLD_EXPIRES) is None


def occupies(appointment: Resource, now: int) -> bool:
    """Whether the status takes time, and no hold has expired."""
    status = code_of(appointment)
    return status in OCCUPYING and not (status == "pending" and hold_expired(appointment, now))


class _Occupying(NamedTuple):
    """What an Appointment in an occupying status takes: of whom, which Slots it names, until when a hold lasts."""

    entries: tuple[tuple[str, Occupation], ...]
    slots: tuple[str, ...]
    until: int | None


def list_occupied(
    appointments: Iterable[Resource],
    slots: Iterable[Resource],
    practice: Practice,
    now: int,
    window: Interval | None = None,
    stored: bool = False,
) -> Occupied:
    """Occupied time out of the Appointments and Slots that touch a window.

    What does not touch the window, where one is given, is left out; the window includes all buffers. `stored`: the
    Appointments come from the store as they are, so that what follows from a version is remembered.
    `appointments` has to hold every occupying Appointment and hold that names one of the `slots`: such Slots say
    nothing of their own. A busy Slot that only a cancelled Appointment still names is the site's word, and counts.
    """
    actors: dict[str, list[Occupation]] = defaultdict(list)
    named: set[str] = set()
    low, high = window or Interval(BEFORE_ALL, AFTER_ALL)
    for appointment in appointments:
        found = _recall(appointment, practice) if stored else _read_occupying(appointment, practice)
        if found is None:
            continue
        named.update(found.slots)
        if found.until is None or found.until > now:
            for actor, entry in found.entries:
                if entry.low < high and low < entry.high:
                    actors[actor].append(entry)
    closed, opened = _read_slots((slot for slot in slots if reference_of(slot) not in named), practice, now, actors)
    return Occupied(
        {actor: sorted(group, key=lambda each: each[:4]) for actor, group in actors.items()}, closed, opened
    )


def _read_slots(
    slots: Iterable[Resource], practice: Practice, now: int, actors: dict[str, list[Occupation]]
) -> tuple[dict[str, list[Interval]], dict[str, list[Interval]]]:
    """What Slots without Appointment close and open, by Schedule; busy ones are added to those of the actors."""
    closed: dict[str, list[Interval]] = defaultdict(list)
    opened: dict[str, list[Interval]] = defaultdict(list)
    for slot in slots:
        own, status, times = target_of(slot.get("schedule")), code_of(slot), read_times(slot)
        if isinstance(times, Issue):
            continue
        if status == "busy-unavailable":
            closed[own].append(times)
        elif status == "busy" or (status == "busy-tentative" and not hold_expired(slot, now)):
            schedule = practice.directory.get(own)
            actor = owner_of(schedule, practice.directory) if schedule else own
            actors[actor].append(Occupation(*times, *times, 0, reference_of(slot)))
        elif status == "free" and slot_origin(slot) != "published":
            opened[own].append(times)
    return closed, opened


def _recall(appointment: Resource, practice: Practice) -> _Occupying | None:
    """What a stored version takes, worked out once for a practice as it is now."""
    remembered: dict[object, _Occupying | None] = practice.memo.setdefault(_REMEMBERED, {})
    meta = appointment.get("meta") or {}
    if "versionId" not in meta:  # about to be written
        return _read_occupying(appointment, practice)
    key = (appointment.get("id"), meta["versionId"], meta.get("lastUpdated"))
    if key not in remembered:
        if len(remembered) >= _MOST_REMEMBERED:
            remembered.clear()
        remembered[key] = _read_occupying(appointment, practice)
    return remembered[key]


def _read_occupying(appointment: Resource, practice: Practice) -> _Occupying | None:
    """None for an Appointment whose status takes no time."""
    if code_of(appointment) not in OCCUPYING:
        return None
    reference, firm = reference_of(appointment), not is_request(appointment)
    entries = []
    for actor, time, _, parameters, _, types in _list_takings(appointment, practice):
        low, high = reserve(time, parameters)
        entries.append((actor, Occupation(*time, low, high, parameters.capacity, reference, types, firm)))
    until = read_instant(extension_value(appointment, HOLD_EXPIRES)) if code_of(appointment) == "pending" else None
    return _Occupying(tuple(entries), tuple(target_of(slot) for slot in members(appointment, "slot")), until)


def find_full(occupations: Sequence[Occupation], capacity: int) -> list[Interval]:
    """When one more visit, which lets `capacity` be there at once, does not fit, buffers included; united.

    What `$find` and the clash check share: at no instant are there more than the least capacity of those there.
    """
    if capacity <= 1:
        return unite(Interval(each.low, each.high) for each in occupations)
    events = sorted(
        [(each.low, 1, each.capacity) for each in occupations]
        + [(each.high, -1, each.capacity) for each in occupations]
    )
    full: list[Interval] = []
    there: Counter[int] = Counter()
    since = 0
    for at, change, allowed in events:
        if at > since and there and there.total() >= min(capacity, *there):
            full.append(Interval(since, at))
        there[allowed] += change
        if not there[allowed]:
            del there[allowed]
        since = at
    return unite(full)
