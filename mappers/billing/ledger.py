"""The ledger, derived from stored resources alone and reproducible for any day (docs/reports.md).

A charge counts from its `enteredDate`; a payment and what it adjusts from the `posting-date` of its active
PaymentReconciliation; an Invoice moves an amount from the payers to the patient. Other dates never count.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from decimal import Decimal
from typing import NamedTuple

from mappers.billing import codes
from mappers.billing.adjudications import Adjustment, read_amount
from mappers.billing.claim_responses import read_posted
from mappers.billing.fields import (
    ZERO,
    Resource,
    Resources,
    find_code,
    find_extension,
    find_identifier,
    find_reference,
    find_serviced_days,
    make_reference,
    resolve,
    sum_amounts,
    to_amount,
    to_day,
)
from mappers.billing.follow_up import read_denied

CHARGE, PAYMENT, ADJUSTMENT, REFUND, INVOICE = "charge", "payment", "adjustment", "refund", "invoice"
OPENING = "opening"
VISITS = frozenset({"Appointment", "Encounter"})
"""What a patient pays ahead for; it is the `line` of such an entry."""
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


@dataclass(frozen=True, slots=True)
class Root:
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


@dataclass(frozen=True, slots=True)
class Books:
    """Entries in the order of their days, roots by name, adjudications, provider adjustments, unapplied money."""

    entries: tuple[Entry, ...]
    roots: dict[str, Root]
    answers: tuple[Answer, ...] = ()
    provider_adjustments: tuple[HeldBack, ...] = ()
    unapplied: tuple[HeldBack, ...] = ()
    charges: Resources = field(default_factory=dict)
    root_of_charge: dict[str, str] = field(default_factory=dict)
    root_of_claim: dict[str, str] = field(default_factory=dict)
    root_of_visit: dict[str, str] = field(default_factory=dict)
    gross: dict[date, Decimal] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Lookup:
    resources: Resources
    root_of_claim: dict[str, str]
    root_of_charge: dict[str, str]
    responses: dict[str, Resource]
    root_of_visit: dict[str, str]

    def find_root(self, reference: str) -> str:
        """The root of a Claim, Invoice or ChargeItem; another reference is its own."""
        resource = self.resources.get(reference)
        if resource is not None and resource["resourceType"] == "Invoice":
            charges = (find_reference(each.get("chargeItemReference")) for each in resource.get("lineItem", ()))
            claim = find_reference(find_extension(resource, codes.CLAIM_REFERENCE))
            reference = next((each for each in charges if each in self.root_of_charge), claim or reference)
        return self.root_of_claim.get(reference) or self.root_of_charge.get(reference) or reference


def make_books(resources: Resources, opening: Books | None = None) -> Books:
    """The books of a practice: of its Claims, ChargeItems, ClaimResponses, PaymentReconciliations, Invoices.

    `opening` only tells the claims of charges entered before; `closing.continue_books` adds its entries.
    """
    by_type: dict[str, list[Resource]] = {}
    for each in resources.values():
        by_type.setdefault(each["resourceType"], []).append(each)
    charges = [e for e in by_type.get("ChargeItem", ()) if e.get("status") in ("billable", "billed")]
    claims = sorted(by_type.get("Claim", ()), key=lambda e: (str(e.get("created", "")), make_reference(e)))
    lookup = _look_up(claims, by_type, resources, opening)
    entries = [entry for each in charges if (entry := _read_charge(each, lookup))]
    entries += [entry for each in by_type.get("Invoice", ()) for entry in _read_invoice(each, lookup)]
    answers: list[Answer] = []
    plb: list[HeldBack] = []
    unapplied: list[HeldBack] = []
    for each in by_type.get("PaymentReconciliation", ()):
        day = find_posting_day(each)
        if each.get("status") == "active" and day is not None:
            for detail in each.get("detail", ()):
                entries += _read_detail(detail, each, day, lookup)
                _sort_detail(detail, each, day, (plb, unapplied))
                answers += _read_answer(detail, each, day, lookup)
    entries.sort(key=lambda entry: entry.day)
    answers.sort(key=lambda answer: answer.day)
    roots = _make_roots(claims, charges, entries, lookup)
    return Books(
        entries=tuple(entries),
        roots=roots,
        answers=tuple(answers),
        provider_adjustments=tuple(plb),
        unapplied=tuple(unapplied),
        charges={make_reference(each): each for each in charges},
        root_of_charge=lookup.root_of_charge,
        root_of_claim=lookup.root_of_claim,
        root_of_visit=lookup.root_of_visit,
    )


def find_root(books: Books, claim: str) -> str:
    """The root of a claim, itself where the books do not know it."""
    return books.root_of_claim.get(claim, claim)


def find_first_answers(books: Books) -> list[Answer]:
    """The first adjudication of each claim by its first payer."""
    seen: dict[str, Answer] = {}
    for each in books.answers:
        seen.setdefault(each.root, each)
    return list(seen.values())


def find_posting_day(resource: Resource) -> date | None:
    """The day of the extension `posting-date`; without it a resource is another system's and not in the ledger."""
    return to_day(str(find_extension(resource, codes.POSTING_DATE) or ""))


def _look_up(
    claims: Iterable[Resource], by_type: Mapping[str, list[Resource]], resources: Resources, opening: Books | None
) -> _Lookup:
    """Roots: the first claim that is in force with a charge, else the Invoice that has it, else the charge."""
    root_of_claim: dict[str, str] = {}
    known = opening.root_of_charge if opening else {}
    root_of_charge = {charge: root for charge, root in known.items() if root.startswith("Claim/")}
    for claim in claims:
        name = make_reference(claim)
        linked = [find_reference(find_extension(item, codes.CHARGE_ITEM)) for item in claim.get("item", ())]
        root = next((root_of_charge[each] for each in linked if each in root_of_charge), name)
        root_of_claim[name] = root
        if claim.get("status") not in ("cancelled", "entered-in-error"):
            for each in linked:
                root_of_charge.setdefault(each, root)
    for invoice in by_type.get("Invoice", ()):
        for line in invoice.get("lineItem", ()):
            root_of_charge.setdefault(find_reference(line.get("chargeItemReference")), make_reference(invoice))
    root_of_charge.pop("", None)
    by_key = {find_identifier(each, codes.RESPONSE_KEY): each for each in by_type.get("ClaimResponse", ())}
    visits = _look_up_visits(claims, root_of_claim, by_type.get("Encounter", ()))
    return _Lookup(resources, root_of_claim, root_of_charge, by_key, visits)


def _look_up_visits(
    claims: Iterable[Resource], root_of_claim: Mapping[str, str], encounters: Iterable[Resource]
) -> dict[str, str]:
    """Encounters, and the Appointments of those at hand, to the root of the first claim in force that bills them."""
    roots: dict[str, str] = {}
    for claim in claims:
        if claim.get("status") not in ("cancelled", "entered-in-error"):
            for item in claim.get("item", ()):
                for each in item.get("encounter", ()):
                    roots.setdefault(find_reference(each), root_of_claim[make_reference(claim)])
    for encounter in encounters:
        if root := roots.get(make_reference(encounter)):
            for each in encounter.get("appointment", ()):
                roots.setdefault(find_reference(each), root)
    return roots


def _read_charge(charge: Resource, lookup: _Lookup) -> Entry | None:
    day = to_day(str(charge.get("enteredDate", "")))
    if day is None:
        return None
    name = make_reference(charge)
    return Entry(CHARGE, to_amount(charge.get("priceOverride")), day, lookup.find_root(name), name, "")


def _read_invoice(invoice: Resource, lookup: _Lookup) -> Iterator[Entry]:
    day = find_posting_day(invoice)
    if day is None or invoice.get("status") not in ("issued", "balanced"):
        return
    root = lookup.find_root(make_reference(invoice))
    for line in invoice.get("lineItem", ()):
        amount = sum_amounts(to_amount(each.get("amount")) for each in line.get("priceComponent", ()))
        charge = find_reference(line.get("chargeItemReference"))
        yield Entry(INVOICE, amount, day, lookup.find_root(charge) if charge else root, charge, PATIENT)


def _find_response(detail: Resource, lookup: _Lookup) -> Resource | None:
    pointer = detail.get("response") or {}
    resource = resolve(pointer, lookup.resources)
    return resource or lookup.responses.get((pointer.get("identifier") or {}).get("value", ""))


def _is_provider_adjustment(detail: Resource) -> bool:
    return bool(find_code(detail.get("type"), codes.PROVIDER_REASON))


def _sort_detail(detail: Resource, payment: Resource, day: date, books: tuple[list[HeldBack], list[HeldBack]]) -> None:
    plb, unapplied = books
    payer = find_reference(payment.get("paymentIssuer"))
    reference = str(
        find_extension(detail, codes.PROVIDER_REFERENCE) or (detail.get("identifier") or {}).get("value", "")
    )
    amount = to_amount(detail.get("amount"))
    if _is_provider_adjustment(detail):
        plb.append(HeldBack(find_code(detail["type"], codes.PROVIDER_REASON), reference, amount, day, payer))
    elif find_code(detail.get("type")) == "unapplied" and amount:
        unapplied.append(HeldBack("unapplied", reference, amount, day, payer))


def _read_detail(detail: Resource, payment: Resource, day: date, lookup: _Lookup) -> Iterator[Entry]:
    """The entries of one detail: a payer's adjudication, the patient's money, or an adjustment by hand."""
    kind, amount = find_code(detail.get("type"), codes.PAYMENT_TYPE), to_amount(detail.get("amount"))
    if not kind or _is_provider_adjustment(detail):
        return
    response = _find_response(detail, lookup)
    if response is not None:
        yield from _read_response(response, amount, day, find_reference(payment.get("paymentIssuer")), lookup)
        return
    request = find_reference(detail.get("request"))
    root = lookup.find_root(request)
    reason = INVOICE if request.startswith("Invoice/") else find_code(detail.get("type"), codes.DETAIL_TYPE)
    payer, line = find_reference(payment.get("paymentIssuer")) or PATIENT, ""
    if root.partition("/")[0] in VISITS:
        line = root
        root = lookup.root_of_visit.get(root) or find_reference(find_extension(payment, codes.PAYMENT_PATIENT)) or root
    if kind == "adjustment":
        yield Entry(ADJUSTMENT, -amount, day, root, line, payer, reason)
    else:
        yield Entry(PAYMENT if amount >= 0 else REFUND, -amount, day, root, line, payer, reason)


def _read_response(response: Resource, paid: Decimal, day: date, payer: str, lookup: _Lookup) -> Iterator[Entry]:
    """Line by line; what is paid or written off without a line stands at the claim and is never spread."""
    claim = find_reference(response.get("request"))
    root = lookup.find_root(claim)
    items = (lookup.resources.get(claim) or {}).get("item", ())
    charges = {item.get("sequence"): find_reference(find_extension(item, codes.CHARGE_ITEM)) for item in items}
    rest = paid
    for line in response.get("item", ()):
        entries = line.get("adjudication", ())
        amount = read_amount(entries, "benefit") or ZERO
        rest -= amount
        yield from _make_entries(amount, entries, (day, root, charges.get(line.get("itemSequence"), ""), payer))
    others = [entry for line in response.get("addItem", ()) for entry in line.get("adjudication", ())]
    yield from _make_entries(rest, [*response.get("adjudication", ()), *others], (day, root, "", payer))


def _make_entries(
    paid: Decimal, adjudication: Iterable[Resource], where: tuple[date, str, str, str]
) -> Iterator[Entry]:
    if paid:
        yield Entry(PAYMENT, -paid, *where)
    for entry in adjudication:
        if written_off := read_posted(entry):
            yield Entry(ADJUSTMENT, -written_off, *where, find_code(entry.get("reason"), codes.CARC))


def _read_answer(detail: Resource, payment: Resource, day: date, lookup: _Lookup) -> Iterator[Answer]:
    response = _find_response(detail, lookup)
    if response is not None and not find_identifier(response, codes.REVERSED_KEY):
        root = lookup.find_root(find_reference(response.get("request")))
        charge = read_amount(response.get("total", ()), "submitted") or ZERO
        yield Answer(root, day, find_reference(payment.get("paymentIssuer")), charge, tuple(read_denied(response)))


def _make_roots(
    claims: Iterable[Resource], charges: Iterable[Resource], entries: Iterable[Entry], lookup: _Lookup
) -> dict[str, Root]:
    roots: dict[str, Root] = {}
    for claim in claims:
        if claim.get("status") in ("cancelled", "entered-in-error"):
            continue
        name = lookup.find_root(make_reference(claim))
        earlier = roots.get(name) or _claim_to_root(name, claim, lookup)
        payer, day = _find_payer(claim, lookup), to_day(str(claim.get("created", "")))
        roots[name] = replace(earlier, payers=(*earlier.payers, (day, payer))) if payer and day else earlier
    for charge in charges:
        name = lookup.find_root(make_reference(charge))
        account = find_reference((charge.get("account") or [None])[0])
        if name not in roots:
            day = to_day(
                str(charge.get("occurrenceDateTime") or (charge.get("occurrencePeriod") or {}).get("start", ""))
            )
            performer = (charge.get("performer") or [{}])[0]
            who = find_reference(performer.get("actor"))
            roots[name] = Root(name, find_reference(charge.get("subject")), account, who, "", day)
        elif account and not roots[name].account:
            roots[name] = replace(roots[name], account=account)
    for entry in entries:
        roots.setdefault(entry.root, Root(entry.root, entry.root if entry.root.startswith("Patient/") else ""))
    return roots


def _claim_to_root(name: str, claim: Resource, lookup: _Lookup) -> Root:
    team = [each for each in claim.get("careTeam", ()) if find_code(each.get("role")) in ("primary", "")]
    provider = find_reference((team[0] if team else claim).get("provider"))
    days = [day for item in claim.get("item", ()) if (day := find_serviced_days(item)[0])]
    patient, place = find_reference(claim.get("patient")), find_reference(claim.get("facility"))
    return Root(name, patient, "", provider, place, min(days, default=None))


def _find_payer(claim: Resource, lookup: _Lookup) -> str:
    for each in claim.get("insurance", ()):
        if each.get("focal"):
            coverage = resolve(each.get("coverage"), lookup.resources) or {}
            return find_reference((coverage.get("payor") or [None])[0]) or find_reference(claim.get("insurer"))
    return find_reference(claim.get("insurer"))


def list_entries(books: Books, day: date) -> Iterator[Entry]:
    """The entries of the ledger on a day: what was posted until then, Invoices aside."""
    for entry in books.entries:
        if entry.day > day:
            return
        if entry.kind != INVOICE:
            yield entry
