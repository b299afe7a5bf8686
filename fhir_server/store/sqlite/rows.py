"""A resource's index entries as rows of the index tables and as JSON, and what changes between two versions."""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import orjson

from fhir_server.search.entries import Entries
from fhir_server.store.sqlite.schema import REFERENCES

NO_BODY = "{}"

_DOUBLE = struct.Struct("<d")
_INTEGER = struct.Struct("<q")
_MANTISSA = 2**63 - 1

# Rows per statement: few statements, because sqlite3 gives up the GIL at each one and has to win it back from a busy
# event loop; powers of two, so that few texts serve every number of rows.
_CHUNK = 512
_MOST_DELETED = 32


def ordered(value: float) -> int:
    """A float as an integer that sorts the same: exact in SQLite's columns and in its JSON, which floats are not."""
    bits: int = _INTEGER.unpack(_DOUBLE.pack(value + 0.0))[0]
    return bits if bits >= 0 else -(bits & _MANTISSA)


def unordered(value: int) -> float:
    """The float of `ordered`."""
    found: float = _DOUBLE.unpack(_INTEGER.pack(value))[0] if value >= 0 else -_DOUBLE.unpack(_INTEGER.pack(-value))[0]
    return found


Tree = dict[str, Any]
"""Entries as JSON: `t` terms, `d` dates, `n` numbers (ordered), each by parameter, and `r` references."""


def tree_of(entries: Entries) -> Tree:
    """The JSON tree of entries; empty parts and parameters are left out."""
    tree: Tree = {}
    if entries.terms:
        tree["t"] = _filled(entries.terms)
    if entries.dates:
        tree["d"] = _filled(entries.dates)
    if entries.numbers:
        tree["n"] = {
            parameter: [(key, ordered(low), ordered(high), unit) for key, low, high, unit in values]
            for parameter, values in entries.numbers.items()
            if values
        }
    if entries.references:
        tree["r"] = entries.references
    return tree


def _filled(part: Mapping[str, tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
    if type(part) is dict and all(part.values()):
        return part
    return {parameter: values for parameter, values in part.items() if values}


def body_of(tree: Tree) -> str:
    """The text kept in `entries.body`."""
    return orjson.dumps(tree).decode()


@dataclass(slots=True)
class IndexRows:
    """Rows of the three index tables."""

    term: list[tuple[int, str, int]] = field(default_factory=list)
    date: list[tuple[int, int, int, int]] = field(default_factory=list)
    number: list[tuple[int, str, int, int, str, int]] = field(default_factory=list)

    def add(self, tree: Tree, codes: Mapping[str, int], rid: int) -> None:
        """Add the rows of a tree."""
        terms = tree.get("t")
        if terms:
            for parameter, values in terms.items():
                tp = codes[parameter]
                for value in values:
                    self.term.append((tp, value, rid))
        for parameter, intervals in tree.get("d", {}).items():
            tp = codes[parameter]
            for low, high in intervals:
                self.date.append((tp, low, high, rid))
        for parameter, values in tree.get("n", {}).items():
            tp = codes[parameter]
            for key, low, high, unit in values:
                self.number.append((tp, key, low, high, unit, rid))
        for reference in tree.get("r", ()):
            self.term.append((REFERENCES, reference, rid))


def changed(old: Tree, new: Tree) -> tuple[Tree, Tree]:
    """The parts of two decoded trees that differ: what to remove and what to add."""
    removed: Tree = {}
    added: Tree = {}
    for part in ("t", "d", "n"):
        before, after = old.get(part, {}), new.get(part, {})
        for parameter in before.keys() | after.keys():
            gone, fresh = _difference(before.get(parameter, ()), after.get(parameter, ()))
            if gone:
                removed.setdefault(part, {})[parameter] = gone
            if fresh:
                added.setdefault(part, {})[parameter] = fresh
    removed["r"], added["r"] = _difference(old.get("r", ()), new.get("r", ()))
    return removed, added


def _difference(before: Sequence[Any], after: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    if before == after:
        return [], []
    old, new = {_key(value) for value in before}, {_key(value) for value in after}
    return [value for value in before if _key(value) not in new], [value for value in after if _key(value) not in old]


def _key(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _statements(head: str, row: str, tail: str, between: str = ",") -> dict[int, str]:
    sizes = [2**power for power in range(_CHUNK.bit_length())]
    return {size: f"{head} {between.join([row] * size)} {tail}" for size in sizes}


_INSERTS = {
    "term": _statements("INSERT OR IGNORE INTO term VALUES", "(?,?,?)", ""),
    "date": _statements("INSERT OR IGNORE INTO date VALUES", "(?,?,?,?)", ""),
    "number": _statements("INSERT OR IGNORE INTO number VALUES", "(?,?,?,?,?,?)", ""),
    "entries": _statements("INSERT OR REPLACE INTO entries VALUES", "(?,?)", ""),
    "version": _statements("INSERT INTO version VALUES", "(?,?,?,?,?,?,?)", ""),
    "resource": _statements(
        "INSERT INTO resource VALUES",
        "(?,?,?,?,?,?,?)",
        "ON CONFLICT (rid) DO UPDATE SET version = excluded.version, updated = excluded.updated, seq = excluded.seq,"
        " deleted = excluded.deleted",
    ),
}
# One lookup per row; SQLite would scan the table for `(…) IN (VALUES …)`.
_DELETES = {
    "term": _statements("DELETE FROM term WHERE", "(tp = ? AND value = ? AND rid = ?)", "", " OR "),
    "date": _statements("DELETE FROM date WHERE", "(tp = ? AND low = ? AND high = ? AND rid = ?)", "", " OR "),
    "number": _statements(
        "DELETE FROM number WHERE",
        "(tp = ? AND key = ? AND low = ? AND high = ? AND unit = ? AND rid = ?)",
        "",
        " OR ",
    ),
}


def _run(
    connection: sqlite3.Connection, statements: dict[int, str], rows: Sequence[tuple[Any, ...]], most: int = _CHUNK
) -> None:
    start, total = 0, len(rows)
    while start < total:
        size = min(most, 1 << ((total - start).bit_length() - 1))
        connection.execute(statements[size], tuple(chain.from_iterable(rows[start : start + size])))
        start += size


def insert(connection: sqlite3.Connection, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert rows in their order, in as few statements as may be."""
    _run(connection, _INSERTS[table], rows)


def insert_index(connection: sqlite3.Connection, rows: IndexRows) -> None:
    """Insert index rows in key order: neighbours share pages."""
    for table, found in (("term", rows.term), ("date", rows.date), ("number", rows.number)):
        _run(connection, _INSERTS[table], sorted(found))


def delete_index(connection: sqlite3.Connection, rows: IndexRows) -> None:
    """Delete index rows."""
    for table, found in (("term", rows.term), ("date", rows.date), ("number", rows.number)):
        _run(connection, _DELETES[table], sorted(found), _MOST_DELETED)


def as_json(values: Iterable[Any]) -> str:
    """A JSON array for `json_each(?)`: one stable statement text for any number of values."""
    return orjson.dumps(list(values)).decode()
