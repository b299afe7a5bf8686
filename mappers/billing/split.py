"""A claim split by the practice's rules into children, Invoices, held lines, with reasons (docs/billing-rules.md)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from fhir_server.fhir.outcome import Issue
from mappers.billing import codes
from mappers.billing.claim_numbers import find_key
from mappers.billing.claim_view import ClaimView
from mappers.billing.fields import (
    CENT,
    Resource,
    find_extension,
    find_reference,
    make_concept,
    make_control_number,
    make_money,
    make_reference,
    sum_amounts,
    to_amount,
)
from mappers.billing.packing import MAX_DIAGNOSES, Pack, pack_lines
from mappers.billing.scrub_prior import find_priors
from mappers.billing.split_lots import CannotApply, Lot, divide_lines, sort_insurance
from mappers.billing.split_rules import RuleSet


@dataclass(frozen=True, slots=True)
class LineReason:
    """Why a line, or a part of it, stands where it does; `number` is the child's control number or the Invoice's."""

    line: str
    part: int
    number: str
    state: str
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Split:
    """What became of a claim.

    `unchanged`: the claim itself is the only child, nothing is cancelled. `held`: children that wait for a person (the
    claim itself where `unchanged`). Otherwise the source is cancelled where children and Invoices are stored.
    """

    children: tuple[Resource, ...] = ()
    held: tuple[Resource, ...] = ()
    invoices: tuple[Resource, ...] = ()
    reasons: tuple[LineReason, ...] = ()
    issues: tuple[Issue, ...] = ()
    unchanged: bool = False


def split_claim(view: ClaimView, rules: RuleSet, created: str) -> Split:
    """The children of a claim by the rules in force; the same claim and rules give the same children, and these stay.

    A claim that is cancelled or split already gives an issue and nothing else. A rule that cannot be applied holds the
    whole claim: `unchanged`, `held`, and an issue that says why.
    """
    if view.claim.get("status") in ("cancelled", "entered-in-error"):
        text = "The claim is cancelled; it can be neither split nor sent. Send its children, if it has any."
        return Split(issues=(Issue("error", "business-rule", text, ("Claim.status",)),))
    try:
        lots = divide_lines(view, rules)
    except CannotApply as error:
        return _hold_claim(view, str(error))
    groups: dict[tuple[object, ...], list[Lot]] = {}
    for lot in lots:
        groups.setdefault(lot.make_key(), []).append(lot)
    packs = [pack for several in groups.values() for pack in _pack_lots(several)]
    if len(packs) <= 1 and all(_is_as_it_was(lot, view) for lot in lots):
        return _keep_claim(view, lots)
    if fault := _find_fault(view):
        return _hold_claim(view, fault)
    return _make_children(view, packs, rules, created)


def _hold_claim(view: ClaimView, text: str) -> Split:
    reasons = tuple(LineReason(_line_id(line.item), 1, "", "held", (text,)) for line in view.lines)
    return Split(
        held=(view.claim,), reasons=reasons, issues=(Issue("error", "business-rule", text, ("Claim",)),), unchanged=True
    )


def _keep_claim(view: ClaimView, lots: Sequence[Lot]) -> Split:
    held = any(lot.outcome == "hold" for lot in lots)
    number = find_key(view.claim)
    state = "held" if held else "ready"
    reasons = tuple(LineReason(_line_id(lot.line.item), 1, number, state, lot.reasons) for lot in lots)
    children = () if held else (view.claim,)
    return Split(children=children, held=(view.claim,) if held else (), reasons=reasons, unchanged=True)


def _is_as_it_was(lot: Lot, view: ClaimView) -> bool:
    same = lot.insurance == sort_insurance(view) and lot.provider == find_reference(view.claim.get("provider"))
    return same and lot.outcome in ("claim", "hold") and lot.units == lot.line.units


def _find_fault(view: ClaimView) -> str:
    """What must be mended before a claim can be taken apart."""
    sequences = {str(number) for number, _ in view.diagnoses}
    for line in view.lines:
        if wrong := [each for each in line.item.get("diagnosisSequence", ()) if str(each) not in sequences]:
            return (
                f"Line {line.index + 1} points to diagnosis {wrong[0]}, which the claim lacks. Correct it, then split."
            )
    if any(not response.get("item") for _, response in find_priors(view)):
        return "The earlier payer adjudicated the claim without its lines, so that it cannot be split. Decide by hand."
    return ""


def _pack_lots(lots: Sequence[Lot]) -> list[Pack[Lot]]:
    """Lots of one child within 50 lines and 12 diagnoses; keys of diagnoses are their numbers in the source."""
    return pack_lines((lot, [str(each) for each in lot.line.item.get("diagnosisSequence", ())]) for lot in lots)


def _make_children(view: ClaimView, packs: Iterable[Pack[Lot]], rules: RuleSet, created: str) -> Split:
    children: list[Resource] = []
    held: list[Resource] = []
    invoices, reasons = [], []
    packs, issues = _place_diagnoses(view, packs)
    for pack in packs:
        first = pack.lines[0]
        control = make_control_number(find_key(view.claim), *_name_pack(pack))
        state = {"hold": "held", "self-pay": "self-pay"}.get(first.outcome, "ready")
        reasons += [LineReason(_line_id(lot.line.item), lot.part, control, state, lot.reasons) for lot in pack.lines]
        if first.outcome == "self-pay":
            invoices.append(_make_invoice(view, pack, control, created))
            continue
        child = _make_child(view, pack, control, rules)
        (held if first.outcome == "hold" else children).append(child)
    return Split(tuple(children), tuple(held), tuple(invoices), tuple(reasons), tuple(issues))


def _place_diagnoses(view: ClaimView, packs: Iterable[Pack[Lot]]) -> tuple[list[Pack[Lot]], list[Issue]]:
    """The packs with the diagnoses that no line points to, and an issue for each that has no place.

    Such a diagnosis goes to the first child that has room and the payers of the source: no other payer is told of it.
    """
    placed, issues = list(packs), []
    used = {key for pack in placed for key in pack.diagnoses}
    for number, code in view.diagnoses:
        if str(number) in used:
            continue
        place = next((n for n, pack in enumerate(placed) if _has_room(pack, view)), None)
        if place is None:
            text = f"No line points to diagnosis {code}, so that no child has it. Point to it if it matters."
            issues.append(Issue("warning", "incomplete", text, ("Claim.diagnosis",)))
        else:
            placed[place] = replace(placed[place], diagnoses=(*placed[place].diagnoses, str(number)))
    return placed, issues


def _has_room(pack: Pack[Lot], view: ClaimView) -> bool:
    first = pack.lines[0]
    own = first.outcome != "self-pay" and first.insurance == sort_insurance(view)
    return own and len(pack.diagnoses) < MAX_DIAGNOSES


def _name_pack(pack: Pack[Lot]) -> list[str]:
    return [f"{_line_id(lot.line.item)}/{lot.part}" for lot in pack.lines]


def _line_id(item: Resource) -> str:
    return str(item.get("id") or item.get("sequence", ""))


def _make_child(view: ClaimView, pack: Pack[Lot], number: str, rules: RuleSet) -> Resource:
    source, first = view.claim, pack.lines[0]
    child = {key: value for key, value in source.items() if key not in ("id", "meta", "text", "extension", "related")}
    items = [_make_item(lot, pack) for lot in pack.lines]
    by_number = {str(each.get("sequence", 0)): each for each in source.get("diagnosis", ())}
    child |= {
        "identifier": [{"system": codes.PATIENT_CONTROL_NUMBER, "value": number}],
        "extension": _make_extensions(source, first, rules),
        "status": "draft",
        "provider": {"reference": first.provider},
        "related": [*source.get("related", ()), _relate(source)],
        "careTeam": _find_team(source, items),
        "diagnosis": [{**by_number[key], "sequence": n} for n, key in enumerate(pack.diagnoses, 1)],
        "insurance": _make_insurance(view, first),
        "item": items,
        "total": make_money(sum_amounts(lot.charge for lot in pack.lines)),
    }
    payor = (first.insurance[0].coverage.get("payor") or [None])[0] if first.insurance else None
    if payor:
        child["insurer"] = payor
    days = [day for lot in pack.lines for day in (lot.line.first, lot.line.last) if day]
    if days:
        child["billablePeriod"] = {"start": str(min(days)), "end": str(max(days))}
    return {key: value for key, value in child.items() if value != []}


def _make_extensions(source: Resource, first: Lot, rules: RuleSet) -> list[Resource]:
    """The source's, the rule set's version, and the form where it is institutional."""
    old = [each for each in source.get("extension", ()) if each.get("url") not in (codes.RULE_SET, codes.FORM)]
    version = [{"url": codes.RULE_SET, "valueCanonical": rules.version}] if rules.version else []
    form = [{"url": codes.FORM, "valueCode": "institutional"}] if first.bucket == "institutional" else []
    return [*old, *version, *form]


def _relate(source: Resource) -> Resource:
    where: Resource = (
        {"reference": make_reference(source)} if "id" in source else {"identifier": source["identifier"][0]}
    )
    return {"claim": where, "relationship": make_concept(codes.RELATED, "associated")}


def _find_team(source: Resource, items: Sequence[Resource]) -> list[Resource]:
    """The members that the child's lines point to, and those that no line of the source points to."""
    all_pointers = {each for item in source.get("item", ()) for each in item.get("careTeamSequence", ())}
    pointers = {each for item in items for each in item.get("careTeamSequence", ())}
    return [
        each
        for each in source.get("careTeam", ())
        if each.get("sequence") in pointers or each.get("sequence") not in all_pointers
    ]


def _make_insurance(view: ClaimView, first: Lot) -> list[Resource]:
    """The source's own where payers stay as they were, else numbered anew with the destination first."""
    if first.insurance == sort_insurance(view):
        return list(view.claim.get("insurance", ()))
    elements = [each.element for each in first.insurance]
    return [{**each, "sequence": n, "focal": n == 1} for n, each in enumerate(elements, 1)]


def _make_item(lot: Lot, pack: Pack[Lot]) -> Resource:
    """The line with new pointers; its sequence stays, so that earlier adjudications still name it."""
    item = dict(lot.line.item)
    item["diagnosisSequence"] = [pack.diagnoses.index(str(each)) + 1 for each in item.get("diagnosisSequence", ())]
    if lot.part > 1:
        item["id"] = f"{_line_id(item)}-{lot.part}"
    if lot.units != lot.line.units:
        item["quantity"] = {**(item.get("quantity") or {}), "value": lot.units}
        item["net"] = make_money(lot.charge)
        if "unitPrice" in item and (to_amount(item["unitPrice"]) * lot.units).quantize(CENT) != lot.charge:
            del item["unitPrice"]
    return {key: value for key, value in item.items() if value != []}


def _make_invoice(view: ClaimView, pack: Pack[Lot], number: str, created: str) -> Resource:
    """An Invoice of lines that the patient pays, posted on the day of splitting."""
    total = sum_amounts(lot.charge for lot in pack.lines)
    return {
        "resourceType": "Invoice",
        "identifier": [{"system": codes.INVOICE_KEY, "value": number}],
        "extension": [
            {"url": codes.POSTING_DATE, "valueDate": created[:10]},
            {"url": codes.CLAIM_REFERENCE, "valueReference": {"reference": make_reference(view.claim)}},
        ],
        "status": "issued",
        "subject": view.claim["patient"],
        "date": created,
        "lineItem": [_make_line_item(n, lot) for n, lot in enumerate(pack.lines, 1)],
        "totalNet": make_money(total),
        "totalGross": make_money(total),
    }


def _make_line_item(number: int, lot: Lot) -> Resource:
    item = lot.line.item
    line: Resource = {"sequence": number, "priceComponent": [{"type": "base", "amount": make_money(lot.charge)}]}
    if lot.units != Decimal(1):
        line["priceComponent"][0]["factor"] = lot.units
    charge = find_extension(item, codes.CHARGE_ITEM)
    return (
        {**line, "chargeItemReference": charge}
        if charge
        else {**line, "chargeItemCodeableConcept": item["productOrService"]}
    )


def explain_split(split: Split) -> list[str]:
    """A sentence per line for people: where it goes and why."""
    where = {"ready": "goes out in claim", "held": "waits in claim", "self-pay": "is the patient's in invoice"}
    default = "No rule asks for anything else."
    return [
        f"Line {each.line}, part {each.part}, {where[each.state]} {each.number or 'as it is'}: "
        f"{' '.join(each.reasons) or default}"
        for each in split.reasons
    ]
