"""DG1, AL1, PR1, OBX and NTE become Condition, AllergyIntolerance, Procedure, Observation and their notes."""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable
from typing import Any

from mappers.hl7v2.changes import Change, Resource
from mappers.hl7v2.context import Cell, Context
from mappers.hl7v2.datatypes import quantities
from mappers.hl7v2.datatypes.codes import build_concept, cwe_to_codeable_concept, st_to_string
from mappers.hl7v2.datatypes.identifiers import add_derived, ei_to_identifier, read_identity
from mappers.hl7v2.datatypes.people import xad_to_address
from mappers.hl7v2.datatypes.times import add_minutes, dr_to_period, put_primitive, tm_to_time, ts_to_date_time
from mappers.hl7v2.er7 import Composite, Segment
from mappers.hl7v2.patients import Subject, add_draft, find_key
from mappers.hl7v2.rows import Draft, fill, warn_missing
from mappers.hl7v2.vocabulary import translate

VERIFICATION = "condition-ver-status"
DUE_TO = "http://hl7.org/fhir/StructureDefinition/condition-dueTo"
VALUE_EXTENSION = "http://hl7.org/fhir/5.0/StructureDefinition/extension-Observation.value"
ABSENT = {"X": "error", "N": "not-asked"}
"""Why an Observation has no value, by OBX-11; a status of X is `cancelled` as well."""

RANGE = re.compile(r"\s*([+-]?[\d.]{1,20})\s*-\s*([+-]?[\d.]{1,20})\s*", re.ASCII)
LIMIT = re.compile(r"\s*(<=?|>=?)\s*([+-]?[\d.]{1,20})\s*", re.ASCII)


def dg1_to_condition(segment: Segment, subject: Subject, context: Context) -> None:
    """Adds a Condition and its place among the diagnoses of the Encounter."""
    patient, encounter, _ = subject
    draft = Draft({"resourceType": "Condition", **subject.links})
    fill(draft, segment, "Condition", context)
    resource = draft.resource
    if "code" not in resource and "identifier" not in resource:
        warn_missing(segment, 3, context)
        return
    deleted = segment.text(21) == "D"
    if deleted:
        resource["verificationStatus"] = build_concept(VERIFICATION, "entered-in-error")
    if parent := ei_to_identifier(segment.first(22), Cell(context, segment.place(22))):
        due_to = {"url": DUE_TO, "valueReference": {"type": "Condition", "identifier": parent}}
        resource.setdefault("extension", []).append(due_to)
    parts = (*find_key(patient), *find_key(encounter), segment.text(3, 3), _name_code(segment))
    change = add_draft(draft, "condition", parts, context)
    if encounter and not deleted:
        _add_diagnosis(segment, change, encounter, context)


def _name_code(segment: Segment) -> str:
    """What tells a diagnosis or procedure of one visit from another: its code, else its text, wherever that stands."""
    return segment.text(3) or segment.text(4) or segment.text(3, 2) or segment.text(3, 9)


def _add_diagnosis(segment: Segment, condition: Change, encounter: Change, context: Context) -> None:
    entry: Resource = {"condition": condition.reference}
    kind = segment.text(6)
    target = translate(kind, "DiagnosisType", "DG1-6", context.partner) if kind else None
    if kind:
        entry["use"] = build_concept(*((target.system, target.code, target.display) if target else ("v2-0052", kind)))
    if rank := quantities.nm_to_integer(segment.first(15), Cell(context, segment.place(15))):
        entry["rank"] = rank
    encounter.resource.setdefault("diagnosis", []).append(entry)


def al1_to_allergy_intolerance(segment: Segment, subject: Subject, context: Context) -> None:
    """Adds an AllergyIntolerance."""
    patient = subject.patient
    draft = Draft({"resourceType": "AllergyIntolerance", "patient": patient.reference})
    fill(draft, segment, "AllergyIntolerance", context)
    if "code" not in draft.resource:
        warn_missing(segment, 3, context)
        return
    reaction = draft.resource.get("reaction")
    severity = segment.text(4)
    if reaction and severity and not context.partner.severity_is_criticality:
        draft.resource.pop("criticality", None)
        target = translate(severity, "AllergySeverity[AllergyIntolerance.reaction.severity]", "AL1-4", context.partner)
        if target:
            reaction[0]["severity"] = target.code
    parts = (*find_key(patient), segment.text(3, 3), segment.text(3) or segment.text(3, 2))
    change = add_draft(draft, "allergy", parts, context)
    change.on_create = {"clinicalStatus": build_concept("allergyintolerance-clinical", "active")}


def pr1_to_procedure(segment: Segment, subject: Subject, context: Context) -> Change | None:
    """Adds a Procedure; PR1-7 minutes make its time a period."""
    draft = Draft({"resourceType": "Procedure", **subject.links})
    fill(draft, segment, "Procedure", context)
    resource = draft.resource
    if "code" not in resource:
        warn_missing(segment, 3, context)
        return None
    start = ts_to_date_time(segment.first(5), Cell(context, segment.place(5)))
    value = getattr(start, "value", start)
    minutes = quantities.read_minutes(segment.text(7), "min")
    if end := add_minutes(value, minutes) if isinstance(value, str) and "T" in value else "":
        resource["performedPeriod"] = {"start": value, "end": end}
    else:
        put_primitive(resource, "performedDateTime", start)
    parts = (*find_key(subject.patient), *find_key(subject.encounter), _name_code(segment), segment.text(5))
    change = add_draft(draft, "procedure", parts, context)
    change.on_create = {"status": "completed"}
    return change


def obx_to_finding(segment: Segment, subject: Subject, context: Context) -> None:
    """Adds an Observation about a patient and a visit; those of the same code, sub-id and time are counted."""
    parts = (*find_key(subject.patient), *find_key(subject.encounter), segment.text(14))
    obx_to_observation(segment, parts, subject.links, context)


def obx_to_observation(segment: Segment, owner: tuple[str, ...], links: Resource, context: Context) -> Change:
    """Adds an Observation with `links`, known by its owner, OBX-3 and OBX-4; those that share these are counted."""
    draft = Draft({"resourceType": "Observation", **links})
    fill(draft, segment, "Observation", context)
    resource = draft.resource
    if "code" not in resource:
        warn_missing(segment, 3, context)
        resource["code"] = {"text": "not told"}
    _add_values(resource, segment, context)
    status = segment.text(11)
    target = translate(status, "ObservationResultStatusCodesInterpretation", "OBX-11", context.partner)
    resource["status"] = target.code if target else "unknown"
    if status in ABSENT and not any(name.startswith("value") for name in resource):
        resource["dataAbsentReason"] = build_concept("data-absent-reason", ABSENT[status])
    if text := segment.text(7):
        resource["referenceRange"] = [read_range(text, quantities.read_units(segment.first(6), Cell(context)))]
        for component in resource.get("component", []):
            component["referenceRange"] = resource["referenceRange"]
    _add_device(resource, segment, context)
    _add_performer_address(resource, segment, context)
    ordinal = context.changes.count("observation", *owner, segment.text(3), segment.text(4))
    key = (*owner, str(ordinal), segment.text(3), segment.text(4))
    return add_derived(resource, "observation", key, context)


def _add_device(resource: Resource, segment: Segment, context: Context) -> None:
    """OBX-18 names the equipment; what it is known by is a Device."""
    for number, equipment in enumerate(segment.repetitions(18), 1):
        identifier = ei_to_identifier(equipment, Cell(context, segment.place(18, number)))
        if identifier:
            device: Resource = {"resourceType": "Device", "identifier": [identifier]}
            change = context.changes.add(device, read_identity(identifier))
            resource.setdefault("device", change.reference)


def _add_performer_address(resource: Resource, segment: Segment, context: Context) -> None:
    address = xad_to_address(segment.first(24), Cell(context, segment.place(24, 1)))
    if not address or not segment.raw(23):
        return
    for performer in resource.get("performer", []):
        known = context.changes.find(performer)
        if known and known.type == "Organization" and address not in known.resource.setdefault("address", []):
            known.resource["address"].append(address)


def _add_values(resource: Resource, segment: Segment, context: Context) -> None:
    """value[x] by OBX-2; of several values each becomes a component with the same code."""
    values = []
    for number, repetition in enumerate(segment.repetitions(5), 1):
        if repetition:
            found = read_value(segment, repetition, Cell(context, segment.place(5, number)))
            values += [found] if found[1] not in (None, {}, "") else []
    if segment.text(2) in ("FT", "TX", "ST", "") and len(values) > 1:
        values = [("valueString", "\n".join(str(value) for _, value in values))]
    if len(values) == 1:
        place(resource, *values[0])
    for name, value in values if len(values) > 1 else ():
        component: Resource = {"code": resource["code"]}
        place(component, name, value)
        resource.setdefault("component", []).append(component)


def place(target: Resource, name: str, value: Any) -> None:
    """Sets a value[x]; an Attachment, which R4 has not among them, stands in an extension."""
    if name == "valueAttachment":
        target.setdefault("extension", []).append({"url": VALUE_EXTENSION, name: value})
    else:
        put_primitive(target, name, value)


def vr_to_string(value: Composite, cell: Cell) -> str:
    """The two ends of a VR as one text."""
    return "-".join(text for text in (value.text(1), value.text(2)) if text)


def rp_to_attachment(value: Composite, cell: Cell) -> Resource:
    """An Attachment of a RP, which points at a file."""
    return {"url": "".join(value.text(1).split())}


def ed_to_attachment(value: Composite, cell: Cell) -> Resource:
    """An Attachment of an ED: Base64 alone is data; other text is its title.

    Data without a type are `application/octet-stream`: R4 wants one beside them (att-1).
    """
    attachment: Resource = {}
    types, subtype, encoding, text = value.text(2), value.text(3), value.text(4), value.text(5)
    if types and subtype:
        attachment["contentType"] = f"{types}/{subtype}"
    packed = "".join(text.split())
    if encoding.lower() == "base64" and _is_base64(packed):
        attachment["data"] = packed
        attachment.setdefault("contentType", "application/octet-stream")
    elif text:
        attachment["title"] = text
    return attachment


VALUES: dict[str, tuple[str, Callable[[Composite, Cell], Any]]] = {
    **dict.fromkeys(("CE", "CWE", "CNE", "CF", "IS", "ID"), ("valueCodeableConcept", cwe_to_codeable_concept)),
    **dict.fromkeys(("DT", "DTM", "TS"), ("valueDateTime", ts_to_date_time)),
    "TM": ("valueTime", tm_to_time),
    "DR": ("valuePeriod", dr_to_period),
    "ED": ("valueAttachment", ed_to_attachment),
    "RP": ("valueAttachment", rp_to_attachment),
    "VR": ("valueString", vr_to_string),
}
"""By OBX-2 the name of value[x], and what makes it; other types are texts."""

MEASURED: dict[str, tuple[str, Callable[[Composite, Resource], Any]]] = {
    "NR": ("valueRange", quantities.nr_to_range),
    "NA": ("valueSampledData", quantities.na_to_sampled_data),
}
"""The same for what has the unit of OBX-6."""


def read_value(segment: Segment, value: Composite, cell: Cell) -> tuple[str, Any]:
    """The name and value of value[x]; what does not fit its type is told and kept as a text."""
    kind = segment.text(2)
    unit = quantities.read_units(segment.first(6), cell)
    if kind == "SN":
        return quantities.sn_to_value(value, unit)
    if kind in MEASURED:
        name, measure = MEASURED[kind]
        return name, measure(value, unit)
    if kind == "NM":
        number = quantities.read_number(value.text())
        if number is not None:
            return "valueQuantity", {"value": number, **unit}
        text = f"OBX-5 is `{value.text()[:40]}`, which is no number as OBX-2 says; it is kept as text."
        cell.warn("102", text)
    name, convert = VALUES.get(kind, ("valueString", st_to_string))
    return name, convert(value, cell)


def _is_base64(text: str) -> bool:
    try:
        return bool(text) and bool(binascii.a2b_base64(text.encode("ascii"), strict_mode=True))
    except (binascii.Error, UnicodeEncodeError):
        return False


def read_range(text: str, unit: Resource) -> Resource:
    """A reference range: always the text, and low and high where it says `low-high`, `<x` or `>x`."""
    entry: Resource = {"text": text}
    if found := RANGE.fullmatch(text):
        low, high = (quantities.read_number(each) for each in found.groups())
        if low is not None and high is not None and low <= high:
            entry |= {"low": {"value": low, **unit}, "high": {"value": high, **unit}}
    elif found := LIMIT.fullmatch(text):
        number = quantities.read_number(found[2])
        if number is not None:
            entry["high" if found[1].startswith("<") else "low"] = {"value": number, **unit}
    return entry


def nte_to_annotations(segments: list[Segment], context: Context) -> list[Resource]:
    """The notes of a group: the repetitions of NTE-3 are the lines of one."""
    notes = []
    for segment in segments:
        cell = Cell(context, segment.place(3))
        lines = [st_to_string(each, cell) or "" for each in segment.repetitions(3)]
        if text := "\n".join(lines).strip():
            draft = Draft({"text": text})
            fill(draft, segment, "note", context)
            notes.append(draft.resource)
    return notes
