"""DG1, AL1, PR1, OBX and NTE become Condition, AllergyIntolerance, Procedure, Observation and their notes."""

from __future__ import annotations

import binascii
import re
from typing import Any

from mappers.hl7v2.changes import Change, Resource
from mappers.hl7v2.context import Cell, Context
from mappers.hl7v2.datatypes import quantities
from mappers.hl7v2.datatypes.codes import build_concept, cwe_to_codeable_concept, st_to_string
from mappers.hl7v2.datatypes.identifiers import derive_identifier, ei_to_identifier, read_identity
from mappers.hl7v2.datatypes.people import xad_to_address
from mappers.hl7v2.datatypes.times import add_minutes, dr_to_period, put_primitive, tm_to_time, ts_to_date_time
from mappers.hl7v2.er7 import Composite, Segment
from mappers.hl7v2.issues import warn
from mappers.hl7v2.patients import choose_identity, find_key
from mappers.hl7v2.rows import Draft, fill, warn_missing
from mappers.hl7v2.vocabulary import translate

VERIFICATION = "condition-ver-status"
DUE_TO = "http://hl7.org/fhir/StructureDefinition/condition-dueTo"
VALUE_EXTENSION = "http://hl7.org/fhir/5.0/StructureDefinition/extension-Observation.value"
ABSENT = {"X": "error", "N": "not-asked"}
"""Why an Observation has no value, by OBX-11; a status of X is `cancelled` as well."""

RANGE = re.compile(r"\s*([+-]?[\d.]{1,20})\s*-\s*([+-]?[\d.]{1,20})\s*", re.ASCII)
LIMIT = re.compile(r"\s*(<=?|>=?)\s*([+-]?[\d.]{1,20})\s*", re.ASCII)


def dg1_to_condition(segment: Segment, patient: Change, encounter: Change | None, context: Context) -> Change | None:
    """Adds a Condition and its place among the diagnoses of the Encounter."""
    draft = Draft({"resourceType": "Condition", "subject": patient.reference})
    fill(draft, segment, "Condition", context)
    resource = draft.resource
    if "code" not in resource and "identifier" not in resource:
        warn_missing(segment, 3, context)
        return None
    if encounter:
        resource["encounter"] = encounter.reference
    if segment.text(21) == "D":
        resource["verificationStatus"] = build_concept(VERIFICATION, "entered-in-error")
    if parent := ei_to_identifier(segment.first(22), Cell(context, segment.place(22))):
        due_to = {"url": DUE_TO, "valueReference": {"type": "Condition", "identifier": parent}}
        resource.setdefault("extension", []).append(due_to)
    parts = (*find_key(patient), *find_key(encounter), segment.text(3, 3), segment.text(3) or segment.text(4))
    change = _add(draft, "condition", parts, context)
    if encounter and segment.text(21) != "D":
        _add_diagnosis(segment, change, encounter, context)
    return change


def _add(draft: Draft, kind: str, parts: tuple[str, ...], context: Context) -> Change:
    """Adds a resource known by its own identifier, or else by one that is derived."""
    identity = choose_identity(draft.resource)
    if identity is None:
        identifier = derive_identifier(kind, parts, context.partner)
        draft.resource.setdefault("identifier", []).append(identifier)
        identity = read_identity(identifier)
    change = context.changes.add(draft.resource, identity)
    change.delete += draft.delete
    return change


def _add_diagnosis(segment: Segment, condition: Change, encounter: Change, context: Context) -> None:
    entry: Resource = {"condition": condition.reference}
    kind = segment.text(6)
    target = translate(kind, "DiagnosisType", "DG1-6", context.partner) if kind else None
    if target:
        entry["use"] = build_concept(target.system, target.code, target.display)
    elif kind:
        entry["use"] = build_concept("v2-0052", kind)
    if rank := quantities.nm_to_integer(segment.first(15), Cell(context, segment.place(15))):
        entry["rank"] = rank
    encounter.resource.setdefault("diagnosis", []).append(entry)


def al1_to_allergy_intolerance(segment: Segment, patient: Change, context: Context) -> Change | None:
    """Adds an AllergyIntolerance."""
    draft = Draft({"resourceType": "AllergyIntolerance", "patient": patient.reference})
    fill(draft, segment, "AllergyIntolerance", context)
    if "code" not in draft.resource:
        warn_missing(segment, 3, context)
        return None
    reaction = draft.resource.get("reaction")
    severity = segment.text(4)
    if reaction and severity and not context.partner.severity_is_criticality:
        draft.resource.pop("criticality", None)
        target = translate(severity, "AllergySeverity[AllergyIntolerance.reaction.severity]", "AL1-4", context.partner)
        if target:
            reaction[0]["severity"] = target.code
    parts = (*find_key(patient), segment.text(3, 3), segment.text(3) or segment.text(3, 2))
    change = _add(draft, "allergy", parts, context)
    change.on_create = {"clinicalStatus": build_concept("allergyintolerance-clinical", "active")}
    return change


def pr1_to_procedure(segment: Segment, patient: Change, encounter: Change | None, context: Context) -> Change | None:
    """Adds a Procedure; PR1-7 minutes make its time a period."""
    draft = Draft({"resourceType": "Procedure", "subject": patient.reference})
    fill(draft, segment, "Procedure", context)
    resource = draft.resource
    if "code" not in resource:
        warn_missing(segment, 3, context)
        return None
    if encounter:
        resource["encounter"] = encounter.reference
    start = ts_to_date_time(segment.first(5), Cell(context, segment.place(5)))
    value = getattr(start, "value", start)
    minutes = quantities.read_minutes(segment.text(7), "min")
    if minutes and isinstance(value, str) and "T" in value and not value.startswith("9999"):
        resource["performedPeriod"] = {"start": value, "end": add_minutes(value, minutes)}
    else:
        put_primitive(resource, "performedDateTime", start)
    parts = (*find_key(patient), *find_key(encounter), segment.text(3), segment.text(5))
    change = _add(draft, "procedure", parts, context)
    change.on_create = {"status": "completed"}
    return change


def obx_to_observation(segment: Segment, parts: tuple[str, ...], context: Context) -> Change:
    """Adds an Observation; `parts` is what it is known by beside OBX-3 and OBX-4."""
    draft = Draft({"resourceType": "Observation"})
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
    key = (*parts, segment.text(3), segment.text(4))
    derived = derive_identifier("observation", key, context.partner)
    resource.setdefault("identifier", []).append(derived)
    return context.changes.add(resource, read_identity(derived))


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
            values += [found] if found and found[1] not in (None, {}, "") else []
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


def read_value(segment: Segment, value: Composite, cell: Cell) -> tuple[str, Any] | None:
    """The name and value of value[x]; what does not fit its type is told and kept as a text."""
    kind = segment.text(2)
    unit = quantities.read_units(segment.first(6), cell)
    if kind == "NM":
        number = quantities.read_number(value.text())
        if number is not None:
            return "valueQuantity", {"value": number, **unit}
        text = f"OBX-5 is `{value.text()[:40]}`, which is no number as OBX-2 says; it is kept as text."
        cell.context.issues.append(warn("102", text, cell.location))
    elif kind in ("CE", "CWE", "CNE", "CF", "IS", "ID"):
        return "valueCodeableConcept", cwe_to_codeable_concept(value, cell)
    elif kind == "SN":
        return quantities.sn_to_value(value, unit)
    elif kind in ("DT", "DTM", "TS"):
        return "valueDateTime", ts_to_date_time(value, cell)
    elif kind == "TM":
        return "valueTime", tm_to_time(value, cell)
    elif kind == "DR":
        return "valuePeriod", dr_to_period(value, cell)
    elif kind == "NR":
        return "valueRange", quantities.nr_to_range(value, unit)
    elif kind == "NA":
        return "valueSampledData", quantities.na_to_sampled_data(value, unit)
    elif kind in ("ED", "RP"):
        return "valueAttachment", ed_to_attachment(value, kind)
    elif kind == "VR":
        return "valueString", "-".join(text for text in (value.text(1), value.text(2)) if text)
    return "valueString", st_to_string(value, cell)


def ed_to_attachment(value: Composite, kind: str) -> Resource:
    """An Attachment of an ED (Base64 alone is data; other text is its title) or of a RP, which points at a file.

    Data without a type are `application/octet-stream`: R4 wants one beside them (att-1).
    """
    attachment: Resource = {}
    if kind == "RP":
        attachment["url"] = "".join(value.text(1).split())
        return attachment
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
