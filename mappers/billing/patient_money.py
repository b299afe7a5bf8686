"""Patients' payments, refunds, reversals and adjustments by hand as PaymentReconciliations that are never edited.

https://hl7.org/fhir/R4/paymentreconciliation.html. Each function gives a resource, or the Issue that refuses it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

from fhir_server.fhir.outcome import Issue
from mappers.billing import codes
from mappers.billing.fields import (
    ZERO,
    Resource,
    find_code,
    find_identifier,
    make_concept,
    make_money,
    sum_amounts,
    to_amount,
)

REASONS = ("small-balance", "bad-debt", "courtesy")


@dataclass(frozen=True, slots=True)
class Occasion:
    """Who does it and when: the idempotency key, the clock, the day of posting, the patient's reference."""

    key: str
    created: str
    posting_day: str
    patient: str


def make_payment(amount: Decimal, request: str, occasion: Occasion, method: str = "") -> Resource | Issue:
    """A patient's payment on an Appointment, Encounter, Claim or Invoice, above 0; the key tells two apart."""
    if amount <= 0 or request.partition("/")[0] not in ("Appointment", "Encounter", "Claim", "Invoice"):
        text = (
            f"A payment is above 0 and on an Appointment, Encounter, Claim or Invoice; this is {amount} on `{request}`."
        )
        return Issue("error", "business-rule", f"{text} Money goes back by `$refund`.")
    return _make(
        amount, occasion, make_concept(codes.PAYMENT_TYPE, "payment"), {"request": {"reference": request}}, method
    )


def make_refund(payment: Resource, others: Iterable[Resource], amount: Decimal, occasion: Occasion) -> Resource | Issue:
    """Money given back, at most what earlier refunds left of the payment; its detail is below 0 and names the other."""
    left = find_rest(payment, others)
    if not 0 < amount <= left:
        text = f"{amount} cannot be refunded: {left:.2f} of the payment are left."
        return Issue("error", "business-rule", text, ("PaymentReconciliation.paymentAmount",))
    detail = payment["detail"][0]
    more = {"request": detail["request"], "predecessor": detail["identifier"]}
    return _make(-amount, occasion, detail["type"], more)


def find_rest(payment: Resource, others: Iterable[Resource]) -> Decimal:
    """What is left of a payment or adjustment after refunds and reversals of it."""
    key = find_identifier(payment, codes.REMITTANCE_KEY)
    details = (detail for each in others for detail in each.get("detail", ()))
    back = sum_amounts(
        to_amount(each["amount"]) for each in details if (each.get("predecessor") or {}).get("value") == key
    )
    return to_amount(payment["detail"][0]["amount"]) + back


def reverse_payment(payment: Resource, others: Iterable[Resource], occasion: Occasion) -> Resource | Issue:
    """A patient's payment or an adjustment by hand taken back whole; a payer's is reversed by its remittance alone."""
    if "paymentIssuer" in payment:
        text = "A payer's remittance is reversed by the payer's own reversal (claim status 22). Post that one."
        return Issue("error", "business-rule", text, ("PaymentReconciliation.paymentIssuer",))
    left = find_rest(payment, others)
    if left <= 0:
        return Issue("error", "business-rule", "Nothing of the payment is left: it was refunded or reversed already.")
    detail = payment["detail"][0]
    return _make(-left, occasion, detail["type"], {"request": detail["request"], "predecessor": detail["identifier"]})


def make_adjustment(
    claim: str, amount: Decimal, reason: str, open_amount: Decimal, occasion: Occasion
) -> Resource | Issue:
    """A write-off by hand: a payment of 0 with a detail of type `adjustment`, at most what is open of the claim."""
    if reason not in REASONS:
        return Issue("error", "value", f"`{reason}` is no reason for an adjustment; use {', '.join(REASONS)}.")
    if not 0 < amount <= open_amount:
        text = f"{amount} cannot be written off: {open_amount:.2f} of the claim are open."
        return Issue("error", "business-rule", text)
    kinds = [{"system": codes.PAYMENT_TYPE, "code": "adjustment"}, {"system": codes.DETAIL_TYPE, "code": reason}]
    return _make(amount, occasion, {"coding": kinds}, {"request": {"reference": claim}})


def _make(amount: Decimal, occasion: Occasion, kind: Resource, more: Resource, method: str = "") -> Resource:
    is_adjustment = find_code(kind, codes.PAYMENT_TYPE) == "adjustment"
    extensions: list[Resource] = [
        {"url": codes.POSTING_DATE, "valueDate": occasion.posting_day},
        {"url": codes.PAYMENT_PATIENT, "valueReference": {"reference": occasion.patient}},
    ]
    if method:
        extensions.append({"url": codes.PAYMENT_METHOD_EXTENSION, "valueCode": method})
    return {
        "resourceType": "PaymentReconciliation",
        "extension": extensions,
        "identifier": [{"system": codes.REMITTANCE_KEY, "value": occasion.key}],
        "status": "active",
        "created": occasion.created,
        "outcome": "complete",
        "paymentDate": occasion.posting_day,
        "paymentAmount": make_money(ZERO if is_adjustment else amount),
        "detail": [
            {
                "identifier": {"system": codes.DETAIL_KEY, "value": occasion.key},
                "type": kind,
                "amount": make_money(amount),
                **more,
            }
        ],
    }
