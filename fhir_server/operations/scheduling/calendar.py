"""`$calendar`: the Appointments of a person, room or Schedule for calendar programs, opened by the key of a link.

https://www.rfc-editor.org/rfc/rfc5545
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import orjson

from fhir_server.fhir.outcome import Invalid, NotFound
from fhir_server.operations.scheduling.calendar_links import find_link
from fhir_server.operations.scheduling.parameters import read_parameters
from fhir_server.requests.context import Context
from fhir_server.requests.request import Caller, Request, Response
from fhir_server.scheduling.site import site_of
from fhir_server.scheduling.surroundings import list_references, read_all
from fhir_server.search.query import And, Bound, DateRange, Equals
from fhir_server.security.access import Reader
from mappers.scheduling.calendars import Practice, owner_of, parameters_of
from mappers.scheduling.elements import Resource, members, reference_of, target_of
from mappers.scheduling.intervals import DAY, Interval
from mappers.scheduling.occupied import list_takings
from mappers.scheduling.wall_clock import read_zone

MOST_EVENTS = 5_000
"""Appointments that one feed may hold."""

CALENDAR = "text/calendar"

_BACK, _AHEAD = 30 * DAY, 400 * DAY
# Bytes as which one event counts when it is decided whether the feed is written on a thread: it takes about 1 ms.
_EVENT = 4096


async def calendar(context: Context, request: Request) -> Response:
    """200 with the feed; 404 for a key that opens nothing, whatever the reason."""
    key = read_parameters(context, request, ("key",)).text("key")
    if not key:
        text = "`$calendar` needs the `key` of its URL; `$calendar-link` makes such a URL."
        raise Invalid(text, code="required", expression=("key",))
    owner = "/".join(request.path[:2])
    link = await find_link(context, owner, key)
    reader = context.reader(Caller(request.base, link.find_principal())) if link is not None else None
    stored = await reader.read(*request.path[:2]) if reader is not None else None
    if reader is None or stored is None or stored.raw is None:
        raise NotFound("This key opens no calendar here; it may have been revoked.", expression=("key",))
    resource = orjson.loads(stored.raw)
    practice, now = await site_of(context).read(context.unrestricted), context.clock()
    appointments = await _read_appointments(reader, resource, practice, Interval(now - _BACK, now + _AHEAD))
    directory = {**practice.directory, owner: resource, **await _read_participants(reader, appointments)}
    actor = owner_of(resource, practice.directory) if owner.startswith("Schedule/") else owner
    host, zone = urlsplit(request.base).hostname or "localhost", _find_zone(context, resource, practice)

    def write() -> bytes:
        # Imported here, because the library costs a start 0.1 s.
        from mappers.scheduling.icalendar_feed import Feed, name_actor, write_feed

        feed = Feed(actor, name_actor(actor, directory) or owner, zone, host)
        return write_feed(feed, appointments, directory, now)

    body = await context.long_work.run(_EVENT * len(appointments), write)
    headers = (("Cache-Control", "private, max-age=300"),)
    return Response(200, body, content_type=f"{CALENDAR}; charset=utf-8", headers=headers)


async def _read_appointments(
    reader: Reader, resource: Resource, practice: Practice, window: Interval
) -> list[Resource]:
    """The Appointments of the window in which the actor takes part, by this Schedule where one is named."""
    is_schedule = resource["resourceType"] == "Schedule"
    actor = owner_of(resource, practice.directory) if is_schedule else reference_of(resource)
    date = DateRange("date", (Bound("low", "ge", window.start), Bound("low", "lt", window.end)))
    where = And((Equals("actor", list_references([actor], practice)), date))
    found = await read_all(reader, {"Appointment": where}, MOST_EVENTS)
    if not is_schedule:
        return found
    return [each for each in found if _is_by(each, reference_of(resource), practice)]


def _is_by(appointment: Resource, schedule: str, practice: Practice) -> bool:
    takings = list_takings(appointment, practice)
    return any(each.schedule is not None and reference_of(each.schedule) == schedule for each in takings)


async def _read_participants(reader: Reader, appointments: Iterable[Resource]) -> dict[str, Resource]:
    """Those who take part, by reference; all at once."""
    people = (person for each in appointments for person in members(each, "participant"))
    names = dict.fromkeys(name for person in people if (name := target_of(person.get("actor"))))
    stored = await reader.read_many(names)
    return {name: orjson.loads(each.raw) for name, each in stored.items() if each.raw is not None}


def _find_zone(context: Context, resource: Resource, practice: Practice) -> ZoneInfo:
    """The zone of the Schedule, or of the first of the actor's that knows one, else the practice's."""
    schedules: Sequence[Resource] = (resource,)
    if resource["resourceType"] != "Schedule":
        schedules = practice.schedules.get(reference_of(resource), ())
    zones = (parameters_of(each, frozenset(), practice).zone for each in schedules)
    name = next((each for each in zones if each), context.settings.time_zone)
    zone = read_zone(name, "Schedule.extension")
    return zone if isinstance(zone, ZoneInfo) else ZoneInfo("UTC")
