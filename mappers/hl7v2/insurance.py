"""IN1, IN2 and GT1 become Coverage, its payor, policy holder and subscriber, and the guarantor of an Account."""

from __future__ import annotations

from mappers.hl7v2.changes import Change, Resource
from mappers.hl7v2.context import Cell, Context
from mappers.hl7v2.datatypes.codes import build_concept
from mappers.hl7v2.datatypes.identifiers import add_derived, build_identifier, cwe_to_identifier
from mappers.hl7v2.datatypes.people import xon_to_organization
from mappers.hl7v2.er7 import Segment
from mappers.hl7v2.groups import Group
from mappers.hl7v2.patients import Subject, add_draft, add_related_person, choose_identity, find_key, read_concept
from mappers.hl7v2.rows import Draft, fill, tell_unmapped

SELF = frozenset({"SEL", "18"})
NUMBERS = ((6, "MC", "http://hl7.org/fhir/sid/us-medicare"), (8, "MA", ""))
"""Fields of IN2 that hold a Medicare and a Medicaid number, with their types of HL70203."""


def in1_to_coverage(group: Group, patient: Change, context: Context) -> Change | None:
    """Adds the Coverage of a group that holds IN1, and IN2 where it is there."""
    in1, in2 = group.segment("IN1"), group.segment("IN2")
    if not any(number > 1 for number in in1.numbers()):
        return None
    draft = Draft({"resourceType": "Coverage", "beneficiary": patient.reference})
    for segment in (in1, in2):
        fill(draft, segment, "Coverage", context, (in1, in2))
    resource = draft.resource
    _add_plan(resource, in1, context)
    for number, kind, system in NUMBERS:
        if text := in2.text(number):
            identifier = build_identifier(text, system or context.partner.system(), kind)
            resource.setdefault("identifier", []).append(identifier)
    payor = _add_organization("Payor", (in1, in2), context)
    resource["payor"] = [payor.reference if payor else {"display": in1.text(2, 2) or in1.text(2) or "not told"}]
    holder = _add_organization("Holder", (in1, in2), context)
    if holder:
        resource["policyHolder"] = holder.reference
    _add_subscriber(resource, (in1, in2), patient, context)
    parts = (*find_key(patient), in1.text(2), in1.text(3), in2.text(61) or in1.text(36) or in1.text(49) or in1.text(1))
    change = add_derived(resource, "coverage", parts, context)
    change.on_create = {"status": "active"}
    change.delete += draft.delete
    return change


def _add_plan(resource: Resource, segment: Segment, context: Context) -> None:
    """IN1-2 names the plan, as an identifier and as a class."""
    plan = segment.first(2)
    if identifier := cwe_to_identifier(plan, Cell(context, segment.place(2))):
        resource.setdefault("identifier", []).append(identifier)
        entry = {"type": build_concept("coverage-class", "plan"), "value": plan.text(1)}
        resource.setdefault("class", []).append(entry | ({"name": plan.text(2)} if plan.text(2) else {}))


def _add_organization(kind: str, segments: tuple[Segment, ...], context: Context) -> Change | None:
    """The payer or the policy holder, known by number or else by name."""
    draft = Draft({"resourceType": "Organization"})
    for segment in segments:
        fill(draft, segment, kind, context)
    name = draft.resource.get("name")
    if not name and not choose_identity(draft.resource):
        return None
    return add_draft(draft, "organization-name", (str(name).upper(),), context)


def _add_subscriber(resource: Resource, segments: tuple[Segment, ...], patient: Change, context: Context) -> None:
    """The relationship to the subscriber; the subscriber is the patient or a RelatedPerson.

    IN1-17 is the insured's relation to the patient, Coverage.relationship the beneficiary's to the subscriber.
    """
    in1 = segments[0]
    code = in1.text(17)
    vocabulary = "SubscriberRelationship"
    if context.partner.patient_to_insured and code in ("PAR", "MTH", "FTH", "CHD", "NCH", "SCH", "FCH"):
        vocabulary = "PatientToSubscriber"
    if concept := read_concept(in1, 17, context, vocabulary):
        resource["relationship"] = concept
    if code in SELF:
        resource["subscriber"] = patient.reference
        return
    draft = Draft({"resourceType": "RelatedPerson", "patient": patient.reference})
    for segment in segments:
        fill(draft, segment, "Subscriber", context)
    if draft.resource.keys() & {"name", "birthDate"}:
        resource["subscriber"] = add_related_person(draft, patient, context).reference


def gt1_to_guarantor(segment: Segment, subject: Subject, context: Context) -> None:
    """Adds a guarantor to the Account: the patient, an organization, or a RelatedPerson."""
    patient, _, account = subject
    if account is None:
        tell_unmapped([segment], "without PID-18 there is no account that it guarantees.", context)
        return
    draft = Draft({})
    fill(draft, segment, "Account", context)
    entry: Resource = draft.resource.get("guarantor", [{}])[0]
    if segment.text(11) in SELF:
        entry["party"] = patient.reference
    elif segment.text(21):
        entry["party"] = xon_to_organization(segment.first(21), Cell(context, segment.place(21)))
    else:
        person = Draft({"resourceType": "RelatedPerson", "patient": patient.reference})
        fill(person, segment, "Guarantor", context)
        if not person.resource.keys() & {"name", "identifier"}:
            return
        entry["party"] = add_related_person(person, patient, context).reference
    account.resource.setdefault("guarantor", []).append(entry)
