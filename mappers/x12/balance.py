"""The three balance laws of an 835, and the warning of CLP05 (005010X221A1 §1.10.2.1)."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal

from mappers.x12.fault import Fault, Place, find_errors, place_segment
from mappers.x12.remittance import Adjustment, Remittance, RemittanceClaim


@dataclass(frozen=True, slots=True)
class Balance:
    """`transaction`: why nothing of the set may be posted; `claims`: why a claim may not, by its ordinal."""

    transaction: tuple[Fault, ...]
    claims: Mapping[int, tuple[Fault, ...]]
    warnings: tuple[Fault, ...]

    @property
    def balanced(self) -> bool:
        return not self.transaction and not self.claims


def check_remittance(remittance: Remittance) -> Balance:
    """Check all laws: a broken transaction law keeps the whole set from posting, one of a claim that claim alone."""
    transaction = [*_check_transaction(remittance)]
    if remittance.payment_date is None or remittance.currency != "USD":
        places = {("BPR", 16), ("CUR", 2)}
        errors = find_errors(remittance.faults)
        transaction += [fault for fault in errors if (fault.place.segment, fault.place.element) in places]
    transaction += [f for f in remittance.faults if f.code == "6" and f.place.segment in ("BPR", "PLB")]
    transaction += [f for f in remittance.faults if f.level == "set"]
    wrong = _find_wrong_numbers(remittance)
    claims: dict[int, tuple[Fault, ...]] = {}
    warnings: list[Fault] = []
    for claim in remittance.claims:
        if faults := (*_check_claim(claim), *_check_lines(claim), *wrong.get(claim.ordinal, ())):
            claims[claim.ordinal] = faults
        warnings += _check_responsibility(claim)
    return Balance(tuple(transaction), claims, tuple(warnings))


def _find_wrong_numbers(remittance: Remittance) -> dict[int, list[Fault]]:
    """Amounts that are none, by claim: they were taken as 0, which might balance by chance."""
    starts = [claim.segment.ordinal for claim in remittance.claims]
    wrong: dict[int, list[Fault]] = {}
    for fault in remittance.faults:
        if fault.code == "6" and fault.place.segment in ("CLP", "SVC", "CAS"):
            wrong.setdefault(bisect_right(starts, fault.place.index), []).append(fault)
    return wrong


def sum_adjustments(adjustments: Iterable[Adjustment], group: str = "") -> Decimal:
    """The sum of the adjustments, of one group where it is named."""
    return sum((each.amount for each in adjustments if group in ("", each.group)), Decimal(0))


def _check_transaction(remittance: Remittance) -> Iterable[Fault]:
    paid = sum((claim.paid for claim in remittance.claims), Decimal(0))
    adjusted = sum((entry.amount for entry in remittance.provider_adjustments), Decimal(0))
    difference = remittance.amount - (paid - adjusted)
    if difference:
        sentence = (
            f"BPR02 is {remittance.amount}, but the claims pay {paid} and the provider adjustments take {adjusted}: "
            f"the difference is {difference}. Nothing of this set is posted."
        )
        yield _fault(sentence, place_segment(remittance.bpr, "ST", 2))


def _check_claim(claim: RemittanceClaim) -> Iterable[Fault]:
    adjusted = sum_adjustments(claim.iterate_adjustments())
    difference = claim.charge - adjusted - claim.paid
    if difference:
        sentence = (
            f"Claim `{claim.control_number}` charges {claim.charge}, is adjusted by {adjusted} and paid {claim.paid}: "
            f"the difference is {difference}."
        )
        yield _fault(sentence, place_segment(claim.segment, "2100", 4))


def _check_lines(claim: RemittanceClaim) -> Iterable[Fault]:
    for number, line in enumerate(claim.lines, 1):
        adjusted = sum_adjustments(line.adjustments)
        difference = line.charge - adjusted - line.paid
        if difference:
            sentence = (
                f"Line {number} of claim `{claim.control_number}` charges {line.charge}, is adjusted by {adjusted} and "
                f"paid {line.paid}: the difference is {difference}."
            )
            yield _fault(sentence, place_segment(line.segment, "2110", 3))


def _check_responsibility(claim: RemittanceClaim) -> Iterable[Fault]:
    responsibility = claim.patient_responsibility
    if responsibility is None or claim.is_reversal:
        return
    owed = sum_adjustments(claim.iterate_adjustments(), "PR")
    if responsibility != owed:
        sentence = (
            f"CLP05 of claim `{claim.control_number}` is {responsibility}, but its PR adjustments add up to {owed}."
        )
        yield Fault(sentence, place_segment(claim.segment, "2100", 5), "element", "7", "warning")


def _fault(sentence: str, place: Place) -> Fault:
    return Fault(sentence, place, "element", "7")
