"""The books of a day as the start of what follows, so that a report costs what happened since."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta
from decimal import Decimal

from mappers.billing.book_rows import BookRows
from mappers.billing.fields import ZERO
from mappers.billing.ledger import (
    CHARGE,
    INVOICE,
    OPENING,
    UNBILLED,
    VISITS,
    Books,
    Entry,
    Root,
    find_first_answers,
    make_books_of_rows,
)

_LOOK_BACK = timedelta(days=366)
_CLAIM = "Claim/"


def close_books(books: Books, day: date) -> Books:
    """One entry an open claim (or line without one), one for its Invoices; charges of the year before as sums of days.

    The result can be stored as JSON. Balances from that day on, and reports of later periods, come out the same.
    """
    sums: dict[tuple[str, str, str], Decimal] = {}
    gross = {served: amount for served, amount in books.gross.items() if served > day - _LOOK_BACK}
    entered: dict[str, date] = {}
    for entry in books.entries:
        if entry.day > day:
            break
        for kind, line in _find_parts(entry):
            key = (kind, entry.root, line)
            sums[key] = sums.get(key, ZERO) + entry.amount
        if entry.kind == CHARGE:
            entered.setdefault(entry.root, entry.day)
            if entry.day > day - _LOOK_BACK:
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
        roots={name: _date_root(books.roots[name], entered.get(name), day) for name in names},
        answers=tuple(each._replace(denied=()) for each in find_first_answers(books) if each.day <= day),
        provider_adjustments=tuple(each for each in books.provider_adjustments if each.day <= day),
        unapplied=tuple(each for each in books.unapplied if each.day <= day),
        root_of_charge={charge: root for charge, root in books.root_of_charge.items() if root in names},
        gross=gross,
    )


def _find_parts(entry: Entry) -> list[tuple[str, str]]:
    """(kind, line) under which an entry goes on: in the balance, and in what is invoiced.

    The lines of a claim stay with it, so that what is paid ahead for its visit alone is told from the rest.
    """
    line = "" if entry.root.startswith(_CLAIM) and not entry.line.startswith(VISITS) else entry.line
    parts = [] if entry.kind == INVOICE else [(OPENING, line)]
    return [*parts, (INVOICE, "")] if INVOICE in (entry.kind, entry.reason) else parts


def _date_root(root: Root, entered: date | None, day: date) -> Root:
    """The root with the day of its first charge, from which it is unbilled until a claim is made."""
    if entered is None or any(since <= day for since, _ in root.payers):
        return root
    return root._replace(payers=((entered, UNBILLED), *root.payers))


def continue_books(opening: Books, rows: BookRows, day: date) -> Books:
    """Books from the closing of a day on. `rows`: what came after it, with what it names; more does no harm."""
    later = make_books_of_rows(rows, opening)
    entries = tuple(entry for entry in later.entries if entry.day > day)
    charges: dict[str, list[str]] = {}
    for charge, of in opening.root_of_charge.items():
        if not of.startswith(_CLAIM):
            charges.setdefault(of, []).append(charge)
    renamed = [_rename(entry, charges.get(entry.root, ()), later) for entry in opening.entries]
    return Books(
        entries=(*renamed, *entries),
        roots=_continue_roots(opening, renamed, later),
        answers=(*opening.answers, *(each for each in later.answers if each.day > day)),
        provider_adjustments=(
            *opening.provider_adjustments,
            *(each for each in later.provider_adjustments if each.day > day),
        ),
        unapplied=(*opening.unapplied, *(each for each in later.unapplied if each.day > day)),
        charges=later.charges,
        root_of_charge={**opening.root_of_charge, **later.root_of_charge},
        root_of_claim=later.root_of_claim,
        root_of_visit=later.root_of_visit,
        gross=opening.gross,
    )


def _continue_roots(opening: Books, renamed: Sequence[Entry], later: Books) -> dict[str, Root]:
    """The roots of both; most claims of the opening are as they were, so that only the others are looked at closely."""
    pairs = zip(opening.entries, renamed, strict=True)
    moved = {(old.root, new.root) for old, new in pairs if not old.root.startswith(_CLAIM)}
    known = later.roots.keys() | {new for _, new in moved}
    roots = {name: root for name, root in opening.roots.items() if name.startswith(_CLAIM) and name not in known}
    roots |= later.roots
    moved |= {(name, name) for name in known & opening.roots.keys() if name.startswith(_CLAIM)}
    for old, new in sorted(moved):
        if old == new or not old.startswith("Patient/"):
            roots[new] = _merge(new, opening.roots[old], roots.get(new))
    return roots


def _rename(entry: Entry, charges: Iterable[str], later: Books) -> Entry:
    """The entry under the claim or Invoice that was made of its charges or visit since. `charges`: of its root."""
    if entry.root.startswith(_CLAIM):
        return entry
    if entry.root.startswith("Patient/"):
        new = later.root_of_visit.get(entry.line)
    else:
        new = _find_first((entry.line, entry.root, *charges), later.root_of_charge)
    return entry._replace(root=new or entry.root)


def _find_first(names: Iterable[str], roots: Mapping[str, str]) -> str | None:
    return next((roots[each] for each in names if each in roots), None)


def _merge(name: str, before: Root, later: Root | None) -> Root:
    """What is known of a root at the closing and since.

    A claim that was made of charges since says who rendered them, and where. Of equal payers the last one counts.
    """
    if later is None:
        return before if before.name == name else before._replace(name=name)
    first_known, then_known = (before, later) if before.name == name else (later, before)
    last_first = dict.fromkeys(reversed((*before.payers, *later.payers)))
    payers = list(reversed(last_first))
    payers.sort(key=lambda each: each[0])
    first = [each for each in payers if each[1] == UNBILLED][:1]
    return Root(
        name,
        later.patient or before.patient,
        later.account or before.account,
        first_known.provider or then_known.provider,
        first_known.location or then_known.location,
        min((each for each in (before.service_day, later.service_day) if each), default=None),
        tuple(sorted([*first, *(each for each in payers if each[1] != UNBILLED)], key=lambda each: each[0])),
    )
