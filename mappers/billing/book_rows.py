"""Rows: of each resource only what the books are made of, in some hundred bytes (https://hl7.org/fhir/R4/financial-module.html).

A row is made of a resource as a dictionary, or by `BookReader` of its text, of which it parses no more than it needs.
Both ways go through the same functions; `take` gives the value of an element by the name of its reader.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Any, NamedTuple

from mappers.billing import codes
from mappers.billing.adjudications import Adjustment, read_adjustments, read_amount
from mappers.billing.adjustment_classes import DENIAL
from mappers.billing.claim_responses import read_posted
from mappers.billing.fields import (
    ZERO,
    Resource,
    find_code,
    find_extension,
    find_identifier,
    find_reference,
    find_serviced_days,
    sum_amounts,
    to_amount,
    to_day,
    to_decimal,
)

ENDED = ("cancelled", "entered-in-error")
_COUNTING = ("billable", "billed")
_IN_FORCE = ("issued", "balanced")
ONE = Decimal(1)

Take = Callable[[str, Any], Any]
"""(reader of ELEMENTS, element as it stands in the resource) → its value."""

WrittenOff = tuple[tuple[Decimal, str], ...]
"""(amount, CARC) of each adjustment that was written off when it was posted."""


class ChargeRow(NamedTuple):
    """A ChargeItem; `day`: entered, `served`: the first ten characters of its date."""

    reference: str
    counts: bool
    day: date | None
    amount: Decimal
    account: str
    patient: str
    provider: str
    served: str
    quantity: Decimal


class ClaimRow(NamedTuple):
    """A Claim; `coverage`: the focal one. `lines`: (sequence, charge). `served`: its first day of service."""

    reference: str
    created: str
    ended: bool
    patient: str
    provider: str
    location: str
    served: date | None
    insurer: str
    coverage: str
    related: tuple[str, ...]
    lines: tuple[tuple[int | None, str], ...]
    encounters: tuple[str, ...]


class LineAnswer(NamedTuple):
    """What a payer has decided about one line, or a claim without lines."""

    paid: Decimal
    written_off: WrittenOff
    denied: tuple[Adjustment, ...]


class ResponseRow(NamedTuple):
    """A ClaimResponse; `lines`: (sequence, answer). `others`: of the claim, then of unknown lines."""

    reference: str
    key: str
    reversal: bool
    claim: str
    submitted: Decimal
    lines: tuple[tuple[int | None, LineAnswer], ...]
    others: tuple[LineAnswer, ...]

    def list_denied(self) -> tuple[Adjustment, ...]:
        """The adjustments of the denial class, as it was when they were posted."""
        whole, more = self.others[:1], self.others[1:]
        answers = (*whole, *(answer for _, answer in self.lines), *more)
        return tuple(each for answer in answers for each in answer.denied)


class InvoiceRow(NamedTuple):
    """An Invoice; `day` is None where posting did not make it. `lines`: (charge, amount)."""

    reference: str
    in_force: bool
    day: date | None
    claim: str
    lines: tuple[tuple[str, Decimal], ...]


class DetailRow(NamedTuple):
    """A detail of a PaymentReconciliation; `name`: PLB03-2, else the value of its identifier."""

    kind: str
    type: str
    provider_reason: str
    reason: str
    amount: Decimal
    response: str
    response_key: str
    request: str
    name: str


class PaymentRow(NamedTuple):
    """A PaymentReconciliation; `day` is None where posting did not make it."""

    reference: str
    created: str
    active: bool
    day: date | None
    issuer: str
    patient: str
    by_hand: bool
    details: tuple[DetailRow, ...]


Row = ChargeRow | ClaimRow | ResponseRow | InvoiceRow | PaymentRow


@dataclass(frozen=True, slots=True)
class BookRows:
    """What the books are made of, by reference; `visits`: the Appointments of Encounters, `payors`: of Coverages."""

    charges: dict[str, ChargeRow] = field(default_factory=dict)
    claims: dict[str, ClaimRow] = field(default_factory=dict)
    responses: dict[str, ResponseRow] = field(default_factory=dict)
    invoices: dict[str, InvoiceRow] = field(default_factory=dict)
    payments: dict[str, PaymentRow] = field(default_factory=dict)
    visits: dict[str, tuple[str, ...]] = field(default_factory=dict)
    payors: dict[str, str] = field(default_factory=dict)

    def get_rows(self, type: str) -> dict[str, Any]:
        """The rows of a type of resource. Raises KeyError for one that the books do not know."""
        found: dict[str, Any] = getattr(self, _PLACES[type])
        return found

    def add(self, type: str, trees: Iterable[Resource], take: Take) -> None:
        """The rows of resources of a type; of two of one id the last counts."""
        rows, read = self.get_rows(type), _READERS[type]
        for tree in trees:
            reference = f"{type}/{tree.get('id', '')}"
            rows[reference] = read(reference, tree, take)

    def sort(self) -> None:
        """Put the rows in the order of their references, in whatever order they were read."""
        for type in _PLACES:
            rows = self.get_rows(type)
            ordered = {reference: rows[reference] for reference in sorted(rows)}
            rows.clear()
            rows.update(ordered)

    def count(self) -> int:
        """The number of resources."""
        return sum(len(self.get_rows(type)) for type in _PLACES)

    def has(self, reference: str) -> bool:
        """Whether the row of a reference is there."""
        place = _PLACES.get(reference.partition("/")[0])
        return place is not None and reference in getattr(self, place)


def read_rows(resources: Iterable[Resource]) -> BookRows:
    """The rows of resources as dictionaries; other types than those of the books are left out."""
    rows = BookRows()
    for each in resources:
        if each["resourceType"] in _READERS:
            rows.add(each["resourceType"], (each,), take_value)
    return rows


def take_value(name: str, element: Any) -> Any:
    """The value of an element of a resource that is a dictionary."""
    return ELEMENTS[name](element)


def _read_charge(reference: str, tree: Resource, take: Take) -> ChargeRow:
    return ChargeRow(
        reference,
        tree.get("status") in _COUNTING,
        to_day(str(tree.get("enteredDate", ""))),
        take("money", tree.get("priceOverride")),
        take("first reference", tree.get("account")),
        take("reference", tree.get("subject")),
        take("performers", tree.get("performer")),
        str(tree.get("occurrenceDateTime") or (tree.get("occurrencePeriod") or {}).get("start", ""))[:10],
        take("quantity", tree["quantity"]) if "quantity" in tree else ONE,
    )


def _read_claim(reference: str, tree: Resource, take: Take) -> ClaimRow:
    lines, visits, days = [], [], []
    for item in tree.get("item", ()):
        lines.append((item.get("sequence"), find_reference(find_extension(item, codes.CHARGE_ITEM))))
        if "encounter" in item:
            visits += [find_reference(each) for each in item["encounter"]]
        if day := find_serviced_days(item)[0]:
            days.append(day)
    provider = take("team", tree.get("careTeam"))
    focal, coverage = take("insurance", tree.get("insurance"))
    return ClaimRow(
        reference,
        str(tree.get("created", "")),
        tree.get("status") in ENDED,
        take("reference", tree.get("patient")),
        take("reference", tree.get("provider")) if provider is None else provider,
        take("reference", tree.get("facility")),
        min(days, default=None),
        take("reference", tree.get("insurer")),
        coverage if focal else "",
        tuple([find_reference(each.get("claim")) for each in tree.get("related", ())]),
        tuple(lines),
        tuple(visits),
    )


def _read_response(reference: str, tree: Resource, take: Take) -> ResponseRow:
    whole = take("adjudication", tree.get("adjudication"))
    return ResponseRow(
        reference,
        find_identifier(tree, codes.RESPONSE_KEY),
        bool(find_identifier(tree, codes.REVERSED_KEY)),
        find_reference(tree.get("request")),
        take("submitted", tree.get("total")),
        tuple(
            [
                (each.get("itemSequence"), take("adjudication", each.get("adjudication")))
                for each in tree.get("item", ())
            ]
        ),
        (whole, *(take("adjudication", each.get("adjudication")) for each in tree.get("addItem", ()))),
    )


def _read_invoice(reference: str, tree: Resource, take: Take) -> InvoiceRow:
    return InvoiceRow(
        reference,
        tree.get("status") in _IN_FORCE,
        to_day(str(find_extension(tree, codes.POSTING_DATE) or "")),
        find_reference(find_extension(tree, codes.CLAIM_REFERENCE)),
        tuple(
            [
                (find_reference(each.get("chargeItemReference")), take("prices", each.get("priceComponent")))
                for each in tree.get("lineItem", ())
            ]
        ),
    )


def _read_payment(reference: str, tree: Resource, take: Take) -> PaymentRow:
    patient = find_extension(tree, codes.PAYMENT_PATIENT)
    return PaymentRow(
        reference,
        str(tree.get("created", "")),
        tree.get("status") == "active",
        to_day(str(find_extension(tree, codes.POSTING_DATE) or "")),
        find_reference(tree.get("paymentIssuer")),
        find_reference(patient),
        bool(patient),
        tuple([_read_detail(each) for each in tree.get("detail", ())]),
    )


def _read_detail(detail: Resource) -> DetailRow:
    pointer, type = detail.get("response") or {}, detail.get("type")
    named = find_extension(detail, codes.PROVIDER_REFERENCE) or (detail.get("identifier") or {}).get("value", "")
    return DetailRow(
        find_code(type, codes.PAYMENT_TYPE),
        find_code(type),
        find_code(type, codes.PROVIDER_REASON),
        find_code(type, codes.DETAIL_TYPE),
        to_amount(detail.get("amount")),
        find_reference(pointer),
        str((pointer.get("identifier") or {}).get("value", "")),
        find_reference(detail.get("request")),
        str(named),
    )


def _read_visit(reference: str, tree: Resource, take: Take) -> tuple[str, ...]:
    return tuple([find_reference(each) for each in tree.get("appointment", ())])


def _read_payor(reference: str, tree: Resource, take: Take) -> str:
    return str(take("first reference", tree.get("payor")))


_PLACES: Mapping[str, str] = {
    "PaymentReconciliation": "payments",
    "ClaimResponse": "responses",
    "Invoice": "invoices",
    "Claim": "claims",
    "ChargeItem": "charges",
    "Encounter": "visits",
    "Coverage": "payors",
}
_READERS: Mapping[str, Callable[[str, Resource, Take], Any]] = {
    "PaymentReconciliation": _read_payment,
    "ClaimResponse": _read_response,
    "Invoice": _read_invoice,
    "Claim": _read_claim,
    "ChargeItem": _read_charge,
    "Encounter": _read_visit,
    "Coverage": _read_payor,
}


def _read_performers(performers: Any) -> str:
    return find_reference((performers or [{}])[0].get("actor"))


def _read_team(team: Any) -> str | None:
    """Who rendered a claim; None where its care team does not tell."""
    members = [each for each in team or () if find_code(each.get("role")) in ("primary", "")]
    return find_reference(members[0].get("provider")) if members else None


def _read_insurance(insurance: Any) -> tuple[bool, str]:
    """Whether there is a focal coverage, and its reference."""
    for each in insurance or ():
        if each.get("focal"):
            return True, find_reference(each.get("coverage"))
    return False, ""


def _read_adjudication(entries: Any) -> LineAnswer:
    entries = entries or ()
    written_off = [(off, find_code(each.get("reason"), codes.CARC)) for each in entries if (off := read_posted(each))]
    denied = read_adjustments(each for each in entries if find_extension(each, codes.CLASS) == DENIAL)
    return LineAnswer(read_amount(entries, "benefit") or ZERO, tuple(written_off), tuple(denied))


ELEMENTS: Mapping[str, Callable[[Any], Any]] = {
    "money": to_amount,
    "quantity": lambda quantity: to_decimal((quantity or {}).get("value", 1)),
    "reference": find_reference,
    "first reference": lambda references: find_reference((references or [None])[0]),
    "performers": _read_performers,
    "team": _read_team,
    "insurance": _read_insurance,
    "adjudication": _read_adjudication,
    "submitted": lambda totals: read_amount(totals or (), "submitted") or ZERO,
    "prices": lambda prices: sum_amounts(to_amount(each.get("amount")) for each in prices or ()),
}
"""By name, how the value of an element is read; None stands for an element that is not there."""
