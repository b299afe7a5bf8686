"""`$open-time`: where a published Slot links to: the very time as a proposed Appointment, or the next free ones."""

from __future__ import annotations

from dataclasses import replace

from fhir_server.fhir.bundle import write_bundle, write_outcome_entry
from fhir_server.fhir.datetimes import format_instant
from fhir_server.fhir.outcome import Invalid, Issue, NotFound, build_operation_outcome
from fhir_server.operations.scheduling.find import Search, propose
from fhir_server.operations.scheduling.parameters import Parameters, read_parameters, zone_of
from fhir_server.requests.context import Context
from fhir_server.requests.request import Request, Response
from fhir_server.scheduling.availability import MOST_FREE, find_free_times, list_calendars
from fhir_server.scheduling.site import site_of
from mappers.scheduling.free_times import FreeTime, FreeTimesRequest, explain_nothing
from mappers.scheduling.intervals import DAY, MINUTE, Interval
from mappers.scheduling.publication import asks_for_slots

# What readers of a publication add to the links that they follow.
_OF_READERS = ("source", "booking-referral")
_NEAR = 14 * DAY
_LONGEST = 1440 * MINUTE


async def open_time(context: Context, request: Request) -> Response:
    """200 with a searchset of one proposed Appointment, or of the next free times and a sentence; it writes nothing."""
    asked = read_parameters(context, request, ("start", "end", *_OF_READERS))
    practice, now, name = await site_of(context).read(context.unrestricted), context.clock(), "/".join(request.path[:2])
    stored = await context.reader(request.caller).read(*request.path[:2])
    schedule = practice.directory.get(name)
    if stored is None or schedule is None or not asks_for_slots(schedule):
        raise NotFound(f"`{name}` is no Schedule that is published here.")
    time = _read_time(context, asked)
    calendars, issues = list_calendars(context, [schedule], frozenset(), practice)
    start = max(time.start, now)
    minutes = (time.end - time.start) // MINUTE
    times = FreeTimesRequest(Interval(start, start + _NEAR), now, (tuple(calendars),), minutes)
    found: list[FreeTime] = []
    reasons: set[str] = set()
    async for each in find_free_times(context, times, practice, None, reasons):
        found.append(each)
        if each.start == time.start or len(found) == MOST_FREE:
            break
    said = [replace(each, severity="warning") for each in issues]
    if found and found[0].start == time.start:
        found = found[:1]
    elif found:
        text = f"{format_instant(time.start)} is not free any more; these are the next free times."
        said.append(Issue("information", "informational", text))
    else:
        said += explain_nothing(reasons or {"closed"})
    search = Search(practice, times, frozenset(), "", ())
    entries = [propose(context, request, search, each) for each in found]
    if said:
        entries.append(write_outcome_entry(context.new_id(), build_operation_outcome(said)))
    links = [("self", "/".join((request.base, *request.path)))]
    return Response(200, write_bundle({"type": "searchset"}, links, entries))


def _read_time(context: Context, asked: Parameters) -> Interval:
    zone = zone_of(context)
    start, end = asked.instant("start", zone), asked.instant("end", zone)
    for name, value in (("start", start), ("end", end)):
        if value is None:
            raise Invalid(f"`$open-time` needs `{name}`, an instant.", code="required", expression=(name,))
    assert start is not None and end is not None
    if not MINUTE <= end - start <= _LONGEST:
        text = "The end is between a minute and a day after the start."
        raise Invalid(text, code="value", expression=("end",))
    return Interval(start, end)
