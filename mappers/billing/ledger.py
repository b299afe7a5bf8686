"""The ledger, derived from stored resources alone and reproducible for any day (docs/reports.md).

A charge counts from its `enteredDate`; a payment and what it adjusts from the `posting-date` of its active
PaymentReconciliation; an Invoice moves an amount from the payers to the patient. Other dates never count.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from operator import attrgetter, itemgetter
from typing import NamedTuple

from mappers.billing.adjudications import Adjustment
from mappers.billing.book_rows import (
    BookRows,
    ChargeRow,
    ClaimRow,
    DetailRow,
    InvoiceRow,
    LineAnswer,
    PaymentRow,
    ResponseRow,
    read_rows,
)
from mappers.billing.fields import ZERO, Resources, to_day

CHARGE, PAYMENT, ADJUSTMENT, REFUND, INVOICE = "charge", "payment", "adjustment", "refund", "invoice"
OPENING = "opening"
VISITS = ("Appointment/", "Encounter/")
"""How the reference of what a patient pays ahead for begins; it is the `line` of such an entry."""
PATIENT, UNBILLED = "patient", "unbilled"
"""Whose an amount is where no payer has it: the patient's, or nobody's yet, without a claim and without an Invoice."""


class Entry(NamedTuple):
    """One amount of one day: `root` is the first claim of its charges (or the charge itself), `line` the charge.

    Money for a visit that no claim bills yet has the patient as root; its `line` is always the visit.
    `amount` is what it adds to the balance: charges and refunds above 0, payments and adjustments below. An `invoice`
    adds nothing; its amount moves to the patient. `payer` is who paid or adjusted, `patient` for the patient.
    """

    kind: str
    amount: Decimal
    day: date
    root: str
    line: str
    payer: str
    reason: str = ""


class Root(NamedTuple):
    """A claim with its successors to other payers, or a charge without a claim; `payers`: (day, payer)."""

    name: str
    patient: str = ""
    account: str = ""
    provider: str = ""
    location: str = ""
    service_day: date | None = None
    payers: tuple[tuple[date, str], ...] = ()


class Answer(NamedTuple):
    """An adjudication that was posted: root, day, payer, charge, denied adjustments; reversals are left out."""

    root: str
    day: date
    payer: str
    charge: Decimal
    denied: tuple[Adjustment, ...]


class HeldBack(NamedTuple):
    """A provider adjustment, or money not applied yet, outside the claims: reason, reference, amount."""

    reason: str
    reference: str
    amount: Decimal
    day: date
    payer: str


_DAY_OF, _ROOT_OF = itemgetter(Entry._fields.index("day")), itemgetter(Entry._fields.index("root"))


@dataclass(frozen=True, slots=True)
class Books:
    """Entries in the order of their days, roots by name, adjudications, provider adjustments, unapplied money."""

    entries: tuple[Entry, ...]
    roots: dict[str, Root]
    answers: tuple[Answer, ...] = ()
    provider_adjustments: tuple[HeldBack, ...] = ()
    unapplied: tuple[HeldBack, ...] = ()
    charges: dict[str, ChargeRow] = field(default_factory=dict)
    root_of_charge: dict[str, str] = field(default_factory=dict)
    root_of_claim: dict[str, str] = field(default_factory=dict)
    root_of_visit: dict[str, str] = field(default_factory=dict)
    gross: dict[date, Decimal] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Lookup:
    rows: BookRows
    root_of_claim: dict[str, str]
    root_of_charge: dict[str, str]
    responses: dict[str, ResponseRow]
    root_of_visit: dict[str, str]

    def find_root(self, reference: str) -> str:
        """The root of a Claim, Invoice or ChargeItem; another reference is its own."""
        if reference.startswith("Invoice/") and (invoice := self.rows.invoices.get(reference)) is not None:
            charges = (charge for charge, _ in invoice.lines if charge in self.root_of_charge)
            reference = next(charges, invoice.claim or reference)
        return self.root_of_claim.get(reference) or self.root_of_charge.get(reference) or reference

    def find_response(self, detail: DetailRow) -> ResponseRow | None:
        """The ClaimResponse of a detail, by its reference or its key."""
        return self.rows.responses.get(detail.response) or self.responses.get(detail.response_key)


def make_books(resources: Resources, opening: Books | None = None) -> Books:
    """The books of a practice: of its Claims, ChargeItems, ClaimResponses, PaymentReconciliations, Invoices.

    `opening` only tells the claims of charges entered before; `closing.continue_books` adds its entries.
    """
    return make_books_of_rows(read_rows(resources.values()), opening)


def make_books_of_rows(rows: BookRows, opening: Books | None = None) -> Books:
    """The same of what is read of the resources."""
    claims = sorted(rows.claims.values(), key=_order_of)
    charges = {name: each for name, each in rows.charges.items() if each.counts}
    lookup = _look_up(claims, rows, opening)
    pairs = [(each, lookup.root_of_charge.get(name) or name) for name, each in charges.items()]
    entries = [
        Entry(CHARGE, each.amount, each.day, root, each.reference, "") for each, root in pairs if each.day is not None
    ]
    for invoice in rows.invoices.values():
        entries += _read_invoice(invoice, lookup)
    answers: list[Answer] = []
    plb: list[HeldBack] = []
    unapplied: list[HeldBack] = []
    # of one day's entries, a payment stands before what gives it back
    for payment in sorted(rows.payments.values(), key=_order_of):
        day = payment.day
        if day is None or not payment.active:
            continue
        for detail in payment.details:
            response = lookup.find_response(detail) if detail.response or detail.response_key else None
            entries += _read_detail(detail, response, payment, lookup)
            _sort_detail(detail, payment, (plb, unapplied))
            if response is not None and not response.reversal:
                root = lookup.find_root(response.claim)
                answers.append(Answer(root, day, payment.issuer, response.submitted, response.list_denied()))
    entries.sort(key=_DAY_OF)
    answers.sort(key=attrgetter("day"))
    return Books(
        entries=tuple(entries),
        roots=_make_roots(claims, pairs, entries, lookup),
        answers=tuple(answers),
        provider_adjustments=tuple(plb),
        unapplied=tuple(unapplied),
        charges=charges,
        root_of_charge=lookup.root_of_charge,
        root_of_claim=lookup.root_of_claim,
        root_of_visit=lookup.root_of_visit,
    )


def _order_of(row: ClaimRow | PaymentRow) -> tuple[str, str]:
    """When it was made, and its reference."""
    return row.created, row.reference


def find_root(books: Books, claim: str) -> str:
    """The root of a claim, itself where the books do not know it."""
    return books.root_of_claim.get(claim, claim)


def find_first_answers(books: Books) -> list[Answer]:
    """The first adjudication of each claim by its first payer."""
    seen: dict[str, Answer] = {}
    for each in books.answers:
        seen.setdefault(each.root, each)
    return list(seen.values())


def _look_up(claims: Iterable[ClaimRow], rows: BookRows, opening: Books | None) -> _Lookup:
    """Roots: the first claim that is in force with a charge, else the Invoice that has it, else the charge."""
    root_of_claim: dict[str, str] = {}
    known = opening.root_of_charge if opening else {}
    root_of_charge = {charge: root for charge, root in known.items() if root.startswith("Claim/")}
    for claim in claims:
        linked = [charge for _, charge in claim.lines if charge]
        root = claim.reference
        for each in linked:
            if each in root_of_charge:
                root = root_of_charge[each]
                break
        root_of_claim[claim.reference] = root
        if not claim.ended:
            for each in linked:
                root_of_charge.setdefault(each, root)
    for invoice in rows.invoices.values():
        for charge, _ in invoice.lines:
            root_of_charge.setdefault(charge, invoice.reference)
    root_of_charge.pop("", None)
    by_key = {each.key: each for each in rows.responses.values()}
    return _Lookup(rows, root_of_claim, root_of_charge, by_key, _look_up_visits(claims, root_of_claim, rows.visits))


def _look_up_visits(
    claims: Iterable[ClaimRow], root_of_claim: Mapping[str, str], visits: Mapping[str, Iterable[str]]
) -> dict[str, str]:
    """Encounters, and the Appointments of those at hand, to the root of the first claim in force that bills them."""
    roots: dict[str, str] = {}
    for claim in claims:
        for each in claim.encounters if not claim.ended else ():
            roots.setdefault(each, root_of_claim[claim.reference])
    for encounter, appointments in visits.items():
        if root := roots.get(encounter):
            for each in appointments:
                roots.setdefault(each, root)
    return roots


def _read_invoice(invoice: InvoiceRow, lookup: _Lookup) -> Iterator[Entry]:
    if invoice.day is None or not invoice.in_force:
        return
    for charge, amount in invoice.lines:
        root = lookup.find_root(charge or invoice.reference)
        yield Entry(INVOICE, amount, invoice.day, root, charge, PATIENT)


def _sort_detail(detail: DetailRow, payment: PaymentRow, books: tuple[list[HeldBack], list[HeldBack]]) -> None:
    plb, unapplied = books
    assert payment.day is not None
    if detail.provider_reason:
        plb.append(HeldBack(detail.provider_reason, detail.name, detail.amount, payment.day, payment.issuer))
    elif detail.type == "unapplied" and detail.amount:
        unapplied.append(HeldBack("unapplied", detail.name, detail.amount, payment.day, payment.issuer))


def _read_detail(
    detail: DetailRow, response: ResponseRow | None, payment: PaymentRow, lookup: _Lookup
) -> Iterable[Entry]:
    """The entries of one detail: a payer's adjudication, the patient's money, or an adjustment by hand."""
    assert payment.day is not None
    if not detail.kind or detail.provider_reason:
        return ()
    if response is not None:
        return _read_response(response, detail.amount, payment, lookup)
    root = lookup.find_root(detail.request)
    reason = INVOICE if detail.request.startswith("Invoice/") else detail.reason
    line = ""
    if root.startswith(VISITS):
        line = root
        root = lookup.root_of_visit.get(root) or payment.patient or root
    usual = PAYMENT if detail.amount >= 0 else REFUND
    kind = ADJUSTMENT if detail.kind == "adjustment" else usual
    return (Entry(kind, -detail.amount, payment.day, root, line, payment.issuer or PATIENT, reason),)


def _read_response(response: ResponseRow, paid: Decimal, payment: PaymentRow, lookup: _Lookup) -> list[Entry]:
    """Line by line; what is paid or written off without a line stands at the claim and is never spread."""
    claim = lookup.rows.claims.get(response.claim)
    charges = dict(claim.lines) if claim is not None else {}
    assert payment.day is not None
    root, entries, rest = lookup.find_root(response.claim), [], paid
    for sequence, answer in response.lines:
        rest -= answer.paid
        entries += _make_entries(answer.paid, answer, payment, root, charges.get(sequence, ""))
    for answer in response.others:
        entries += _make_entries(rest, answer, payment, root, "")
        rest = ZERO
    return entries


def _make_entries(paid: Decimal, answer: LineAnswer, payment: PaymentRow, root: str, line: str) -> list[Entry]:
    day, issuer = payment.day, payment.issuer
    assert day is not None
    entries = [Entry(ADJUSTMENT, -off, day, root, line, issuer, reason) for off, reason in answer.written_off]
    return [Entry(PAYMENT, -paid, day, root, line, issuer), *entries] if paid else entries


def _make_roots(
    claims: Iterable[ClaimRow], charges: Iterable[tuple[ChargeRow, str]], entries: Iterable[Entry], lookup: _Lookup
) -> dict[str, Root]:
    """`charges`: each with the name of its root."""
    first: dict[str, ClaimRow] = {}
    payers: dict[str, tuple[tuple[date, str], ...]] = {}
    for claim in claims:
        if claim.ended:
            continue
        name = lookup.root_of_claim[claim.reference]
        first.setdefault(name, claim)
        payer, day = lookup.rows.payors.get(claim.coverage) or claim.insurer, to_day(claim.created)
        if payer and day:
            payers[name] = (*payers.get(name, ()), (day, payer))
    unbilled: dict[str, ChargeRow] = {}
    accounts: dict[str, str] = {}
    for charge, name in charges:
        if charge.account:
            accounts.setdefault(name, charge.account)
        if name not in first:
            unbilled.setdefault(name, charge)
    roots = {
        name: Root(
            name, each.patient, accounts.get(name, ""), each.provider, each.location, each.served, payers.get(name, ())
        )
        for name, each in first.items()
    }
    for name, each in unbilled.items():
        roots[name] = Root(name, each.patient, accounts.get(name, ""), each.provider, "", to_day(each.served))
    for name in dict.fromkeys(map(_ROOT_OF, entries)):
        if name not in roots:
            roots[name] = Root(name, name if name.startswith("Patient/") else "")
    return roots


def list_entries(books: Books, day: date) -> Iterator[Entry]:
    """The entries of the ledger on a day: what was posted until then, Invoices aside."""
    for entry in books.entries:
        if entry.day > day:
            return
        if entry.kind != INVOICE:
            yield entry
