"""A database file looked through for faults (https://www.sqlite.org/pragma.html#pragma_integrity_check).

Three things have to agree: a resource's text, the columns of `entries` that were made of it, and its index rows.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import orjson

from fhir_server.search.words import CONTENT, TEXT
from fhir_server.store.protocol import REINDEXED_AT_ONCE, Extract, Verified, describe_wrong_entries
from fhir_server.store.sqlite import rows
from fhir_server.store.sqlite.interned_names import Names
from fhir_server.store.sqlite.schema import REFERENCES
from fhir_server.store.sqlite.statements import begin_snapshot

_NEXT = (
    "SELECT r.rid, r.ref, v.raw, e.quick, e.terms, e.numbers, coalesce(w.text, ''), coalesce(w.content, '')"
    " FROM resource r NOT INDEXED CROSS JOIN version v LEFT JOIN entries e ON e.rid = r.rid"
    " LEFT JOIN words w ON w.rid = r.rid"
    " WHERE r.rid > ? AND r.type = ? AND r.deleted = 0 AND v.seq = r.seq ORDER BY r.rid LIMIT ?"
)
_COUNTS = {
    "resources whose newest version is not the one that they name": (
        "SELECT count(*) FROM resource r LEFT JOIN version v ON v.seq = r.seq WHERE r.version > 0"
        " AND (v.rid IS NOT r.rid OR v.version <> r.version OR (v.raw IS NULL) <> r.deleted)"
    ),
    "resources with gaps in their history": (
        "SELECT count(*) FROM (SELECT 1 FROM version GROUP BY rid HAVING count(*) <> max(version))"
    ),
    "trigrams of values that no resource has": (
        "SELECT count(*) FROM (SELECT DISTINCT tp, value FROM gram) g"
        " WHERE NOT EXISTS (SELECT 1 FROM term t WHERE t.tp = g.tp AND t.value = g.value)"
    ),
}
_ALL_COLUMNS = (
    "SELECT r.ref, r.rid, e.quick, e.terms, e.numbers FROM resource r JOIN entries e USING (rid) WHERE r.deleted = 0"
)
_ROWS_AT_ONCE = 1000
_COLUMNS = {
    "term": ("tp", "value", "rid"),
    "link": ("tp", "target", "rid"),
    "date": ("tp", "low", "high", "rid"),
    "number": ("tp", "key", "rid", "low", "high", "unit"),
}


def verify_batch(connection: sqlite3.Connection, type: str, extract: Extract, after: int) -> Verified:
    """Compare the entries of the next resources of a type with what `extract` makes of their texts."""
    names = Names()
    names.refresh(connection)
    code = names.find_code(connection, type)
    batch = connection.execute(_NEXT, (after, code, REINDEXED_AT_ONCE)).fetchall()
    faults: list[str] = []
    for _, reference, raw, *stored, text, content in batch:
        entries = extract(type, raw)
        try:
            columns = rows.entries_to_keys(entries, names.get_codes(type))[1]
        except KeyError:
            columns = ("", "", "")
        texts = entries.texts.get(TEXT, ""), entries.texts.get(CONTENT, "")
        # where texts are not indexed any more, earlier ones stay
        if tuple(stored) != columns or (entries.texts and texts != (text, content)):
            faults.append(describe_wrong_entries(reference))
    return Verified(len(batch), str(batch[-1][0]) if len(batch) == REINDEXED_AT_ONCE else None, tuple(faults))


def verify_file(connection: sqlite3.Connection) -> tuple[str, ...]:
    """Faults of the file and of its tables among each other, a sentence each; all of one moment."""
    begin_snapshot(connection)
    try:
        return _find_faults(connection)
    finally:
        connection.execute("COMMIT")


def _find_faults(connection: sqlite3.Connection) -> tuple[str, ...]:
    said = [text for (text,) in connection.execute("PRAGMA integrity_check(10)").fetchall()]
    if said != ["ok"]:
        return tuple(f"The file is damaged: {text}." for text in said)
    counts = {what: connection.execute(statement).fetchone()[0] for what, statement in _COUNTS.items()}
    faults = [f"There are {count:,} {what}." for what, count in counts.items() if count]
    return (*faults, *_verify_index_rows(connection))


def _verify_index_rows(connection: sqlite3.Connection) -> Iterator[str]:
    """Every row that the columns ask for is there, and there are no more."""
    expected = dict.fromkeys(_COLUMNS, 0)
    for part in _iterate_rows(connection):
        for table, listed in part.list_tables():
            distinct = set(listed)
            expected[table] += len(distinct)
            missing = len(distinct) - _count_present(connection, table, distinct)
            if missing:
                yield f"The index table `{table}` lacks {missing:,} rows."
    for table, number in expected.items():
        there = connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        if there > number:
            yield f"The index table `{table}` has {there - number:,} rows that belong to no resource."


def _iterate_rows(connection: sqlite3.Connection) -> Iterator[rows.IndexRows]:
    """The rows of all resources by their columns, some at a time."""
    names = Names()
    names.refresh(connection)
    cursor = connection.execute(_ALL_COLUMNS)
    while batch := cursor.fetchmany(_ROWS_AT_ONCE):
        part = rows.IndexRows()
        for reference, rid, *columns in batch:
            codes = names.get_codes(reference.partition("/")[0])
            keys = rows.columns_to_keys((columns[0], columns[1], columns[2]), codes)
            part.add(keys, _find_numbers(connection, keys), rid)
        yield part


def _find_numbers(connection: sqlite3.Connection, keys: rows.Keys) -> dict[str, int]:
    """The numbers of what is linked to; one without gets a number that no row has."""
    statement = "SELECT rid FROM resource WHERE ref = ?"
    found = {target: connection.execute(statement, (target,)).fetchone() for target in keys.targets}
    return {target: row[0] if row else REFERENCES - 1 for target, row in found.items()}


def _count_present(connection: sqlite3.Connection, table: str, listed: set[rows.Row]) -> int:
    columns = _COLUMNS[table]
    same = " AND ".join(f"t.{column} = json_extract(j.value, '$[{number}]')" for number, column in enumerate(columns))
    statement = f"SELECT count(*) FROM json_each(?) j CROSS JOIN {table} t WHERE {same}"
    count: int = connection.execute(statement, (orjson.dumps(list(listed)).decode(),)).fetchone()[0]
    return count
