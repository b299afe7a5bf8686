"""A remittance as it was read from an 835, in the form that posting takes; a typed EOB has the same one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mappers.billing import remittance as neutral
from mappers.billing.adjudications import Adjustment
from mappers.x12.balance import check_remittance
from mappers.x12.fault import Fault
from mappers.x12.remittance import Remittance, RemittanceClaim, RemittanceLine

_WRONG_NUMBER = "6"


def to_neutral(remittance: Remittance, envelope_faults: Sequence[Fault] = ()) -> neutral.Remittance:
    """All that posting needs; what could not be read stands as sentences where it keeps from posting.

    `envelope_faults`: those of ST and SE, such as a set that ends without SE.
    """
    balance = check_remittance(remittance)
    unreadable = [each for each in balance.transaction if each.code == _WRONG_NUMBER or each.level == "set"]
    broken = [each for each in envelope_faults if each.level == "set" and each.severity == "error"]
    wrong = {
        ordinal: tuple(each.sentence for each in faults if each.code == _WRONG_NUMBER)
        for ordinal, faults in balance.claims.items()
    }
    made = neutral.Remittance(
        trace=remittance.trace,
        payer_number=remittance.payer_id,
        amount=remittance.amount,
        payment_day=remittance.payment_date,
        produced=remittance.produced,
        method=remittance.method,
        payer_name=remittance.payer.name,
        payee=remittance.payee.id,
        currency=remittance.currency,
        claims=tuple(_to_payment(each, wrong.get(each.ordinal, ())) for each in remittance.claims),
        provider_adjustments=tuple(
            neutral.ProviderAdjustment(each.reason, each.reference, each.amount)
            for each in remittance.provider_adjustments
        ),
        faults=tuple(f"{each.sentence} Nothing was posted." for each in (*unreadable, *broken)),
    )
    return replace(made, digest=made.make_digest())


def _to_payment(claim: RemittanceClaim, faults: tuple[str, ...]) -> neutral.ClaimPayment:
    people = claim.people
    member = people.get("IL") or people.get("QC")
    days = [day for day in (claim.dates.get("232"), *(line.start for line in claim.lines)) if day is not None]
    return neutral.ClaimPayment(
        control_number=claim.control_number,
        status=claim.status,
        charge=claim.charge,
        paid=claim.paid,
        patient_responsibility=claim.patient_responsibility,
        payer_number=claim.payer_number,
        filing=claim.filing_code,
        member_id=member.id if member else "",
        corrected_member_id=people["74"].id if "74" in people else "",
        first_day=min(days, default=None),
        crossover_payer=(people["TT"].id or people["TT"].name) if "TT" in people else "",
        adjustments=tuple(Adjustment(*each) for each in claim.adjustments),
        remarks=claim.remarks,
        lines=tuple(map(_to_line, claim.lines)),
        faults=faults,
    )


def _to_line(line: RemittanceLine) -> neutral.PaymentLine:
    procedure, original = line.procedure, line.original
    return neutral.PaymentLine(
        code=procedure[1] if len(procedure) > 1 else "".join(procedure),
        charge=line.charge,
        paid=line.paid,
        modifiers=tuple(filter(None, procedure[2:6])),
        units=line.units_paid,
        day=line.start,
        control_number=line.control_number,
        original_code=original[1] if len(original) > 1 else "",
        allowed=line.allowed,
        adjustments=tuple(Adjustment(*each) for each in line.adjustments),
        remarks=line.remarks,
    )
