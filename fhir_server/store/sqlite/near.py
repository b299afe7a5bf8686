"""Positions within a distance: an index scan of latitudes, each row re-checked by a function (https://www.sqlite.org/appfunc.html)."""

from __future__ import annotations

from fhir_server.search.geodesy import compute_distance, compute_latitudes
from fhir_server.search.query import Near
from fhir_server.store.sqlite.conditions import Sql
from fhir_server.store.sqlite.context import Context
from fhir_server.store.sqlite.rows import ordered, unordered


def drive_near(clause: Near, type: str, context: Context) -> Sql:
    """A SELECT of the `rid`s; the connection knows `distance` as an SQL function."""
    south, north = compute_latitudes(clause.latitude, clause.metres)
    text = (
        "SELECT DISTINCT rid FROM number WHERE tp = ? AND key = '' AND low BETWEEN ? AND ?"
        " AND distance(?, ?, low, high) <= ?"
    )
    place = (ordered(south), ordered(north), clause.latitude, clause.longitude, clause.metres)
    return text, (context.tp(type, clause.parameter), *place)


def distance(latitude: float, longitude: float, other_latitude: int, other_longitude: int) -> float:
    """Metres between two positions, the other one kept as `rows.ordered` numbers."""
    return compute_distance(latitude, longitude, unordered(other_latitude), unordered(other_longitude))
