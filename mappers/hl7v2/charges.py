"""FT1 of a DFT becomes a ChargeItem; payments and adjustments become Tasks that wait for a person.

There is no official map; docs/messages/dft.md says what is decided.
"""

from __future__ import annotations

from decimal import Decimal

from mappers.hl7v2.changes import Change, Resource
from mappers.hl7v2.clinical import dg1_to_condition, pr1_to_procedure
from mappers.hl7v2.context import Cell, Context
from mappers.hl7v2.datatypes.identifiers import build_identifier, derive_identifier, read_identity
from mappers.hl7v2.datatypes.people import cwe_to_organization
from mappers.hl7v2.datatypes.quantities import mo_to_money, read_number
from mappers.hl7v2.er7 import Segment
from mappers.hl7v2.groups import Group
from mappers.hl7v2.insurance import in1_to_coverage
from mappers.hl7v2.merges import Merge
from mappers.hl7v2.patients import Subject, find_key, read_concept
from mappers.hl7v2.rows import Draft, fill
from mappers.hl7v2.subjects import map_subject
from mappers.hl7v2.tasks import write_task

PAYMENT_FIELDS = (("transaction date", 4), ("transaction code", 7), ("charge", 31))
"""Fields of FT1 that the Task of a payment tells."""

CHARGES, PAYMENTS = frozenset({"CG", "CD"}), frozenset({"PY", "AJ"})


def map_dft(root: Group, context: Context) -> list[Merge]:
    """Patient, visit and insurance, then the charges."""
    if not root.holds("PID") or not root.list_children("FINANCIAL"):
        context.refuse("100", "The message needs the segments PID and FT1.", Segment("FT1", ()).place())
        return []
    subject = map_subject(root, root, context)
    for group in root.list_children("FINANCIAL"):
        ft1_to_charge_item(group, subject, context)
        for diagnosis in group.all("DG1"):
            dg1_to_condition(diagnosis, subject, context)
        for insurance in group.list_children("FINANCIAL_INSURANCE"):
            in1_to_coverage(insurance, subject.patient, context)
    return []


def ft1_to_charge_item(group: Group, subject: Subject, context: Context) -> None:
    """Adds what one FINANCIAL group says: a charge, the undoing of one (CD), or a payment (PY, AJ)."""
    segment = group.segment("FT1")
    kind = segment.text(6).upper()
    if kind in PAYMENTS:
        _add_payment(segment, kind, subject.patient, context)
        return
    if kind not in CHARGES:
        context.refuse("103", f"FT1-6 is `{kind[:20]}`; it must be CG, CD, PY or AJ.", segment.place(6))
        return
    draft = Draft({"resourceType": "ChargeItem", "subject": subject.patient.reference})
    fill(draft, segment, "ChargeItem", context)
    charge = draft.resource
    if "code" not in charge:
        context.refuse("101", "FT1-25 and FT1-7 are empty: a charge needs a code.", segment.place(25))
        return
    if subject.encounter:
        charge["context"] = subject.encounter.reference
    if subject.account:
        charge["account"] = [subject.account.reference]
    _set_price(charge, segment, context)
    if organization := cwe_to_organization(segment.first(13), Cell(context, segment.place(13))):
        charge["performingOrganization"] = organization
    charge["identifier"] = [_identify(segment, kind, subject, context)]
    _add_details(charge, group, subject, context)
    change = context.changes.add(charge, read_identity(charge["identifier"][0]))
    if kind == "CG":
        change.on_create = {"status": "billable"}
    else:
        change.resource["status"] = "entered-in-error"
        change.credit = True


def _identify(segment: Segment, kind: str, subject: Subject, context: Context) -> Resource:
    """FT1-2, and for a credit the charge that FT1-31 names; else account, time, code, modifiers, performer, ordinal."""
    number = (segment.text(31) if kind != "CG" else "") or segment.text(2)
    if number:
        return build_identifier(number, f"{context.partner.root}/transaction")
    text = "FT1-2 is empty: the charge is known by account, time, code, modifiers and performer."
    context.warn("101", text, segment.place(2))
    owner = (*find_key(subject.patient), *find_key(subject.account))
    parts = (*owner, segment.text(4), segment.raw(25) or segment.raw(7), segment.raw(26), segment.text(20))
    ordinal = context.changes.count("charge", *parts)
    return derive_identifier("charge", (*parts, str(ordinal)), context.partner)


def _set_price(charge: Resource, segment: Segment, context: Context) -> None:
    """FT1-11 is the price of all units; without it, it is quantity times FT1-12."""
    price = charge.get("priceOverride")
    if price is None or "value" in price:
        return
    unit = mo_to_money(segment.first(12), Cell(context, segment.place(12)))
    quantity = read_number(segment.text(10)) or 1
    if unit:
        price["value"] = Decimal(unit["value"]) * Decimal(quantity)
        price["currency"] = unit["currency"]
    else:
        del charge["priceOverride"]


def _add_details(charge: Resource, group: Group, subject: Subject, context: Context) -> None:
    """The procedures of the charge, and the diagnoses of its group where FT1-19 names none."""
    procedures = [
        procedure
        for inner in group.list_children("FINANCIAL_PROCEDURE")
        if (procedure := pr1_to_procedure(inner.segment("PR1"), subject, context))
    ]
    if procedures:
        charge["service"] = [each.reference for each in procedures]
    reasons = [read_concept(each, 3, context) for each in group.all("DG1")]
    if "reason" not in charge and any(reasons):
        charge["reason"] = [each for each in reasons if each]


def _add_payment(segment: Segment, kind: str, patient: Change, context: Context) -> None:
    """A Task that lists money which is not posted yet."""
    what = "payment" if kind == "PY" else "adjustment"
    amount = mo_to_money(segment.first(11), Cell(context, segment.place(11)))
    number = segment.text(2) or f"{context.changes.seed} {segment.sequence}"
    identifier = build_identifier(number, f"{context.partner.root}/transaction")
    task = write_task("payment-not-posted", f"A {what} came by HL7 v2 and is not posted.", identifier)
    task["for"] = patient.reference
    inputs: list[Resource] = [{"type": {"text": "amount"}, "valueMoney": amount}] if amount else []
    texts = [("transaction type", kind)]
    texts += [(title, segment.text(number)) for title, number in PAYMENT_FIELDS]
    task["input"] = inputs + [{"type": {"text": title}, "valueString": text} for title, text in texts if text]
    context.changes.add(task, read_identity(identifier))
    text = f"The {what} of FT1-2 `{number[:40]}` is listed by a Task and waits to be posted."
    context.tell(text, segment.place(6))
