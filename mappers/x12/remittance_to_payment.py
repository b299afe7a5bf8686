"""An 835 to a PaymentReconciliation (http://hl7.org/fhir/R4/paymentreconciliation.html)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mappers.x12 import codes
from mappers.x12.remittance import ProviderAdjustment, Remittance, RemittanceClaim
from mappers.x12.resource import drop_empty, make_concept, make_money


@dataclass(frozen=True, slots=True)
class PaymentContext:
    """When the reconciliation is made, the payer's reference if known, and by ordinal of the claims what they became.

    `requests` and `responses`: references of Claim and ClaimResponse; `predecessors`: for a reversal the identifier of
    the detail that it reverses. A claim in none of them stands as an unapplied amount.
    """

    created: str
    issuer: str = ""
    status: str = "draft"
    requests: Mapping[int, str] = field(default_factory=dict)
    responses: Mapping[int, str] = field(default_factory=dict)
    predecessors: Mapping[int, str] = field(default_factory=dict)


def remittance_to_payment(remittance: Remittance, context: PaymentContext) -> dict[str, Any]:
    """One PaymentReconciliation; its details add up to its amount wherever the remittance is balanced."""
    details = [_claim_to_detail(remittance, claim, context) for claim in remittance.claims]
    details += [_adjustment_to_detail(remittance, n, each) for n, each in enumerate(remittance.provider_adjustments, 1)]
    return drop_empty(
        {
            "resourceType": "PaymentReconciliation",
            "extension": [
                {
                    "url": codes.PAYMENT_METHOD_EXTENSION,
                    "valueCoding": {"system": codes.PAYMENT_METHOD, "code": remittance.method},
                }
            ]
            if remittance.method
            else [],
            "identifier": [{"system": f"{codes.OURS}/identifier/remittance", "value": remittance.key}],
            "status": context.status,
            "created": context.created,
            "period": {"start": str(remittance.produced), "end": str(remittance.produced)}
            if remittance.produced
            else {},
            "paymentIssuer": {"reference": context.issuer}
            if context.issuer
            else drop_empty({"display": remittance.payer.name}),
            "outcome": "complete",
            "paymentDate": str(remittance.payment_date or ""),
            "paymentAmount": make_money(remittance.amount, remittance.currency),
            "paymentIdentifier": {"system": codes.PAYMENT_NUMBER, "value": remittance.trace}
            if remittance.trace
            else {},
            "detail": details,
        }
    )


def make_detail_key(remittance: Remittance, claim: RemittanceClaim) -> str:
    """The identifier of a claim's detail: the remittance's key and the claim's ordinal."""
    return f"{remittance.key}#{claim.ordinal}"


def _claim_to_detail(remittance: Remittance, claim: RemittanceClaim, context: PaymentContext) -> dict[str, Any]:
    request, response = context.requests.get(claim.ordinal, ""), context.responses.get(claim.ordinal, "")
    predecessor = context.predecessors.get(claim.ordinal, "")
    return drop_empty(
        {
            "identifier": {"system": codes.DETAIL_KEY, "value": make_detail_key(remittance, claim)},
            "predecessor": {"system": codes.DETAIL_KEY, "value": predecessor} if predecessor else {},
            "type": make_concept(codes.PAYMENT_TYPE, "payment"),
            "request": {"reference": request}
            if request
            else {"identifier": {"system": codes.PATIENT_CONTROL_NUMBER, "value": claim.control_number}}
            if claim.control_number
            else {},
            "response": {"reference": response} if response else {},
            "date": str(remittance.payment_date or ""),
            "payee": drop_empty({"display": remittance.payee.name}),
            "amount": make_money(claim.paid, remittance.currency),
        }
    )


def _adjustment_to_detail(remittance: Remittance, number: int, entry: ProviderAdjustment) -> dict[str, Any]:
    """A PLB pair; its amount is −PLB, since a positive one lowers the check."""
    kind = make_concept(codes.PAYMENT_TYPE, "adjustment")
    kind["coding"].append({"system": codes.PAYMENT_ADJUSTMENT, "code": entry.reason})
    return drop_empty(
        {
            "identifier": {"system": codes.DETAIL_KEY, "value": f"{remittance.key}#PLB{number}"},
            "type": kind,
            "request": {"identifier": {"system": codes.PAYER_CONTROL_NUMBER, "value": entry.reference}}
            if entry.reference
            else {},
            "date": str(entry.fiscal_date or remittance.payment_date or ""),
            "amount": make_money(-entry.amount, remittance.currency),
        }
    )
