"""The versions that other processes have written, with their index entries, for what is kept current in this one."""

from __future__ import annotations

import sqlite3
from typing import Any, NamedTuple

import orjson

from fhir_server.search.entries import Entries
from fhir_server.store.protocol import Stored
from fhir_server.store.sqlite.history import row_to_stored
from fhir_server.store.sqlite.rows import integer_to_float

_MOST = 300
"""Versions that are read; after more, what is kept is better asked for anew."""

_READ = (
    "SELECT v.seq, r.ref, v.version, v.updated, v.method, v.raw, e.quick, e.terms, e.numbers"
    " FROM version v CROSS JOIN resource r LEFT JOIN entries e ON e.rid = r.rid"
    " WHERE v.seq > ? AND v.seq <= ? AND r.rid = v.rid AND r.seq = v.seq ORDER BY v.seq"
)


class KnownVersion(NamedTuple):
    """A version, its number in the file and its entries (None: a deletion)."""

    seq: int
    stored: Stored
    entries: Entries | None


def read_versions(connection: sqlite3.Connection, after: int, upto: int) -> list[KnownVersion] | None:
    """The versions with these numbers that are still current; None for too many."""
    if upto - after > _MOST:
        return None
    rows = connection.execute(_READ, (after, upto)).fetchall()
    return [KnownVersion(seq, row_to_stored(*row[:5]), _to_entries(row)) for seq, *row in rows]


def _to_entries(row: list[Any]) -> Entries | None:
    if row[4] is None or row[5] is None:
        return None
    quick, texts, numbers = map(orjson.loads, row[5:])
    terms = {**quick.get("l", {}), **texts.get("t", {})}
    return Entries(
        {name: tuple(values) for name, values in terms.items()},
        {name: tuple([(low, high) for low, high in values]) for name, values in quick.get("d", {}).items()},
        {
            name: tuple([(key, integer_to_float(low), integer_to_float(high), unit) for key, low, high, unit in values])
            for name, values in numbers.get("n", {}).items()
        },
        tuple(texts.get("r", ())),
    )
