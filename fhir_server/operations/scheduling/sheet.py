"""What the sheet of a day or a week needs of the store, for the terminal of the front desk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta, tzinfo
from functools import partial

import orjson

from fhir_server.fhir.outcome import Invalid
from fhir_server.operations.scheduling.parameters import zone_of
from fhir_server.requests.context import Context
from fhir_server.requests.request import Caller
from fhir_server.scheduling.availability import list_calendars
from fhir_server.scheduling.site import site_of
from fhir_server.scheduling.surroundings import read_all, read_surroundings
from fhir_server.security.access import Reader
from mappers.scheduling.calendars import Calendar, owner_of
from mappers.scheduling.day_sheet import SheetRequest, name_whole
from mappers.scheduling.elements import Resource, members, person_of, target_of
from mappers.scheduling.intervals import DAY, Interval
from mappers.scheduling.wall_clock import day_interval, to_local


@dataclass(frozen=True, slots=True)
class Sheet:
    """The days of a sheet in their zone, what is on them, and how each Schedule is called."""

    days: tuple[date, ...]
    zone: tzinfo
    request: SheetRequest
    names: Mapping[str, str]
    issues: tuple[str, ...]


async def read_sheet(
    context: Context, caller: Caller, actors: Sequence[str], day: date | None, whole_week: bool
) -> Sheet:
    """The sheet of a day (None: today), or of its week, of all calendars or those of some actors. Raises Invalid."""
    practice, now = await site_of(context).read(context.unrestricted), context.clock()
    wanted = {person_of(each, practice.directory) for each in actors}
    schedules = [
        each
        for own in practice.schedules.values()
        for each in own
        if each.get("active", True) is not False and (not wanted or owner_of(each, practice.directory) in wanted)
    ]
    calendars, wrong = list_calendars(context, schedules, frozenset(), practice)
    issues = tuple(dict.fromkeys(issue.diagnostics or "" for issue in wrong))
    if not calendars:
        raise Invalid(" ".join(issues) or "There is no active Schedule here like that.")
    zone = _find_zone(context, calendars)
    first = day or to_local(now, zone).date()
    days = _list_week(first) if whole_week else (first,)
    # visits of the neighbouring days may reach into these
    window = Interval(day_interval(days[0], zone).start - DAY, day_interval(days[-1], zone).end + DAY)
    reader = context.reader(caller)

    around = await read_surroundings(
        partial(read_all, reader), [each.actor for each in calendars], window, practice, now
    )
    directory = {**practice.directory, **await _read_names(reader, around.appointments, calendars)}
    names = _name_schedules(calendars, directory)
    calendars.sort(key=lambda each: (not each.actor.startswith("Practitioner/"), names[each.schedule]))
    request = SheetRequest(tuple(calendars), around.appointments, around.occupied, practice, directory, now)
    return Sheet(days, zone, request, names, issues)


def _list_week(day: date) -> tuple[date, ...]:
    """Monday to Sunday around a day."""
    monday = day - timedelta(days=day.weekday())
    return tuple(monday + timedelta(days=number) for number in range(7))


def _find_zone(context: Context, calendars: Sequence[Calendar]) -> tzinfo:
    """The practice's zone; where the setting says none, that of most calendars."""
    if context.settings.time_zone != "UTC":
        return zone_of(context)
    return Counter(each.zone for each in calendars).most_common(1)[0][0]


async def _read_names(
    reader: Reader, appointments: Sequence[Resource], calendars: Sequence[Calendar]
) -> dict[str, Resource]:
    people = (target_of(person.get("actor")) for each in appointments for person in members(each, "participant"))
    stored = await reader.read_many(dict.fromkeys((*(each for each in people if each), *(c.actor for c in calendars))))
    return {name: orjson.loads(each.raw) for name, each in stored.items() if each.raw is not None}


def _name_schedules(calendars: Sequence[Calendar], directory: Mapping[str, Resource]) -> dict[str, str]:
    """Schedule → its actor's name, with the Schedule where the actor has several."""
    counts = Counter(each.actor for each in calendars)
    return {
        each.schedule: name_whole(each.actor, directory)
        + (f" ({each.schedule.partition('/')[2]})" if counts[each.actor] > 1 else "")
        for each in calendars
    }
