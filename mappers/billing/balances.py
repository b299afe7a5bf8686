"""What is open on a day, and whose it is: by root, account, claim, line, patient and payer (docs/reports.md)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from decimal import Decimal
from typing import NamedTuple

from mappers.billing.fields import ZERO
from mappers.billing.ledger import INVOICE, PATIENT, UNBILLED, VISITS, Books, Entry, Root, list_entries


class Share(NamedTuple):
    """What is open of a root on a day, and of that the patient's; the rest is `payer`'s."""

    total: Decimal
    patient: Decimal
    payer: str


def share_balances(books: Books, day: date) -> dict[str, Share]:
    """The open amount of each root, divided: the patient's is what was invoiced and not paid, at most what is open.

    Before there is a claim, what was paid ahead for a visit is the patient's; so it was before the charges of the visit
    were known to belong to it.
    """
    totals: dict[str, Decimal] = {}
    invoices: dict[str, Decimal] = {}
    ahead: dict[str, Decimal] = {}
    for kind, amount, counted, root, line, _, reason in books.entries:
        if counted > day:
            break
        if kind != INVOICE:
            totals[root] = totals.get(root, ZERO) + amount
            if line and line.startswith(VISITS):
                ahead[root] = ahead.get(root, ZERO) + amount
        if kind == INVOICE or reason == INVOICE:
            invoices[root] = invoices.get(root, ZERO) + amount
    shares, roots = {}, books.roots
    for name, total in totals.items():
        payer = find_payer(roots[name], day)
        first = ahead.get(name, ZERO) if ahead and payer == UNBILLED else ZERO
        invoiced = max(min(total - first, invoices[name]), ZERO) if name in invoices else ZERO
        shares[name] = Share(total, invoiced + first, payer)
    return shares


def find_payer(root: Root, day: date) -> str:
    """Who a root's claim is with on a day: the payer of its latest claim made until then; nobody before the first one.

    What a patient has paid ahead is the patient's.
    """
    for since, payer in reversed(root.payers):
        if since <= day:
            return payer
    return PATIENT if root.name.startswith("Patient/") else UNBILLED


_KEYS: dict[str, Callable[[Books, Entry], str]] = {
    "account": lambda books, entry: books.roots[entry.root].account,
    "claim": lambda books, entry: entry.root,
    "line": lambda books, entry: entry.line or entry.root,
    "patient": lambda books, entry: books.roots[entry.root].patient,
}


def sum_balances(books: Books, day: date, by: str) -> dict[str, Decimal]:
    """Balances on a day by `account`, `claim`, `line`, `patient` or `payer`; their sum is the same for each."""
    sums: dict[str, Decimal] = {}
    if by == "payer":
        for share in share_balances(books, day).values():
            sums[share.payer] = sums.get(share.payer, ZERO) + share.total - share.patient
            sums[PATIENT] = sums.get(PATIENT, ZERO) + share.patient
        return {key: amount for key, amount in sums.items() if amount}
    for entry in list_entries(books, day):
        key = _KEYS[by](books, entry)
        sums[key] = sums.get(key, ZERO) + entry.amount
    return sums
