"""Numbers and quantities as SQL: intervals by parameter and key, resource by resource (https://hl7.org/fhir/R4/search.html#quantity)."""

from __future__ import annotations

from fhir_server.search.query import NumberRange
from fhir_server.store.sqlite.conditions import Sql, compile_interval, compile_unit, join
from fhir_server.store.sqlite.context import Context
from fhir_server.store.sqlite.rows import float_to_integer


def probe_number(clause: NumberRange, type: str, alias: str, context: Context) -> Sql:
    """The condition that a resource has such a number."""
    condition, values = join((_compile_key(clause, type, context), _compile_range(clause)))
    return f"EXISTS (SELECT 1 FROM number WHERE rid = {alias}.rid AND {condition})", values


def select_number(clause: NumberRange, type: str, context: Context) -> Sql:
    """The resources that have such a number; reads every number of the parameter and key."""
    condition, values = join((_compile_key(clause, type, context), _compile_range(clause)))
    return f"SELECT DISTINCT rid FROM number WHERE {condition}", values


def sample_numbers(clause: NumberRange, type: str, context: Context, rows: int) -> Sql:
    """A SELECT of how many of the first `rows` index rows of the parameter and key there are, and how many match."""
    (key, its_values), (matches, values) = _compile_key(clause, type, context), _compile_range(clause)
    text = f"SELECT count(*), total({matches}) FROM (SELECT low, high, unit FROM number WHERE {key} LIMIT ?)"
    return text, (*values, *its_values, rows)


def _compile_key(clause: NumberRange, type: str, context: Context) -> Sql:
    return "tp = ? AND key = ?", (context.find_code(type, clause.parameter), clause.key)


def _compile_range(clause: NumberRange) -> Sql:
    return join((compile_interval(clause.tests, "low", "high", float_to_integer), compile_unit(clause.unit, "unit")))
