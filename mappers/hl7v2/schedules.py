"""SCH, TQ1, AIS, AIG, AIL, AIP become Appointment, ServiceRequest, Schedule and Slot.

The guide has no Schedule and Slot: each actor with a time gets a Slot of its own Schedule, known by appointment and
actor, so that the Slot moves with the appointment. Whether a time may be taken is decided by the Schedule's owner.
"""

from __future__ import annotations

from typing import NamedTuple

from fhir_server.fhir.urls import extension_url
from mappers.hl7v2.changes import Change, Resource
from mappers.hl7v2.clinical import nte_to_annotations
from mappers.hl7v2.context import Cell, Context
from mappers.hl7v2.datatypes.codes import cwe_to_codeable_concept, cwe_to_text
from mappers.hl7v2.datatypes.identifiers import cwe_to_identifier, derive_identifier, read_identity
from mappers.hl7v2.datatypes.quantities import read_length, read_minutes
from mappers.hl7v2.datatypes.times import Moment, add_minutes, read_moment
from mappers.hl7v2.er7 import Segment
from mappers.hl7v2.groups import Group
from mappers.hl7v2.issues import has_errors, refuse, warn
from mappers.hl7v2.patients import find_key, read_concept
from mappers.hl7v2.rows import Draft, fill, tell_unmapped
from mappers.hl7v2.tables import read_table
from mappers.hl7v2.vocabulary import translate

FREE = frozenset({"cancelled", "entered-in-error"})
TENTATIVE = frozenset({"pending", "proposed", "waitlist"})
PRIORITIES = {"S": 1, "A": 2, "R": 5}
BLOCKING = {"S23": "busy-unavailable", "S24": "free"}
ADDING, REMOVING = frozenset({"S18", "S19"}), frozenset({"S20", "S21", "S22"})
NO_SHOW_REASON = extension_url("no-show-reason")
SCHEDULE_OWNER = extension_url("schedule-owner")
"""Names the partner whose messages are fact for a Schedule; one that a message brings is its partner's."""


class ResourceKind(NamedTuple):
    """Where a resource segment tells its times and status, and how its actor is read."""

    name: str
    start: int
    duration: int
    status: int


RESOURCES = (ResourceKind("AIG", 8, 11, 14), ResourceKind("AIL", 6, 9, 12), ResourceKind("AIP", 6, 9, 12))
GROUPS = ("GENERAL_RESOURCE", "LOCATION_RESOURCE", "PERSONNEL_RESOURCE")


class Times(NamedTuple):
    """Start and end as FHIR writes them, either may be empty."""

    start: str = ""
    end: str = ""


def sch_to_appointment(root: Group, patient: Change | None, context: Context) -> Change | None:
    """Adds the Appointment of a message, or for a block of time only Slots."""
    sch = root.segment("SCH")
    resources = [group for each in root.list_children("RESOURCES") for group in each.groups]
    times = _find_times(root, resources, context)
    status = _find_status(sch, resources, context)
    if context.event in BLOCKING or status == "blocked":
        _block(sch, resources, times, context)
        return None
    draft = Draft({"resourceType": "Appointment"})
    fill(draft, sch, "Appointment", context)
    resource = draft.resource
    if status:
        resource["status"] = status
    identity = next((read_identity(each) for each in reversed(resource.get("identifier", []))), None)
    if identity is None:
        text = "SCH-1 and SCH-2 are empty: without a number the appointment cannot be found again."
        context.issues.append(refuse("101", text, sch.place(1)))
    _set_times(resource, times, sch, root, status, context)
    change = context.changes.add(resource, identity)
    change.on_create = {"status": "booked"}
    change.required = () if status == "cancelled" else ("start", "end")
    _set_reasons(resource, sch, status, context)
    _add_participants(change, resources, patient, times, context)
    requests = _add_requests(change, sch, resources, patient, context)
    if requests:
        resource["basedOn"] = [each.reference for each in requests]
    if notes := nte_to_annotations(root.all("NTE"), context):
        resource["comment"] = "\n".join(note["text"] for note in notes)
    return change


def _find_status(sch: Segment, resources: list[Group], context: Context) -> str:
    """SCH-25, else AIS-10, else what the event says; "" leaves it as it is."""
    told = next((row[3] for row in read_table("events.tsv") if row[:2] == (context.message, context.event)), "")
    services = [group.segment("AIS").text(10) for group in resources if group.holds("AIS")]
    code = sch.text(25) or next((each for each in services if each), "")
    if code.capitalize() == "Blocked":
        return "blocked"
    if not code:
        return told
    target = translate(code, "FillerStatusCodes[Appointment]", "SCH-25", context.partner)
    target = target or translate(code.capitalize(), "FillerStatusCodes[Appointment]", "SCH-25", context.partner)
    if target is None:
        text = f"The status `{code[:40]}` of SCH-25 is not known; the status that the event means is taken."
        context.issues.append(warn("103", text, sch.place(25)))
    return target.code if target else told


def _find_times(root: Group, resources: list[Group], context: Context) -> Times:
    """TQ1 wins over SCH-11, SCH-11 over the first service; an end that is not told follows from a duration."""
    sch, tq1 = root.segment("SCH"), root.segment("TQ1")
    service = next((group.segment("AIS") for group in resources if group.holds("AIS")), Segment("AIS", ()))
    timing = sch.first(11)
    minutes = read_minutes(sch.text(9), sch.text(10)) or read_length(timing.text(3))
    minutes = minutes or read_minutes(service.text(7), service.text(8))
    for segment, number, start, end in (
        (tq1, 7, tq1.text(7), tq1.text(8)),
        (sch, 11, timing.text(4), timing.text(5)),
        (service, 4, service.text(4), ""),
    ):
        if start:
            return _read_times(start, end, minutes, segment, number, context)
    return Times()


def _read_times(start: str, end: str, minutes: float | None, segment: Segment, number: int, context: Context) -> Times:
    begin = _read_start(start, segment, number, context)
    if begin is None:
        return Times()
    finish = read_moment(end, context.zone) if end else None
    if finish and finish.instant and begin.instant and finish.instant >= begin.instant:
        return Times(begin.value, finish.value)
    if end:
        text = f"The end `{end[:40]}` is no time at or after the start; it is taken from the duration."
        context.issues.append(warn("102", text, segment.place(number)))
    if minutes and not begin.value.startswith("9999"):
        return Times(begin.value, add_minutes(begin.value, minutes))
    return Times(begin.value)


def _read_start(text: str, segment: Segment, number: int, context: Context) -> Moment | None:
    """A start must be a time of day that exists; the earlier of two is taken with a warning."""
    moment = read_moment(text, context.zone)
    place = segment.place(number)
    if moment is None or moment.instant is None:
        what = "no date and time" if moment is None else "a date without a time of day"
        context.issues.append(refuse("102", f"The start `{text[:40]}` is {what}; an appointment needs both.", place))
        return None
    if moment.ambiguous == "gap":
        context.issues.append(
            refuse("102", f"The start `{text[:40]}` is in the hour that the clock leaves out.", place)
        )
        return None
    if moment.ambiguous:
        context.issues.append(warn("102", f"The start `{text[:40]}` exists twice; the earlier is meant.", place))
    return moment


def _set_times(resource: Resource, times: Times, sch: Segment, root: Group, status: str, context: Context) -> None:
    if times.start:
        resource["start"] = times.start
    if times.end:
        resource["end"] = times.end
    needed = context.event in ("S12", "S13", "S14") and status not in ("cancelled", "proposed", "waitlist")
    if needed and not times.end and not has_errors(context.issues):
        text = "The appointment has no start and end: TQ1-7/8, SCH-11 and AIS-4 with a duration are empty."
        context.issues.append(refuse("101", text, sch.place(11)))
    minutes = read_minutes(sch.text(9), sch.text(10))
    if minutes:
        resource["minutesDuration"] = max(1, round(minutes))
    if priority := PRIORITIES.get(root.segment("TQ1").text(9)):
        resource["priority"] = priority


def _set_reasons(resource: Resource, sch: Segment, status: str, context: Context) -> None:
    """SCH-6 says why an appointment was cancelled or missed: R4 has an element for the first alone."""
    reason = read_concept(sch, 6, context)
    if reason and status == "cancelled":
        resource["cancelationReason"] = reason
    elif reason and status == "noshow":
        extension = {"url": NO_SHOW_REASON, "valueCodeableConcept": reason}
        resource.setdefault("extension", []).append(extension)


def _add_participants(
    change: Change, resources: list[Group], patient: Change | None, times: Times, context: Context
) -> None:
    """The patient and each actor; S18 and S19 add to the list, S20 to S22 take out of it."""
    appointment = change.resource
    participants: list[Resource] = []
    slots: list[Change] = []
    removing = context.event in REMOVING
    change.lists["participant"] = "remove" if removing else "add" if context.event in ADDING else "replace"
    change.lists["slot"] = change.lists["participant"]
    services: list[Resource] = []
    for group in resources:
        if group.holds("AIS"):
            service = Draft({})
            fill(service, group.segment("AIS"), "Appointment", context)
            services += service.resource.get("serviceType", [])
            continue
        found = _read_participant(group, times, context)
        if found is None:
            continue
        participant, actor, own = found
        participants.append(participant)
        if group.name != "GENERAL_RESOURCE":
            tell_unmapped(group.all("NTE"), "a participant has no note.", context)
        status = "entered-in-error" if removing else str(appointment.get("status", ""))
        if actor and own.start and own.end and not context.partner.makes_slots:
            _add_schedule(actor, context)
        elif actor and own.start and own.end:
            slots.append(_add_slot(find_key(change), actor, own, _find_slot_status(status), context))
    if patient and not removing:
        participants.insert(0, {"actor": patient.reference, "status": "accepted"})
    if services:
        appointment["serviceType"] = services
        change.lists["serviceType"] = change.lists["participant"]
    if participants:
        appointment["participant"] = participants
    if slots:
        appointment["slot"] = [each.reference for each in slots]


def _find_slot_status(status: str) -> str:
    if status in FREE:
        return "free"
    return "busy-tentative" if status in TENTATIVE else "busy"


def _read_participant(group: Group, times: Times, context: Context) -> tuple[Resource, Change | None, Times] | None:
    kind = next(each for each in RESOURCES if each.name == group.segments[0].name)
    segment = group.segments[0]
    draft = Draft({})
    fill(draft, segment, "participant", context)
    participant = draft.resource
    if kind.name == "AIG":
        actor = _add_equipment(group, context)
        if actor:
            participant["actor"] = actor.reference
    if not participant:
        return None
    own = times
    if segment.text(kind.start):
        minutes = read_minutes(segment.text(kind.duration), segment.text(kind.duration + 1))
        own = _read_times(segment.text(kind.start), "", minutes, segment, kind.start, context)
        period = {name: text for name, text in (("start", own.start), ("end", own.end)) if text}
        if period:
            participant["period"] = period
        own = own if own.end else Times(own.start, times.end)
    code = segment.text(kind.status)
    target = translate(code.capitalize(), "ParticipantStatus", "", context.partner) if code else None
    participant["status"] = target.code if target else "needs-action"
    known = context.changes.find(participant.get("actor"))
    if known and kind.name == "AIL" and (place := read_concept(segment, 4, context)):
        known.resource.setdefault("type", [place])
    return participant, known, own


def _add_equipment(group: Group, context: Context) -> Change | None:
    """AIG-3 is a Device, a Location or a Practitioner by its type, AIG-4; a Device where the type says nothing."""
    segment = group.segments[0]
    value = segment.first(3)
    identifier = cwe_to_identifier(value, Cell(context, segment.place(3)))
    name = cwe_to_text(value, Cell(context, segment.place(3)))
    if identifier is None or not name:
        return None
    kind = f"{segment.text(4)} {segment.text(4, 2)}".lower()
    if any(word in kind for word in ("location", "room", "place")):
        resource: Resource = {"resourceType": "Location", "identifier": [identifier], "name": name}
    elif any(word in kind for word in ("doctor", "provider", "physician", "practitioner", "staff", "nurse")):
        resource = {"resourceType": "Practitioner", "identifier": [identifier], "name": [{"text": name}]}
    else:
        resource = {"resourceType": "Device", "identifier": [identifier], "status": "active"}
        resource["deviceName"] = [{"name": name, "type": "user-friendly-name"}]
        if notes := nte_to_annotations(group.all("NTE"), context):
            resource["note"] = notes
    return context.changes.add(resource, read_identity(identifier))


def _add_slot(owner: tuple[str, ...], actor: Change, times: Times, status: str, context: Context) -> Change:
    """A Slot known by what takes it and whose time it is, in the Schedule of its actor."""
    key = (*owner, actor.type, *find_key(actor))
    schedule = _add_schedule(actor, context)
    slot: Resource = {"resourceType": "Slot", "schedule": schedule.reference, "status": status}
    slot |= {"start": times.start, "end": times.end}
    slot["identifier"] = [derive_identifier("slot", key, context.partner)]
    return context.changes.add(slot, read_identity(slot["identifier"][0]))


def _add_schedule(actor: Change, context: Context) -> Change:
    """The Schedule of an actor; one that is not there yet is the partner's."""
    schedule: Resource = {"resourceType": "Schedule", "active": True, "actor": [actor.reference]}
    schedule["identifier"] = [derive_identifier("schedule", (actor.type, *find_key(actor)), context.partner)]
    schedule["extension"] = [{"url": SCHEDULE_OWNER, "valueString": context.partner.name}]
    return context.changes.add(schedule, read_identity(schedule["identifier"][0]), create_only=True)


def _block(sch: Segment, resources: list[Group], times: Times, context: Context) -> None:
    """S23 takes the time of each actor away, S24 gives it back."""
    status = BLOCKING.get(context.event, "busy-unavailable")
    blocked = False
    for group in resources:
        found = None if group.holds("AIS") else _read_participant(group, times, context)
        if found and found[1] and found[2].start and found[2].end:
            _add_slot((sch.raw(1), sch.raw(2), found[2].start), found[1], found[2], status, context)
            blocked = True
    if not blocked:
        text = "A block of time needs a resource (AIG, AIL or AIP) with start and duration."
        context.issues.append(refuse("101", text, sch.place()))


def _add_requests(
    change: Change, sch: Segment, resources: list[Group], patient: Change | None, context: Context
) -> list[Change]:
    """A ServiceRequest for each service: the order of SCH-26/27 where there is one service, else one of its own."""
    services = [group for group in resources if group.holds("AIS")]
    requests = []
    for index, group in enumerate(services or ([Group("none")] if sch.raw(26) or sch.raw(27) else [])):
        segment = group.segment("AIS")
        draft = Draft({"resourceType": "ServiceRequest", "intent": "order", "status": "active"})
        if len(services) <= 1:
            fill(draft, sch, "ServiceRequest", context)
        request = draft.resource
        identity = next((read_identity(each) for each in request.get("identifier", [])), None)
        if identity is None:
            parts = (*find_key(change), segment.text(1) or str(index), segment.text(3))
            request["identifier"] = [derive_identifier("service-request", parts, context.partner)]
            identity = read_identity(request["identifier"][0])
        if patient:
            request["subject"] = patient.reference
        else:
            request["subject"] = {"display": "not told"}
        _describe(request, group, segment, context)
        requests.append(context.changes.add(request, identity))
    return requests


def _describe(request: Resource, group: Group, segment: Segment, context: Context) -> None:
    if code := read_concept(segment, 3, context):
        request["code"] = code
    details = [
        cwe_to_codeable_concept(each, Cell(context, segment.place(number)))
        for number in (11, 12)
        for each in segment.repetitions(number)
    ]
    if any(details) and code:
        request["orderDetail"] = [each for each in details if each]
    start = read_moment(segment.text(4), context.zone) if segment.text(4) else None
    if start and start.instant:
        period = {"start": start.value}
        minutes = read_minutes(segment.text(7), segment.text(8))
        if minutes and not start.value.startswith("9999"):
            period["end"] = add_minutes(start.value, minutes)
        request["occurrencePeriod"] = period
    if notes := nte_to_annotations(group.all("NTE"), context):
        request["note"] = notes
