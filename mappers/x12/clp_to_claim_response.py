"""A claim of an 835 to a ClaimResponse (005010X221A1 loops 2100 and 2110; http://hl7.org/fhir/R4/claimresponse.html)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from mappers.x12 import codes
from mappers.x12.remittance import Adjustment, Remittance, RemittanceClaim, RemittanceLine
from mappers.x12.resource import drop_empty, make_concept, make_money

_DISPOSITIONS = {
    "1": "Processed as primary", "2": "Processed as secondary", "3": "Processed as tertiary",
    "4": "Patient not recognized, not forwarded", "19": "Processed as primary and forwarded",
    "20": "Processed as secondary and forwarded", "21": "Processed as tertiary and forwarded",
    "22": "Reversal of an earlier payment", "23": "Not our claim, forwarded", "25": "Predetermination, no payment",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ResponseContext:
    """Whom a claim of a remittance was matched to, as references, and when its response is made.

    `sequences` says which `Claim.item.sequence` each line from 0 is about (`match_lines`); others become `addItem`.
    """

    request: str
    patient: str
    insurer: str
    created: str
    requestor: str = ""
    status: str = "draft"
    sequences: Mapping[int, int] = field(default_factory=dict)


def clp_to_claim_response(claim: RemittanceClaim, remittance: Remittance, context: ResponseContext) -> dict[str, Any]:
    """The ClaimResponse of a claim, negative for a reversal. What is of the claim is never spread over its lines."""
    items, additions = _lines_to_items(claim, context.sequences)
    return drop_empty(
        {
            "resourceType": "ClaimResponse",
            "extension": [
                {
                    "url": codes.REMITTANCE_STATUS_EXTENSION,
                    "valueCoding": {"system": codes.REMITTANCE_STATUS, "code": claim.status},
                }
            ],
            "identifier": [{"system": codes.PAYER_CONTROL_NUMBER, "value": claim.payer_number}]
            if claim.payer_number
            else [],
            "status": context.status,
            "type": make_concept(codes.CLAIM_TYPE, "professional"),
            "use": "predetermination" if claim.status == "25" else "claim",
            "patient": {"reference": context.patient},
            "created": context.created,
            "insurer": {"reference": context.insurer},
            "requestor": {"reference": context.requestor} if context.requestor else {},
            "request": {"reference": context.request},
            "outcome": "complete",
            "disposition": _DISPOSITIONS.get(claim.status, f"Claim status {claim.status}"),
            "item": items,
            "addItem": additions,
            "adjudication": _claim_to_adjudications(claim),
            "total": [
                {"category": make_concept(codes.ADJUDICATION, "submitted"), "amount": make_money(claim.charge)},
                {"category": make_concept(codes.ADJUDICATION, "benefit"), "amount": make_money(claim.paid)},
            ],
            "payment": _make_payment(claim, remittance),
        }
    )


def _make_payment(claim: RemittanceClaim, remittance: Remittance) -> dict[str, Any]:
    complete = claim.paid == claim.charge
    payment: dict[str, Any] = {
        "type": make_concept(f"{codes.HL7}/ex-paymenttype", "complete" if complete else "partial"),
        "amount": make_money(claim.paid),
    }
    if remittance.payment_date:
        payment["date"] = str(remittance.payment_date)
    if remittance.trace:
        payment["identifier"] = {"system": codes.PAYMENT_NUMBER, "value": remittance.trace}
    return payment


def adjustments_to_adjudications(adjustments: Iterable[Adjustment]) -> list[dict[str, Any]]:
    """CAS triplets: category is the group code, reason the CARC; these alone the ledger reads."""
    entries = []
    for each in adjustments:
        entry = {
            "category": make_concept(codes.GROUP, each.group),
            "reason": make_concept(codes.CARC, each.reason),
            "amount": make_money(each.amount),
        }
        entries.append(entry if each.quantity is None else entry | {"value": each.quantity})
    return entries


def remarks_to_adjudications(remarks: Iterable[str]) -> list[dict[str, Any]]:
    """RARCs, as entries without an amount."""
    category = make_concept(codes.REMARK, "remark")
    return [{"category": category, "reason": make_concept(codes.RARC, remark)} for remark in remarks]


def _amount(category: str, amount: Decimal) -> dict[str, Any]:
    return {"category": make_concept(codes.ADJUDICATION, category), "amount": make_money(amount)}


def _claim_to_adjudications(claim: RemittanceClaim) -> list[dict[str, Any]]:
    entries = adjustments_to_adjudications(claim.adjustments) + remarks_to_adjudications(claim.remarks)
    return entries + ([_amount("eligible", claim.amounts["AU"])] if "AU" in claim.amounts else [])


def _line_to_adjudications(line: RemittanceLine) -> list[dict[str, Any]]:
    entries = [_amount("submitted", line.charge), _amount("benefit", line.paid)]
    entries += [_amount("eligible", line.allowed)] if line.allowed is not None else []
    return entries + adjustments_to_adjudications(line.adjustments) + remarks_to_adjudications(line.remarks)


def _lines_to_items(
    claim: RemittanceClaim, sequences: Mapping[int, int]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Lines as sent are items, one for each; those bundled, unbundled or matched to none are added items."""
    items: dict[int, dict[str, Any]] = {}
    additions = []
    for place, line in enumerate(claim.lines):
        sequence = sequences.get(place)
        changed = bool(line.original) and line.original[:2] != line.procedure[:2]
        if sequence is None or sequence in items or changed:
            additions.append(_line_to_addition(line, sequence))
            continue
        items[sequence] = {
            "extension": [{"url": codes.UNITS_PAID, "valueDecimal": line.units_paid}],
            "itemSequence": sequence,
            "adjudication": _line_to_adjudications(line),
        }
    return list(items.values()), additions


def _line_to_addition(line: RemittanceLine, sequence: int | None) -> dict[str, Any]:
    code = line.procedure[1] if len(line.procedure) > 1 else "".join(line.procedure)
    return drop_empty(
        {
            "extension": [{"url": codes.UNITS_PAID, "valueDecimal": line.units_paid}],
            "itemSequence": [sequence] if sequence is not None else [],
            "productOrService": make_concept(codes.CPT if code[:1].isdigit() else codes.HCPCS[0], code),
            "modifier": [make_concept(codes.CPT, each) for each in line.procedure[2:6] if each],
            "servicedDate": str(line.start) if line.start and line.start == line.end else "",
            "servicedPeriod": {"start": str(line.start), "end": str(line.end)}
            if line.start and line.end and line.start != line.end
            else {},
            "net": make_money(line.charge),
            "adjudication": _line_to_adjudications(line),
        }
    )
