"""`$bulk-publish`: free times for apps that show where there is a place (SMART Scheduling Links).

https://github.com/smart-on-fhir/smart-scheduling-links/blob/master/specification.md
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from urllib.parse import urlencode

import orjson

from fhir_server.fhir.datetimes import format_instant
from fhir_server.fhir.outcome import Invalid, Issue, build_operation_outcome
from fhir_server.operations.scheduling.parameters import read_parameters
from fhir_server.requests.context import Context
from fhir_server.requests.request import FHIR_JSON, Request, Response
from fhir_server.scheduling.availability import list_calendars, read_unseen
from fhir_server.scheduling.site import site_of
from fhir_server.scheduling.surroundings import read_surroundings
from mappers.scheduling.calendars import Calendar, Practice, list_actors
from mappers.scheduling.elements import Resource, reference_of
from mappers.scheduling.free_times import FreeTime, FreeTimesRequest, compute_free_times, list_chunks, widen_chunk
from mappers.scheduling.intervals import DAY, MINUTE, Interval
from mappers.scheduling.publication import (
    File,
    asks_for_slots,
    check_published,
    make_manifest,
    published_slot,
    select_side_by_side,
    write_ndjson,
)

NDJSON = "application/fhir+ndjson"
SCHEDULES_PER_FILE = 25
"""Schedules whose Slots are in one file."""

AHEAD = 30 * DAY
_KINDS = ("Location", "Schedule", "Slot", "OperationOutcome")


async def bulk_publish(context: Context, request: Request) -> Response:
    """200 with the manifest; with `file`, with the lines of one of its files as they are now."""
    asked = read_parameters(context, request, ("file", "part"))
    practice = await site_of(context).read(context.unrestricted)
    schedules = await _list_schedules(context, request, practice)
    kind, part = asked.text("file"), (asked.number("part") or 1) - 1
    if not kind:
        files = _list_files(request, practice, schedules)
        url = f"{request.base}/$bulk-publish"
        return Response(200, orjson.dumps(make_manifest(url, context.clock(), files)), content_type="application/json")
    if kind not in _KINDS:
        text = f"`{kind}` is no file of this publication; the manifest lists them."
        raise Invalid(text, code="value", expression=("file",))
    if kind == "Slot":
        group = schedules[part * SCHEDULES_PER_FILE : (part + 1) * SCHEDULES_PER_FILE]
        lines = await _list_slots(context, request, group, practice)
    elif kind == "OperationOutcome":
        lines = _list_faults(practice, schedules)
    else:
        lines = schedules if kind == "Schedule" else _list_places(practice, schedules)
    return Response(200, write_ndjson(lines), content_type=NDJSON)


async def _list_schedules(context: Context, request: Request, practice: Practice) -> list[Resource]:
    """The Schedules that ask to be published and that the caller may see, by id."""
    asking = {reference_of(each): each for own in practice.schedules.values() for each in own if asks_for_slots(each)}
    visible = await context.reader(request.caller).read_many(asking)
    return [asking[name] for name in sorted(asking) if name in visible]


def _list_places(practice: Practice, schedules: Sequence[Resource]) -> list[Resource]:
    names = sorted({actor for each in schedules for actor in list_actors(each) if actor.startswith("Location/")})
    return [practice.directory[name] for name in names if name in practice.directory]


def _list_files(request: Request, practice: Practice, schedules: Sequence[Resource]) -> list[File]:
    def link(**named: object) -> str:
        return f"{request.base}/$bulk-publish?{urlencode(named)}"

    places = _list_places(practice, schedules)
    addresses = (each.get("address", {}) for each in places)
    states = tuple(sorted({str(each["state"]) for each in addresses if each.get("state")}))
    full = (("Location", places), ("Schedule", schedules))  # an empty file would say nothing
    files: list[File] = [(kind, link(file=kind), states) for kind, lines in full if lines]
    parts = range(1, -(-len(schedules) // SCHEDULES_PER_FILE) + 1)
    files += [("Slot", link(file="Slot", part=part), states) for part in parts]
    if _list_faults(practice, schedules):
        files.append(("OperationOutcome", link(file="OperationOutcome"), ()))
    return files


def _list_faults(practice: Practice, schedules: Sequence[Resource]) -> list[Resource]:
    """What the published Locations and Schedules lack that a publication asks for."""
    issues = [
        Issue(
            "warning",
            "required",
            f"`{reference_of(each)}` is published without `{name}`, which readers of a publication expect.",
            (f"{each['resourceType']}.{name}",),
        )
        for each in (*_list_places(practice, schedules), *schedules)
        for name in check_published(each)
    ]
    return [build_operation_outcome([each]) for each in issues]


async def _list_slots(
    context: Context, request: Request, schedules: Sequence[Resource], practice: Practice
) -> list[Resource]:
    calendars, _ = list_calendars(context, schedules, frozenset(), practice)
    found: list[Resource] = []
    for calendar in calendars:
        found += await _list_slots_of(context, request, calendar, practice)
    return found


async def _list_slots_of(context: Context, request: Request, calendar: Calendar, practice: Practice) -> list[Resource]:
    """The free times of one calendar as Slots, with what is left of each now."""
    now = context.clock()
    window = Interval(now, now + min(AHEAD, calendar.parameters.horizon * MINUTE))
    wanted = FreeTimesRequest(window, now, ((calendar,),))

    wide = widen_chunk(wanted, window, practice)
    occupied = (await read_surroundings(partial(read_unseen, context), [calendar.actor], wide, practice, now)).occupied
    times = (time for chunk in list_chunks(wanted) for time in compute_free_times(wanted, chunk, occupied))

    def link(time: FreeTime) -> str:
        return link_time(context, request.base, calendar.schedule, time)

    return [published_slot(time, occupied, link) for time in select_side_by_side(times)]


def link_time(context: Context, base: str, schedule: str, time: FreeTime) -> str:
    """Where a time is booked: the site's page with the time as parameters, else `$open-time` of this server."""
    page, times = context.settings.booking_page, {"start": format_instant(time.start), "end": format_instant(time.end)}
    if not page:
        return f"{base}/{schedule}/$open-time?{urlencode(times)}"
    return f"{page}{'&' if '?' in page else '?'}{urlencode({'schedule': schedule, **times})}"


GIVES = (FHIR_JSON, NDJSON)
