"""Calendars: one Schedule with its actor, zone, parameters and hours (https://hl7.org/fhir/R4/schedule.html)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, tzinfo
from typing import Any

from fhir_server.fhir.outcome import Issue
from mappers.scheduling.elements import (
    Directory,
    Resource,
    code_of,
    members,
    person_of,
    read_period,
    reference_of,
    target_of,
)
from mappers.scheduling.extensions import TIME_ZONE
from mappers.scheduling.hours import Holiday, Hours, list_open_of_all, read_hours
from mappers.scheduling.intervals import Interval, intersect, unite
from mappers.scheduling.parameters import ParameterRow, SchedulingParameters, read_parameters, resolve_parameters
from mappers.scheduling.wall_clock import read_zone

# The actor whose time a Schedule is, when it names several: a clinic named beside a practitioner is only the place.
_OWNERS = ("Practitioner", "PractitionerRole", "Device", "Location", "HealthcareService")
# Codes of https://hl7.org/fhir/R4/valueset-location-physical-type.html for what holds one visit at a time.
_ROOMS = frozenset(("ro", "bd", "ca", "ve"))
# In minutes; more than any window.
_FOR_EVER = 100 * 366 * 1440
_OPEN_WITHOUT_HOURS = frozenset(("Location", "Device"))
_WALL_CLOCK = ("hoursOfOperation", "availableTime", "notAvailable")


@dataclass(frozen=True, slots=True)
class Practice:
    """All that the rules look up: resources by reference, Schedules and roles by actor, parameter rows, settings."""

    directory: Directory
    schedules: Mapping[str, tuple[Resource, ...]]
    rows: Mapping[str, tuple[ParameterRow, ...]]
    default: SchedulingParameters
    holidays: tuple[Holiday, ...] = ()
    roles: Mapping[str, tuple[Resource, ...]] = field(default_factory=dict)
    memo: dict[object, Any] = field(default_factory=dict, compare=False, repr=False)
    """What was derived from the above once: it follows from it, and from nothing else."""


@dataclass(frozen=True, slots=True)
class Calendar:
    """When an actor can be visited by one Schedule; `ways` are alternatives, each of hours that hold together."""

    schedule: str
    actor: str
    zone: tzinfo
    parameters: SchedulingParameters
    ways: tuple[tuple[Hours, ...], ...] = ((),)
    horizon: Interval | None = None


def read_practice(
    resources: Iterable[Resource], default: SchedulingParameters, holidays: Sequence[Holiday] = ()
) -> tuple[Practice, list[Issue]]:
    """Schedules, roles, practitioners, locations, devices and services of a site; `default` comes from the settings."""
    directory = {reference_of(each): each for each in resources}
    schedules: dict[str, list[Resource]] = defaultdict(list)
    roles: dict[str, list[Resource]] = defaultdict(list)
    rows: dict[str, tuple[ParameterRow, ...]] = {}
    issues: list[Issue] = []
    for reference, resource in sorted(directory.items()):
        if resource.get("extension") and resource["resourceType"] in ("Schedule", "Location", "HealthcareService"):
            read, wrong = read_parameters(resource)
            rows[reference], issues = tuple(read), issues + wrong
        if resource.get("resourceType") == "Schedule":
            schedules[owner_of(resource, directory)].append(resource)
        if resource.get("resourceType") == "PractitionerRole":
            roles[target_of(resource.get("practitioner"))].append(resource)
    by_actor, by_person = ({name: tuple(group) for name, group in each.items()} for each in (schedules, roles))
    return Practice(directory, by_actor, rows, default, tuple(holidays), by_person), issues


def longest_buffer(practice: Practice) -> int:
    """The longest buffer of any visit, in minutes: so far the visits beside a window can reach into it."""
    if "longest buffer" not in practice.memo:
        names = ("buffer_before", "buffer_after")
        buffers = [row.values.get(name, 0) for rows in practice.rows.values() for row in rows for name in names]
        practice.memo["longest buffer"] = max(practice.default.buffer_before, practice.default.buffer_after, *buffers)
    longest: int = practice.memo["longest buffer"]
    return longest


def list_actors(schedule: Resource) -> list[str]:
    """The references of `Schedule.actor`."""
    return [target for actor in members(schedule, "actor") if (target := target_of(actor))]


def owner_of(schedule: Resource, directory: Directory) -> str:
    """The actor whose time the Schedule is: its practitioner, else device, else place, else service."""
    actors = list_actors(schedule)
    ranked = sorted(actors, key=lambda actor: _OWNERS.index(kind) if (kind := actor.split("/")[0]) in _OWNERS else 9)
    return person_of(ranked[0], directory) if ranked else ""


def takes_time(actor: str, practice: Practice) -> bool:
    """Whether visits of this participant clash: people, devices, rooms, other places with a Schedule of their own."""
    kind = actor.split("/")[0]
    if kind == "Location":
        codings = members(practice.directory.get(actor, {}).get("physicalType"), "coding")
        return actor in practice.schedules or any(code_of(coding, "code") in _ROOMS for coding in codings)
    return kind in ("Practitioner", "PractitionerRole", "Device", "Patient")


def find_schedule(actor: str, participants: Iterable[str], practice: Practice) -> Resource | None:
    """The Schedule by which an actor takes part: of the actor's, the one that names most participants, then by id."""
    everyone = set(participants) | {actor}
    own = practice.schedules.get(person_of(actor, practice.directory), ())
    return max(own, key=lambda each: len(everyone.intersection(list_actors(each))), default=None)


def _list_places(schedule: Resource, roles: Sequence[Resource]) -> list[str]:
    """Locations, then services: those the Schedule names, and those of its roles that have only one."""
    actors = list_actors(schedule)
    found = [actor for actor in actors if actor.startswith("Location/")]
    for role in roles:
        if len(members(role, "location")) == 1:
            found.append(target_of(role["location"][0]))
    found += [actor for actor in actors if actor.startswith("HealthcareService/")]
    for role in roles:
        if len(members(role, "healthcareService")) == 1:
            found.append(target_of(role["healthcareService"][0]))
    return list(dict.fromkeys(place for place in found if place))


def parameters_of(schedule: Resource, types: frozenset[str], practice: Practice) -> SchedulingParameters:
    """What holds for these appointment types in this Schedule; the zone: Schedule, else Location, else service."""
    roles = [
        practice.directory.get(actor, {}) for actor in list_actors(schedule) if actor.startswith("PractitionerRole/")
    ]
    order = [reference_of(schedule), *_list_places(schedule, roles)]
    return resolve_parameters([practice.rows.get(each, ()) for each in order], types, practice.default)


def build_calendar(
    schedule: Resource, types: frozenset[str], practice: Practice
) -> tuple[Calendar | None, list[Issue]]:
    """The calendar of a Schedule for these appointment types, and what is wrong; None when no zone is known."""
    reference = reference_of(schedule)
    parameters = parameters_of(schedule, types, practice)
    if not parameters.zone and _needs_no_zone(schedule, practice):
        parameters = replace(parameters, zone="UTC", grid=1)
    if not parameters.zone:
        text = (
            f"No time zone is known for `{reference}`: give the Schedule, its Location or its HealthcareService "
            f"the extension `{TIME_ZONE}`, or set the zone of the practice."
        )
        return None, [Issue("error", "required", text, ("Schedule.extension",))]
    zone = read_zone(parameters.zone, "Schedule.extension")
    if isinstance(zone, Issue):
        return None, [zone]
    issues: list[Issue] = []
    ways = []
    for roles in _list_ways(schedule, practice):
        sources = [*roles, *(practice.directory.get(place, {}) for place in _list_places(schedule, roles))]
        every = []
        for source in sources:
            hours, wrong = read_hours(source, _zone_of(source, zone, practice), practice.holidays)
            every.append(hours)
            issues += wrong
        owner = owner_of(schedule, practice.directory)
        if any(hours.week for hours in every) or owner.split("/")[0] in _OPEN_WITHOUT_HOURS:
            ways.append((*every, _holidays_of(reference, zone, practice)))
    horizon = read_period(schedule.get("planningHorizon"), zone) if "planningHorizon" in schedule else None
    owner = owner_of(schedule, practice.directory)
    return Calendar(reference, owner, zone, parameters, tuple(ways), horizon), issues


def _needs_no_zone(schedule: Resource, practice: Practice) -> bool:
    """Whether nothing is on the wall clock: a room or device of which nobody says hours."""
    if owner_of(schedule, practice.directory).split("/")[0] not in _OPEN_WITHOUT_HOURS or practice.holidays:
        return False
    places = (practice.directory.get(place, {}) for place in _list_places(schedule, ()))
    return not any(name in place for place in places for name in _WALL_CLOCK)


def _list_ways(schedule: Resource, practice: Practice) -> list[list[Resource]]:
    """The roles that the Schedule names; where it names only the practitioner, each role of that person is a way."""
    named = [
        practice.directory[a]
        for a in list_actors(schedule)
        if a.startswith("PractitionerRole/") and a in practice.directory
    ]
    owner = owner_of(schedule, practice.directory)
    if named or not owner.startswith("Practitioner/"):
        return [named]
    places = {actor for actor in list_actors(schedule) if actor.startswith("Location/")}
    ways = []
    for resource in practice.roles.get(owner, ()):
        at = {target_of(place) for place in members(resource, "location")}
        if not places or not at or places & at:
            ways.append([resource])
    return ways or [[]]


def _zone_of(source: Resource, zone: tzinfo, practice: Practice) -> tzinfo:
    """A place that says its own zone has its hours in that zone."""
    if source.get("resourceType") == "PractitionerRole":
        return zone
    for row in practice.rows.get(reference_of(source), ()):
        if not row.types and "zone" in row.values:
            own = read_zone(row.values["zone"], "extension")
            return zone if isinstance(own, Issue) else own
    return zone


def _holidays_of(reference: str, zone: tzinfo, practice: Practice) -> Hours:
    """Holidays of all and of this Schedule."""
    days: frozenset[date] = frozenset(each.day for each in practice.holidays if each.scope in ("", reference))
    return Hours(zone, None, (), days)


def patient_calendar(patient: str, zone: tzinfo = UTC) -> Calendar:
    """A patient has no hours, no buffers and no Schedule, and can be at one place at a time."""
    return Calendar(f"Schedule/-{patient}", patient, zone, SchedulingParameters(grid=1, horizon=_FOR_EVER))


def list_open_of(calendar: Calendar, window: Interval, opened: Iterable[Interval] = ()) -> list[Interval]:
    """When the calendar is open in a window: by one of its ways, or by a free Slot of the site."""
    opened = list(opened)
    if len(calendar.ways) == 1 and not opened and not calendar.horizon:  # most: united already
        return list(list_open_of_all(calendar.ways[0], window))
    hours = [part for way in calendar.ways for part in list_open_of_all(way, window)]
    hours += [Interval(max(each.start, window.start), min(each.end, window.end)) for each in opened]
    found = unite(hours)
    return intersect(found, [calendar.horizon]) if calendar.horizon else found
