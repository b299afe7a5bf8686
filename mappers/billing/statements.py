"""A statement of an account: what was charged, what payers did, what is left to pay (docs/operations/statement.md)."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import NamedTuple

from mappers.billing.balances import share_balances
from mappers.billing.fields import ZERO, Resource, covers, find_reference, make_money, sum_amounts
from mappers.billing.ledger import ADJUSTMENT, CHARGE, PATIENT, Books, Entry, Root, list_entries
from mappers.billing.reports import BUCKETS, find_bucket, find_responsibility

_WIDTH = 92


class StatementLine(NamedTuple):
    """One claim, or a charge without one, up to the day. Amounts below `charged` have the sign of what they pay.

    `owed` is what was invoiced to the patient, `pending` is with a payer or not billed yet; below 0 is `credit`.
    """

    root: Root
    charged: Decimal
    by_payers: Decimal
    adjusted: Decimal
    by_patient: Decimal
    pending: Decimal
    owed: Decimal
    credit: Decimal


@dataclass(frozen=True, slots=True)
class Statement:
    """What an account comes to on a day. `ages`: what is owed by its age since it was asked for."""

    day: date
    lines: tuple[StatementLine, ...]
    ages: Mapping[str, Decimal]

    @property
    def owed(self) -> Decimal:
        """What the patient owes."""
        return sum_amounts(each.owed for each in self.lines)

    @property
    def credit(self) -> Decimal:
        """What was paid too much, or ahead."""
        return sum_amounts(each.credit for each in self.lines)

    @property
    def due(self) -> Decimal:
        """What is to be paid now."""
        return max(self.owed - self.credit, ZERO)


def make_statement(books: Books, account: str, patients: Iterable[str], day: date) -> Statement:
    """The statement of an account: its claims and charges that are open, and what its patients paid ahead."""
    ahead = frozenset(patients)
    own = {name: root for name, root in books.roots.items() if root.account == account or name in ahead}
    entries: dict[str, list[Entry]] = {}
    for entry in list_entries(books, day):
        if entry.root in own:
            entries.setdefault(entry.root, []).append(entry)
    shares = share_balances(books, day)
    lines = []
    for name, found in entries.items():
        total, owed, _ = shares[name]
        if total:
            sums = _sum(found)
            lines.append(StatementLine(own[name], *sums, max(total, ZERO) - owed, owed, max(-total, ZERO)))
    lines.sort(key=lambda each: (each.root.service_day or date.max, each.root.name))
    return Statement(day, tuple(lines), _age(books, {name: shares[name].patient for name in entries}, day))


def _sum(entries: Iterable[Entry]) -> tuple[Decimal, Decimal, Decimal, Decimal]:
    """(charged, paid by payers, adjusted, paid by the patient less what was given back)."""
    charged = by_payers = adjusted = by_patient = ZERO
    for entry in entries:
        if entry.kind == CHARGE:
            charged += entry.amount
        elif entry.kind == ADJUSTMENT:
            adjusted -= entry.amount
        elif entry.payer == PATIENT:
            by_patient -= entry.amount
        else:
            by_payers -= entry.amount
    return charged, by_payers, adjusted, by_patient


def _age(books: Books, owed: Mapping[str, Decimal], day: date) -> dict[str, Decimal]:
    """What is owed by the age of the last Invoice. `owed`: by claim."""
    since = find_responsibility(books, day)
    ages = {name: ZERO for name, _ in BUCKETS}
    for name, amount in owed.items():
        ages[find_bucket((day - since.get((name, True), day)).days)] += amount
    return ages


def find_guarantor(account: Resource, day: date) -> str:
    """Who answers for an account on a day: the first guarantor not on hold, else its first patient; empty for none."""
    for each in account.get("guarantor", ()):
        if not each.get("onHold") and covers(each.get("period"), day):
            return find_reference(each.get("party"))
    subjects = (find_reference(each) for each in account.get("subject", ()))
    return next((each for each in subjects if each.startswith("Patient/")), "")


def write_statement(statement: Statement, account: str, address: Iterable[str], names: Mapping[str, str]) -> str:
    """The statement as a text of 92 columns. `address`: the lines of the guarantor; `names`: of people by reference."""
    rows = [
        f"STATEMENT OF {statement.day}".ljust(_WIDTH - len(account) - 9) + f" ACCOUNT {account}",
        "",
        *(f"    {line}" for line in map(make_plain, address) if line),
        "",
        f"{'date':<11}{'for':<25}{'charged':>11}{'payers':>11}{'adjusted':>11}{'you paid':>11}{'you owe':>12}",
        "-" * _WIDTH,
    ]
    for line in statement.lines:
        rows += _write_line(line, names)
    if not statement.lines:
        rows.append("Nothing is open.")
    rows += ["-" * _WIDTH, *(f"{name:<69}{amount:>23}" for name, amount in list_sums(statement))]
    if statement.due:
        ages = (f"{name} days {amount:.2f}" for name, amount in statement.ages.items() if amount)
        rows += ["", *textwrap.wrap(f"Of what you owe, by the time since we asked: {', '.join(ages)}.", _WIDTH)]
    return "\n".join(row.rstrip() for row in rows) + "\n"


def describe_line(line: StatementLine, names: Mapping[str, str]) -> str:
    """Whom a line is about and who rendered it, or that it was paid ahead. `names`: of people by reference."""
    root = line.root
    if root.name.startswith("Patient/"):
        return "paid ahead"
    people = (names.get(root.patient, root.patient), names.get(root.provider, ""))
    return make_plain(" / ".join(each for each in people if each))


def _write_line(line: StatementLine, names: Mapping[str, str]) -> list[str]:
    root = line.root
    when = "" if root.service_day is None else str(root.service_day)
    amounts = (line.charged, line.by_payers, line.adjusted, line.by_patient, line.owed)
    cells = "".join(f"{amount:>11.2f}" for amount in amounts[:4]) + f"{amounts[4]:>12.2f}"
    pieces = textwrap.wrap(describe_line(line, names), 24) or [""]
    rows = [f"{when:<11}{pieces[0]:<25}{cells}", *(f"{'':<11}{piece}" for piece in pieces[1:])]
    if line.pending:
        rows.append(f"{'':<11}{line.pending:.2f} more are with a payer or not billed yet; please wait.")
    return rows


def list_sums(statement: Statement) -> list[tuple[str, str]]:
    """What is owed, the credit where there is one, what is to be paid; each with its amount."""
    sums = [("You owe", f"{statement.owed:.2f}")]
    if statement.credit:
        sums.append(("Less what you paid too much or ahead", f"{-statement.credit:.2f}"))
    return [*sums, ("PLEASE PAY", f"{statement.due:.2f}")]


def make_plain(text: str) -> str:
    """A text of one line: what cannot be printed is a space."""
    return " ".join("".join(each if each.isprintable() else " " for each in text).split())


def make_statement_parameters(statement: Statement, guarantor: str, text: str) -> Resource:
    """The statement as Parameters: its sums, a part for each line, and the text."""
    parameters: list[Resource] = [{"name": "date", "valueDate": str(statement.day)}]
    if guarantor:
        parameters.append({"name": "guarantor", "valueReference": {"reference": guarantor}})
    for name in ("owed", "credit", "due"):
        parameters.append({"name": name, "valueMoney": make_money(getattr(statement, name))})
    for line in statement.lines:
        parts: list[Resource] = [{"name": "claim", "valueString": line.root.name}]
        if line.root.service_day is not None:
            parts.append({"name": "service", "valueDate": str(line.root.service_day)})
        for name in StatementLine._fields[1:]:
            parts.append({"name": name.replace("_", "-"), "valueMoney": make_money(getattr(line, name))})
        parameters.append({"name": "line", "part": parts})
    return {"resourceType": "Parameters", "parameter": [*parameters, {"name": "text", "valueString": text}]}
