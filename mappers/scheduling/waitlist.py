"""Who on the waitlist is offered a time that became free, in which order, and the offer itself."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from fhir_server.fhir.datetimes import format_instant
from fhir_server.fhir.outcome import Issue
from mappers.scheduling.calendars import Calendar, Practice
from mappers.scheduling.clashes import find_clashes
from mappers.scheduling.elements import (
    BEFORE_ALL,
    Resource,
    code_of,
    list_types,
    members,
    person_of,
    read_instant,
    read_period,
    reference_of,
    target_of,
)
from mappers.scheduling.free_times import FreeTime
from mappers.scheduling.intervals import MINUTE, Interval
from mappers.scheduling.occupied import Occupied
from mappers.scheduling.slots import mark_hold

# iCalendar's 1 is the highest priority and 9 the lowest; 0 and absent say nothing and come last.
_NO_PRIORITY = 10


def rank_candidates(
    waiting: Iterable[Resource], time: FreeTime, occupied: Occupied, practice: Practice, asked: Collection[str] = ()
) -> list[Resource]:
    """The waitlist Appointments that a free time suits: by priority, then longest waiting, then id.

    It suits when it lies in a requested period (if any), the visit is not longer, the provider is one that was asked
    for (if any), the type is one that the Schedule takes, and all are free. `asked` are those who had this offer.
    """
    suiting = [
        each
        for each in waiting
        if code_of(each) == "waitlist"
        and reference_of(each) not in asked
        and _suits(each, time, practice)
        and not find_clashes(make_offer(each, time, time.start), occupied, practice)
    ]
    return sorted(suiting, key=_rank)


def _rank(appointment: Resource) -> tuple[int, int, str]:
    priority = appointment.get("priority")
    since = read_instant(appointment.get("created"))
    return priority or _NO_PRIORITY, BEFORE_ALL if since is None else since, str(appointment.get("id"))


def _suits(appointment: Resource, time: FreeTime, practice: Practice) -> bool:
    periods = [period for each in members(appointment, "requestedPeriod") if (period := read_period(each))]
    if periods and not any(period.start <= time.start and time.end <= period.end for period in periods):
        return False
    if (appointment.get("minutesDuration") or 0) * MINUTE > time.end - time.start:
        return False
    actors = {calendar.actor for calendar in time.calendars}
    asked = {
        person_of(actor, practice.directory)
        for person in members(appointment, "participant")
        if (actor := target_of(person.get("actor"))).startswith(("Practitioner/", "PractitionerRole/"))
    }
    if asked and not asked & actors:
        return False
    types = list_types(appointment)
    return all(not types or _takes(calendar, types, practice) for calendar in time.calendars)


def _takes(calendar: Calendar, types: frozenset[str], practice: Practice) -> bool:
    """Whether the Schedule names no types or one of these."""
    own = list_types(practice.directory.get(calendar.schedule, {}))
    return not own or bool(own & types)


def make_offer(appointment: Resource, time: FreeTime, until: int) -> Resource:
    """The waitlist Appointment as an offer: pending, at this time with these actors, held until an instant."""
    patients = [
        person
        for person in members(appointment, "participant")
        if not target_of(person.get("actor")).startswith(("Practitioner/", "PractitionerRole/", "Location/", "Device/"))
    ]
    needed = [
        {"actor": {"reference": calendar.actor}, "required": "required", "status": "accepted"}
        for calendar in time.calendars
        if not calendar.actor.startswith("Patient/")
    ]
    open_patients = [{**person, "status": "needs-action"} for person in patients]
    length = (appointment.get("minutesDuration") or 0) * MINUTE
    end = time.start + length if length else time.end
    times = {"start": format_instant(time.start), "end": format_instant(end)}
    return mark_hold({**appointment, **times, "participant": [*open_patients, *needed]}, until)


def offer_task(offer: Resource, now: int, until: int) -> Resource:
    """The Task by which the front desk sees an offer."""
    patients = (target_of(person.get("actor")) for person in members(offer, "participant"))
    patient = next((each for each in patients if each.startswith("Patient/")), None)
    task: Resource = {
        "resourceType": "Task",
        "status": "requested",
        "intent": "proposal",
        "code": {"text": "waitlist-offer"},
        "focus": {"reference": reference_of(offer)},
        "authoredOn": format_instant(now),
        "restriction": {"period": {"end": format_instant(until)}},
    }
    return {**task, "for": {"reference": patient}} if patient else task


def time_of(appointment: Resource, calendars: tuple[Calendar, ...]) -> FreeTime | Issue:
    """The time that became free when an Appointment was cancelled, with the calendars that it had."""
    start, end = read_instant(appointment.get("start")), read_instant(appointment.get("end"))
    if start is None or end is None:
        return Issue("error", "value", "The Appointment has no time that could be offered.", ("Appointment.start",))
    return FreeTime(*Interval(start, end), calendars)
