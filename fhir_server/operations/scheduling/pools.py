"""Which calendars a request needs: any of these providers, any of these rooms, the devices of the service."""

from __future__ import annotations

from fhir_server.operations.scheduling.parameters import Parameters
from fhir_server.scheduling.availability import list_healthcare
from mappers.scheduling.calendars import Practice, owner_of, takes_time
from mappers.scheduling.elements import Resource, list_codings, list_types, members, person_of, target_of


def select_providers(asked: Parameters, practice: Practice, types: frozenset[str]) -> list[Resource]:
    """The Schedules of the people who were asked for, or who fit what was asked for."""
    people = {person_of(each, practice.directory) for each in asked.references("practitioner")}
    roles = {each for each in asked.references("practitioner") if each.startswith("PractitionerRole/")}
    places = {each for each in asked.references("location-reference") if not takes_time(each, practice)}
    organizations = set(asked.references("organization"))
    specialties = frozenset(each for codes in asked.codes("specialty") for each in codes)
    chosen = []
    named_schedules = ((owner, each) for owner, own in practice.schedules.items() for each in own)
    for owner, schedule in named_schedules:
        if not owner.startswith("Practitioner") or schedule.get("active", True) is False:
            continue  # no person's, or switched off
        actors = {target_of(actor) for actor in members(schedule, "actor")}
        own = list_types(schedule)
        if (people and owner not in people) or (types and own and not own & types):
            continue
        named = {each for each in roles if person_of(each, practice.directory) == owner}
        if named and any(each.startswith("PractitionerRole/") for each in actors) and not named & actors:
            continue
        wanted = (specialties, organizations, places)
        if not any(wanted) or _fits(schedule, actors, practice, wanted):
            chosen.append(schedule)
    return chosen


def _fits(
    schedule: Resource,
    actors: set[str],
    practice: Practice,
    wanted: tuple[frozenset[str], set[str], set[str]],
) -> bool:
    """Whether a Schedule, or a role of its person, has a specialty, organization and place that were asked for."""
    specialties, organizations, places = wanted
    roles = practice.roles.get(owner_of(schedule, practice.directory), ())
    named = [each for each in roles if f"PractitionerRole/{each['id']}" in actors] or list(roles)
    codes = {
        code for each in (schedule, *named) for concept in members(each, "specialty") for code in list_codings(concept)
    }
    at = actors | {target_of(place) for role in named for place in members(role, "location")}
    return (
        (not specialties or any(code == each or code.endswith(each) for code in codes for each in specialties))
        and (not organizations or any(target_of(role.get("organization")) in organizations for role in named))
        and (not places or bool(places & at))
    )


def select_others(rooms: list[str], types: frozenset[str], practice: Practice) -> list[list[Resource]]:
    """The Schedules of the rooms, any of which will do, and of the devices of the service that has the type."""
    pools = [[schedule for room in rooms for schedule in practice.schedules.get(room, ())]] if rooms else []
    services = {
        name
        for name, each in practice.directory.items()
        if types and name.startswith("HealthcareService/") and types & list_types(each)
    }
    devices = [
        schedule
        for actor, own in practice.schedules.items()
        for schedule in own
        if actor.startswith("Device/") and services & list_healthcare(schedule)
    ]
    return [*pools, devices] if devices else pools
