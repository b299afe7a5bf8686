"""Deposits that a bank tells of, matched with remittances by trace number and amount (docs/payments.md)."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from typing import NamedTuple

from fhir_server.fhir.outcome import Issue
from mappers.billing import codes
from mappers.billing.fields import (
    CENT,
    Resource,
    find_identifier,
    make_money,
    make_reference,
    make_task,
    to_amount,
)

MOST = 10_000
LARGEST = Decimal("9999999999.99")
_COLUMNS = ("trace", "amount", "date")
_LONGEST_TRACE = 50
_MOST_FAULTS = 20


class Deposit(NamedTuple):
    """One credit on the bank's account: the trace number of its transfer or check, dollars, the day of the bank."""

    trace: str
    amount: Decimal
    day: date

    def make_key(self) -> str:
        """What makes it exist once."""
        return f"{self.day}:{self.trace}:{self.amount:.2f}"


def read_deposits(text: str) -> tuple[list[Deposit], list[Issue]]:
    """The deposits of a CSV with the columns trace, amount and date, in any order among others; or what is wrong.

    Dates are written as 2026-03-31 or 3/31/2026, amounts with or without `$` and commas. A line that repeats another
    one is the same deposit.
    """
    reader = csv.reader(io.StringIO(text.removeprefix("\ufeff")))
    found: dict[str, Deposit] = {}
    issues: list[Issue] = []
    try:
        header = [each.strip().lower() for each in next(reader, [])]
        missing = [each for each in _COLUMNS if each not in header]
        if missing:
            text = f"The first line needs the columns trace, amount and date; there is no `{missing[0]}`."
            return [], [Issue("error", "required", text, ("line 1",))]
        places = [header.index(each) for each in _COLUMNS]
        for cells in reader:
            if not any(each.strip() for each in cells):
                continue
            deposit = _read_line(cells, places, f"line {reader.line_num}")
            if isinstance(deposit, Issue):
                issues.append(deposit)
            else:
                found[deposit.make_key()] = deposit
            if len(issues) == _MOST_FAULTS:
                break
            if len(found) > MOST:
                text = f"A file has at most {MOST} deposits; part it."
                return [], [Issue("error", "too-costly", text, (f"line {reader.line_num}",))]
    except csv.Error as error:
        issues.append(Issue("error", "structure", f"This is no CSV: {error}.", (f"line {reader.line_num}",)))
    return ([], issues) if issues else (list(found.values()), [])


def _read_line(cells: list[str], places: list[int], where: str) -> Deposit | Issue:
    trace, amount, day = (cells[place].strip() if place < len(cells) else "" for place in places)
    if not trace or len(trace) > _LONGEST_TRACE or not trace.isprintable():
        text = f"The trace number needs 1 to {_LONGEST_TRACE} characters, not `{trace[:_LONGEST_TRACE]}`."
        return Issue("error", "value", text, (where,))
    try:
        number = Decimal(amount.replace("$", "").replace(",", ""))
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite() or not 0 < number <= LARGEST or number != number.quantize(CENT):
        text = f"The amount needs dollars above 0 with at most two places, not `{amount[:_LONGEST_TRACE]}`."
        return Issue("error", "value", text, (where,))
    for form in ("%Y-%m-%d", "%m/%d/%Y"):
        try:
            return Deposit(trace, number.quantize(CENT), datetime.strptime(day, form).date())
        except ValueError:
            continue
    text = f"The date is written as 2026-03-31 or 3/31/2026, not `{day[:_LONGEST_TRACE]}`."
    return Issue("error", "value", text, (where,))


def find_payments(deposit: Deposit, payments: Iterable[Resource]) -> list[Resource]:
    """The remittances that were posted with this trace number and amount."""
    return [each for each in payments if is_expected(each) and to_amount(each["paymentAmount"]) == deposit.amount]


def is_expected(payment: Resource) -> bool:
    """Whether a PaymentReconciliation is a payer's money that the bank has to have."""
    ours = find_identifier(payment, codes.REMITTANCE_KEY) and "paymentIssuer" in payment
    return bool(ours) and payment.get("status") == "active" and to_amount(payment.get("paymentAmount")) > 0


def make_deposit_task(deposit: Deposit, payments: list[Resource], taken: int, created: str) -> Resource:
    """The Task of a deposit: completed with its remittance, or open with what is missing.

    `payments`: those with its trace number; `taken`: how many of those that fit have a deposit already.
    """
    fitting = find_payments(deposit, payments)
    task = make_task("deposit", deposit.make_key(), "", created, _describe(deposit, payments, len(fitting), taken))
    task["input"] = [
        {"type": {"text": "trace"}, "valueString": deposit.trace},
        {"type": {"text": "amount"}, "valueMoney": make_money(deposit.amount)},
        {"type": {"text": "date"}, "valueDate": str(deposit.day)},
    ]
    if len(fitting) == 1 and not taken:
        reference = {"reference": make_reference(fitting[0])}
        task |= {"status": "completed", "focus": reference}
        task["output"] = [{"type": {"text": "remittance"}, "valueReference": reference}]
    return task


def _describe(deposit: Deposit, payments: list[Resource], fitting: int, taken: int) -> str:
    what = f"{deposit.amount:.2f} of {deposit.day} under the trace number {deposit.trace}"
    if fitting == 1 and not taken:
        return f"{what}: the remittance is posted."
    if taken:
        return f"{what}: the remittance has another deposit already. Ask the bank whether it paid twice."
    if fitting:
        return f"{what}: {fitting} remittances fit. Choose one and set it as the Task's output."
    others = [to_amount(each["paymentAmount"]) for each in payments if is_expected(each)]
    if others:
        return f"{what}: the remittance with this number is of {others[0]:.2f}. Ask the payer for the difference."
    return f"{what}: no remittance is posted. Ask the payer for the 835 or the paper EOB."


def read_deposit_task(task: Resource) -> Deposit | None:
    """The deposit of a Task; None where somebody took its inputs away."""
    values = dict(_list_inputs(task))
    day = values.get("date")
    try:
        return Deposit(str(values["trace"]), to_amount(values["amount"]), date.fromisoformat(str(day)))
    except (KeyError, ValueError):
        return None


def _list_inputs(task: Resource) -> Iterator[tuple[str, object]]:
    for each in task.get("input", ()):
        for name, value in each.items():
            if name.startswith("value"):
                yield str((each.get("type") or {}).get("text", "")), value
