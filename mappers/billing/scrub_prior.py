"""Scrub rules for what earlier payers adjudicated: amounts, reasons, dates and numbers (837P 2320, 2330B, 2430)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal

from mappers.billing import codes
from mappers.billing.adjudications import read_adjustments, read_amount, sum_adjustments
from mappers.billing.claim_view import ClaimView
from mappers.billing.fields import Resource, find_code, find_extension, find_identifier, resolve, to_amount
from mappers.billing.scrub_rule import Find, Hit

ADJUDICATION_DATE = f"{codes.EXTENSION}/line-adjudication-date"

Prior = tuple[int, Resource]


def find_priors(view: ClaimView) -> Iterator[Prior]:
    """(place in `Claim.insurance`, ClaimResponse) of each payer before the focal one that has adjudicated."""
    for each in view.insurance:
        if view.focal and each.sequence < view.focal.sequence:
            response = resolve(each.element.get("claimResponse"), view.resources, view.claim)
            if response:
                yield each.index, response


def _lacks_response(view: ClaimView) -> Iterator[Hit]:
    for each in view.insurance:
        before = view.focal is not None and each.sequence < view.focal.sequence
        if before and not resolve(each.element.get("claimResponse"), view.resources, view.claim):
            yield Hit(each.index)


def _priors(fault: Callable[[ClaimView, Resource], str]) -> Find:
    """A rule on each prior adjudication; the fault is a text that the sentence names."""

    def find(view: ClaimView) -> Iterator[Hit]:
        for index, response in find_priors(view):
            if value := fault(view, response):
                yield Hit(index, value)

    return find


def _find_difference(view: ClaimView, response: Resource) -> str:
    """The first line whose charge is not paid + adjustments, with what is missing."""
    charges = {line.item.get("sequence"): line.charge for line in view.lines}
    for item in response.get("item", ()):
        entries = item.get("adjudication", ())
        paid = read_amount(entries, "benefit") or Decimal(0)
        missing = charges.get(item.get("itemSequence"), Decimal(0)) - paid - sum_adjustments(read_adjustments(entries))
        if missing and item.get("itemSequence") in charges:
            return f"line {item['itemSequence']}, {missing:.2f} missing"
    return ""


def _find_claim_difference(view: ClaimView, response: Resource) -> str:
    """The same for an adjudication without lines."""
    if response.get("item"):
        return ""
    adjusted = sum_adjustments(read_adjustments(response.get("adjudication", ())))
    missing = to_amount(view.claim.get("total")) - _find_paid(response) - adjusted
    return f"{missing:.2f} missing" if missing else ""


def _find_paid(response: Resource) -> Decimal:
    return to_amount((response.get("payment") or {}).get("amount"))


def _entries(response: Resource) -> Iterator[Resource]:
    yield from response.get("adjudication", ())
    for item in response.get("item", ()):
        yield from item.get("adjudication", ())


def _find_half(view: ClaimView, response: Resource) -> str:
    for entry in _entries(response):
        group = find_code(entry.get("category"), codes.GROUP)
        if group and bool(find_code(entry.get("reason"), codes.CARC)) != bool(to_amount(entry.get("amount"))):
            return f"{group} {find_code(entry.get('reason'), codes.CARC) or 'without reason'}"
    return ""


def _find_negative(view: ClaimView, response: Resource) -> str:
    paid = (read_amount(item.get("adjudication", ()), "benefit") for item in response.get("item", ()))
    return next((str(amount) for amount in paid if amount is not None and amount < 0), "")


def _find_dates(view: ClaimView, response: Resource) -> str:
    claim = bool((response.get("payment") or {}).get("date"))
    lines = any(find_extension(item, ADJUDICATION_DATE) for item in response.get("item", ()))
    return {(True, True): "at both", (False, False): "at neither"}.get((claim, lines), "")


def _find_twice(view: ClaimView, response: Resource) -> str:
    """An adjustment of the claim that its lines have already: they balance without it."""
    adjusted = sum_adjustments(read_adjustments(response.get("adjudication", ())))
    balanced = bool(response.get("item")) and not _find_difference(view, response)
    return f"{adjusted:.2f}" if adjusted and balanced and len(response["item"]) >= len(view.lines) else ""


CHECKS: dict[str, Find] = {
    "prior-missing": _lacks_response,
    "prior-line-balance": _priors(_find_difference),
    "prior-claim-balance": _priors(_find_claim_difference),
    "prior-reason": _priors(_find_half),
    "prior-paid": _priors(lambda view, response: "" if (response.get("payment") or {}).get("amount") else "none"),
    "prior-paid-negative": _priors(_find_negative),
    "prior-date": _priors(_find_dates),
    "prior-level": _priors(_find_twice),
    "prior-number": _priors(
        lambda view, response: "" if find_identifier(response, codes.PAYER_CONTROL_NUMBER) else "none"
    ),
}
