"""PV1, PV2, ROL and PID-18 become Encounter, PractitionerRole and Account."""

from __future__ import annotations

from mappers.hl7v2.changes import Change, Resource
from mappers.hl7v2.context import Cell, Context
from mappers.hl7v2.datatypes.codes import build_concept, st_to_string
from mappers.hl7v2.datatypes.people import xad_to_address
from mappers.hl7v2.er7 import DELETE, Segment
from mappers.hl7v2.events import read_events
from mappers.hl7v2.groups import Group
from mappers.hl7v2.patients import Subject, add_draft, choose_identity, find_key
from mappers.hl7v2.rows import SOURCE_EXTENSION, Draft, fill, find_source, tell_unmapped, warn_missing
from mappers.hl7v2.vocabulary import translate

UNKNOWN_CLASS = {"system": "http://terminology.hl7.org/CodeSystem/v3-NullFlavor", "code": "UNK", "display": "unknown"}
TEMPORARY = {"url": "http://hl7.org/fhir/StructureDefinition/subject-locationClassification"}
BED_STATUS = "http://terminology.hl7.org/CodeSystem/v2-0116"
PROTECTED = {"system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "code": "R", "display": "restricted"}


def pv1_to_encounter(group: Group, patient: Change, account: Change | None, context: Context) -> Change | None:
    """Adds the Encounter of a group that holds PV1; a PV1 with no more than a class names none."""
    segment = group.segment("PV1")
    told = any(number > 2 and segment.raw(number) != DELETE for number in segment.numbers())
    if not told and not any(group.segment("PV2").values):
        tell_unmapped(group.all("PV1"), "it names no visit.", context)
        return None
    draft = Draft({"resourceType": "Encounter"})
    fill(draft, segment, "Encounter", context)
    fill(draft, group.segment("PV2"), "Encounter", context)
    for each in group.segments:
        if each.name.startswith("Z"):
            fill(draft, each, "Encounter", context)
    resource = draft.resource
    resource["subject"] = patient.reference
    if status := _find_status(segment, context):
        resource["status"] = status
    if account:
        resource["account"] = [account.reference]
    _finish(resource, segment, group.segment("PV2"), context)
    if not choose_identity(resource):
        text = "PV1-19 is empty: the visit is known by its patient, account and admission time."
        context.warn("101", text, segment.place(19))
    change = add_draft(draft, "visit", (*find_key(patient), *find_key(account), segment.text(44)), context)
    change.on_create = {"status": _find_initial_status(segment, context), "class": UNKNOWN_CLASS}
    return change


def _find_status(segment: Segment, context: Context) -> str:
    """The status that the event gives; PV1-45 ends a visit that the event does not cancel or re-open."""
    told = read_events()[context.message, context.event].status
    if context.message != "ADT":
        return ""
    if segment.text(45) and told not in ("cancelled", "planned") and context.event != "A13":
        return "finished"
    return told


def _find_initial_status(segment: Segment, context: Context) -> str:
    if segment.text(45):
        return "finished"
    if context.message == "ADT":
        return "unknown"
    return "planned" if segment.text(2) == "P" else "in-progress"


def _finish(resource: Resource, pv1: Segment, pv2: Segment, context: Context) -> None:
    """What the tables cannot say: the code of a bed, a text, the protection, and the class of a temporary place."""
    cell = Cell(context, pv2.place(12))
    if text := st_to_string(pv2.first(12), cell):
        shown = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        div = f'<div xmlns="http://www.w3.org/1999/xhtml"><p>{shown}</p></div>'
        resource["text"] = {"status": "additional", "div": div}
    if pv2.text(22) == "Y":
        resource["meta"] = {"security": [PROTECTED]}
    places = resource.get("location", [])
    target = translate(pv1.text(40), "BedStatus", "PV1-40", context.partner) if pv1.text(40) else None
    bed = context.changes.find(places[0]["location"]) if places and pv1.text(3, 3) else None
    if target and bed:
        bed.resource["operationalStatus"] = {"system": target.system or BED_STATUS, "code": target.code}
    for entry in places:
        if find_source(entry).endswith(" PV1-11"):
            concept = build_concept("http://hl7.org/fhir/ValueSet/subject-location", "temporary")
            entry["extension"].insert(0, {**TEMPORARY, "valueCodeableConcept": concept})


def pid_to_account(segment: Segment, patient: Change, context: Context) -> Change | None:
    """Adds the Account of PID-18."""
    draft = Draft({"resourceType": "Account"})
    fill(draft, segment, "Account", context)
    identity = choose_identity(draft.resource)
    if identity is None:
        return None
    change = context.changes.add(draft.resource | {"subject": [patient.reference]}, identity)
    change.on_create = {"status": "active"}
    return change


def rol_to_practitioner_role(segment: Segment, subject: Subject, context: Context) -> None:
    """Adds a PractitionerRole: the general practitioner for role PP, else a participant of the Encounter."""
    draft = Draft({"resourceType": "PractitionerRole"})
    fill(draft, segment, "PractitionerRole", context)
    resource = draft.resource
    if "practitioner" not in resource and "organization" not in resource:
        warn_missing(segment, 4, context)
        return
    _add_address(segment, resource, context)
    if not segment.text(1, 2):  # a number without authority is that of this message alone
        resource.pop("identifier", None)
    people = [resource.get(name, {}).get("reference", "") for name in ("practitioner", "organization")]
    role = add_draft(draft, "practitioner-role", (*people, segment.text(3)), context)
    source = {"url": SOURCE_EXTENSION, "valueString": f"{context.partner.name} ROL"}
    if segment.text(3) == "PP":
        reference = {**role.reference, "extension": [source]}
        practitioners = subject.patient.resource.setdefault("generalPractitioner", [])
        if reference not in practitioners:
            practitioners.append(reference)
            subject.patient.sources.append(source["valueString"])
    elif encounter := subject.encounter:
        entry: Resource = {"individual": role.reference, "extension": [source]}
        if resource.get("code"):
            entry["type"] = resource["code"][:1]
        if resource.get("period"):
            entry["period"] = resource["period"]
        encounter.resource.setdefault("participant", []).append(entry)
        encounter.sources.append(source["valueString"])


def _add_address(segment: Segment, role: Resource, context: Context) -> None:
    """ROL-11 is the address of the person."""
    person = context.changes.find(role.get("practitioner"))
    address = xad_to_address(segment.first(11), Cell(context, segment.place(11, 1)))
    if person and address:
        person.resource.setdefault("address", []).append(address)
