"""ORC, OBR, OBX, SPM of an ORU become ServiceRequest, DiagnosticReport, Observation and Specimen."""

from __future__ import annotations

from collections import Counter

from mappers.hl7v2.changes import Change, Identity, Resource
from mappers.hl7v2.clinical import nte_to_annotations, obx_to_finding, obx_to_observation
from mappers.hl7v2.context import Cell, Context
from mappers.hl7v2.datatypes.codes import cwe_to_codeable_concept
from mappers.hl7v2.datatypes.identifiers import add_derived, derive_identifier, read_identity
from mappers.hl7v2.datatypes.people import xon_to_organization
from mappers.hl7v2.er7 import NOTHING as NO_VALUE
from mappers.hl7v2.er7 import Segment
from mappers.hl7v2.groups import Group
from mappers.hl7v2.merges import Merge
from mappers.hl7v2.patients import Subject, add_draft, find_key
from mappers.hl7v2.rows import Draft, fill, tell_unmapped
from mappers.hl7v2.subjects import NOTHING, map_subject
from mappers.hl7v2.vocabulary import translate

PARTIAL = frozenset("AMN")
"""Codes of OBR-25 that FHIR has no exact status for."""


def map_oru(root: Group, context: Context) -> list[Merge]:
    """Each PATIENT_RESULT with its visit and orders."""
    orders = list(root.find("ORDER_OBSERVATION"))
    if not orders:
        context.warn("100", "The message has no OBR segment.", Segment("OBR", ()).place())
    shared = count_numbers(orders)
    for result in root.list_children("PATIENT_RESULT"):
        group = next(iter(result.list_children("PATIENT")), NOTHING)
        subject = map_subject(group, next(iter(group.list_children("VISIT")), NOTHING), context)
        for finding in group.list_children("PATIENT_OBSERVATION"):
            obx_to_finding(finding.segment("OBX"), subject, context)
        for order in result.list_children("ORDER_OBSERVATION"):
            order_to_report(order, subject, shared, context)
    return []


def order_to_report(group: Group, subject: Subject, shared: Counter[str], context: Context) -> None:
    """Adds what one ORDER_OBSERVATION holds. `shared` counts the order numbers of the message (`count_numbers`)."""
    orc, obr = group.segment("ORC"), group.segment("OBR")
    request = _add_request(group, subject, shared, context)
    links = {"basedOn": [request.reference], **subject.links}
    draft = Draft({"resourceType": "DiagnosticReport", **links})
    for segment in (orc, obr):
        fill(draft, segment, "DiagnosticReport", context, (orc, obr))
    report = draft.resource
    report["status"] = _find_report_status(obr, context)
    report.setdefault("code", {"text": "not told"})
    told = group.list_children("SPECIMEN")
    specimens = [_add_specimen(each.segment("SPM"), subject, request, context) for each in told]
    if not told and any(obr.raw(number) for number in (9, 10, 14, 15)):
        specimens = [_add_specimen(obr, subject, request, context)]
    if specimens:
        report["specimen"] = [each.reference for each in specimens]
    change = context.changes.add(report, identify_order(report, ("FILL", "PLAC"), obr, obr.text(4), shared, context))
    own = {"specimen": specimens[0].reference} if len(specimens) == 1 else {}
    results = add_observations(group.list_children("OBSERVATION"), change, links | own, context)
    if results:
        change.resource["result"] = [each.reference for each in results]
    for each, specimen in zip(told, specimens, strict=False):
        inner = each.list_children("SPECIMEN_OBSERVATION")
        add_observations(inner, specimen, links | {"specimen": specimen.reference}, context)


def count_numbers(groups: list[Group]) -> Counter[str]:
    """How many orders of a message share each placer and filler number."""
    return Counter(
        f"{kind}{group.segment('OBR').raw(number) or group.segment('ORC').raw(number)}"
        for group in groups
        for kind, number in (("PLAC", 2), ("FILL", 3))
    )


def identify_order(
    resource: Resource, kinds: tuple[str, ...], segment: Segment, code: str, shared: Counter[str], context: Context
) -> Identity | None:
    """The order number that no other order of the message has; else numbers and code together."""
    found = {each.get("type", {}).get("coding", [{}])[0].get("code"): each for each in resource.get("identifier", [])}
    for kind, number in (("PLAC", 2), ("FILL", 3)) if kinds[0] == "PLAC" else (("FILL", 3), ("PLAC", 2)):
        if kind in found and shared[f"{kind}{segment.raw(number)}"] <= 1:
            return read_identity(found[kind])
    values = tuple(f"{each.get('system', '')}|{each['value']}" for each in found.values())
    parts = (*values, code, "" if values else context.changes.seed + segment.text(1))
    identifier = derive_identifier(resource["resourceType"].lower(), parts, context.partner)
    resource.setdefault("identifier", []).append(identifier)
    return read_identity(identifier)


def _find_report_status(obr: Segment, context: Context) -> str:
    code = obr.text(25)
    target = translate(code, "ResultStatus[Non-Queries]", "OBR-25", context.partner) if code else None
    if code in PARTIAL and target:
        text = f"FHIR has no status that says what OBR-25 `{code}` says; `{target.code}` is the nearest."
        context.tell(text, obr.place(25))
    elif code and not target:
        text = f"The code `{code[:40]}` of OBR-25 is not known; the status is `unknown`."
        context.warn("103", text, obr.place(25))
    return target.code if target else "unknown"


def _add_request(group: Group, subject: Subject, shared: Counter[str], context: Context) -> Change:
    orc, obr = group.segment("ORC"), group.segment("OBR")
    draft = Draft({"resourceType": "ServiceRequest", **subject.links})
    timings = [each.segment("TQ1") for each in group.list_children("TIMING_QTY")]
    tell_unmapped(timings[1:], "one timing of an order is mapped.", context)
    segments = (orc, obr, *timings[:1])
    for segment in segments:
        fill(draft, segment, "ServiceRequest", context, segments)
    request = draft.resource
    request["intent"] = "reflex-order" if obr.text(11) == "G" else "order"
    if status := _find_request_status(orc, context):
        request["status"] = status
    if notes := nte_to_annotations(group.all("NTE"), context):
        request["note"] = notes
    add_facility(request, orc, context)
    change = context.changes.add(request, identify_order(request, ("PLAC", "FILL"), obr, obr.text(4), shared, context))
    change.on_create = {"status": "unknown"}
    return change


def _find_request_status(orc: Segment, context: Context) -> str:
    """ORC-5 wins over ORC-1. A request to cancel or hold (CA, HD) is told and changes nothing."""
    control, status = orc.text(1), orc.text(5)
    if control in ("CA", "HD"):
        text = f"ORC-1 `{control}` asks for a decision on the order; its status stays, a person has to decide."
        context.warn("0", text, orc.place(1))
        return ""
    target = translate(status, "OrderStatus", "ORC-5", context.partner) if status else None
    if target is None and control:
        target = translate(control, "OrderControlCode[ServiceRequest.status]", "ORC-1", context.partner)
    return target.code if target else ""


def add_facility(request: Resource, orc: Segment, context: Context) -> None:
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
    request["requester"] = add_derived(role, "practitioner-role", parts, context).reference


def _add_specimen(segment: Segment, subject: Subject, request: Change, context: Context) -> Change:
    """The Specimen of a SPM, or of an OBR without one: of its source (OBR-15) and collection."""
    links = {"subject": subject.patient.reference, "request": [request.reference]}
    draft = Draft({"resourceType": "Specimen", **links})
    fill(draft, segment, "Specimen", context)
    source = segment.first(15) if segment.name == "OBR" else NO_VALUE
    cell = Cell(context, segment.place(15, 1))
    if kind := cwe_to_codeable_concept(source.part(1), cell):
        draft.resource["type"] = kind
    if site := cwe_to_codeable_concept(source.part(4), cell):
        draft.resource.setdefault("collection", {})["bodySite"] = site
    return add_draft(draft, "specimen", (*find_key(request), segment.name, segment.text(1)), context)


def add_observations(groups: list[Group], owner: Change, links: Resource, context: Context) -> list[Change]:
    """Adds the Observations of groups that hold OBX."""
    added = []
    for group in groups:
        change = obx_to_observation(group.segment("OBX"), find_key(owner), links, context)
        if notes := nte_to_annotations(group.all("NTE"), context):
            change.resource["note"] = notes
        added.append(change)
    return added
