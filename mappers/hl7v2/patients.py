"""PID, PD1, NK1 become Patient and RelatedPerson. https://build.fhir.org/ig/HL7/v2-to-fhir/segment_maps.html"""

from __future__ import annotations

from typing import Any, NamedTuple

from mappers.hl7v2.changes import Change, Identity, Resource
from mappers.hl7v2.context import Cell, Context
from mappers.hl7v2.datatypes.codes import build_concept, cwe_to_codeable_concept
from mappers.hl7v2.datatypes.identifiers import add_derived, read_identity
from mappers.hl7v2.er7 import Segment
from mappers.hl7v2.groups import Group
from mappers.hl7v2.rows import SOURCE_EXTENSION, Draft, fill

US_CORE = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-"
RACE_SYSTEM = "urn:oid:2.16.840.1.113883.6.238"
CATEGORIES = frozenset({"1002-5", "2028-9", "2054-5", "2076-8", "2106-3", "2135-2", "2186-5", "UNK", "ASKU"})
"""Codes of race and ethnicity that are categories; the others are details."""

CONTACT_ONLY = frozenset({"EMR", "E", "F", "I", "S"})
"""Codes of NK1-3 and NK1-7 that name no person related to the patient: employer, agencies, insurer."""


class Subject(NamedTuple):
    """Whom an order, a charge or a finding is for."""

    patient: Change
    encounter: Change | None
    account: Change | None = None

    @property
    def links(self) -> dict[str, dict[str, str]]:
        """The elements `subject` and `encounter` of what is said of them."""
        found = {"subject": self.patient.reference}
        return found | ({"encounter": self.encounter.reference} if self.encounter else {})


def pid_to_patient(group: Group, context: Context) -> Change:
    """Adds the Patient of a group that holds PID, and PD1, PV1-16 and segments of the site where they are there."""
    segment = group.segment("PID")
    draft = Draft({"resourceType": "Patient"})
    fill(draft, segment, "Patient", context)
    for each in group.segments:
        if each.name == "PD1" or each.name.startswith("Z"):
            fill(draft, each, "Patient", context)
    for number, name in ((10, "race"), (22, "ethnicity")):
        if extension := _read_race(segment, number, name, context):
            draft.resource.setdefault("extension", []).append(extension)
    identity = choose_identity(draft.resource)
    if identity is None and context.message == "ADT":
        text = "PID-3 is empty: without an identifier it is not known whom the message is about."
        context.refuse("101", text, segment.place(3))
    elif identity is None:
        context.warn("101", "PID-3 is empty: the patient cannot be found again and is created.", segment.place(3))
    change = context.changes.add(draft.resource, identity)
    change.delete += draft.delete
    change.sources += draft.sources
    _add_mother(segment, change, context)
    return change


def choose_identity(resource: Resource) -> Identity | None:
    """The first identifier with a system, but for social security numbers and licences: they are not the partner's."""
    return next(iter(list_identities(resource)), None)


def list_identities(resource: Resource) -> list[Identity]:
    """All identities by which a resource may be found; numbers that are not used any more are none."""
    own = [each for each in resource.get("identifier", []) if _read_type(each) not in ("SS", "DL")]
    return [identity for each in own if each.get("use") != "old" and (identity := read_identity(each))]


def _read_type(identifier: Resource) -> str:
    codings: list[Resource] = identifier.get("type", {}).get("coding", [{}])
    return str(codings[0].get("code", ""))


def _read_race(segment: Segment, number: int, name: str, context: Context) -> Resource | None:
    """The US Core extension of race or ethnicity: https://hl7.org/fhir/us/core/StructureDefinition-us-core-race.html"""
    parts: list[Resource] = []
    texts = []
    for repetition in segment.repetitions(number):
        code, display = repetition.text(1), repetition.text(2)
        if not code and not display:
            continue
        texts.append(display or code)
        if not code[:1].isdigit() and code not in CATEGORIES:
            continue
        url = "ombCategory" if code in CATEGORIES else "detailed"
        coding = {"system": RACE_SYSTEM, "code": code, **({"display": display} if display else {})}
        if url == "detailed" or name == "race" or not any(part["url"] == url for part in parts):
            parts.append({"url": url, "valueCoding": coding})
    if not texts or f"PID-{number}" in context.partner.ignored:
        return None
    return {"url": US_CORE + name, "extension": [*parts, {"url": "text", "valueString": ", ".join(texts)}]}


def _add_mother(segment: Segment, patient: Change, context: Context) -> None:
    """PID-21 names the mother by identifiers."""
    draft = Draft({"resourceType": "RelatedPerson"})
    fill(draft, segment, "RelatedPerson-Mother", context)
    if identity := choose_identity(draft.resource):
        draft.resource["patient"] = patient.reference
        draft.resource["relationship"] = [build_concept("v3-RoleCode", "MTH", "mother")]
        context.changes.add(draft.resource, identity)


def nk1_to_related_person(segment: Segment, subject: Subject, context: Context) -> None:
    """Adds a contact of the Patient, and a RelatedPerson unless NK1 names an employer, insurer or agency."""
    patient = subject.patient
    contact = Draft({})
    fill(contact, segment, "contact", context)
    organization = Draft({"resourceType": "Organization"})
    fill(organization, segment, "contact-organization", context)
    known = context.changes.find(contact.resource.get("organization"))
    if known and len(organization.resource) > 1:
        known.resource.setdefault("contact", []).extend(organization.resource["contact"])
    if contact.resource:
        source = f"{context.partner.name} NK1"
        contact.resource["extension"] = [{"url": SOURCE_EXTENSION, "valueString": source}]
        patient.resource.setdefault("contact", []).append(contact.resource)
        patient.sources.append(source)
    roles = {segment.text(3), segment.text(7)}
    if roles & CONTACT_ONLY:
        return
    draft = Draft({"resourceType": "RelatedPerson", "patient": patient.reference})
    fill(draft, segment, "RelatedPerson", context)
    if len(draft.resource) < 3:
        return
    add_related_person(draft, patient, context)


def add_related_person(draft: Draft, patient: Change, context: Context) -> Change:
    """Adds a RelatedPerson, known by its identifiers or else by patient, name and relationship."""
    names = draft.resource.get("name", [{}])[0]
    codes = [_read_first_code(each) for each in draft.resource.get("relationship", [])[:1]]
    parts = (*find_key(patient), names.get("family", ""), " ".join(names.get("given", [])), *codes)
    return add_draft(draft, "related-person", tuple(part.upper() for part in parts), context)


def _read_first_code(concept: Any) -> str:
    codings = concept.get("coding", [])
    return str(codings[0].get("code", "")) if codings else str(concept.get("text", ""))


def add_draft(draft: Draft, kind: str, parts: tuple[str, ...], context: Context) -> Change:
    """Adds a resource known by a number of its own, or else by one of a kind that is made of `parts`."""
    if identity := choose_identity(draft.resource):
        change = context.changes.add(draft.resource, identity)
    else:
        change = add_derived(draft.resource, kind, parts, context)
    change.delete += draft.delete
    change.sources += draft.sources
    return change


def find_key(change: Change | None) -> tuple[str, ...]:
    """What tells a resource from others of its type, for keys that are derived from it."""
    if change is None:
        return ("",)
    return tuple(change.identity) if change.identity else (change.url,)


def read_concept(segment: Segment, number: int, context: Context, vocabulary: str = "") -> Resource | None:
    """The CodeableConcept of the first repetition of a field."""
    return cwe_to_codeable_concept(segment.first(number), Cell(context, segment.place(number, 1), vocabulary))
