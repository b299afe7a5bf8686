"""Rules and built-in hard splits applied to the lines of a claim: each line becomes one lot or several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import ROUND_HALF_UP, Decimal

from mappers.billing import codes
from mappers.billing.assembly import coverages_by_patient
from mappers.billing.claim_view import ClaimView, InsuranceView, LineView
from mappers.billing.fields import CENT, Resource, covers, find_identifier, find_reference, make_reference, resolve
from mappers.billing.payer_settings import NO_SETTINGS
from mappers.billing.split_facts import Subject, holds, read_fact
from mappers.billing.split_rules import (
    BillingProvider,
    Cap,
    Form,
    Hold,
    PayerOrder,
    Route,
    RuleSet,
    SelfPay,
    SplitBy,
    SplitRule,
)

Outcome = str
"""`claim`, `hold` or `self-pay`."""


@dataclass(frozen=True, slots=True)
class Lot:
    """A line, or some of its units, with what was decided: payers (the first is the destination), bucket, reasons."""

    line: LineView
    units: Decimal
    charge: Decimal
    insurance: tuple[InsuranceView, ...]
    provider: str
    part: int = 1
    bucket: str = ""
    keys: tuple[str, ...] = ()
    outcome: Outcome = "claim"
    reasons: tuple[str, ...] = ()

    def make_key(self) -> tuple[object, ...]:
        """What lots of one child have in common."""
        payers = tuple(find_reference(each.element.get("coverage")) for each in self.insurance)
        return self.outcome, self.bucket, self.keys, payers, self.provider


class CannotApply(Exception):
    """A rule that cannot be applied: it holds the claim, with this sentence."""


def divide_lines(view: ClaimView, rules: RuleSet) -> list[Lot]:
    """The lots of a claim after the practice's rules and the built-in hard splits, in the order of the lines.

    Raises `CannotApply` where a rule names a payer or provider that the claim does not have.
    """
    insurance = sort_insurance(view)
    provider = find_reference(view.claim.get("provider"))
    lots = [Lot(line, line.units, line.charge, insurance, provider) for line in view.lines]
    for rule in rules.rules:
        lots = _apply_rule(rule, lots, view, rules)
    return [_split_hard(lot, view) for lot in lots]


def sort_insurance(view: ClaimView) -> tuple[InsuranceView, ...]:
    """The insurances, the focal one first, then by sequence."""
    return tuple(sorted(view.insurance, key=lambda each: (not each.element.get("focal"), each.sequence)))


def _apply_rule(rule: SplitRule, lots: Sequence[Lot], view: ClaimView, rules: RuleSet) -> list[Lot]:
    matching = [lot for lot in lots if lot.outcome == "claim" and _matches(rule, lot, view, rules)]
    if not matching:
        return list(lots)
    if isinstance(rule.then, Cap):
        return _cap_lots(rule, rule.then, lots, matching)
    matching_ids = {id(lot) for lot in matching}
    apply = _ACTIONS[type(rule.then)]
    return [apply(rule, lot, view) if id(lot) in matching_ids else lot for lot in lots]


def _matches(rule: SplitRule, lot: Lot, view: ClaimView, rules: RuleSet) -> bool:
    subject = Subject(view, lot.line, lot.insurance[0] if lot.insurance else None)
    applies = all(holds(each, subject, rules.lists) for each in rule.when)
    return applies and not any(holds(each, subject, rules.lists) for each in rule.unless)


def _because(rule: SplitRule, lot: Lot) -> tuple[str, ...]:
    return (*lot.reasons, f"{rule.id}: {rule.because}")


def _route(rule: SplitRule, lot: Lot, view: ClaimView) -> Lot:
    """The first rule that routes a line decides."""
    if lot.bucket or not isinstance(rule.then, Route):
        return lot
    return replace(lot, bucket=rule.then.bucket, reasons=_because(rule, lot))


def _split_by(rule: SplitRule, lot: Lot, view: ClaimView) -> Lot:
    if not isinstance(rule.then, SplitBy):
        return lot
    subject = Subject(view, lot.line, lot.insurance[0] if lot.insurance else None)
    value = ",".join(read_fact(rule.then.key, subject))
    return replace(lot, keys=(*lot.keys, f"{rule.then.key}={value}"), reasons=_because(rule, lot))


def _order_payers(rule: SplitRule, lot: Lot, view: ClaimView) -> Lot:
    if not isinstance(rule.then, PayerOrder):
        return lot
    by_payer = {each.payer_id: each for each in lot.insurance}
    missing = [each for each in rule.then.first if each not in by_payer]
    if missing:
        raise CannotApply(
            f"Rule `{rule.id}` puts payer {missing[0]} first, and the claim does not name it. Add its coverage."
        )
    first = [by_payer[each] for each in rule.then.first]
    ordered = (*first, *(each for each in lot.insurance if each not in first))
    if ordered == lot.insurance:
        return lot
    if any("claimResponse" in each.element for each in lot.insurance):
        raise CannotApply(
            f"Rule `{rule.id}` changes the order of payers after one of them has adjudicated. Decide by hand."
        )
    return replace(lot, insurance=ordered, reasons=_because(rule, lot))


def _choose_form(rule: SplitRule, lot: Lot, view: ClaimView) -> Lot:
    if not isinstance(rule.then, Form) or rule.then.form == "professional":
        return lot
    return replace(lot, outcome="hold", bucket="institutional", reasons=_because(rule, lot))


def _choose_provider(rule: SplitRule, lot: Lot, view: ClaimView) -> Lot:
    if not isinstance(rule.then, BillingProvider) or rule.then.provider == lot.provider:
        return lot
    if rule.then.provider not in view.resources:
        raise CannotApply(
            f"Rule `{rule.id}` bills as `{rule.then.provider}`, which is not stored. Store it, or change the rule."
        )
    return replace(lot, provider=rule.then.provider, reasons=_because(rule, lot))


def _hold(rule: SplitRule, lot: Lot, view: ClaimView) -> Lot:
    return replace(lot, outcome="hold", reasons=_because(rule, lot))


def _make_self_pay(rule: SplitRule, lot: Lot, view: ClaimView) -> Lot:
    return replace(lot, outcome="self-pay", reasons=_because(rule, lot))


_ACTIONS: dict[type, Callable[[SplitRule, Lot, ClaimView], Lot]] = {
    Route: _route,
    SplitBy: _split_by,
    PayerOrder: _order_payers,
    Form: _choose_form,
    BillingProvider: _choose_provider,
    Hold: _hold,
    SelfPay: _make_self_pay,
}


def _cap_lots(rule: SplitRule, cap: Cap, lots: Sequence[Lot], matching: Sequence[Lot]) -> list[Lot]:
    """Units above the cap go to the next payer, counted for each payer and period in the order of the lines."""
    sums: dict[tuple[str, str], Decimal] = {}
    matching_ids = {id(lot) for lot in matching}
    result: list[Lot] = []
    for lot in lots:
        result += _cap_lot(rule, cap, lot, sums) if id(lot) in matching_ids else [lot]
    return result


def _cap_lot(rule: SplitRule, cap: Cap, lot: Lot, sums: dict[tuple[str, str], Decimal]) -> list[Lot]:
    results: list[Lot] = []
    rest: Lot | None = lot
    while rest is not None:
        if not rest.insurance:
            results.append(replace(rest, outcome=cap.rest, insurance=lot.insurance, bucket=rule.id))
            break
        key = (rest.insurance[0].payer_id, _find_period(cap, rest.line))
        room = max(cap.units - sums.get(key, Decimal(0)), Decimal(0))
        here, rest = _divide(rest, room, _because(rule, lot))
        if here is not None:
            sums[key] = sums.get(key, Decimal(0)) + here.units
            results.append(here)
    return results


def _find_period(cap: Cap, line: LineView) -> str:
    day = line.first
    if cap.per == "line":
        return str(line.index)
    if cap.per == "claim" or day is None:
        return ""
    return {
        "day": str(day),
        "week": str(day - timedelta(days=day.weekday())),
        "month": day.strftime("%Y-%m"),
    }[cap.per]


def _divide(lot: Lot, room: Decimal, reasons: tuple[str, ...]) -> tuple[Lot | None, Lot | None]:
    """(what the first payer takes, what goes on without that payer); charges in proportion, their sum kept."""
    if lot.units <= room:
        return lot, None
    rest_of = lot.insurance[1:]
    if room == 0:
        return None, replace(lot, insurance=rest_of, reasons=reasons)
    charge = (lot.charge * room / lot.units).quantize(CENT, ROUND_HALF_UP)
    rest = replace(lot, units=lot.units - room, charge=lot.charge - charge, part=lot.part + 1, insurance=rest_of)
    return replace(lot, units=room, charge=charge, reasons=reasons), replace(rest, reasons=reasons)


def _split_hard(lot: Lot, view: ClaimView) -> Lot:
    """The built-in splits by coverage period, place of service and, where the payer wants it, rendering provider."""
    if lot.outcome != "claim":
        return lot
    lot = _choose_coverages(lot, view)
    keys = (*lot.keys, f"place={lot.line.place}")
    payer = lot.insurance[0].payer_id if lot.insurance else ""
    if view.around.site.payers.get(payer, NO_SETTINGS).one_rendering:
        keys = (*keys, f"rendering={lot.line.rendering}")
    return replace(lot, keys=keys)


def _choose_coverages(lot: Lot, view: ClaimView) -> Lot:
    """The coverages in force on the days of the line; those that have adjudicated stay."""
    first, last = lot.line.first, lot.line.last
    if first is None or last is None or not lot.insurance:
        return lot

    def in_force(coverage: Resource) -> bool:
        return covers(coverage.get("period"), first) and covers(coverage.get("period"), last)

    in_order = tuple(e for e in lot.insurance if in_force(e.coverage) or "claimResponse" in e.element)
    if in_order == lot.insurance:
        return lot
    if in_order[:1] == lot.insurance[:1]:
        return replace(lot, insurance=in_order, reasons=(*lot.reasons, f"A coverage was not in force on {first}."))
    references = {find_reference(each.element.get("coverage")) for each in lot.insurance}
    others = coverages_by_patient(view.resources).get(find_reference(view.claim.get("patient")), [])
    more = tuple(_view_coverage(e, view) for e in others if in_force(e) and make_reference(e) not in references)
    results = tuple(
        sorted((*in_order, *more), key=lambda each: (each.coverage.get("order", 99), str(each.coverage.get("id"))))
    )
    if not results:
        text = f"No coverage was in force from {first} to {last}."
        return replace(lot, outcome="hold", bucket="coverage", reasons=(*lot.reasons, text))
    text = f"On {first} another coverage was in force than the claim's first."
    return replace(lot, insurance=results, reasons=(*lot.reasons, text))


def _view_coverage(coverage: Resource, view: ClaimView) -> InsuranceView:
    payer = resolve((coverage.get("payor") or [None])[0], view.resources) or {}
    element = {"sequence": 99, "focal": False, "coverage": {"reference": make_reference(coverage)}}
    return InsuranceView(-1, element, 99, coverage, payer, find_identifier(payer, codes.PAYER_ID))
