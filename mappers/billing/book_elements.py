"""Of each resource the elements that the books are made of: the others would take most of the memory of a report.

What is read so gives the same books as the whole resources (https://hl7.org/fhir/R4/financial-module.html).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict, cast

import msgspec

from mappers.billing import codes
from mappers.billing.adjustment_classes import DENIAL
from mappers.billing.fields import Resource


class _Reference(TypedDict, total=False):
    reference: Any


class _Amount(TypedDict, total=False):
    value: Any


class _Coding(TypedDict, total=False):
    system: Any
    code: Any


class _Concept(TypedDict, total=False):
    coding: list[_Coding]


class _Period(TypedDict, total=False):
    start: Any
    end: Any


class _Resource(TypedDict, total=False):
    resourceType: str
    id: str
    status: str


class _Adjudication(TypedDict, total=False):
    category: _Concept
    reason: _Concept
    amount: _Amount
    value: Any
    extension: list[Any]


class _AnsweredLine(TypedDict, total=False):
    itemSequence: Any
    adjudication: list[_Adjudication]


class _ClaimResponse(_Resource, total=False):
    identifier: list[Any]
    request: _Reference
    total: list[_Adjudication]
    item: list[_AnsweredLine]
    addItem: list[_AnsweredLine]
    adjudication: list[_Adjudication]


class _PaymentReconciliation(_Resource, total=False):
    extension: list[Any]
    paymentIssuer: _Reference
    detail: list[Any]


class _PriceComponent(TypedDict, total=False):
    amount: _Amount


class _InvoiceLine(TypedDict, total=False):
    priceComponent: list[_PriceComponent]
    chargeItemReference: _Reference


class _Invoice(_Resource, total=False):
    extension: list[Any]
    lineItem: list[_InvoiceLine]


class _Member(TypedDict, total=False):
    provider: _Reference
    role: _Concept


class _Insurance(TypedDict, total=False):
    focal: Any
    coverage: _Reference


class _Related(TypedDict, total=False):
    claim: _Reference


class _ClaimLine(TypedDict, total=False):
    sequence: Any
    extension: list[Any]
    servicedDate: Any
    servicedPeriod: _Period
    encounter: list[_Reference]


class _Claim(_Resource, total=False):
    created: Any
    patient: _Reference
    insurer: _Reference
    insurance: list[_Insurance]
    careTeam: list[_Member]
    provider: _Reference
    facility: _Reference
    related: list[_Related]
    item: list[_ClaimLine]


class _Performer(TypedDict, total=False):
    actor: _Reference


class _ChargeItem(_Resource, total=False):
    enteredDate: Any
    priceOverride: _Amount
    occurrenceDateTime: Any
    occurrencePeriod: _Period
    performer: list[_Performer]
    account: list[_Reference]
    subject: _Reference
    quantity: _Amount


class _Encounter(_Resource, total=False):
    appointment: list[_Reference]


_DECODERS: Mapping[str, msgspec.json.Decoder[Any]] = {
    "PaymentReconciliation": msgspec.json.Decoder(_PaymentReconciliation),
    "ClaimResponse": msgspec.json.Decoder(_ClaimResponse),
    "Invoice": msgspec.json.Decoder(_Invoice),
    "Claim": msgspec.json.Decoder(_Claim),
    "ChargeItem": msgspec.json.Decoder(_ChargeItem),
    "Encounter": msgspec.json.Decoder(_Encounter),
}

BOOKED = ("PaymentReconciliation", "ClaimResponse", "Invoice", "Claim", "ChargeItem")
"""The types that the books are made of, each before those that it names."""


def read_for_books(type: str, text: bytes) -> Resource:
    """The elements of a stored resource that count in the books."""
    resource = cast(Resource, _DECODERS[type].decode(text))
    if type == "ClaimResponse":
        for part in (resource, *resource.get("item", ()), *resource.get("addItem", ())):
            if "adjudication" in part:
                part["adjudication"] = [each for each in part["adjudication"] if _counts(each)]
    return resource


def _counts(entry: Resource) -> bool:
    """Whether an adjudication is a payment, a denial, or wrote something off."""
    for each in entry.get("extension", ()):
        if each["url"] == codes.POSTED or (each["url"] == codes.CLASS and each.get("valueCode") == DENIAL):
            return True
    codings = entry.get("category", {}).get("coding", ())
    return any(each.get("code") == "benefit" and each.get("system") == codes.ADJUDICATION for each in codings)
