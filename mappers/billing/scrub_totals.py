"""Scrub rules for the claim as a whole: numbers, totals, frequency, accident, duplicates (837P 2300 CLM)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from decimal import Decimal

from mappers.billing import codes
from mappers.billing.claim_view import ClaimView
from mappers.billing.fields import (
    Resource,
    find_code,
    find_extension,
    find_identifier,
    find_modifiers,
    find_procedure,
    find_reference,
    find_serviced_days,
    sum_amounts,
    to_amount,
)
from mappers.billing.packing import MAX_LINES
from mappers.billing.scrub_lines import REPEATED
from mappers.billing.scrub_rule import Find, Hit, hit_when

_CONTROL_NUMBER = re.compile(r"[A-Z0-9]{1,17}", re.ASCII).fullmatch
_LINE_NUMBER = re.compile(r"[A-Za-z0-9.-]{1,30}", re.ASCII).fullmatch
_HOSPITAL = ("21", "51", "61")


def _wrong_total(view: ClaimView) -> Iterable[Hit]:
    total, lines = to_amount(view.claim.get("total")), sum_amounts(line.charge for line in view.lines)
    return hit_when("total" not in view.claim or total != lines, f"{total} against {lines}")


def _wrong_line_numbers(view: ClaimView) -> Iterable[Hit]:
    ids = [str(line.item.get("id", "")) for line in view.lines]
    counts = Counter(ids)
    return [Hit(n, each) for n, each in enumerate(ids) if not _LINE_NUMBER(each) or counts[each] > 1]


def _frequency(view: ClaimView) -> str:
    return str(find_extension(view.claim, codes.FREQUENCY) or "1")


def _lacks_original(view: ClaimView) -> Iterable[Hit]:
    return hit_when(
        _frequency(view) in ("7", "8") and not find_extension(view.claim, codes.ORIGINAL_NUMBER), _frequency(view)
    )


def _accident_kind(view: ClaimView) -> str:
    return find_code((view.claim.get("accident") or {}).get("type"))


def _lacks_accident_state(view: ClaimView) -> Iterable[Hit]:
    place = (view.claim.get("accident") or {}).get("locationAddress") or {}
    return hit_when(_accident_kind(view) == "MVA" and not place.get("state"))


def _lacks_admission(view: ClaimView) -> Iterable[Hit]:
    kinds = {find_code(each.get("category")) for each in view.claim.get("supportingInfo", ())}
    places = [line.place for line in view.lines if line.place in _HOSPITAL]
    return hit_when(bool(places) and "hospitalized" not in kinds, places[0] if places else "")


def _line_keys(claim: Resource) -> set[tuple[object, ...]]:
    """What makes a line the same service: day, code, modifiers and units; a modifier can say that it is another one."""
    return {
        (
            find_serviced_days(item)[0],
            find_procedure(item),
            find_modifiers(item),
            (item.get("quantity") or {}).get("value", 1),
        )
        for item in claim.get("item", ())
        if not REPEATED & set(find_modifiers(item))
    }


def _focal_coverage(claim: Resource) -> str:
    return next((find_reference(e.get("coverage")) for e in claim.get("insurance", ()) if e.get("focal")), "")


def _duplicates(view: ClaimView) -> Iterable[Hit]:
    if _frequency(view) in ("7", "8"):
        return
    who = (
        find_reference(view.claim.get("patient")),
        find_reference(view.claim.get("provider")),
        _focal_coverage(view.claim),
    )
    related = {find_reference(each.get("claim")) for each in view.claim.get("related", ())}
    own, keys = find_identifier(view.claim, codes.PATIENT_CONTROL_NUMBER), _line_keys(view.claim)
    for other in view.around.history:
        if other.get("status") in ("cancelled", "entered-in-error") or other.get("id", "") == view.claim.get(
            "id", None
        ):
            continue
        if related and f"Claim/{other.get('id', '')}" in related:
            continue
        number = find_identifier(other, codes.PATIENT_CONTROL_NUMBER)
        same = (
            find_reference(other.get("patient")),
            find_reference(other.get("provider")),
            _focal_coverage(other),
        ) == who
        if same and (not own or number != own) and keys & _line_keys(other):
            yield Hit(0, number or str(other.get("id", "")))


def _wrong_product(view: ClaimView) -> Iterable[Hit]:
    for line in view.lines:
        price = line.item.get("unitPrice")
        if price is not None:
            factor = Decimal(str(line.item.get("factor", 1)))
            expected = (to_amount(price) * line.units * factor).quantize(Decimal("0.01"))
            if expected != line.charge:
                yield Hit(line.index, f"{line.charge} against {expected}")


def _other_currency(view: ClaimView) -> Iterable[Hit]:
    return [Hit(e.index) for e in view.lines if (e.item.get("net") or {}).get("currency", "USD") != "USD"]


CHECKS: dict[str, Find] = {
    "claim-type": lambda view: hit_when(
        find_code(view.claim.get("type"), codes.CLAIM_TYPE) != "professional"
        or view.claim.get("use", "claim") != "claim"
    ),
    "control-number": lambda view: hit_when(
        not _CONTROL_NUMBER(find_identifier(view.claim, codes.PATIENT_CONTROL_NUMBER)),
        find_identifier(view.claim, codes.PATIENT_CONTROL_NUMBER),
    ),
    "line-control-number": _wrong_line_numbers,
    "line-missing": lambda view: hit_when(not view.lines),
    "line-count": lambda view: hit_when(len(view.lines) > MAX_LINES),
    "total": _wrong_total,
    "line-product": _wrong_product,
    "line-charge": lambda view: [Hit(e.index) for e in view.lines if e.charge < 0 or "net" not in e.item],
    "currency": _other_currency,
    "frequency": lambda view: hit_when(_frequency(view) not in ("1", "7", "8"), _frequency(view)),
    "original-number": _lacks_original,
    "accident-date": lambda view: hit_when("accident" in view.claim and not (view.claim["accident"] or {}).get("date")),
    "accident-state": _lacks_accident_state,
    "admission-date": _lacks_admission,
    "duplicate-claim": _duplicates,
}
