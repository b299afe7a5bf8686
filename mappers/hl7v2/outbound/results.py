"""DiagnosticReport with its Observations, order and Specimens becomes PID, PV1, OBR, OBX, NTE and SPM."""

from __future__ import annotations

from collections import Counter
from copy import deepcopy

from mappers.hl7v2.changes import Resource
from mappers.hl7v2.datatypes.codes import build_concept
from mappers.hl7v2.datatypes.identifiers import IDENTIFIER_TYPES
from mappers.hl7v2.er7 import Segment
from mappers.hl7v2.issues import refuse
from mappers.hl7v2.outbound.adt import find_patient, take_visit
from mappers.hl7v2.outbound.codes import Part, find_code
from mappers.hl7v2.outbound.fields import Fields
from mappers.hl7v2.outbound.identifiers import is_current, read_type, write_authority
from mappers.hl7v2.outbound.leaves import is_derived, tell_leaves
from mappers.hl7v2.outbound.observations import write_obx
from mappers.hl7v2.outbound.patients import name_resource, write_pd1, write_pid
from mappers.hl7v2.outbound.receiver import Writing
from mappers.hl7v2.outbound.visits import write_visit


def write_oru(focus: Resource, writing: Writing) -> list[Segment]:
    """The segments of an ORU message after MSH."""
    original = find_patient(focus, writing)
    name = f"{focus['resourceType']}/{focus.get('id', '')}"
    if focus["resourceType"] != "DiagnosticReport" or original is None:
        text = f"{writing.message} is about a DiagnosticReport with its Patient; {name} is none, or has none."
        writing.issues.append(refuse("204", text))
        return []
    report, patient = writing.open(focus), writing.open(original)
    segments = [write_pid(patient, None, writing), *write_pd1(patient, writing)]
    tell_leaves(patient, writing)
    if encounter := writing.follow(report.get("encounter"), "Encounter"):
        segments += write_visit(encounter, writing)
        take_visit(encounter, None, writing)
        report.pop("encounter")
    segments += _write_order(report, writing)
    report.pop("subject", None)
    segments += _write_observations(report, focus, writing)
    segments += _write_specimens(report, writing)
    tell_leaves(report, writing)
    return segments


def _write_order(report: Resource, writing: Writing) -> list[Segment]:
    """OBR of the report and of the first order that it is based on."""
    obr = Fields("OBR", writing)
    obr.put(1, "1")
    numbers = [each for each in report.get("identifier", []) if not is_derived(each, writing.receiver.partner)]
    known, code = deepcopy(numbers), deepcopy(report.get("code"))
    for identifier in numbers:
        if not read_type(identifier):
            identifier["type"] = build_concept(IDENTIFIER_TYPES, "FILL")
    if not any(read_type(each) == "FILL" for each in numbers):
        own = name_resource(report, writing) | {"type": build_concept(IDENTIFIER_TYPES, "FILL")}
        report.setdefault("identifier", []).append(own)
    obr.fill(report, "DiagnosticReport")
    status = find_code(report.get("status", ""), "", "ResultStatus[Non-Queries]", "OBR-25", writing.receiver.partner)
    # HL70123 has no code for what was wrong: "no results available" is what is left of it, and the status is told
    obr.put(25, "X" if report.get("status") == "entered-in-error" and not status else status)
    if status or report.get("status") == "unknown":
        report.pop("status")
    request = next(iter(report.get("basedOn", [])), None)
    order = writing.follow(request, "ServiceRequest")
    if request and order:
        obr.fill(order, "ServiceRequest")
        if order.get("intent") == "order":
            order.pop("intent")
        for taken in ("subject", "encounter"):
            order.pop(taken, None)
        order["identifier"] = [each for each in order.get("identifier", []) if each not in known]
        if order.get("code") == code:
            order.pop("code", None)
        tell_leaves(order, writing)
        request.clear()
    return [obr.segment()]


def _write_observations(report: Resource, focus: Resource, writing: Writing) -> list[Segment]:
    """An OBX with its NTE for each result that is given; the sub-id tells those of one code from each other."""
    segments: list[Segment] = []
    counts: Counter[str] = Counter()
    number = 0
    for reference in report.get("result", []):
        observation = writing.follow(reference, "Observation")
        if observation is None:
            continue
        reference.clear()
        for name in ("subject", "encounter", "specimen", "basedOn"):
            told = focus.get(name)
            own = observation.get(name)
            if own and (own == told or (isinstance(told, list) and own in told)):
                observation.pop(name)
        for part in _split_components(observation, writing):
            number += 1
            segments += write_obx(number, part, counts, writing)
        tell_leaves(observation, writing)
    return segments


def _split_components(observation: Resource, writing: Writing) -> list[Resource]:
    """The Observation, and each component as one of its own with the status and the time of the whole; told."""
    components = observation.pop("component", [])
    whole = {name: observation[name] for name in ("status", "effectiveDateTime") if name in observation}
    if components:
        name = f"Observation/{observation.get('id', '')}"
        writing.tell(f"Each component of {name} is sent as an OBX of its own.")
    parts = [{"resourceType": "Observation", "id": observation.get("id", ""), **whole, **each} for each in components]
    return [observation, *parts]


def _write_specimens(report: Resource, writing: Writing) -> list[Segment]:
    """An SPM for each Specimen that is given."""
    segments: list[Segment] = []
    for reference in report.get("specimen", []):
        specimen = writing.follow(reference, "Specimen")
        if specimen is None:
            continue
        reference.clear()
        spm = Fields("SPM", writing)
        spm.put(1, str(len(segments) + 1))
        spm.put(2, *take_pair(specimen, writing))
        spm.fill(specimen, "Specimen")
        for name in ("subject", "request"):
            specimen.pop(name, None)
        tell_leaves(specimen, writing)
        segments.append(spm.segment())
    return segments


def take_pair(resource: Resource, writing: Writing) -> list[Part]:
    """The placer's and the filler's number of a resource, an EIP; one without a type is the filler's."""
    pair: list[Part] = ["", ""]
    partner = writing.receiver.partner
    for identifier in list(resource.get("identifier", [])):
        index = {"PGN": 0, "FGN": 1, "": 1}.get(read_type(identifier))
        if index is not None and not pair[index] and is_current(identifier, partner):
            default = f"{partner.root}/{('placer-group', 'filler-group')[index]}"
            system = identifier.get("system", "")
            authority = ["", "", ""] if system == default else write_authority(system, partner)
            pair[index] = [identifier.get("value", ""), *authority]
            resource["identifier"].remove(identifier)
    return pair
