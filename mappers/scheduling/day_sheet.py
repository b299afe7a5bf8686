"""The sheet of a day at the front desk: who comes when, to whom and where, what is blocked, and what is still free."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from mappers.scheduling.calendars import Calendar, Practice, list_open_of
from mappers.scheduling.elements import (
    Directory,
    Resource,
    code_of,
    hold_expired,
    members,
    reference_of,
    target_of,
    texts,
)
from mappers.scheduling.free_times import FreeTimesRequest, compute_free_times
from mappers.scheduling.intervals import MINUTE, Interval, subtract, unite
from mappers.scheduling.occupied import Occupied, list_takings

_SHOWN = frozenset(("pending", "booked", "arrived", "checked-in", "fulfilled", "noshow"))
_PEOPLE = ("Practitioner/", "PractitionerRole/", "Device/")
_NOT_VISITING = frozenset(("blocked", "noshow"))


@dataclass(frozen=True, slots=True)
class SheetRequest:
    """The calendars of a sheet, what is stored around its days, and the names of all who take part."""

    calendars: tuple[Calendar, ...]
    appointments: tuple[Resource, ...]
    occupied: Occupied
    practice: Practice
    directory: Directory
    now: int


class Line(NamedTuple):
    """One visit or block of calendars: its time, who comes to whom, where, the status, what it is about."""

    schedules: tuple[str, ...]
    time: Interval
    whom: str
    patient: str
    place: str
    status: str
    about: str = ""


class Load(NamedTuple):
    """What a calendar has on a day: visits, their minutes, open minutes times the capacity, the next free start."""

    visits: int
    booked: int
    open: int
    free: int | None


def list_lines(request: SheetRequest, window: Interval) -> list[Line]:
    """The visits and blocks of a window by time; nothing that was called off, no hold that has expired."""
    schedules = {calendar.schedule for calendar in request.calendars}
    lines = []
    for appointment in request.appointments:
        status = code_of(appointment)
        if status not in _SHOWN or (status == "pending" and hold_expired(appointment, request.now)):
            continue
        takings = [each for each in list_takings(appointment, request.practice) if each.schedule]
        own = [each for each in takings if reference_of(each.schedule or {}) in schedules]
        if own and own[0].time.overlaps(window):
            people = [target_of(person.get("actor")) for person in members(appointment, "participant")]
            whom, who, where = (
                _name_all(people, kinds, request.directory) for kinds in (_PEOPLE, ("Patient/",), ("Location/",))
            )
            which = tuple(reference_of(each.schedule or {}) for each in own)
            lines.append(Line(which, own[0].time, whom, who, where, status, _describe(appointment)))
    for calendar in request.calendars:
        name = name_whole(calendar.actor, request.directory)
        blocks = [*request.occupied.actors.get(calendar.actor, ())]
        times = [Interval(each.start, each.end) for each in blocks if not each.capacity]
        times += request.occupied.closed.get(calendar.schedule, ())
        lines += [Line((calendar.schedule,), time, name, "", "", "blocked") for time in times if time.overlaps(window)]
    return sorted(lines, key=lambda each: (each.time, each.whom, each.patient))


def measure_load(request: SheetRequest, calendar: Calendar, day: Interval, lines: Iterable[Line]) -> Load:
    """How full a calendar is on a day, and when the next visit of its usual length can start."""
    opened = list_open_of(calendar, day, request.occupied.opened.get(calendar.schedule, ()))
    opened = subtract(opened, unite(request.occupied.closed.get(calendar.schedule, ())))
    visits = [
        each.time
        for each in lines
        if calendar.schedule in each.schedules and each.status not in _NOT_VISITING and each.time.overlaps(day)
    ]
    wanted = FreeTimesRequest(day, request.now, ((calendar,),))
    free = next(compute_free_times(wanted, day, request.occupied), None)
    return Load(
        len(visits),
        sum(end - start for start, end in visits) // MINUTE,
        sum(end - start for start, end in opened) // MINUTE * calendar.parameters.capacity,
        free.start if free else None,
    )


def name_whole(actor: str, directory: Directory) -> str:
    """The whole name of a person or thing, for those who work there; its reference where it has no name."""
    resource = directory.get(actor, {})
    if actor.startswith("PractitionerRole/"):
        return name_whole(target_of(resource.get("practitioner")) or actor, {**directory, actor: {}})
    human = next(iter(members(resource, "name")), None)
    if human is not None:
        whole = " ".join([*texts(human, "prefix"), *texts(human, "given"), str(human.get("family") or "")]).strip()
        return str(human.get("text") or whole or actor)
    name = resource.get("name")
    return name if isinstance(name, str) and name else actor


def _name_all(people: Iterable[str], kinds: tuple[str, ...], directory: Directory) -> str:
    return ", ".join(name_whole(each, directory) for each in people if each.startswith(kinds))


def _describe(appointment: Resource) -> str:
    """What the visit is about: the text or first code of its type, else its description."""
    concepts = [appointment.get("appointmentType"), *members(appointment, "serviceType")]
    for concept in (each for each in concepts if isinstance(each, dict)):
        codings = (str(each.get("display") or each.get("code") or "") for each in members(concept, "coding"))
        if found := str(concept.get("text") or next((each for each in codings if each), "")):
            return found
    return str(appointment.get("description") or "")
