"""Who on the waitlist is offered a time that became free, in which order, and the offer itself."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from fhir_server.fhir.datetimes import format_instant
from fhir_server.fhir.outcome import Issue
from fhir_server.fhir.urls import code_system_url, identifier_system_url
from mappers.scheduling.calendars import Calendar, Practice, list_actors
from mappers.scheduling.clashes import find_clashes
from mappers.scheduling.elements import (
    BEFORE_ALL,
    Resource,
    code_of,
    extension_value,
    hold_expired,
    list_types,
    members,
    person_of,
    read_instant,
    read_period,
    reference_of,
    target_of,
)
from mappers.scheduling.extensions import HOLD_EXPIRES, WAITLIST_OFFER
from mappers.scheduling.free_times import FreeTime
from mappers.scheduling.intervals import MINUTE, Interval
from mappers.scheduling.occupied import OCCUPYING, Occupied, list_takings
from mappers.scheduling.slots import mark_hold

TASK_SYSTEM, OFFER = code_system_url("scheduling-task"), "waitlist-offer"
OFFERED_TIME = identifier_system_url("offered-time")

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
        and not find_clashes(make_offer(each, time, time.start, practice), occupied, practice)
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


def list_freed(old: Resource, new: Resource | None, practice: Practice) -> list[Resource]:
    """The Schedules whose time an Appointment took before a change (None: it is deleted) and takes no more.

    None where a room or device got free and the practitioner did not: nobody could be seen there.
    """
    if code_of(old) not in OCCUPYING:
        return []
    stays = list_takings(new, practice) if new is not None and code_of(new) in OCCUPYING else []
    taken = {taking.actor: taking.time for taking in stays}
    before = [taking for taking in list_takings(old, practice) if taking.schedule is not None]
    freed = [taking for taking in before if taken.get(taking.actor) != taking.time]
    people = [[each for each in group if each.actor.startswith("Practitioner/")] for group in (before, freed)]
    return [] if people[0] and not people[1] else [taking.schedule for taking in freed if taking.schedule]


def make_offer(appointment: Resource, time: FreeTime, until: int, practice: Practice, task: str = "") -> Resource:
    """The waitlist Appointment as an offer: pending, at this time with these actors, held until an instant.

    `task`: the reference of the Task that tells the front desk of it.
    """
    others = [
        person
        for person in members(appointment, "participant")
        if not target_of(person.get("actor")).startswith(("Practitioner/", "PractitionerRole/", "Location/", "Device/"))
    ]
    actors = [
        actor
        for calendar in time.calendars
        if not calendar.actor.startswith("Patient/")
        for actor in list_actors(practice.directory[calendar.schedule])
    ]
    needed = [
        {"actor": {"reference": actor}, "required": "required", "status": "accepted"} for actor in dict.fromkeys(actors)
    ]
    asked = [{**person, "status": "needs-action"} for person in others]
    length = (appointment.get("minutesDuration") or 0) * MINUTE
    end = time.start + length if length else time.end
    times = {"start": format_instant(time.start), "end": format_instant(end)}
    extensions = [{"url": WAITLIST_OFFER, "valueReference": {"reference": task}}] if task else []
    extensions = [
        *(each for each in members(appointment, "extension") if each.get("url") != WAITLIST_OFFER),
        *extensions,
    ]
    offer = {**appointment, **times, "participant": [*asked, *needed], "extension": extensions}
    return mark_hold(offer, until)


def task_of_offer(appointment: Resource) -> str:
    """The reference of the Task of an offer; empty for an Appointment that is none."""
    return target_of(extension_value(appointment, WAITLIST_OFFER)) if code_of(appointment) == "pending" else ""


def name_time(time: FreeTime) -> str:
    """The identifier value that all offers of a time share: its Schedules and its start."""
    return " ".join((format_instant(time.start), *sorted(each.schedule for each in time.calendars)))


def offer_task(offer: Resource, time: FreeTime, version: int, now: int, until: int) -> Resource:
    """The Task by which the front desk sees an offer; `version`: that of the Appointment on the waitlist."""
    patients = (target_of(person.get("actor")) for person in members(offer, "participant"))
    patient = next((each for each in patients if each.startswith("Patient/")), None)
    freed = {"start": format_instant(time.start), "end": format_instant(time.end)}
    before = {"reference": f"{reference_of(offer)}/_history/{version}"}
    task: Resource = {
        "resourceType": "Task",
        "identifier": [{"system": OFFERED_TIME, "value": name_time(time)}],
        "status": "requested",
        "intent": "proposal",
        "code": {"coding": [{"system": TASK_SYSTEM, "code": OFFER}], "text": OFFER},
        "focus": {"reference": reference_of(offer)},
        "authoredOn": format_instant(now),
        "restriction": {"period": {"end": format_instant(until)}},
        "input": [
            {"type": {"text": "freed time"}, "valuePeriod": freed},
            {"type": {"text": "waiting as"}, "valueReference": before},
        ],
    }
    return {**task, "for": {"reference": patient}} if patient else task


def judge_offer(task: Resource, appointment: Resource | None, now: int) -> tuple[str, str]:
    """(status of the Task now, why); `requested`: the offer stands."""
    status = code_of(appointment)
    if status in OCCUPYING - {"pending"}:
        return "completed", "The patient took the time."
    if appointment is None or task_of_offer(appointment) != reference_of(task):
        return "cancelled", "The Appointment is no offer any more."
    if extension_value(appointment, HOLD_EXPIRES) is None:
        return "cancelled", "The front desk made a request of it."
    if any(
        code_of(person) == "declined" and target_of(person.get("actor")).startswith("Patient/")
        for person in members(appointment, "participant")
    ):
        return "rejected", "The patient declined."
    return ("cancelled", "The offer expired.") if hold_expired(appointment, now) else ("requested", "")


def read_offer(task: Resource) -> tuple[Interval | None, int]:
    """(the time that became free, the version of the Appointment on the waitlist; 0 where it is not told)."""
    period, version = None, 0
    for each in members(task, "input"):
        if "valuePeriod" in each:
            period = read_period(each["valuePeriod"])
        if "valueReference" in each:
            text = str(each["valueReference"].get("reference", "")).rpartition("/_history/")[2]
            version = int(text) if text.isdigit() else 0
    return period, version


_RESTORED = ("start", "end", "participant")


def restore_waiting(tree: Resource, before: Resource | None) -> Resource:
    """The offer on the waitlist again, with the participants and times that it had there."""
    rest = {name: value for name, value in tree.items() if name not in ("start", "end", "extension")}
    extensions = [each for each in members(tree, "extension") if each.get("url") not in (WAITLIST_OFFER, HOLD_EXPIRES)]
    own = {name: before[name] for name in _RESTORED if name in before} if before else {}
    return {**rest, "status": "waitlist", **own, **({"extension": extensions} if extensions else {})}


def time_of(appointment: Resource, calendars: tuple[Calendar, ...], whole: Interval | None = None) -> FreeTime | Issue:
    """The time that an Appointment gave back, with its calendars; `whole`: where an offer used a part of it."""
    start, end = whole or (read_instant(appointment.get("start")), read_instant(appointment.get("end")))
    if start is None or end is None:
        return Issue("error", "value", "The Appointment has no time that could be offered.", ("Appointment.start",))
    return FreeTime(*Interval(start, end), calendars)
