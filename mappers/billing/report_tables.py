"""Reports as tables: a column for each figure, written as CSV or as a MeasureReport (docs/reports.md)."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import date
from decimal import Decimal
from typing import Any

from mappers.billing import codes
from mappers.billing.fields import ZERO, Resource
from mappers.billing.reports import BUCKETS, AgingRow, DenialRow, ProductivityRow, Summary

MONEY, DAYS, COUNT, RATE = "USD", "d", "1", "rate"
"""What a figure is measured in: US dollars, days, a number of things, a share of 1."""
Value = Decimal | int | None

_UNITS: Mapping[str, Mapping[str, str]] = {
    MONEY: {"unit": "USD", "system": "urn:iso:std:iso:4217", "code": "USD"},
    DAYS: {"unit": "days", "system": "http://unitsofmeasure.org", "code": "d"},
}


@dataclass(frozen=True, slots=True)
class Table:
    """A report. `by`: what a row is about; empty for a report of one row, which is written a line a figure.

    `columns`: (name, what it is measured in). `rows`: (key, a value for each column). `names`: what keys are called.
    """

    name: str
    start: date
    end: date
    by: str
    columns: tuple[tuple[str, str], ...]
    rows: tuple[tuple[str, tuple[Value, ...]], ...]
    names: Mapping[str, str] = field(default_factory=dict)


def list_aging(rows: Iterable[AgingRow], day: date, by: str) -> Table:
    """Receivables by age: a column for each bucket, and their sum."""
    lines = [(row.group, (*row.amounts.values(), row.sum_buckets())) for row in rows]
    columns = (*((bucket, MONEY) for bucket, _ in BUCKETS), ("total", MONEY))
    return Table("ar-aging", day, day, by, columns, tuple(lines))


_SUMMARY_UNITS = {
    **dict.fromkeys(("adjudicated", "denied"), COUNT),
    **dict.fromkeys(("days_in_receivables", "charge_lag", "submission_lag", "payment_lag"), DAYS),
    **dict.fromkeys(("over_90", "gross_collection", "net_collection"), RATE),
    **dict.fromkeys(("denial_rate", "denial_rate_of_charges", "clean_claim_rate"), RATE),
}


def list_summary(summary: Summary, start: date, end: date) -> Table:
    """The financial summary, which has one row."""
    names = [each.name for each in fields(summary)]
    columns = tuple((name, _SUMMARY_UNITS.get(name, MONEY)) for name in names)
    values = tuple(getattr(summary, name) for name in names)
    return Table("financial-summary", start, end, "", columns, (("", values),))


def list_denials(rows: Iterable[DenialRow], start: date, end: date, by: str) -> Table:
    """Denials by reason, payer, provider or month."""
    lines = tuple((row.key, (row.number, row.amount, row.share)) for row in rows)
    return Table("denials", start, end, by, (("denials", COUNT), ("amount", MONEY), ("share", RATE)), lines)


def list_provider_adjustments(amounts: Mapping[tuple[str, str], Decimal], day: date, by: str) -> Table:
    """What is open of provider adjustments by payer or by the payer's reference. Keys: (payer, reference)."""
    sums: dict[str, Decimal] = {}
    for (payer, reference), amount in amounts.items():
        key = payer if by == "payer" else reference
        sums[key] = sums.get(key, ZERO) + amount
    rows = tuple((key, (amount,)) for key, amount in sorted(sums.items()))
    return Table("provider-adjustments", day, day, by, (("open", MONEY),), rows)


def list_productivity(rows: Iterable[ProductivityRow], start: date, end: date) -> Table:
    """What each provider did."""
    units = (COUNT, COUNT, MONEY, MONEY, MONEY)
    columns = tuple(zip(ProductivityRow._fields[1:], units, strict=True))
    return Table("productivity", start, end, "provider", columns, tuple((row.provider, row[1:]) for row in rows))


def list_cells(table: Table) -> tuple[list[str], list[list[str]]]:
    """(header, lines) as texts."""
    if not table.by:
        cells = zip(table.columns, table.rows[0][1], strict=True)
        return ["figure", "value"], [[name, write_value(value, unit)] for (name, unit), value in cells]
    lines = [
        [key, table.names.get(key, ""), *(write_value(value, unit) for (_, unit), value in _pair(table, values))]
        for key, values in table.rows
    ]
    return [table.by, "name", *(name for name, _ in table.columns)], lines


def _pair(table: Table, values: Sequence[Value]) -> Iterable[tuple[tuple[str, str], Value]]:
    return zip(table.columns, values, strict=True)


def write_value(value: Value, unit: str) -> str:
    """A value as text; empty where there is none."""
    if value is None:
        return ""
    return f"{value:.2f}" if unit == MONEY else f"{Decimal(value).normalize():f}" if unit == COUNT else str(value)


def sum_money(table: Table) -> list[str]:
    """The cells of a line of sums: of each column of money, empty for others."""
    columns = enumerate(table.columns)
    return [
        write_value(sum((Decimal(values[n] or 0) for _, values in table.rows), ZERO), MONEY) if unit == MONEY else ""
        for n, (_, unit) in columns
    ]


def write_csv(table: Table) -> str:
    """A header and the lines; what a spreadsheet would take for a formula gets an apostrophe."""
    header, lines = list_cells(table)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(header)
    for key, *cells in lines:
        writer.writerow([_guard(key), *map(_guard, cells[:1]), *cells[1:]] if table.by else [key, *cells])
    return text.getvalue()


def _guard(text: str) -> str:
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def make_measure_report(table: Table, now: str) -> Resource:
    """The table as a MeasureReport (https://hl7.org/fhir/R4/measurereport.html): a group a column, a stratum a row."""
    groups = [_make_group(table, number) for number in range(len(table.columns))]
    report: Resource = {
        "resourceType": "MeasureReport",
        "status": "complete",
        "type": "summary",
        "measure": f"{codes.OURS}/Measure/{table.name}",
        "date": now,
        "period": {"start": str(table.start), "end": str(table.end)},
    }
    return {**report, "group": groups} if table.rows else report


def _make_group(table: Table, number: int) -> dict[str, Any]:
    name, unit = table.columns[number]
    group: dict[str, Any] = {"code": {"text": name}}
    if not table.by:
        value = table.rows[0][1][number]
        return group if value is None else {**group, "measureScore": _make_score(value, unit)}
    strata: list[dict[str, Any]] = []
    for key, values in table.rows:
        value, called = values[number], {"text": key or "none"}
        strata.append(
            {"value": called} if value is None else {"value": called, "measureScore": _make_score(value, unit)}
        )
    return {**group, "stratifier": [{"code": [{"text": table.by}], "stratum": strata}]}


def _make_score(value: Decimal | int, unit: str) -> dict[str, Any]:
    return {"value": value, **_UNITS.get(unit, {})}
