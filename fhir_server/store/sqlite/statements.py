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


def _build_statements(head: str, row: str, tail: str, between: str = ",") -> dict[int, str]:
    sizes = (*range(1, _SMALL), *(2**power for power in range(_SMALL.bit_length() - 1, _CHUNK.bit_length())))
    return {size: f"{head} {between.join([row] * size)} {tail}" for size in sizes}


_INDEX_TABLES = {
    "term": ("tp", "value", "rid"),
    "link": ("tp", "target", "rid"),
    "gram": ("tp", "gram", "value"),
    "date": ("tp", "low", "high", "rid"),
    "number": ("tp", "key", "rid", "low", "high", "unit"),
}
_INSERTS = {
    **{
        table: _build_statements(f"INSERT OR IGNORE INTO {table} VALUES", f"({','.join('?' * len(columns))})", "")
        for table, columns in _INDEX_TABLES.items()
    },
    "entries": _build_statements("INSERT OR REPLACE INTO entries VALUES", "(?,?,?,?)", ""),
    "version": _build_statements("INSERT INTO version VALUES", "(?,?,?,?,?,?,?)", ""),
    "resource": _build_statements(
        "INSERT INTO resource VALUES",
        "(?,?,?,?,?,?,?)",
        "ON CONFLICT (rid) DO UPDATE SET type = excluded.type, version = excluded.version, updated = excluded.updated,"
        " seq = excluded.seq, deleted = excluded.deleted",
    ),
}
# One lookup per row; SQLite would scan the table for `(…) IN (VALUES …)`.
_DELETES = {
    table: _build_statements(f"DELETE FROM {table} WHERE", f"({' AND '.join(f'{c} = ?' for c in columns)})", "", " OR ")
    for table, columns in _INDEX_TABLES.items()
}


def _execute_chunks(
    connection: sqlite3.Connection, statements: dict[int, str], rows: Sequence[tuple[Any, ...]], most: int = _CHUNK
) -> None:
    start, total = 0, len(rows)
    while start < total:
        rest = total - start
        size = min(most, rest if rest < _SMALL else 1 << (rest.bit_length() - 1))
        connection.execute(statements[size], tuple(chain.from_iterable(rows[start : start + size])))
        start += size


def insert(connection: sqlite3.Connection, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert rows in their order, in as few statements as possible."""
    _execute_chunks(connection, _INSERTS[table], rows)


def delete(connection: sqlite3.Connection, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """Delete the rows of an index table."""
    _execute_chunks(connection, _DELETES[table], rows, _MOST_DELETED)


def insert_index(connection: sqlite3.Connection, rows: IndexRows) -> None:
    """Insert index rows in key order: neighbours share pages."""
    for table, listed in rows.list_tables():
        _execute_chunks(connection, _INSERTS[table], sorted(listed))


def delete_index(connection: sqlite3.Connection, rows: IndexRows) -> None:
    """Delete index rows."""
    for table, listed in rows.list_tables():
        delete(connection, table, sorted(listed))


def format_json(values: Iterable[Any]) -> str:
    """A JSON array for `json_each(?)`: one stable statement text for any number of values."""
    return orjson.dumps(list(values)).decode()


def read_json(connection: sqlite3.Connection, statement: str, values: Iterable[Any]) -> list[Any]:
    """The JSON array in the only row of a statement whose only `?` is a JSON array of the values."""
    array: list[Any] = orjson.loads(connection.execute(statement, (format_json(values),)).fetchone()[0])
    return array


def begin_snapshot(connection: sqlite3.Connection) -> None:
    """Let the statements from here to the next COMMIT see one state of the database."""
    if not connection.in_transaction:
        connection.execute("BEGIN")
