"""A remittance (835 005010X221A1 or a typed EOB) in neutral form, its key, and the laws by which it adds up.

Amounts are signed as in X12: an adjustment above 0 lowers the payment, a provider adjustment above 0 lowers the check.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields, is_dataclass, replace
from datetime import date
from decimal import Decimal
from typing import Any, NamedTuple

from mappers.billing.adjudications import Adjustment, sum_adjustments
from mappers.billing.fields import ZERO, sum_amounts

REVERSAL = "22"
PAYER_SEQUENCES = {"1": 1, "2": 2, "3": 3, "19": 1, "20": 2, "21": 3}
"""CLP02 of processed claims to the payer's place; 19 to 21 were forwarded to the next payer."""


@dataclass(frozen=True, slots=True)
class PaymentLine:
    """A service (loop 2110): SVC, its CAS, REF*6R, DTM, LQ*HE. `original_code` is SVC06 of a changed line."""

    code: str
    charge: Decimal
    paid: Decimal
    modifiers: tuple[str, ...] = ()
    units: Decimal | None = None
    day: date | None = None
    control_number: str = ""
    original_code: str = ""
    allowed: Decimal | None = None
    adjustments: tuple[Adjustment, ...] = ()
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ClaimPayment:
    """A claim (loop 2100): CLP01 to CLP09, claim level CAS, MOA remarks, NM1*74 and NM1*TT, first day of service."""

    control_number: str
    status: str
    charge: Decimal
    paid: Decimal
    patient_responsibility: Decimal | None = None
    payer_number: str = ""
    filing: str = ""
    member_id: str = ""
    corrected_member_id: str = ""
    first_day: date | None = None
    crossover_payer: str = ""
    adjustments: tuple[Adjustment, ...] = ()
    remarks: tuple[str, ...] = ()
    lines: tuple[PaymentLine, ...] = ()
    faults: tuple[str, ...] = ()
    """What could not be read of it, as sentences: such a claim does not post."""

    def list_adjustments(self) -> list[Adjustment]:
        """Those of the claim and of its lines."""
        return [*self.adjustments, *(each for line in self.lines for each in line.adjustments)]

    def list_remarks(self) -> set[str]:
        """Those of the claim and of its lines."""
        return {*self.remarks, *(each for line in self.lines for each in line.remarks)}


@dataclass(frozen=True, slots=True)
class ProviderAdjustment:
    """One pair of a PLB: reason code, reference (03-2), amount as in X12."""

    reason: str
    reference: str
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Remittance:
    """One transaction set: BPR, TRN, DTM*405, payer, payee, claims, PLB. `digest` is the hash of its segments."""

    trace: str
    payer_number: str
    amount: Decimal
    payment_day: date | None
    produced: date | None = None
    credit: bool = True
    method: str = ""
    payer_name: str = ""
    payee: str = ""
    currency: str = "USD"
    claims: tuple[ClaimPayment, ...] = ()
    provider_adjustments: tuple[ProviderAdjustment, ...] = ()
    digest: str = ""
    faults: tuple[str, ...] = ()
    """What could not be read of the whole, as sentences: nothing posts then."""

    def find_day(self) -> date | None:
        """BPR16, else DTM*405."""
        return self.payment_day or self.produced

    def make_key(self) -> str:
        """What makes it the same remittance in whatever envelope: TRN03, TRN02, BPR16, BPR02, payee."""
        parts = (self.payer_number, self.trace, str(self.find_day() or ""), f"{self.amount:.2f}", self.payee)
        return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:32]

    def make_trace_key(self) -> str:
        """The payer and its trace number: TRN03, TRN02. It names one remittance, whatever the amounts."""
        return f"{self.payer_number}|{self.trace}"

    def make_digest(self) -> str:
        """The hash of all that it says, in whatever envelope or form it came."""
        content = json.dumps(_write_value(replace(self, digest="")))
        return hashlib.sha256(content.encode()).hexdigest()


def _write_value(value: Any) -> Any:
    """As JSON has it; an amount without the places that say nothing: 100 and 100.00 are the same."""
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, Decimal):
        return f"{value.normalize():f}"
    if isinstance(value, tuple | list):
        return [_write_value(each) for each in value]
    if is_dataclass(value):
        return [_write_value(getattr(value, field.name)) for field in fields(value)]
    return str(value)


class Imbalance(NamedTuple):
    """What does not add up: `claim` and `line` are places or None."""

    claim: int | None
    line: int | None
    difference: Decimal
    sentence: str


class Balance(NamedTuple):
    """The laws' outcome: with `transaction` faults nothing posts; a claim with faults stays unapplied."""

    transaction: tuple[str, ...]
    claims: dict[int, list[Imbalance]]
    warnings: tuple[str, ...]


def check_balance(remittance: Remittance) -> Balance:
    """The three laws: lines, claims, transaction; CLP05 against ΣPR only warns."""
    claims = {n: faults for n, each in enumerate(remittance.claims) if (faults := check_claim(n, each))}
    warnings = tuple(text for each in remittance.claims if (text := _check_patient(each)))
    return Balance(tuple(_check_transaction(remittance)), claims, warnings)


def _check_transaction(remittance: Remittance) -> list[str]:
    faults = list(remittance.faults)
    amount = remittance.amount if remittance.credit else -remittance.amount
    claims = sum_amounts(each.paid for each in remittance.claims)
    held_back = sum_amounts(each.amount for each in remittance.provider_adjustments)
    if difference := amount - (claims - held_back):
        faults.append(
            f"The payment of {amount:.2f} is not what the claims pay ({claims:.2f}) less the provider adjustments "
            f"({held_back:.2f}): {_describe(-difference)}. Nothing was posted; ask for a corrected one."
        )
    if remittance.find_day() is None:
        faults.append(
            "The remittance has neither a payment date (BPR16) nor a production date (DTM*405). Nothing was posted."
        )
    if remittance.currency != "USD":
        faults.append(
            f"The remittance is in {remittance.currency}, and only US dollars are posted. Nothing was posted."
        )
    return faults


def check_claim(number: int, claim: ClaimPayment) -> list[Imbalance]:
    """What does not add up in one claim and its lines. `number`: its place in the set."""
    faults = [Imbalance(number, None, ZERO, sentence) for sentence in claim.faults]
    for place, line in enumerate(claim.lines):
        if difference := line.charge - sum_adjustments(line.adjustments) - line.paid:
            where = f"Line {place + 1} ({line.code}) of claim `{claim.control_number}`"
            text = f"{where} does not balance: {_describe(difference)}."
            faults.append(Imbalance(number, place, difference, text))
    if difference := claim.charge - sum_adjustments(claim.list_adjustments()) - claim.paid:
        text = f"Claim `{claim.control_number}` does not balance: {_describe(difference)}."
        faults.append(Imbalance(number, None, difference, text))
    return faults


def _describe(difference: Decimal) -> str:
    """How far payment and adjustments are from the charge."""
    return f"{difference:.2f} missing" if difference > 0 else f"{-difference:.2f} too much"


def _check_patient(claim: ClaimPayment) -> str:
    stated, total = claim.patient_responsibility, sum_adjustments(claim.list_adjustments(), "PR")
    if stated is None or claim.status == REVERSAL or stated == total:
        return ""
    return (
        f"Claim `{claim.control_number}` says that the patient owes {stated:.2f}; its PR adjustments are {total:.2f}."
    )


def is_forwarded(claim: ClaimPayment) -> bool:
    """Whether the payer sent the claim on to the next one: CLP02 19 to 21, NM1*TT, or remark MA18 or N89."""
    return (
        claim.status in ("19", "20", "21")
        or bool(claim.crossover_payer)
        or bool({"MA18", "N89"} & claim.list_remarks())
    )


def compare_remittances(remittance: Remittance, posted_digest: str | None) -> str:
    """`new`, `same` (posts nothing) or `changed` (a Task): what an earlier remittance of the same key says."""
    if posted_digest is None:
        return "new"
    return "same" if posted_digest == remittance.digest else "changed"
