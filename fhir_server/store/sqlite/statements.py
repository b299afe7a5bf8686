"""Statements over many rows at once (https://www.sqlite.org/lang_insert.html)."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import orjson

from fhir_server.store.sqlite.rows import IndexRows

# Rows per statement: few statements, because sqlite3 gives up the GIL at each one and has to win it back from a busy
# event loop; all small sizes and powers of two above, so that few texts serve every number of rows.
_CHUNK = 512
_SMALL = 32
_MOST_DELETED = 32


def _statements(head: str, row: str, tail: str, between: str = ",") -> dict[int, str]:
    sizes = (*range(1, _SMALL), *(2**power for power in range(_SMALL.bit_length() - 1, _CHUNK.bit_length())))
    return {size: f"{head} {between.join([row] * size)} {tail}" for size in sizes}


_INSERTS = {
    "term": _statements("INSERT OR IGNORE INTO term VALUES", "(?,?,?)", ""),
    "link": _statements("INSERT OR IGNORE INTO link VALUES", "(?,?,?)", ""),
    "date": _statements("INSERT OR IGNORE INTO date VALUES", "(?,?,?,?)", ""),
    "number": _statements("INSERT OR IGNORE INTO number VALUES", "(?,?,?,?,?,?)", ""),
    "gram": _statements("INSERT OR IGNORE INTO gram VALUES", "(?,?,?)", ""),
    "entries": _statements("INSERT OR REPLACE INTO entries VALUES", "(?,?,?,?)", ""),
    "version": _statements("INSERT INTO version VALUES", "(?,?,?,?,?,?,?)", ""),
    "resource": _statements(
        "INSERT INTO resource VALUES",
        "(?,?,?,?,?,?,?)",
        "ON CONFLICT (rid) DO UPDATE SET type = excluded.type, version = excluded.version, updated = excluded.updated,"
        " seq = excluded.seq, deleted = excluded.deleted",
    ),
}
# One lookup per row; SQLite would scan the table for `(…) IN (VALUES …)`.
_DELETES = {
    "term": _statements("DELETE FROM term WHERE", "(tp = ? AND value = ? AND rid = ?)", "", " OR "),
    "link": _statements("DELETE FROM link WHERE", "(tp = ? AND target = ? AND rid = ?)", "", " OR "),
    "gram": _statements("DELETE FROM gram WHERE", "(tp = ? AND gram = ? AND value = ?)", "", " OR "),
    "date": _statements("DELETE FROM date WHERE", "(tp = ? AND low = ? AND high = ? AND rid = ?)", "", " OR "),
    "number": _statements(
        "DELETE FROM number WHERE",
        "(tp = ? AND key = ? AND rid = ? AND low = ? AND high = ? AND unit = ?)",
        "",
        " OR ",
    ),
}


def _run(
    connection: sqlite3.Connection, statements: dict[int, str], rows: Sequence[tuple[Any, ...]], most: int = _CHUNK
) -> None:
    start, total = 0, len(rows)
    while start < total:
        rest = total - start
        size = min(most, rest if rest < _SMALL else 1 << (rest.bit_length() - 1))
        connection.execute(statements[size], tuple(chain.from_iterable(rows[start : start + size])))
        start += size


def insert(connection: sqlite3.Connection, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert rows in their order, in as few statements as may be."""
    _run(connection, _INSERTS[table], rows)


def delete(connection: sqlite3.Connection, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """Delete the rows of an index table."""
    _run(connection, _DELETES[table], rows, _MOST_DELETED)


def insert_index(connection: sqlite3.Connection, rows: IndexRows) -> None:
    """Insert index rows in key order: neighbours share pages."""
    for table, found in rows.tables():
        _run(connection, _INSERTS[table], sorted(found))


def delete_index(connection: sqlite3.Connection, rows: IndexRows) -> None:
    """Delete index rows."""
    for table, found in rows.tables():
        delete(connection, table, sorted(found))


def as_json(values: Iterable[Any]) -> str:
    """A JSON array for `json_each(?)`: one stable statement text for any number of values."""
    return orjson.dumps(list(values)).decode()


def one_json(connection: sqlite3.Connection, statement: str, values: Iterable[Any]) -> list[Any]:
    """The JSON array that a statement with one array of values answers in its only row."""
    found: list[Any] = orjson.loads(connection.execute(statement, (as_json(values),)).fetchone()[0])
    return found


def snapshot(connection: sqlite3.Connection) -> None:
    """Let this statement and those that follow see one state of the database, until somebody commits."""
    if not connection.in_transaction:
        connection.execute("BEGIN")
