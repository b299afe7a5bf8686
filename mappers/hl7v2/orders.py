"""ORC, OBR, OBX, SPM of an ORU become ServiceRequest, DiagnosticReport, Observation and Specimen."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from mappers.hl7v2.changes import Change, Identity, Resource
from mappers.hl7v2.clinical import nte_to_annotations, obx_to_observation
from mappers.hl7v2.context import Cell, Context
from mappers.hl7v2.datatypes.codes import cwe_to_codeable_concept
from mappers.hl7v2.datatypes.identifiers import derive_identifier, read_identity
from mappers.hl7v2.datatypes.people import xon_to_organization
from mappers.hl7v2.er7 import Segment
from mappers.hl7v2.groups import Group
from mappers.hl7v2.issues import tell, warn
from mappers.hl7v2.patients import choose_identity, find_key
from mappers.hl7v2.rows import Draft, fill, tell_unmapped
from mappers.hl7v2.vocabulary import translate

PARTIAL = frozenset("AMN")
"""Codes of OBR-25 that FHIR has no exact status for."""


class Subject(NamedTuple):
    """Whom an order is for."""

    patient: Change
    encounter: Change | None


def order_to_report(group: Group, subject: Subject, shared: Counter[str], context: Context) -> None:
    """Adds what one ORDER_OBSERVATION holds. `shared` counts the order numbers of the message (`count_numbers`)."""
    orc, obr = group.segment("ORC"), group.segment("OBR")
    request = _add_request(group, subject, shared, context)
    draft = Draft({"resourceType": "DiagnosticReport", "subject": subject.patient.reference})
    for segment in (orc, obr):
        fill(draft, segment, "DiagnosticReport", context, (orc, obr))
    report = draft.resource
    report["basedOn"] = [request.reference]
    report["status"] = _find_report_status(obr, context)
    report.setdefault("code", {"text": "not told"})
    if subject.encounter:
        report["encounter"] = subject.encounter.reference
    specimens = [_add_specimen(each, subject, request, context) for each in group.list_children("SPECIMEN")]
    specimens = specimens or _add_order_specimen(obr, subject, request, context)
    if specimens:
        report["specimen"] = [each.reference for each in specimens]
    change = context.changes.add(report, _identify(report, ("FILL", "PLAC"), obr, shared, context))
    links = {"basedOn": [request.reference], "subject": subject.patient.reference}
    if subject.encounter:
        links["encounter"] = subject.encounter.reference
    if len(specimens) == 1:
        links["specimen"] = specimens[0].reference
    results = [each.reference for each in _add_observations(group.list_children("OBSERVATION"), change, links, context)]
    if results:
        change.resource["result"] = results
    for index, specimen in enumerate(group.list_children("SPECIMEN")):
        inner = specimen.list_children("SPECIMEN_OBSERVATION")
        _add_observations(inner, specimens[index], links | {"specimen": specimens[index].reference}, context)


def count_numbers(groups: list[Group]) -> Counter[str]:
    """How many orders of a message share each placer and filler number."""
    return Counter(
        f"{kind}{group.segment('OBR').raw(number) or group.segment('ORC').raw(number)}"
        for group in groups
        for kind, number in (("PLAC", 2), ("FILL", 3))
    )


def _identify(
    resource: Resource, kinds: tuple[str, ...], obr: Segment, shared: Counter[str], context: Context
) -> Identity | None:
    """The order number that no other order of the message has; else numbers and code together."""
    found = {each.get("type", {}).get("coding", [{}])[0].get("code"): each for each in resource.get("identifier", [])}
    for kind, number in (("PLAC", 2), ("FILL", 3)) if kinds[0] == "PLAC" else (("FILL", 3), ("PLAC", 2)):
        if kind in found and shared[f"{kind}{obr.raw(number)}"] <= 1:
            return read_identity(found[kind])
    values = tuple(f"{each.get('system', '')}|{each['value']}" for each in found.values())
    parts = (*values, obr.text(4), "" if values else context.changes.seed + obr.text(1))
    identifier = derive_identifier(resource["resourceType"].lower(), parts, context.partner)
    resource.setdefault("identifier", []).append(identifier)
    return read_identity(identifier)


def _find_report_status(obr: Segment, context: Context) -> str:
    code = obr.text(25)
    target = translate(code, "ResultStatus[Non-Queries]", "OBR-25", context.partner) if code else None
    if code in PARTIAL and target:
        text = f"FHIR has no status that says what OBR-25 `{code}` says; `{target.code}` is the nearest."
        context.issues.append(tell(text, obr.place(25)))
    elif code and not target:
        text = f"The code `{code[:40]}` of OBR-25 is not known; the status is `unknown`."
        context.issues.append(warn("103", text, obr.place(25)))
    return target.code if target else "unknown"


def _add_request(group: Group, subject: Subject, shared: Counter[str], context: Context) -> Change:
    orc, obr = group.segment("ORC"), group.segment("OBR")
    draft = Draft({"resourceType": "ServiceRequest", "subject": subject.patient.reference})
    timing = [each.segment("TQ1") for each in group.list_children("TIMING_QTY")][:1]
    tell_unmapped(
        [each.segment("TQ1") for each in group.list_children("TIMING_QTY")[1:]],
        "one timing of an order is mapped.",
        context,
    )
    for segment in (orc, obr, *timing):
        fill(draft, segment, "ServiceRequest", context, (orc, obr, *timing))
    request = draft.resource
    request["intent"] = "reflex-order" if obr.text(11) == "G" else "order"
    status = _find_request_status(orc, context)
    if status:
        request["status"] = status
    if subject.encounter:
        request["encounter"] = subject.encounter.reference
    if notes := nte_to_annotations(group.all("NTE"), context):
        request["note"] = notes
    _add_facility(request, orc, context)
    change = context.changes.add(request, _identify(request, ("PLAC", "FILL"), obr, shared, context))
    change.on_create = {"status": "unknown"}
    return change


def _find_request_status(orc: Segment, context: Context) -> str:
    """ORC-5 wins over ORC-1. A request to cancel or hold (CA, HD) is told and changes nothing."""
    control, status = orc.text(1), orc.text(5)
    if control in ("CA", "HD"):
        text = f"ORC-1 `{control}` asks for a decision on the order; its status stays, a person has to decide."
        context.issues.append(warn("0", text, orc.place(1)))
        return ""
    target = translate(status, "OrderStatus", "ORC-5", context.partner) if status else None
    if target is None and control:
        target = translate(control, "OrderControlCode[ServiceRequest.status]", "ORC-1", context.partner)
    return target.code if target else ""


def _add_facility(request: Resource, orc: Segment, context: Context) -> None:
    """With ORC-21 the requester is a person at a place: a PractitionerRole. ORC-24 is the person's address."""
    person = context.changes.find(request.get("requester"))
    address = Draft({})
    fill(address, orc, "Orderer", context)
    if person and address.resource and "address" not in person.resource:
        person.resource |= address.resource
    organization = xon_to_organization(orc.first(21), Cell(context, orc.place(21)))
    known = context.changes.find(organization)
    if known is None:
        return
    facility = Draft({})
    fill(facility, orc, "Facility", context)
    for name, values in facility.resource.items():
        known.resource.setdefault(name, values)
    role: Resource = {"resourceType": "PractitionerRole", "organization": organization}
    if person:
        role["practitioner"] = person.reference
    parts = (*find_key(person), *find_key(known))
    role["identifier"] = [derive_identifier("practitioner-role", parts, context.partner)]
    request["requester"] = context.changes.add(role, read_identity(role["identifier"][0])).reference


def _add_specimen(group: Group, subject: Subject, request: Change, context: Context) -> Change:
    segment = group.segment("SPM")
    draft = Draft({"resourceType": "Specimen", "subject": subject.patient.reference, "request": [request.reference]})
    fill(draft, segment, "Specimen", context)
    return _keep_specimen(draft.resource, segment, request, context)


def _keep_specimen(resource: Resource, segment: Segment, request: Change, context: Context) -> Change:
    identity = choose_identity(resource)
    if identity is None:
        parts = (*find_key(request), segment.name, segment.text(1))
        resource["identifier"] = [derive_identifier("specimen", parts, context.partner)]
        identity = read_identity(resource["identifier"][0])
    return context.changes.add(resource, identity)


def _add_order_specimen(obr: Segment, subject: Subject, request: Change, context: Context) -> list[Change]:
    """The Specimen of an OBR without SPM: of its source (OBR-15) and collection, or none."""
    if not any(obr.raw(number) for number in (9, 10, 14, 15)):
        return []
    draft = Draft({"resourceType": "Specimen", "subject": subject.patient.reference, "request": [request.reference]})
    fill(draft, obr, "Specimen", context)
    source = obr.first(15)
    cell = Cell(context, obr.place(15, 1))
    if kind := cwe_to_codeable_concept(source.part(1), cell):
        draft.resource["type"] = kind
    if site := cwe_to_codeable_concept(source.part(4), cell):
        draft.resource.setdefault("collection", {})["bodySite"] = site
    return [_keep_specimen(draft.resource, obr, request, context)]


def _add_observations(groups: list[Group], owner: Change, links: Resource, context: Context) -> list[Change]:
    """Adds the Observations of groups that hold OBX; those of the same code and sub-id are counted."""
    added = []
    for group in groups:
        segment = group.segment("OBX")
        ordinal = context.changes.count("observation", *find_key(owner), segment.text(3), segment.text(4))
        parts = (*find_key(owner), str(ordinal))
        change = obx_to_observation(segment, parts, context)
        change.resource |= links
        if notes := nte_to_annotations(group.all("NTE"), context):
            change.resource["note"] = notes
        added.append(change)
    return added
