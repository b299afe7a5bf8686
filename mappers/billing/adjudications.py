"""Adjustments and payments in `ClaimResponse.adjudication`: groups and reasons as in an 835 (CAS, SVC, CLP)."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import NamedTuple

from mappers.billing import codes
from mappers.billing.fields import Resource, find_code, make_concept, make_money, sum_amounts, to_amount, to_decimal


class Adjustment(NamedTuple):
    """One CAS triplet: group CO, PR, OA, PI or CR; CARC; amount (positive lowers the payment); units or None."""

    group: str
    reason: str
    amount: Decimal
    quantity: Decimal | None = None


def adjustment_to_adjudication(adjustment: Adjustment) -> Resource:
    """A CAS triplet as an adjudication."""
    entry: Resource = {
        "category": make_concept(codes.GROUP, adjustment.group),
        "reason": make_concept(codes.CARC, adjustment.reason),
        "amount": make_money(adjustment.amount),
    }
    if adjustment.quantity is not None:
        entry["value"] = adjustment.quantity
    return entry


def amount_to_adjudication(category: str, amount: Decimal) -> Resource:
    """`submitted`, `benefit` or `eligible` as an adjudication."""
    return {"category": make_concept(codes.ADJUDICATION, category), "amount": make_money(amount)}


def remark_to_adjudication(remark: str) -> Resource:
    """A RARC as an adjudication without an amount."""
    return {"category": make_concept(codes.ADJUDICATION, "remark"), "reason": make_concept(codes.RARC, remark)}


def read_adjustments(adjudication: Iterable[Resource]) -> list[Adjustment]:
    """The group-coded entries; other categories are for readers and never counted."""
    triplets = []
    for entry in adjudication:
        if group := find_code(entry.get("category"), codes.GROUP):
            quantity = to_decimal(entry["value"]) if "value" in entry else None
            triplets.append(
                Adjustment(group, find_code(entry.get("reason"), codes.CARC), to_amount(entry.get("amount")), quantity)
            )
    return triplets


def read_amount(adjudication: Iterable[Resource], category: str) -> Decimal | None:
    """The amount of a category of FHIR's, None where it is not there."""
    for entry in adjudication:
        if find_code(entry.get("category"), codes.ADJUDICATION) == category:
            return to_amount(entry.get("amount"))
    return None


def sum_adjustments(adjustments: Iterable[Adjustment], group: str = "") -> Decimal:
    """The sum of the adjustments, of one group where it is named."""
    return sum_amounts(each.amount for each in adjustments if group in ("", each.group))
