"""ChargeItems of a patient become the FT1 of a DFT, with the visit, the diagnoses and the insurance."""

from __future__ import annotations

from mappers.hl7v2.changes import Resource
from mappers.hl7v2.er7 import Segment
from mappers.hl7v2.issues import refuse
from mappers.hl7v2.outbound.adt import find_account, find_patient, take_visit
from mappers.hl7v2.outbound.codes import write_concept
from mappers.hl7v2.outbound.fields import Fields
from mappers.hl7v2.outbound.identifiers import choose_identifier
from mappers.hl7v2.outbound.insurance import write_guarantors, write_insurance
from mappers.hl7v2.outbound.leaves import is_derived, tell_leaves
from mappers.hl7v2.outbound.patients import name_resource, write_pd1, write_pid
from mappers.hl7v2.outbound.people import write_organization_code
from mappers.hl7v2.outbound.receiver import Writing
from mappers.hl7v2.outbound.visits import write_diagnoses, write_visit
from mappers.hl7v2.vocabulary import SYSTEMS

PROCEDURES = frozenset({SYSTEMS["CPT"], SYSTEMS["HCPCS"]})
"""Code systems of FT1-25."""

TYPES = {"billable": "CG", "entered-in-error": "CD"}
"""FT1-6 by the status of the charge; a charge of another status is CG, and its status is told."""


def write_dft(focus: Resource, writing: Writing) -> list[Segment]:
    """The segments of a DFT message after EVN: one charge, or all charges of a visit or of a patient."""
    original = find_patient(focus, writing)
    charges = [each for each in writing.index.of_type("ChargeItem") if _belongs(each, focus, writing)]
    if original is None or not charges:
        name = f"{focus['resourceType']}/{focus.get('id', '')}"
        text = (
            f"{writing.message} is about ChargeItems of a Patient; {name} leads to no Patient or charge that is given."
        )
        writing.issues.append(refuse("204", text))
        return []
    patient = writing.open(original)
    encounter = writing.follow(charges[0].get("context"), "Encounter")
    account = find_account(original, {"account": charges[0].get("account", [])}, writing)
    transactions = [_write_ft1(number, each, (encounter, account), writing) for number, each in enumerate(charges, 1)]
    segments = [
        write_pid(patient, account, writing),
        *write_pd1(patient, writing),
        *(write_visit(encounter, writing) if encounter else []),
        *transactions,
        *write_diagnoses(encounter, writing),
        *write_guarantors(account, original, writing),
        *write_insurance(original, writing),
    ]
    take_visit(encounter, account, writing)
    tell_leaves(patient, writing)
    return segments


def _belongs(charge: Resource, focus: Resource, writing: Writing) -> bool:
    """Whether a charge is the focus, or of the visit or the patient that the focus is."""
    if focus["resourceType"] == "ChargeItem":
        return charge is focus
    name = "context" if focus["resourceType"] == "Encounter" else "subject"
    return writing.index.leads_to(charge.get(name), focus)


def _write_ft1(
    number: int, original: Resource, beside: tuple[Resource | None, Resource | None], writing: Writing
) -> Segment:
    charge = writing.open(original)
    ft1 = Fields("FT1", writing)
    ft1.put(1, str(number))
    _take_number(ft1, charge, writing)
    _take_code(ft1, charge, writing)
    if "performingOrganization" in charge:
        ft1.add(13, write_organization_code(charge["performingOrganization"], writing))
        if ft1.values.get(13):
            charge.pop("performingOrganization")
    ft1.fill(charge, "ChargeItem")
    charge.pop("subject", None)
    for resource, name in zip(beside, ("context", "account"), strict=True):
        value = charge.get(name)
        if writing.names(value[0] if isinstance(value, list) and value else value, resource):
            charge.pop(name)
    tell_leaves(charge, writing)
    return ft1.segment()


def _take_number(ft1: Fields, charge: Resource, writing: Writing) -> None:
    """FT1-2 and FT1-6; what undoes a charge names it in FT1-31."""
    partner = writing.receiver.partner
    status = charge.get("status", "")
    kind = TYPES.get(status, "CG")
    ft1.put(6, kind)
    if status in TYPES:
        charge.pop("status")
    identifier = choose_identifier(charge, partner)
    if identifier is None and any(is_derived(each, partner) for each in charge.get("identifier", [])):
        return
    number = (identifier or name_resource(charge, writing)).get("value", "")
    ft1.put(2, number)
    if kind == "CD":
        ft1.put(31, number)
    if identifier:
        identifier.pop("value")
        if identifier.get("system") == f"{partner.root}/transaction":
            identifier.pop("system")


def _take_code(ft1: Fields, charge: Resource, writing: Writing) -> None:
    """FT1-7 is the code, FT1-25 too where it is one of a procedure."""
    systems = {each.get("system") for each in charge.get("code", {}).get("coding", [])[:1]}
    code = write_concept(charge.get("code", {}), "", "FT1-25" if systems & PROCEDURES else "FT1-7", writing)
    ft1.add(7, code)
    if systems & PROCEDURES:
        ft1.add(25, code)
