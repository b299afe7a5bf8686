"""What other payers have decided: Coverage and ClaimResponse to loops 2320, 2330A, 2330B and 2430 (005010X222A1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal

from mappers.x12 import codes
from mappers.x12.claim_to_2300 import choose_benefits, choose_release
from mappers.x12.item_to_2400 import MODIFIERS, Line, write_procedure
from mappers.x12.loop import Loop
from mappers.x12.parties import (
    add_address,
    add_payer,
    choose_address,
    coverage_to_sbr,
    find_subscriber,
    name_to_nm1,
    write_date,
)
from mappers.x12.partner import Mapping837
from mappers.x12.resource import (
    Resource,
    find_code,
    find_codes,
    find_extension,
    find_identifier,
    get_day,
    get_decimal,
    get_list,
    get_object,
    get_text,
    get_texts,
    resolve,
)
from mappers.x12.writer import clean, write_decimal

Adjustments = Mapping[str, Sequence[tuple[str, Decimal, Decimal | None]]]
"""By group code: reason, amount, quantity."""

TRIPLETS = 6


def coverage_to_2320(
    mapping: Mapping837, insurance: Resource, sequence: str, lines: Sequence[tuple[Line, Loop]]
) -> Loop:
    """2320 of an entry of `Claim.insurance` that is not focal; its 2430 are put into the loops of the lines."""
    coverage = resolve(insurance.get("coverage"), mapping.resources, mapping.claim)
    response = resolve(insurance.get("claimResponse"), mapping.resources, mapping.claim)
    loop = Loop("2320")
    loop.add(*coverage_to_sbr(mapping, coverage, sequence, other=True))
    loop.add("OI", "", "", choose_benefits(mapping, coverage), "", "", choose_release(mapping, coverage))
    person, number = find_subscriber(mapping, coverage)
    name = loop.open("2330A")
    name.add(*name_to_nm1("IL", person, "MI" if number else "", number))
    if not number or not name.segment("NM1").at(3):
        mapping.tell("The other subscriber needs a name and a member id.", "Coverage.subscriberId", "2330A/NM1/9")
    add_address(name, choose_address(person))
    payer = loop.open("2330B")
    payer_id = add_payer(mapping, payer, coverage)
    if authorization := next(iter(get_texts(insurance, "preAuthRef")), ""):
        payer.add("REF", "G1", clean(authorization, 50))
    noncovered = get_decimal(find_extension(insurance, codes.NONCOVERED))
    if noncovered is not None:
        loop.add("AMT", "A8", write_decimal(noncovered))
    if response:
        _add_response(mapping, loop, response, payer_id, lines)
    return loop


def _add_response(
    mapping: Mapping837, loop: Loop, response: Resource, payer_id: str, lines: Sequence[tuple[Line, Loop]]
) -> None:
    payer = loop.loop("2330B")
    day = get_day(get_text(get_object(response, "payment"), "date") or get_text(response, "created"))
    before = sum(len(inner.loops("2430")) for _, inner in lines)
    owed = sum((_add_line_decision(response, payer_id, day, line, inner) for line, inner in lines), Decimal(0))
    at_lines = sum(len(inner.loops("2430")) for _, inner in lines) > before
    claim_level = find_adjustments(response)
    _add_adjustments(loop, claim_level)
    loop.add("AMT", "D", write_decimal(_find_paid(response)))
    owed += _sum_patient(claim_level)
    if owed:
        loop.add("AMT", "EAF", write_decimal(owed))
    if remarks := _find_remarks(response):
        loop.add("MOA", "", "", *remarks[:5])
    if day and not at_lines:
        payer.add("DTP", "573", "D8", write_date(day))
    number = find_identifier(response, codes.PAYER_CONTROL_NUMBER)
    number = number or next((get_text(each, "value") for each in get_list(response, "identifier")), "")
    if number:
        payer.add("REF", "F8", clean(number, 50))
    else:
        sentence = "The other payer's claim number is not known; many payers want it."
        mapping.tell(sentence, "ClaimResponse.identifier", "2330B/REF/2", warning=True)
    if day is None:
        sentence = "The other payer's decision has no date."
        mapping.tell(sentence, "ClaimResponse.payment.date", "2330B/DTP/3")


def _find_paid(response: Resource) -> Decimal:
    """What the payer paid: `payment.amount`, else the total of category benefit; 0 is written too."""
    paid = get_decimal(get_object(response, "payment", "amount"))
    totals = (each for each in get_list(response, "total") if find_code(each.get("category")) == "benefit")
    return next(
        (a for a in (paid, *(get_decimal(get_object(t, "amount")) for t in totals)) if a is not None), Decimal(0)
    )


def find_adjustments(element: Resource) -> Adjustments:
    """The adjudications of a response or of one of its items that have a group code (CAS01)."""
    groups: dict[str, list[tuple[str, Decimal, Decimal | None]]] = {}
    for each in get_list(element, "adjudication"):
        group = find_code(each.get("category"), codes.GROUP)
        amount = get_decimal(get_object(each, "amount"))
        if group and amount is not None:
            reason = find_code(each.get("reason"), codes.CARC) or find_code(each.get("reason"))
            groups.setdefault(group, []).append((reason, amount, get_decimal(each, "value")))
    return groups


def _find_remarks(response: Resource) -> list[str]:
    concepts = (each.get("reason") for each in get_list(response, "adjudication"))
    return [code for concept in concepts if (code := find_code(concept, codes.RARC))]


def _add_adjustments(loop: Loop, adjustments: Adjustments) -> None:
    """CAS: one for each group code and six reasons."""
    for group, entries in adjustments.items():
        for start in range(0, len(entries), TRIPLETS):
            elements: list[str] = []
            for reason, amount, quantity in entries[start : start + TRIPLETS]:
                elements += [reason, write_decimal(amount), "" if quantity is None else write_decimal(quantity)]
            loop.add("CAS", group, *elements)


def _find_decisions(response: Resource, line: Line) -> list[Resource]:
    """The response's item for a line, and the items added for it (bundled or unbundled by the payer)."""
    items = [each for each in get_list(response, "item") if get_decimal(each, "itemSequence") == line.sequence]
    for each in get_list(response, "addItem"):
        sequences = each.get("itemSequence")
        if isinstance(sequences, list) and sequences[:1] == [line.sequence]:
            items.append(each)
    return items


def _add_line_decision(response: Resource, payer_id: str, day: date | None, line: Line, loop: Loop) -> Decimal:
    """2430 for each decision on a line; answers what the patient owes by them."""
    owed = Decimal(0)
    for item in _find_decisions(response, line):
        paid = [
            get_decimal(get_object(each, "amount"))
            for each in get_list(item, "adjudication")
            if find_code(each.get("category"), codes.ADJUDICATION) == "benefit"
        ]
        code = clean(find_code(item.get("productOrService")), 48)
        modifiers = tuple(clean(each, 2) for each in find_codes(get_list(item, "modifier")))[:MODIFIERS]
        own_line = line._replace(procedure=code, modifiers=modifiers) if code else line
        units = get_decimal({"value": find_extension(item, codes.UNITS_PAID)})
        inner = loop.open("2430")
        amount, count = sum(filter(None, paid), Decimal(0)), line.units if units is None else units
        inner.add("SVD", payer_id, write_decimal(amount), write_procedure(own_line), "", write_decimal(count))
        adjustments = find_adjustments(item)
        _add_adjustments(inner, adjustments)
        inner.add("DTP", "573", "D8", write_date(day))
        owed += _sum_patient(adjustments)
    return owed


def _sum_patient(adjustments: Adjustments) -> Decimal:
    return sum((amount for _, amount, _ in adjustments.get("PR", ())), Decimal(0))
