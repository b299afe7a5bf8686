"""`$reschedule`: another time, provider or room for an Appointment, or another wall-clock time for its series."""

from __future__ import annotations

from datetime import datetime

from fhir_server.fhir.outcome import Invalid, Unprocessable
from fhir_server.operations.scheduling.asked import Ask, error_of, with_provider
from fhir_server.operations.scheduling.change import NAMES, change, find_zone, set_times
from fhir_server.operations.scheduling.parameters import read_parameters, zone_of
from fhir_server.operations.scheduling.pools import select_providers
from fhir_server.requests.context import Context
from fhir_server.requests.request import Request, Response
from mappers.scheduling.elements import Resource, code_of, list_types, members, person_of, read_times, target_of
from mappers.scheduling.intervals import Interval
from mappers.scheduling.life_cycle import check_transition
from mappers.scheduling.wall_clock import to_instants, to_local

_NAMES = (*NAMES, "start", "end", "practitioner", "location-reference")
_MOVABLE = ("pending", "booked")
_MOVES = ("start", "end", "practitioner", "location-reference", "comment")


async def reschedule(context: Context, request: Request) -> Response:
    """200 with the Appointment; 409 with the next free times where the new time is taken."""
    return await change(context, request, read_parameters(context, request, _NAMES), _move)


def _move(ask: Ask, old: Resource, chosen: Resource) -> Resource:
    if code_of(old) not in _MOVABLE:
        issue = check_transition(code_of(old), "booked")
        if issue:
            raise error_of(issue)
        raise Unprocessable(f"An Appointment that is `{code_of(old)}` has no time to be moved.", expression=("status",))
    if not any(name in ask.asked.values for name in _MOVES):
        text = f"Say what changes: `$reschedule` needs one of {', '.join(f'`{name}`' for name in _MOVES)}."
        raise Invalid(text, code="required", expression=("start",))
    new = _set_people(ask, old)
    comment = ask.asked.text("comment")
    new = {**new, "comment": comment} if comment else new
    return set_times(new, *_find_time(ask, old, chosen))


def _find_time(ask: Ask, old: Resource, chosen: Resource) -> Interval:
    """The new time: that of the request for the Appointment that it names, the same shift on the wall for others."""
    before, own = read_times(chosen), read_times(old)
    if not isinstance(before, Interval) or not isinstance(own, Interval):
        raise Unprocessable("The Appointment has no time that could be moved.", expression=("Appointment.start",))
    start = ask.asked.instant("start", zone_of(ask.context))
    end = ask.asked.instant("end", zone_of(ask.context))
    start = before.start if start is None else start
    end = start + before.end - before.start if end is None else end
    if end <= start:
        raise Invalid("The end is not after the start.", code="value", expression=("end",))
    if old is chosen:
        return Interval(start, end)
    zone = find_zone(ask, old)
    walls = [to_local(each, zone).replace(tzinfo=None) for each in (own.start, start, before.start)]
    wall: datetime = walls[0] + (walls[1] - walls[2])
    instants = to_instants(wall.date(), wall.time(), zone)
    if not instants:
        text = f"The clock jumps over {wall.time()} on {wall.date()}; choose another time, or move that one alone."
        raise Unprocessable(text, code="value", expression=("start",))
    return Interval(instants[0], instants[0] + end - start)


def _set_people(ask: Ask, old: Resource) -> Resource:
    """The Appointment with the practitioner and the place that the request names in the place of its own."""
    new, places = old, ask.asked.references("location-reference")
    practitioner = ask.asked.reference("practitioner")
    actors = [target_of(person.get("actor")) for person in members(old, "participant")]
    people = {person_of(actor, ask.practice.directory) for actor in actors}
    if practitioner and person_of(practitioner, ask.practice.directory) not in people:
        schedules = select_providers(ask.asked, ask.practice, list_types(old))
        if not schedules:
            text = f"`{practitioner}` has no Schedule here; create one, or name another."
            raise Unprocessable(text, expression=("practitioner",))
        new = with_provider(old, schedules[0])
    if places and places != [actor for actor in actors if actor.startswith("Location/")]:
        others = [p for p in members(new, "participant") if not target_of(p.get("actor")).startswith("Location/")]
        added = [{"actor": {"reference": place}, "required": "required", "status": "accepted"} for place in places]
        new = {**new, "participant": [*others, *added]}
    return new
