"""Encounter and Condition become PV1, PV2 and DG1."""

from __future__ import annotations

from mappers.hl7v2.changes import Resource
from mappers.hl7v2.er7 import Segment
from mappers.hl7v2.outbound.codes import find_code, read_first_code
from mappers.hl7v2.outbound.fields import Fields
from mappers.hl7v2.outbound.leaves import tell_leaves
from mappers.hl7v2.outbound.patients import name_resource
from mappers.hl7v2.outbound.people import write_location
from mappers.hl7v2.outbound.receiver import Writing
from mappers.hl7v2.tables import read_table
from mappers.hl7v2.visits import TEMPORARY

NO_VISIT = Segment("PV1", ("1", "N"))
"""The PV1 that the standard requires where there is no visit: HL70004, not applicable."""


def write_visit(encounter: Resource | None, writing: Writing) -> list[Segment]:
    """PV1, and PV2 where it says something, of a copy of an Encounter."""
    if encounter is None:
        return [NO_VISIT]
    pv1 = Fields("PV1", writing)
    pv1.put(1, "1")
    if not encounter.get("identifier"):
        encounter["identifier"] = [name_resource(encounter, writing)]
    if "class" not in encounter or encounter["class"].get("code") == "UNK":
        pv1.put(2, "U")
        encounter.pop("class", None)
    _take_temporary(pv1, encounter, writing)
    pv1.fill(encounter, "Encounter")
    _take_status(pv1, encounter, writing)
    pv2 = Fields("PV2", writing).fill(encounter, "Encounter")
    return [pv1.segment(), *([pv2.segment()] if pv2 else [])]


def _take_temporary(pv1: Fields, encounter: Resource, writing: Writing) -> None:
    """A place that is marked as temporary stands in PV1-11."""
    for entry in list(encounter.get("location", [])):
        if any(each.get("url") == TEMPORARY["url"] for each in entry.get("extension", [])) and 11 not in pv1.values:
            pv1.add(11, write_location(entry["location"], writing))
            encounter["location"].remove(entry)


def _take_status(pv1: Fields, encounter: Resource, writing: Writing) -> None:
    """The status is said by the event, and `finished` by the end of the visit, PV1-45."""
    said = next((row[3] for row in read_table("events.tsv") if row[:2] == (writing.message, writing.event)), "")
    if encounter.get("status") == ("finished" if pv1.values.get(45) else said):
        encounter.pop("status")


def write_diagnoses(encounter: Resource | None, writing: Writing) -> list[Segment]:
    """A DG1 for each diagnosis of a copy of an Encounter whose Condition is given and has a code."""
    segments: list[Segment] = []
    for entry in list((encounter or {}).get("diagnosis", [])):
        condition = writing.follow(entry.get("condition"), "Condition")
        if condition is None or "code" not in condition:
            continue
        segments.append(write_dg1(len(segments) + 1, condition, entry, writing))
        entry.pop("condition")
    return segments


def write_dg1(number: int, condition: Resource, entry: Resource, writing: Writing) -> Segment:
    """Takes out of a Condition and of its entry among the diagnoses what DG1 says."""
    dg1 = Fields("DG1", writing)
    dg1.put(1, str(number))
    dg1.fill(condition, "Condition")
    dg1.put(6, _take_use(entry, writing))
    dg1.put(15, str(entry.pop("rank", "")))
    if read_first_code(condition.get("verificationStatus")) == "entered-in-error":
        condition.pop("verificationStatus")
        dg1.put(21, "D")
    for name in ("subject", "encounter"):
        condition.pop(name, None)
    tell_leaves(condition, writing)
    return dg1.segment()


def _take_use(entry: Resource, writing: Writing) -> str:
    """HL70052 of the use of a diagnosis; required, so W (working) where no use is told."""
    codings = entry.get("use", {}).get("coding", [])
    if not codings:
        return "W"
    code, system = str(codings[0].get("code", "")), str(codings[0].get("system", ""))
    found = find_code(code, system, "DiagnosisType", "DG1-6", writing.receiver.partner)
    if not found and system.endswith("/v2-0052"):
        found = code
    if found:
        entry.pop("use")
    return found or "W"
