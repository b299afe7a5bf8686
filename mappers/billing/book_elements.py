"""The text of a resource as its row of the books: of what is written alike in many resources the value is kept.

What is read so gives the same books as the whole resources (`book_rows.read_rows`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypedDict

import msgspec

from mappers.billing.book_rows import ELEMENTS, BookRows

BOOKED = ("PaymentReconciliation", "ClaimResponse", "Invoice", "Claim", "ChargeItem")
"""The types that the books are made of, each before those that it names."""

_MOST_KNOWN = 50_000


class _Reference(TypedDict, total=False):
    reference: Any


class _Period(TypedDict, total=False):
    start: Any
    end: Any


class _Resource(TypedDict, total=False):
    resourceType: str
    id: str
    status: str


class _AnsweredLine(TypedDict, total=False):
    itemSequence: Any
    adjudication: msgspec.Raw


class _ClaimResponse(_Resource, total=False):
    identifier: list[Any]
    request: _Reference
    total: msgspec.Raw
    item: list[_AnsweredLine]
    addItem: list[_AnsweredLine]
    adjudication: msgspec.Raw


class _PaymentReconciliation(_Resource, total=False):
    created: Any
    extension: list[Any]
    paymentIssuer: _Reference
    detail: list[Any]


class _InvoiceLine(TypedDict, total=False):
    priceComponent: msgspec.Raw
    chargeItemReference: _Reference


class _Invoice(_Resource, total=False):
    extension: list[Any]
    lineItem: list[_InvoiceLine]


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
    patient: msgspec.Raw
    insurer: msgspec.Raw
    insurance: msgspec.Raw
    careTeam: msgspec.Raw
    provider: msgspec.Raw
    facility: msgspec.Raw
    related: list[_Related]
    item: list[_ClaimLine]


class _ChargeItem(_Resource, total=False):
    enteredDate: Any
    priceOverride: msgspec.Raw
    occurrenceDateTime: Any
    occurrencePeriod: _Period
    performer: msgspec.Raw
    account: msgspec.Raw
    subject: msgspec.Raw
    quantity: msgspec.Raw


class _Encounter(_Resource, total=False):
    appointment: list[_Reference]


class _Coverage(_Resource, total=False):
    payor: msgspec.Raw


_DECODERS: Mapping[str, msgspec.json.Decoder[Any]] = {
    "PaymentReconciliation": msgspec.json.Decoder(_PaymentReconciliation),
    "ClaimResponse": msgspec.json.Decoder(_ClaimResponse),
    "Invoice": msgspec.json.Decoder(_Invoice),
    "Claim": msgspec.json.Decoder(_Claim),
    "ChargeItem": msgspec.json.Decoder(_ChargeItem),
    "Encounter": msgspec.json.Decoder(_Encounter),
    "Coverage": msgspec.json.Decoder(_Coverage),
}
_decode = msgspec.json.decode


class BookReader:
    """Reads the resources of one report into rows."""

    def __init__(self) -> None:
        self.rows = BookRows()
        self._known: dict[str, dict[bytes, Any]] = {name: {} for name in ELEMENTS}

    def read_all(self, type: str, texts: Iterable[bytes]) -> None:
        """Add the rows of stored resources of a type; of two texts of one resource the last counts."""
        self.rows.add(type, map(_DECODERS[type].decode, texts), self._take)

    def _take(self, name: str, element: Any) -> Any:
        """The value of an element, the same object for all that are written alike."""
        if element is None:
            return ELEMENTS[name](None)
        known, text = self._known[name], bytes(element)
        if text not in known:
            if len(known) >= _MOST_KNOWN:
                known.clear()
            known[text] = ELEMENTS[name](_decode(text))
        return known[text]
