"""Receivables and reports over the books; every definition stands with formula and example in docs/reports.md."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import NamedTuple

from mappers.billing.adjudications import Adjustment
from mappers.billing.balances import share_balances
from mappers.billing.fields import ZERO, to_day
from mappers.billing.ledger import (
    ADJUSTMENT,
    CHARGE,
    INVOICE,
    PATIENT,
    PAYMENT,
    REFUND,
    Answer,
    Books,
    Entry,
    Root,
    find_first_answers,
    find_root,
)

BUCKETS: tuple[tuple[str, int], ...] = (("0-30", 30), ("31-60", 60), ("61-90", 90), ("91-120", 120), ("121+", 10**6))


class AgingRow(NamedTuple):
    """Open amounts of one payer (or `patient`), provider or place, by age."""

    group: str
    amounts: dict[str, Decimal]

    def sum_buckets(self) -> Decimal:
        """The sum of the buckets."""
        return sum(self.amounts.values(), ZERO)


def age_receivables(books: Books, day: date, by: str = "service", group: str = "payer") -> list[AgingRow]:
    """Receivables on a day by age: `by` service or responsibility, `group` payer, patient, provider or location.

    Age counts from the first service of the claim, or from the day when it became the payer's or the patient's to pay.
    """
    since = find_responsibility(books, day) if by != "service" else {}
    sums: dict[tuple[str, date], Decimal] = {}
    name_group, roots = _GROUPS[group], books.roots
    for name, (total, patient, payer) in share_balances(books, day).items():
        if not total and not patient:
            continue
        root = roots[name]
        served = root.service_day or day
        for whose, amount in ((payer, total - patient), (PATIENT, patient)):
            if amount:
                start = since.get((name, whose == PATIENT), served) if since else served
                key = (name_group(root, whose), start)
                sums[key] = sums.get(key, ZERO) + amount
    rows: dict[str, dict[str, Decimal]] = {}
    for (whose, start), amount in sums.items():
        row = rows.setdefault(whose, dict.fromkeys((bucket for bucket, _ in BUCKETS), ZERO))
        row[find_bucket((day - start).days)] += amount
    return [AgingRow(key, rows[key]) for key in sorted(rows)]


_GROUPS: dict[str, Callable[[Root, str], str]] = {
    "payer": lambda root, payer: payer,
    "patient": lambda root, payer: root.patient,
    "provider": lambda root, payer: root.provider,
    "location": lambda root, payer: root.location,
}


def find_bucket(days: int) -> str:
    """The bucket of an age in days; what lies in the future is 0 days old."""
    return next(name for name, last in BUCKETS if days <= last)


def find_responsibility(books: Books, day: date) -> dict[tuple[str, bool], date]:
    """(root, whether the patient's) to the day it became theirs: the last Invoice, or the payer's claim was made."""
    since: dict[tuple[str, bool], date] = {}
    for name, root in books.roots.items():
        for since_day, _ in root.payers:
            if since_day <= day:
                since[name, False] = since_day
    for entry in books.entries:
        if entry.kind == INVOICE and entry.day <= day:
            since[entry.root, True] = entry.day
        elif entry.kind == CHARGE:
            since.setdefault((entry.root, False), entry.day)
    return since


@dataclass(frozen=True, slots=True)
class Sent:
    """What the delivery log knows of claims by root: day of first sending, those ever rejected."""

    days: Mapping[str, date] = field(default_factory=dict)
    rejected: frozenset[str] = frozenset()


NOTHING_SENT = Sent()


class Sending(NamedTuple):
    """The day of a claim's first sending, and whether it was refused before it was adjudicated."""

    day: date
    refused: bool


def collect_sent(books: Books, sendings: Mapping[str, Sending]) -> Sent:
    """What is known of the sending of claims, by their roots. `sendings`: by `Claim/id`."""
    days: dict[str, date] = {}
    for claim, sending in sendings.items():
        root = find_root(books, claim)
        days[root] = min(days.get(root, sending.day), sending.day)
    return Sent(days, frozenset(find_root(books, claim) for claim, each in sendings.items() if each.refused))


@dataclass(frozen=True, slots=True)
class Summary:
    """The figures of a period; a rate is None where nothing divides it. Lags are mean days."""

    charges: Decimal
    payments: Decimal
    adjustments: Decimal
    contractual: Decimal
    refunds: Decimal
    receivables: Decimal
    credits: Decimal
    unapplied: Decimal
    days_in_receivables: Decimal | None
    over_90: Decimal | None
    gross_collection: Decimal | None
    net_collection: Decimal | None
    adjudicated: int
    denied: int
    denial_rate: Decimal | None
    denial_rate_of_charges: Decimal | None
    clean_claim_rate: Decimal | None
    charge_lag: Decimal | None
    submission_lag: Decimal | None
    payment_lag: Decimal | None


def summarize_finances(books: Books, start: date, end: date, delivery: Sent = NOTHING_SENT, days: int = 90) -> Summary:
    """The summary of a period, both days included; days in receivables look back `days` (90 or 365) from its end."""
    within = [entry for entry in books.entries if start <= entry.day <= end]
    charges, paid = _sum(within, CHARGE), -_sum(within, PAYMENT)
    contractual = -sum((e.amount for e in within if e.kind == ADJUSTMENT and is_contractual(e)), ZERO)
    shares = share_balances(books, end)
    open_amounts = [share.total for share in shares.values()]
    receivables, credit_total = _sum_if(open_amounts, 1), -_sum_if(open_amounts, -1)
    since = end - timedelta(days=days - 1)
    gross = _sum((e for e in books.entries if since <= e.day <= end), CHARGE)
    gross += sum((amount for served, amount in books.gross.items() if served >= since), ZERO)
    first = [each for each in find_first_answers(books) if start <= each.day <= end]
    denied = [each for each in first if each.denied]
    clean = [each for each in first if not each.denied and each.root not in delivery.rejected]
    return Summary(
        charges=charges,
        payments=paid,
        adjustments=-_sum(within, ADJUSTMENT),
        contractual=contractual,
        refunds=_sum(within, REFUND),
        receivables=receivables,
        credits=credit_total,
        unapplied=sum((each.amount for each in books.unapplied if each.day <= end), ZERO),
        days_in_receivables=divide((receivables - credit_total) * days, gross, "0.1"),
        over_90=divide(_sum_over_90(books, end), receivables - credit_total),
        gross_collection=divide(paid, charges),
        net_collection=divide(paid, charges - contractual),
        adjudicated=len(first),
        denied=len(denied),
        denial_rate=divide(Decimal(len(denied)), Decimal(len(first))),
        denial_rate_of_charges=divide(sum((e.charge for e in denied), ZERO), sum((e.charge for e in first), ZERO)),
        clean_claim_rate=divide(Decimal(len(clean)), Decimal(len(first))),
        charge_lag=_mean(_charge_lags(books, within)),
        submission_lag=_mean(_submission_lags(books, delivery, start, end)),
        payment_lag=_mean((e.day - delivery.days[e.root]).days for e in first if e.root in delivery.days),
    )


def divide(part: Decimal, whole: Decimal, places: str = "0.0001") -> Decimal | None:
    """A rate to four places, None where the whole is not above 0."""
    return (part / whole).quantize(Decimal(places), ROUND_HALF_UP) if whole > 0 else None


def is_contractual(entry: Entry) -> bool:
    """Whether an adjustment is a payer's: only contractual ones write off; those by hand have no payer."""
    return entry.payer != PATIENT


def _sum(entries: Iterable[Entry], kind: str) -> Decimal:
    return sum((entry.amount for entry in entries if entry.kind == kind), ZERO)


def _sum_if(amounts: Iterable[Decimal], sign: int) -> Decimal:
    return sum((each for each in amounts if each * sign > 0), ZERO)


def _sum_over_90(books: Books, day: date) -> Decimal:
    rows = age_receivables(books, day)
    return sum((row.amounts["91-120"] + row.amounts["121+"] for row in rows), ZERO)


def _charge_lags(books: Books, within: Iterable[Entry]) -> Iterable[int]:
    for entry in within:
        charge = books.charges.get(entry.line) if entry.kind == CHARGE else None
        if charge is not None and (served := to_day(charge.served)):
            yield (entry.day - served).days


def _submission_lags(books: Books, delivery: Sent, start: date, end: date) -> Iterable[int]:
    for name, day in delivery.days.items():
        served = books.roots[name].service_day if name in books.roots else None
        if served and start <= day <= end:
            yield (day - served).days


def _mean(numbers: Iterable[int]) -> Decimal | None:
    values = list(numbers)
    return divide(Decimal(sum(values)), Decimal(len(values)), "0.1")


class DenialRow(NamedTuple):
    """Denials of one reason, payer, provider or month; `share` is of all, with the rows before it."""

    key: str
    number: int
    amount: Decimal
    share: Decimal


def rank_denials(books: Books, start: date, end: date, by: str = "reason") -> list[DenialRow]:
    """Denied adjustments of a period, the largest first (Pareto), by `reason`, `payer`, `provider` or `month`."""
    sums: dict[str, tuple[int, Decimal]] = {}
    for answer in books.answers:
        for each in answer.denied if start <= answer.day <= end else ():
            key = _DENIAL_KEYS[by](books, answer, each)
            count, amount = sums.get(key, (0, ZERO))
            sums[key] = (count + 1, amount + each.amount)
    total = sum((amount for _, amount in sums.values()), ZERO)
    order = sorted(sums, key=lambda key: key if by == "month" else (-sums[key][1], key))
    rows, so_far = [], ZERO
    for key in order:
        so_far += sums[key][1]
        rows.append(DenialRow(key, *sums[key], divide(so_far, total) or ZERO))
    return rows


_DENIAL_KEYS: dict[str, Callable[[Books, Answer, Adjustment], str]] = {
    "reason": lambda books, answer, each: f"{each.group}-{each.reason}",
    "payer": lambda books, answer, each: answer.payer,
    "provider": lambda books, answer, each: books.roots[answer.root].provider,
    "month": lambda books, answer, each: answer.day.strftime("%Y-%m"),
}


class ProductivityRow(NamedTuple):
    """What one provider did and what came of it in a period."""

    provider: str
    visits: int
    units: Decimal
    charges: Decimal
    payments: Decimal
    adjustments: Decimal


def measure_productivity(books: Books, start: date, end: date) -> list[ProductivityRow]:
    """By rendering provider: visits (patient and day), units, charges entered, payments and adjustments posted.

    A provider of whom nothing but entries of zero stands has no row.
    """
    visits: dict[str, set[tuple[str, str]]] = {}
    sums: dict[str, dict[str, Decimal]] = {}
    for entry in books.entries:
        if not start <= entry.day <= end or entry.kind == INVOICE:
            continue
        charge = books.charges.get(entry.line)
        provider = (charge.provider if charge is not None else "") or books.roots[entry.root].provider
        row = sums.setdefault(provider, {})
        row[entry.kind] = row.get(entry.kind, ZERO) + entry.amount
        if entry.kind == CHARGE and charge is not None:
            row["units"] = row.get("units", Decimal(0)) + charge.quantity
            visits.setdefault(provider, set()).add((charge.patient, charge.served))
    rows = [_make_row(name, len(visits.get(name, ())), sums[name]) for name in sorted(sums)]
    return [row for row in rows if any((row.visits, row.units, row.charges, row.payments, row.adjustments))]


def _make_row(name: str, visits: int, row: Mapping[str, Decimal]) -> ProductivityRow:
    paid = row.get(PAYMENT, ZERO) + row.get(REFUND, ZERO)
    units = row.get("units", Decimal(0))
    return ProductivityRow(name, visits, units, row.get(CHARGE, ZERO), -paid, -row.get(ADJUSTMENT, ZERO))


def list_open_provider_adjustments(books: Books, day: date) -> dict[tuple[str, str], Decimal]:
    """(payer, reference) to what is open of provider adjustments on a day; pairs that cancel out are gone."""
    sums: dict[tuple[str, str], Decimal] = {}
    for each in books.provider_adjustments:
        if each.day <= day:
            key = (each.payer, each.reference)
            sums[key] = sums.get(key, ZERO) + each.amount
    return {key: amount for key, amount in sums.items() if amount}
