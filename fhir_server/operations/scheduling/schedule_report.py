"""`Schedule/$schedule-report`: figures about schedules as a MeasureReport or CSV (docs/scheduling.md)."""

from __future__ import annotations

from functools import partial

import orjson

from fhir_server.fhir.outcome import Invalid
from fhir_server.operations.scheduling.parameters import Parameters, read_parameters, zone_of
from fhir_server.requests.context import Context
from fhir_server.requests.request import Request, Response
from fhir_server.scheduling.availability import find_free_times, list_calendars
from fhir_server.scheduling.site import site_of
from fhir_server.scheduling.surroundings import LONGEST, read_all, read_surroundings
from mappers.scheduling.calendars import Calendar, Practice, owner_of
from mappers.scheduling.elements import person_of, reference_of
from mappers.scheduling.free_times import FreeTime, FreeTimesRequest
from mappers.scheduling.intervals import DAY, Interval
from mappers.scheduling.report import (
    Figure,
    ReportRequest,
    list_figures,
    make_measure_report,
    third_next_available,
    write_csv,
)

CSV = "text/csv"
_NAMES = ("start", "end", "schedule", "practitioner", "location-reference")
_AHEAD = 90 * DAY
_THIRD = 3
# Bytes as which one Appointment counts when it is decided whether the figures are computed on a thread.
_VISIT = 512


async def schedule_report(context: Context, request: Request) -> Response:
    """200 with the figures of a window, by Schedule and over all, of what the caller may see."""
    asked = read_parameters(context, request, _NAMES)
    window, now = _read_window(context, asked), context.clock()
    practice = await site_of(context).read(context.unrestricted)
    calendars, left_out = await _list_calendars(context, request, asked, practice)
    reader = context.reader(request.caller)

    around = await read_surroundings(
        partial(read_all, reader), [each.actor for each in calendars], window, practice, now
    )
    wanted = ReportRequest(window, now, tuple(calendars), around.appointments, around.occupied, practice)
    figures = await context.long_work.run(_VISIT * len(around.appointments), list_figures, wanted)
    for calendar in calendars:
        figures += await _list_third(context, calendar, practice, now)
    figures += left_out
    if request.media_type == CSV:
        return Response(200, write_csv(figures).encode(), content_type=f"{CSV}; charset=utf-8; header=present")
    return Response(200, orjson.dumps(make_measure_report(figures, window, now)))


def _read_window(context: Context, asked: Parameters) -> Interval:
    zone = zone_of(context)
    start, end = asked.instant("start", zone), asked.instant("end", zone, end=True)
    for name, value in (("start", start), ("end", end)):
        if value is None:
            text = f"`$schedule-report` needs `{name}`, a date or dateTime."
            raise Invalid(text, code="required", expression=(name,))
    assert start is not None and end is not None
    if end <= start:
        raise Invalid("The end of the window is not after its start.", code="value", expression=("end",))
    if end - start > LONGEST:
        raise Invalid("The window is longer than 366 days; report on it in parts.", code="value", expression=("end",))
    return Interval(start, end)


async def _list_calendars(
    context: Context, request: Request, asked: Parameters, practice: Practice
) -> tuple[list[Calendar], list[Figure]]:
    """The calendars of the Schedules that the caller asked for and may see, and those that cannot be reported on.

    All of them when it names none. Raises Invalid when there is none.
    """
    schedules = [each for own in practice.schedules.values() for each in own if each.get("active", True) is not False]
    names = {f"Schedule/{request.path[1]}"} if len(request.path) == 3 else set(asked.references("schedule"))
    people = {person_of(each, practice.directory) for each in asked.references("practitioner")}
    actors = people | set(asked.references("location-reference"))
    chosen = [
        each
        for each in schedules
        if (not names or reference_of(each) in names) and (not actors or owner_of(each, practice.directory) in actors)
    ]
    visible = await context.reader(request.caller).read_many([reference_of(each) for each in chosen])
    chosen = [each for each in chosen if reference_of(each) in visible]
    missing = names - {reference_of(each) for each in chosen}
    if missing or not chosen:
        what = f"`{min(missing)}`" if missing else "a Schedule like that"
        text = f"There is no {what} here that is active; `Schedule?active=true` lists those that are."
        raise Invalid(text, code="not-found", expression=("schedule",))
    calendars, _ = list_calendars(context, chosen, frozenset(), practice)
    known = {each.schedule for each in calendars}
    without = sorted({reference_of(each) for each in chosen} - known)
    # told among the figures: CSV has no other place for it
    return calendars, [Figure("left-out-without-time-zone", "schedule", each, 1) for each in without]


async def _list_third(context: Context, calendar: Calendar, practice: Practice, now: int) -> list[Figure]:
    """The third next available time of a calendar, in 90 days."""
    request = FreeTimesRequest(Interval(now, now + _AHEAD), now, ((calendar,),))
    times: list[FreeTime] = []
    async for time in find_free_times(context, request, practice, None, set()):
        times.append(time)
        if len(times) == _THIRD:
            break
    figure = third_next_available(calendar.schedule, times, now)
    return [figure] if figure else []
