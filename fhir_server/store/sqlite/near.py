"""Positions within a distance: an index scan of latitudes, each row re-checked by a function (https://www.sqlite.org/appfunc.html)."""

from __future__ import annotations

from fhir_server.search.geodesy import great_circle, latitudes
from fhir_server.search.query import Near
from fhir_server.store.sqlite.conditions import Sql
from fhir_server.store.sqlite.context import Context
from fhir_server.store.sqlite.rows import float_to_integer, integer_to_float


def select_near(clause: Near, type: str, context: Context) -> Sql:
    """A SELECT of the `rid`s; `measure_distance` is the SQL function `distance` of the connection."""
    south, north = latitudes(clause.latitude, clause.metres)
    text = (
        "SELECT DISTINCT rid FROM number WHERE tp = ? AND key = '' AND low BETWEEN ? AND ?"
        " AND distance(?, ?, low, high) <= ?"
    )
    limits = (float_to_integer(south), float_to_integer(north), clause.latitude, clause.longitude, clause.metres)
    return text, (context.find_code(type, clause.parameter), *limits)


def measure_distance(latitude: float, longitude: float, other_latitude: int, other_longitude: int) -> float:
    """Metres between two positions, the other one in integers of `rows.float_to_integer`."""
    return great_circle(latitude, longitude, integer_to_float(other_latitude), integer_to_float(other_longitude))
