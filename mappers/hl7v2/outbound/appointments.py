"""Appointment with its participants becomes SCH, TQ1, NTE, PID, RGS, AIS, AIG, AIL and AIP."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from mappers.hl7v2.changes import Resource
from mappers.hl7v2.datatypes.codes import build_concept
from mappers.hl7v2.datatypes.identifiers import IDENTIFIER_TYPES
from mappers.hl7v2.er7 import Composite, Segment
from mappers.hl7v2.issues import refuse
from mappers.hl7v2.outbound.codes import find_code, write_concept
from mappers.hl7v2.outbound.fields import Fields
from mappers.hl7v2.outbound.identifiers import choose_identifier, read_type, write_authority
from mappers.hl7v2.outbound.leaves import tell_leaves
from mappers.hl7v2.outbound.patients import name_resource, write_pd1, write_pid
from mappers.hl7v2.outbound.people import write_location, write_person
from mappers.hl7v2.outbound.receiver import Writing
from mappers.hl7v2.outbound.times import write_date_time, write_moment
from mappers.hl7v2.schedules import NO_SHOW_REASON, PRIORITIES
from mappers.hl7v2.tables import read_table

BOUND = frozenset({"S15", "S17", "S26"})
"""Events that say one status alone: the Appointment must have it."""

ACTIONS = {"S12": "A", "S17": "D"}
"""HL70206 by event; every other event updates."""


class ActorKind(NamedTuple):
    """The segment of a kind of participant, with its fields of start and duration, and of the status."""

    segment: str
    types: tuple[str, ...]
    start: int
    duration: int
    status: int


ACTORS = (
    ActorKind("AIG", ("Device",), 8, 11, 14),
    ActorKind("AIL", ("Location",), 6, 9, 12),
    ActorKind("AIP", ("Practitioner", "PractitionerRole"), 6, 9, 12),
)


def write_siu(focus: Resource, writing: Writing) -> list[Segment]:
    """The segments of an SIU message after MSH."""
    name = f"{focus['resourceType']}/{focus.get('id', '')}"
    if focus["resourceType"] != "Appointment":
        writing.issues.append(refuse("204", f"{writing.message} is about an Appointment; {name} is none."))
        return []
    appointment = writing.open(focus)
    said = next(row[3] for row in read_table("events.tsv") if row[:2] == (writing.message, writing.event))
    if writing.event in BOUND and appointment.get("status") != said:
        text = f"{writing.event} is about an Appointment that is {said}; {name} is {appointment.get('status')}."
        writing.issues.append(refuse("102", text))
        return []
    _type_numbers(appointment)
    people = _write_patient(appointment, writing)
    segments = [*_write_schedule(appointment, focus, writing), *people, Segment("RGS", ("1",))]
    segments += _write_types(appointment, focus, writing)
    segments += _write_participants(appointment, writing)
    appointment["participant"] = [each for each in appointment.get("participant", []) if each]
    tell_leaves(appointment, writing)
    return segments


def _type_numbers(appointment: Resource) -> None:
    """Types the numbers that have no type as ours: whoever keeps the schedule is the filler."""
    for identifier in appointment.get("identifier", []):
        if not read_type(identifier):
            identifier["type"] = build_concept(IDENTIFIER_TYPES, "FILL")


def _write_schedule(appointment: Resource, focus: Resource, writing: Writing) -> list[Segment]:
    sch = Fields("SCH", writing)
    if not any(read_type(each) in ("PLAC", "FILL") for each in appointment.get("identifier", [])):
        own = name_resource(appointment, writing) | {"type": build_concept(IDENTIFIER_TYPES, "FILL")}
        appointment.setdefault("identifier", []).append(own)
    sch.fill(appointment, "Appointment")
    sch.add(6, _take_reason(appointment, writing))
    if "minutesDuration" in appointment:
        sch.put(9, str(appointment.pop("minutesDuration")))
        sch.put(10, "min")
    times = [write_date_time(appointment, name, writing) for name in ("start", "end")]
    sch.put(11, "", "", "", *times)
    status = find_code(appointment.get("status", ""), "", "FillerStatusCodes[Appointment]", "SCH-25",
                       writing.receiver.partner)  # fmt: skip
    if status:
        appointment.pop("status")
        sch.put(25, status)
    request = next(iter(appointment.get("basedOn", [])), None)
    if request and len(appointment.get("serviceType", [])) < 2 and (order := writing.follow(request, "ServiceRequest")):
        sch.fill(order, "ServiceRequest")
        _take_same(order, appointment, focus)
        tell_leaves(order, writing)
        request.clear()
    tq1 = Fields("TQ1", writing)
    tq1.put(1, "1")
    tq1.put(7, times[0])
    tq1.put(8, times[1])
    priority = next((code for code, value in PRIORITIES.items() if value == appointment.get("priority")), "")
    if priority:
        appointment.pop("priority")
        tq1.put(9, priority)
    segments = [sch.segment(), *([tq1.segment()] if writing.receiver.version >= "2.5" and any(times) else [])]
    if comment := appointment.pop("comment", ""):
        note = Fields("NTE", writing)
        note.put(1, "1")
        note.put(3, comment)
        segments.append(note.segment())
    return segments


def _take_same(order: Resource, appointment: Resource, focus: Resource) -> None:
    """Takes out of an order what the appointment says of it, and what an order of a booking always is."""
    whole = {name: focus[name] for name in ("start", "end") if name in focus}
    same: dict[str, Any] = {"status": "active", "intent": "order", "occurrencePeriod": whole}
    same["code"] = next(iter(appointment.get("serviceType", [])), None)
    order.pop("subject", None)
    for name, value in same.items():
        if order.get(name) == value:
            order.pop(name, None)


def _take_reason(appointment: Resource, writing: Writing) -> Composite | None:
    """Why it was cancelled, or why nobody came, for which R4 has no element but an extension of ours."""
    if "cancelationReason" in appointment:
        return write_concept(appointment["cancelationReason"], "", "SCH-6", writing)
    for extension in list(appointment.get("extension", [])):
        if extension.get("url") == NO_SHOW_REASON and appointment.get("status") == "noshow":
            appointment["extension"].remove(extension)
            return write_concept(extension["valueCodeableConcept"], "", "SCH-6", writing)
    return None


def _write_patient(appointment: Resource, writing: Writing) -> list[Segment]:
    """PID and PD1 of the first participant who is a Patient."""
    for entry in appointment.get("participant", []):
        patient = writing.follow(entry.get("actor"), "Patient")
        if patient is None:
            continue
        entry.pop("actor")
        if entry.get("status") == "accepted":
            entry.pop("status")
        segments = [write_pid(patient, None, writing), *write_pd1(patient, writing)]
        tell_leaves(patient, writing)
        return segments
    return []


def _write_types(appointment: Resource, focus: Resource, writing: Writing) -> list[Segment]:
    """An AIS for each service type, all at the time of the appointment."""
    segments = []
    for number, concept in enumerate(appointment.get("serviceType", []), 1):
        ais = Fields("AIS", writing)
        ais.put(1, str(number))
        ais.put(2, ACTIONS.get(writing.event, "U"))
        ais.fill({"serviceType": [concept]}, "Appointment")
        ais.put(4, write_moment(focus.get("start", "")))
        _put_duration(ais, 7, focus.get("start"), focus.get("end"))
        segments.append(ais.segment())
    return segments


def _put_duration(fields: Fields, number: int, start: Any, end: Any) -> None:
    """The time between two moments, in minutes, or in seconds where it is no whole number of minutes."""
    if not isinstance(start, str) or not isinstance(end, str) or "T" not in start or "T" not in end:
        return
    seconds = (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
    if seconds > 0 and seconds == int(seconds):
        whole = seconds % 60 == 0
        fields.put(number, str(int(seconds // 60 if whole else seconds)))
        fields.put(number + 1, "min" if whole else "s")


def _write_participants(appointment: Resource, writing: Writing) -> list[Segment]:
    """An AIG, AIL or AIP for each participant, by what they are; in this order, as the structure wants."""
    segments = []
    for kind in ACTORS:
        number = 0
        for entry in appointment.get("participant", []):
            known = writing.index.find(entry.get("actor"))
            stated = str((entry.get("actor") or {}).get("reference", "")).split("/")[-2:-1]
            if (known["resourceType"] if known else "".join(stated)) in kind.types:
                number += 1
                segments.append(_write_actor(number, kind, entry, writing))
    return segments


def _write_actor(number: int, kind: ActorKind, entry: Resource, writing: Writing) -> Segment:
    fields = Fields(kind.segment, writing)
    fields.put(1, str(number))
    fields.put(2, ACTIONS.get(writing.event, "U"))
    writes = {"AIG": write_equipment, "AIL": write_location, "AIP": write_person}
    if actor := writes[kind.segment](entry["actor"], writing):
        fields.add(3, actor)
        entry.pop("actor")
    fields.fill(entry, "participant")
    period = entry.get("period", {})
    _put_duration(fields, kind.duration, period.get("start"), period.get("end"))
    fields.put(kind.start, write_date_time(period, "start", writing))
    if fields.values.get(kind.duration):
        period.pop("end")
    status = find_code(entry.get("status", ""), "", "ParticipantStatus", "", writing.receiver.partner)
    fields.put(kind.status, status)
    if status or entry.get("status") == "needs-action":
        entry.pop("status")
    return fields.segment()


def write_equipment(reference: Resource, writing: Writing) -> Composite | None:
    """A Device as AIG-3: number, name, and the name of the authority."""
    device = writing.follow(reference, "Device")
    if device is None:
        return None
    identifier = choose_identifier(device, writing.receiver.partner) or name_resource(device, writing)
    names: list[Resource] = device.get("deviceName", [{}])
    authority = write_authority(identifier.get("system", ""), writing.receiver.partner)
    fields = Fields("AIG", writing)
    fields.put(3, identifier.get("value", ""), names[0].get("name", ""), authority[0] or authority[1])
    return fields.values[3][0] if fields.values[3] else None
