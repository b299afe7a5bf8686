"""Numbers and quantities as SQL: intervals by parameter and key, resource by resource (https://hl7.org/fhir/R4/search.html#quantity)."""

from __future__ import annotations

from fhir_server.search.query import NumberRange
from fhir_server.store.sqlite.conditions import Sql, both, bounds, unit_condition
from fhir_server.store.sqlite.context import Context
from fhir_server.store.sqlite.rows import ordered


def probe_number(clause: NumberRange, type: str, alias: str, context: Context) -> Sql:
    """The condition that a resource has such a number."""
    condition, values = both((_of(clause, type, context), _within(clause)))
    return f"EXISTS (SELECT 1 FROM number WHERE rid = {alias}.rid AND {condition})", values


def drive_number(clause: NumberRange, type: str, context: Context) -> Sql:
    """The resources that have such a number; reads every number of the parameter and key."""
    condition, values = both((_of(clause, type, context), _within(clause)))
    return f"SELECT DISTINCT rid FROM number WHERE {condition}", values


def sample(clause: NumberRange, type: str, context: Context, rows: int) -> Sql:
    """Of the first index rows of the parameter and key: how many there are, and how many of them match."""
    (of, whose), (within, values) = _of(clause, type, context), _within(clause)
    text = f"SELECT count(*), total({within}) FROM (SELECT low, high, unit FROM number WHERE {of} LIMIT ?)"
    return text, (*values, *whose, rows)


def _of(clause: NumberRange, type: str, context: Context) -> Sql:
    return "tp = ? AND key = ?", (context.tp(type, clause.parameter), clause.key)


def _within(clause: NumberRange) -> Sql:
    return both((bounds(clause.bounds, "low", "high", ordered), unit_condition(clause.unit, "unit")))
