"""Numbers, quantities and positions as SQL: rows of `number`, resource by resource (https://hl7.org/fhir/R4/search.html#quantity)."""

from __future__ import annotations

from fhir_server.search.geodesy import compute_distance, compute_latitudes
from fhir_server.search.query import Near, NumberRange
from fhir_server.store.sqlite.conditions import Sql, compile_interval, compile_unit, join
from fhir_server.store.sqlite.context import Context
from fhir_server.store.sqlite.rows import float_to_integer, integer_to_float


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
    return join((compile_interval(clause.bounds, "low", "high", float_to_integer), compile_unit(clause.unit, "unit")))


def select_near(clause: Near, type: str, context: Context) -> Sql:
    """The resources with a position within the distance: a scan of latitudes, each row re-checked by `distance`."""
    south, north = compute_latitudes(clause.latitude, clause.metres)
    text = (
        "SELECT DISTINCT rid FROM number WHERE tp = ? AND key = '' AND low BETWEEN ? AND ?"
        " AND distance(?, ?, low, high) <= ?"
    )
    limits = (float_to_integer(south), float_to_integer(north), clause.latitude, clause.longitude, clause.metres)
    return text, (context.find_code(type, clause.parameter), *limits)


def measure_distance(latitude: float, longitude: float, other_latitude: int, other_longitude: int) -> float:
    """The SQL function `distance`: metres between two positions, the other in integers of `rows.float_to_integer`."""
    return compute_distance(latitude, longitude, integer_to_float(other_latitude), integer_to_float(other_longitude))
