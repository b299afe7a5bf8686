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
from mappers.hl7v2.datatypes.identifiers import add_derived, cwe_to_identifier, read_identity
from mappers.hl7v2.datatypes.quantities import read_length, read_minutes
from mappers.hl7v2.datatypes.times import AMBIGUITIES, Moment, add_minutes, read_moment
from mappers.hl7v2.er7 import Segment
from mappers.hl7v2.events import read_events
from mappers.hl7v2.groups import Group
from mappers.hl7v2.issues import has_errors
from mappers.hl7v2.merges import Merge
from mappers.hl7v2.patients import add_draft, find_key, read_concept
from mappers.hl7v2.rows import Draft, fill, tell_unmapped
from mappers.hl7v2.subjects import NOTHING, map_subject
from mappers.hl7v2.vocabulary import translate

FREE = frozenset({"cancelled", "entered-in-error"})
TENTATIVE = frozenset({"pending", "proposed", "waitlist"})
PRIORITIES = {"S": 1, "A": 2, "R": 5}
BLOCKING = {"S23": "busy-unavailable", "S24": "free"}
ADDING, REMOVING = frozenset({"S18", "S19"}), frozenset({"S20", "S21", "S22"})
NO_SHOW_REASON = extension_url("no-show-reason")
SCHEDULE_OWNER = extension_url("schedule-owner")
"""Names the partner whose messages are fact for a Schedule; one that a message brings is its partner's."""


RESOURCES = {"AIG": (8, 11, 14), "AIL": (6, 9, 12), "AIP": (6, 9, 12)}
"""Fields in which a resource segment tells its start, its duration and its status."""


class Times(NamedTuple):
    """Start and end as FHIR writes them, either may be empty."""

    start: str = ""
    end: str = ""

    @property
    def told(self) -> Resource:
        """The elements of those that are told."""
        return {name: text for name, text in self._asdict().items() if text}


def map_siu(root: Group, context: Context) -> list[Merge]:
    """The appointment, and the patient with what surrounds them."""
    if not root.holds("SCH"):
        context.refuse("100", "The message has no SCH segment.", Segment("SCH", ()).place())
        return []
    subjects = [map_subject(group, group, context) for group in root.list_children("PATIENT")]
    sch_to_appointment(root, subjects[0].patient if subjects else None, context)
    return []


def sch_to_appointment(root: Group, patient: Change | None, context: Context) -> None:
    """Adds the Appointment of a message, or for a block of time only Slots."""
    sch = root.segment("SCH")
    resources = [group for each in root.list_children("RESOURCES") for group in each.groups]
    services = [group for group in resources if group.holds("AIS")]
    actors = [group for group in resources if not group.holds("AIS")]
    times = _find_times(root, services, context)
    status = _find_status(sch, services, context)
    if context.event in BLOCKING or status == "blocked":
        _block(sch, actors, times, context)
        return
    draft = Draft({"resourceType": "Appointment"})
    fill(draft, sch, "Appointment", context)
    resource = draft.resource
    if status:
        resource["status"] = status
    identity = next((read_identity(each) for each in reversed(resource.get("identifier", []))), None)
    if identity is None:
        text = "SCH-1 and SCH-2 are empty: without a number the appointment cannot be found again."
        context.refuse("101", text, sch.place(1))
    _set_times(resource, times, sch, root, status, context)
    change = context.changes.add(resource, identity)
    change.on_create = {"status": "booked"}
    change.required = () if status == "cancelled" else ("start", "end")
    _set_reasons(resource, sch, status, context)
    _add_service_types(resource, services, context)
    _add_participants(change, actors, patient, times, context)
    mode = "remove" if context.event in REMOVING else "add" if context.event in ADDING else "replace"
    change.lists |= dict.fromkeys(("participant", "slot", "serviceType"), mode)
    if requests := _add_requests(change, sch, services, patient, context):
        resource["basedOn"] = [each.reference for each in requests]
    if notes := nte_to_annotations(root.all("NTE"), context):
        resource["comment"] = "\n".join(note["text"] for note in notes)


def _find_status(sch: Segment, services: list[Group], context: Context) -> str:
    """SCH-25, else AIS-10, else what the event says; "" leaves it as it is."""
    told = read_events()[context.message, context.event].status
    codes = [sch.text(25), *(group.segment("AIS").text(10) for group in services)]
    code = next((each for each in codes if each), "")
    if code.capitalize() == "Blocked":
        return "blocked"
    if not code:
        return told
    target = translate(code, "FillerStatusCodes[Appointment]", "SCH-25", context.partner)
    target = target or translate(code.capitalize(), "FillerStatusCodes[Appointment]", "SCH-25", context.partner)
    if target is None:
        text = f"The status `{code[:40]}` of SCH-25 is not known; the status that the event means is taken."
        context.warn("103", text, sch.place(25))
    return target.code if target else told


def _find_times(root: Group, services: list[Group], context: Context) -> Times:
    """TQ1 wins over SCH-11, SCH-11 over the first service; an end that is not told follows from a duration."""
    sch, tq1 = root.segment("SCH"), root.segment("TQ1")
    service = services[0].segment("AIS") if services else Segment("AIS", ())
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
        context.warn("102", text, segment.place(number))
    return Times(begin.value, add_minutes(begin.value, minutes))


def _read_start(text: str, segment: Segment, number: int, context: Context) -> Moment | None:
    """A start must be a time of day that exists; the earlier of two is taken with a warning."""
    moment = read_moment(text, context.zone)
    place = segment.place(number)
    if moment is None or moment.instant is None:
        what = "no date and time" if moment is None else "a date without a time of day"
        context.refuse("102", f"The start `{text[:40]}` is {what}; an appointment needs both.", place)
        return None
    if moment.ambiguous:
        add = context.refuse if moment.ambiguous == "gap" else context.warn
        add("102", f"The start `{text[:40]}` {AMBIGUITIES[moment.ambiguous]}.", place)
    return None if moment.ambiguous == "gap" else moment


def _set_times(resource: Resource, times: Times, sch: Segment, root: Group, status: str, context: Context) -> None:
    resource |= times.told
    needed = context.event in ("S12", "S13", "S14") and status not in ("cancelled", "proposed", "waitlist")
    if needed and not times.end and not has_errors(context.issues):
        text = "The appointment has no start and end: TQ1-7/8, SCH-11 and AIS-4 with a duration are empty."
        context.refuse("101", text, sch.place(11))
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


def _add_service_types(appointment: Resource, services: list[Group], context: Context) -> None:
    found = []
    for group in services:
        service = Draft({})
        fill(service, group.segment("AIS"), "Appointment", context)
        found += service.resource.get("serviceType", [])
    if found:
        appointment["serviceType"] = found


def _add_participants(
    change: Change, actors: list[Group], patient: Change | None, times: Times, context: Context
) -> None:
    """The patient and each actor; S18 and S19 add to the list, S20 to S22 take out of it."""
    appointment = change.resource
    participants: list[Resource] = []
    slots: list[Change] = []
    removing = context.event in REMOVING
    status = _find_slot_status("entered-in-error" if removing else str(appointment.get("status", "")))
    for group in actors:
        participant, actor, own = _read_participant(group, times, context)
        if not participant:
            continue
        participants.append(participant)
        if group.name != "GENERAL_RESOURCE":
            tell_unmapped(group.all("NTE"), "a participant has no note.", context)
        if actor and own.start and own.end and not context.partner.makes_slots:
            _add_schedule(actor, context)
        elif actor and own.start and own.end:
            slots.append(_add_slot(find_key(change), actor, own, status, context))
    if patient and not removing:
        participants.insert(0, {"actor": patient.reference, "status": "accepted"})
    if participants:
        appointment["participant"] = participants
    if slots:
        appointment["slot"] = [each.reference for each in slots]


def _find_slot_status(status: str) -> str:
    if status in FREE:
        return "free"
    return "busy-tentative" if status in TENTATIVE else "busy"


def _read_participant(group: Group, times: Times, context: Context) -> tuple[Resource, Change | None, Times]:
    """The participant, {} where none is named, with who or what it is and when."""
    segment = group.segments[0]
    start, duration, status = RESOURCES[segment.name]
    draft = Draft({})
    fill(draft, segment, "participant", context)
    participant = draft.resource
    if segment.name == "AIG" and (equipment := _add_equipment(group, context)):
        participant["actor"] = equipment.reference
    if not participant:
        return participant, None, times
    own = times
    if segment.text(start):
        minutes = read_minutes(segment.text(duration), segment.text(duration + 1))
        own = _read_times(segment.text(start), "", minutes, segment, start, context)
        if own.told:
            participant["period"] = own.told
        own = own if own.end else Times(own.start, times.end)
    code = segment.text(status)
    target = translate(code.capitalize(), "ParticipantStatus", "", context.partner) if code else None
    participant["status"] = target.code if target else "needs-action"
    known = context.changes.find(participant.get("actor"))
    if known and segment.name == "AIL" and (place := read_concept(segment, 4, context)):
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
    slot: Resource = {"resourceType": "Slot", "schedule": schedule.reference, "status": status, **times.told}
    return add_derived(slot, "slot", key, context)


def _add_schedule(actor: Change, context: Context) -> Change:
    """The Schedule of an actor; one that is not there yet is the partner's."""
    schedule: Resource = {"resourceType": "Schedule", "active": True, "actor": [actor.reference]}
    schedule["extension"] = [{"url": SCHEDULE_OWNER, "valueString": context.partner.name}]
    return add_derived(schedule, "schedule", (actor.type, *find_key(actor)), context, create_only=True)


def _block(sch: Segment, actors: list[Group], times: Times, context: Context) -> None:
    """S23 takes the time of each actor away, S24 gives it back."""
    status = BLOCKING.get(context.event, "busy-unavailable")
    found = [_read_participant(group, times, context)[1:] for group in actors]
    taken = [(actor, own) for actor, own in found if actor and own.start and own.end]
    for actor, own in taken:
        _add_slot((sch.raw(1), sch.raw(2), own.start), actor, own, status, context)
    if not taken:
        text = "A block of time needs a resource (AIG, AIL or AIP) with start and duration."
        context.refuse("101", text, sch.place())


def _add_requests(
    change: Change, sch: Segment, services: list[Group], patient: Change | None, context: Context
) -> list[Change]:
    """A ServiceRequest for each service: the order of SCH-26/27 where there is one service, else one of its own."""
    requests = []
    subject = patient.reference if patient else {"display": "not told"}
    for index, group in enumerate(services or ([NOTHING] if sch.raw(26) or sch.raw(27) else [])):
        segment = group.segment("AIS")
        draft = Draft({"resourceType": "ServiceRequest", "intent": "order", "status": "active", "subject": subject})
        if len(services) <= 1:
            fill(draft, sch, "ServiceRequest", context)
        _describe(draft.resource, group, segment, context)
        parts = (*find_key(change), segment.text(1) or str(index), segment.text(3))
        requests.append(add_draft(draft, "service-request", parts, context))
    return requests


def _describe(request: Resource, group: Group, segment: Segment, context: Context) -> None:
    if code := read_concept(segment, 3, context):
        request["code"] = code
    details = [
        detail
        for number in (11, 12)
        for each in segment.repetitions(number)
        if (detail := cwe_to_codeable_concept(each, Cell(context, segment.place(number))))
    ]
    if details and code:
        request["orderDetail"] = details
    start = read_moment(segment.text(4), context.zone) if segment.text(4) else None
    if start and start.instant:
        times = Times(start.value, add_minutes(start.value, read_minutes(segment.text(7), segment.text(8))))
        request["occurrencePeriod"] = times.told
    if notes := nte_to_annotations(group.all("NTE"), context):
        request["note"] = notes
