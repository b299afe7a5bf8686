"""Histories and the change feed on one connection (https://hl7.org/fhir/R4/http.html#history)."""

from __future__ import annotations

import sqlite3
from typing import Any

from fhir_server.store.protocol import Changes, Expired, HistoryPage, HistoryQuery, Stored, cut_history
from fhir_server.store.sqlite.conditions import Sql, both
from fhir_server.store.sqlite.interned_names import Names
from fhir_server.store.sqlite.statements import as_json

_NEWEST = (
    "SELECT max(coalesce((SELECT max(updated) FROM version), 0),"
    " coalesce((SELECT value FROM meta WHERE key = 'purged_updated'), 0))"
)
_LAST = (
    "SELECT max(coalesce((SELECT max(seq) FROM version), 0),"
    " coalesce((SELECT value FROM meta WHERE key = 'purged_seq'), 0))"
)
_COLUMNS = "r.ref, v.version, v.updated, v.method, v.raw"

# A version was current from its own lastUpdated until just before its successor's.
_SUCCEEDED = "NOT EXISTS (SELECT 1 FROM version n WHERE n.rid = v.rid AND n.version = v.version + 1 AND n.updated <= ?)"


def history(connection: sqlite3.Connection, names: Names, query: HistoryQuery) -> HistoryPage:
    """A page of versions; the horizon is the newest lastUpdated in the same snapshot."""
    source, first = _source(connection, names, query)
    condition, values = both([first, *_limits(query)])
    text = f"SELECT {_COLUMNS} FROM {source} WHERE {condition} ORDER BY v.updated DESC, r.ref, v.version DESC LIMIT ?"
    connection.execute("BEGIN")
    try:
        horizon = connection.execute(_NEWEST).fetchone()[0]
        rows = connection.execute(text, (*values, query.count + 1 if query.count else 0))
        versions, more = cut_history((stored(*row) for row in rows), query)
        rows.close()
    finally:
        connection.execute("COMMIT")
    last = versions[-1] if more else None
    return HistoryPage(versions, (last.last_updated, last.reference, last.version) if last else None, horizon)


def _source(connection: sqlite3.Connection, names: Names, query: HistoryQuery) -> tuple[str, Sql]:
    joined = "CROSS JOIN resource r"
    if query.id is not None:
        reference = f"{query.types[0]}/{query.id}"
        return "resource r CROSS JOIN version v", ("r.ref = ? AND v.rid = r.rid", (reference,))
    if len(query.types) == 1:
        code = names.code(connection, query.types[0])
        return f"version v INDEXED BY version_type {joined}", ("v.type = ? AND r.rid = v.rid", (code,))
    if query.types:
        codes = as_json(names.code(connection, type) for type in query.types)
        within = "v.type IN (SELECT value FROM json_each(?)) AND r.rid = v.rid"
        return f"version v INDEXED BY version_updated {joined}", (within, (codes,))
    return f"version v INDEXED BY version_updated {joined}", ("r.rid = v.rid", ())


def _limits(query: HistoryQuery) -> list[Sql]:
    found: list[Sql] = []
    if query.since is not None:
        found.append(("v.updated >= ?", (query.since,)))
    if query.at is not None:
        start, end = query.at
        found.append((f"v.updated <= ? AND {_SUCCEEDED}", (end, start)))
    if query.before is not None:
        updated, reference, version = query.before
        later = "(v.updated < ? OR r.ref > ? OR (r.ref = ? AND v.version < ?))"
        found.append((f"v.updated <= ? AND {later}", (updated, updated, reference, reference, version)))
    return found


def stored(reference: str, version: int, updated: int, method: Any, raw: bytes | None) -> Stored:
    """A row of reference, version, updated, method and text as the protocol has it."""
    type, _, id = reference.partition("/")
    return Stored(type, id, version, updated, method, raw)


def changes(connection: sqlite3.Connection, after: str | None, limit: int) -> Changes:
    """Versions in commit order; the token is the `seq` of the last one. Raises Expired for a token not of this file."""
    start = 0 if after is None else int(after) if after.isascii() and after.isdecimal() else None
    newest = connection.execute(_LAST).fetchone()[0]
    if start is None or start > newest:
        raise Expired(f"`{after}` is not a change token of this database.")
    rows = connection.execute(
        f"SELECT {_COLUMNS}, v.seq FROM version v CROSS JOIN resource r WHERE v.seq > ? AND r.rid = v.rid"
        " ORDER BY v.seq LIMIT ?",
        (start, limit),
    ).fetchall()
    return Changes(tuple(stored(*row[:-1]) for row in rows), str(rows[-1][-1] if rows else start))
