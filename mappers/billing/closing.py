"""The books of a day as the start of what follows, so that a report costs what happened since."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal

from mappers.billing.fields import ZERO, Resources
from mappers.billing.ledger import CHARGE, INVOICE, OPENING, Books, Entry, find_first_answers, make_books

_LOOK_BACK = timedelta(days=366)


def close_books(books: Books, day: date) -> Books:
    """One entry an open line, one a claim for its Invoices; charges of the year before as sums of days.

    The result can be stored as JSON. Balances from that day on, and reports of later periods, come out the same.
    """
    sums: dict[tuple[str, str, str], Decimal] = {}
    gross = {served: amount for served, amount in books.gross.items() if served > day - _LOOK_BACK}
    for entry in books.entries:
        if entry.day > day:
            break
        for kind, line in _find_parts(entry):
            key = (kind, entry.root, line)
            sums[key] = sums.get(key, ZERO) + entry.amount
        if entry.kind == CHARGE and entry.day > day - _LOOK_BACK:
            gross[entry.day] = gross.get(entry.day, ZERO) + entry.amount
    invoice_days = {entry.root: entry.day for entry in books.entries if entry.kind == INVOICE and entry.day <= day}
    entries = [
        Entry(kind, amount, invoice_days.get(root, day) if kind == INVOICE else day, root, line, "")
        for (kind, root, line), amount in sums.items()
        if amount
    ]
    names = {entry.root for entry in entries}
    return Books(
        entries=tuple(sorted(entries, key=lambda entry: entry.day)),
        roots={name: books.roots[name] for name in names},
        answers=tuple(each._replace(denied=()) for each in find_first_answers(books) if each.day <= day),
        provider_adjustments=tuple(each for each in books.provider_adjustments if each.day <= day),
        unapplied=tuple(each for each in books.unapplied if each.day <= day),
        root_of_charge={charge: root for charge, root in books.root_of_charge.items() if root in names},
        gross=gross,
    )


def _find_parts(entry: Entry) -> list[tuple[str, str]]:
    """(kind, line) under which an entry goes on: in the balance, and in what is invoiced."""
    parts = [] if entry.kind == INVOICE else [(OPENING, entry.line)]
    return [*parts, (INVOICE, "")] if INVOICE in (entry.kind, entry.reason) else parts


def continue_books(opening: Books, resources: Resources) -> Books:
    """Books from a closing on. `resources`: what came after its day, with what it names."""
    later = make_books(resources, opening)
    roots = dict(opening.roots)
    for name, root in later.roots.items():
        before = roots.get(name, root)
        roots[name] = replace(before, payers=tuple(sorted({*before.payers, *root.payers})))
    return Books(
        entries=(*opening.entries, *later.entries),
        roots=roots,
        answers=(*opening.answers, *later.answers),
        provider_adjustments=(*opening.provider_adjustments, *later.provider_adjustments),
        unapplied=(*opening.unapplied, *later.unapplied),
        charges=later.charges,
        root_of_charge={**opening.root_of_charge, **later.root_of_charge},
        gross=opening.gross,
    )
