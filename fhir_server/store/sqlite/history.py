"""Histories and the change feed on one connection (https://hl7.org/fhir/R4/http.html#history)."""

from __future__ import annotations

import sqlite3
from typing import Any

from fhir_server.store.protocol import Changes, Expired, HistoryPage, HistoryQuery, Stored
from fhir_server.store.sqlite.conditions import Sql, join
from fhir_server.store.sqlite.interned_names import Names
from fhir_server.store.sqlite.statements import format_json

# Purged versions count too: the highest value of a column must never fall.
_HIGHEST = (
    "SELECT max(coalesce((SELECT max({0}) FROM version), 0),"
    " coalesce((SELECT value FROM meta WHERE key = 'purged_{0}'), 0))"
)
_COLUMNS = "r.ref, v.version, v.updated, v.method, v.raw"

# A version was current from its own lastUpdated until just before its successor's.
_SUCCEEDED = "NOT EXISTS (SELECT 1 FROM version n WHERE n.rid = v.rid AND n.version = v.version + 1 AND n.updated <= ?)"


def read_history(connection: sqlite3.Connection, names: Names, query: HistoryQuery) -> HistoryPage:
    """A page of versions; its horizon is the newest lastUpdated in the same snapshot."""
    source, joined = _choose_source(connection, names, query)
    condition, values = join([joined, *_compile_limits(query)])
    text = f"SELECT {_COLUMNS} FROM {source} WHERE {condition} ORDER BY v.updated DESC, r.ref, v.version DESC LIMIT ?"
    connection.execute("BEGIN")
    try:
        horizon = connection.execute(_HIGHEST.format("updated")).fetchone()[0]
        rows = connection.execute(text, (*values, query.count + 1 if query.count else 0)).fetchall()
    finally:
        connection.execute("COMMIT")
    versions = tuple(row_to_stored(*row) for row in rows[: query.count])
    last = versions[-1] if len(rows) > query.count else None
    return HistoryPage(versions, (last.last_updated, last.reference, last.version) if last else None, horizon)


def _choose_source(connection: sqlite3.Connection, names: Names, query: HistoryQuery) -> tuple[str, Sql]:
    """The FROM, whose index has the versions of the query, and the condition that joins its tables."""
    if query.id is not None:
        reference = f"{query.types[0]}/{query.id}"
        return "resource r CROSS JOIN version v", ("r.ref = ? AND v.rid = r.rid", (reference,))
    if len(query.types) == 1:
        code = names.find_code(connection, query.types[0])
        return "version v INDEXED BY version_type CROSS JOIN resource r", ("v.type = ? AND r.rid = v.rid", (code,))
    condition: Sql = ("r.rid = v.rid", ())
    if query.types:
        codes = format_json(names.find_code(connection, type) for type in query.types)
        condition = ("v.type IN (SELECT value FROM json_each(?)) AND r.rid = v.rid", (codes,))
    return "version v INDEXED BY version_updated CROSS JOIN resource r", condition


def _compile_limits(query: HistoryQuery) -> list[Sql]:
    limits: list[Sql] = []
    if query.since is not None:
        limits.append(("v.updated >= ?", (query.since,)))
    if query.at is not None:
        start, end = query.at
        limits.append((f"v.updated <= ? AND {_SUCCEEDED}", (end, start)))
    if query.before is not None:
        updated, reference, version = query.before
        later = "(v.updated < ? OR r.ref > ? OR (r.ref = ? AND v.version < ?))"
        limits.append((f"v.updated <= ? AND {later}", (updated, updated, reference, reference, version)))
    return limits


def row_to_stored(reference: str, version: int, updated: int, method: Any, raw: bytes | None) -> Stored:
    """The protocol's form of a row of reference, version, updated, method and text."""
    type, _, id = reference.partition("/")
    return Stored(type, id, version, updated, method, raw)


def read_changes(connection: sqlite3.Connection, after: str | None, limit: int) -> Changes:
    """Versions in commit order; the token is the `seq` of the last one. Raises Expired for a token of another file."""
    start = 0 if after is None else int(after) if after.isascii() and after.isdecimal() else None
    newest = connection.execute(_HIGHEST.format("seq")).fetchone()[0]
    if start is None or start > newest:
        raise Expired(f"`{after}` is not a change token of this database.")
    rows = connection.execute(
        f"SELECT {_COLUMNS}, v.seq FROM version v CROSS JOIN resource r WHERE v.seq > ? AND r.rid = v.rid"
        " ORDER BY v.seq LIMIT ?",
        (start, limit),
    ).fetchall()
    return Changes(tuple(row_to_stored(*row[:-1]) for row in rows), str(rows[-1][-1] if rows else start))
