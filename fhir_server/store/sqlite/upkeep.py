"""Work beside the interactions: reindex, purge, backup, and what is done at the end (https://www.sqlite.org/backup.html)."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from fhir_server.store.checks import check_registry
from fhir_server.store.protocol import (
    REINDEXED_AT_ONCE,
    SEARCH_PARAMETER,
    Extract,
    Progress,
    Reindexed,
)
from fhir_server.store.sqlite import fulltext, rows, statements, trigrams
from fhir_server.store.sqlite.commit import RAISE_REGISTRY
from fhir_server.store.sqlite.interned_names import Names
from fhir_server.store.sqlite.link_targets import absent, number_targets
from fhir_server.store.sqlite.schema import REFERENCES

_BACKUP_PAGES = 2048


_INDEXED = (
    "SELECT r.rid, v.raw, e.quick, e.terms, e.numbers"
    " FROM resource r NOT INDEXED CROSS JOIN version v CROSS JOIN entries e"
    " WHERE r.rid > ? AND r.type = ? AND r.deleted = 0 AND v.seq = r.seq AND e.rid = r.rid ORDER BY r.rid LIMIT ?"
)
_PURGED = (
    "SELECT r.rid, e.quick, e.terms, e.numbers FROM resource r LEFT JOIN entries e ON e.rid = r.rid"
    " WHERE r.ref = ? AND r.version > 0"
)
_LINKED = (
    "SELECT EXISTS (SELECT 1 FROM link WHERE tp = ? AND target = ?)"
    " OR EXISTS (SELECT 1 FROM name n CROSS JOIN link l WHERE l.tp = n.code AND l.target = ?)"
)


REGISTRY = "SELECT value FROM meta WHERE key = 'registry'"


def reindexing(
    names: Names, type: str, extract: Extract, registry: int, after: int
) -> Callable[[sqlite3.Connection], Reindexed]:
    """Work that indexes the resources of a type with `rid` above `after`, a batch."""

    def work(connection: sqlite3.Connection) -> Reindexed:
        number = connection.execute(REGISTRY).fetchone()[0]
        check_registry(registry, number)
        values = (after, names.code(connection, type), REINDEXED_AT_ONCE)
        found = connection.execute(_INDEXED, values).fetchall()
        removed, added, changed = rows.IndexRows(), rows.IndexRows(), []
        texts: list[fulltext.Kept] = []
        for rid, raw, *columns in found:
            entries = extract(type, raw)
            texts.append((rid, names.code(connection, type), entries.texts))
            codes = _codes(connection, names, type, [*entries.terms, *entries.dates, *entries.numbers])
            keys, fresh = rows.keys_and_columns(entries, codes)
            stored = (columns[0], columns[1], columns[2])
            if fresh == stored:
                continue
            before = rows.keys_of(stored, codes)
            for keys_of_one, table_rows in ((before.without(keys), removed), (keys.without(before), added)):
                table_rows.add(keys_of_one, number_targets(connection, keys_of_one.targets), rid)
            changed.append((rid, *fresh))
        statements.insert(connection, "entries", changed)
        statements.delete_index(connection, removed)
        statements.insert_index(connection, added)
        fulltext.keep(connection, texts)
        trigrams.settle(connection, removed, added)
        return Reindexed(len(found), str(found[-1][0]) if len(found) == REINDEXED_AT_ONCE else None)

    return work


def _codes(connection: sqlite3.Connection, names: Names, type: str, parameters: Iterable[str] = ()) -> dict[str, int]:
    """The numbers of all the type's parameters. New ones are given in the open transaction: this process, which
    may yet see it rolled back, does not keep them."""
    select = "SELECT name, code FROM name WHERE name >= ? AND name < ?"
    found = connection.execute(select, (f"{type}.", f"{type}/")).fetchall()
    codes = {name.partition(".")[2]: code for name, code in found}
    for parameter in sorted(set(parameters) - codes.keys()):
        row = connection.execute(
            "INSERT INTO name (name) VALUES (?) RETURNING code", (f"{type}.{parameter}",)
        ).fetchone()
        codes[parameter] = row[0]
    return codes


def purging(names: Names, reference: str) -> Callable[[sqlite3.Connection], bool]:
    """Work that removes a resource, its versions and its index rows; False if it was not there."""

    def work(connection: sqlite3.Connection) -> bool:
        found = connection.execute(_PURGED, (reference,)).fetchone()
        if found is None:
            return False
        rid, *columns = found
        if columns[0]:
            codes = _codes(connection, names, reference.partition("/")[0])
            keys, removed = rows.keys_of((columns[0], columns[1], columns[2]), codes), rows.IndexRows()
            removed.add(keys, number_targets(connection, keys.targets), rid)
            statements.delete_index(connection, removed)
            fulltext.keep(connection, [(rid, 0, None)])
            trigrams.settle(connection, removed, rows.IndexRows())
        # What was given out stays behind: a change token and a history's horizon must never go back.
        for key, column in (("purged_seq", "seq"), ("purged_updated", "updated")):
            highest = f"SELECT ?, max({column}) FROM version WHERE true"
            better = "DO UPDATE SET value = max(value, excluded.value)"
            connection.execute(f"INSERT INTO meta {highest} ON CONFLICT (key) {better}", (key,))
        if reference.startswith(f"{SEARCH_PARAMETER}/"):
            connection.execute(RAISE_REGISTRY)
        connection.execute("DELETE FROM entries WHERE rid = ?", (rid,))
        connection.execute("DELETE FROM version WHERE rid = ?", (rid,))
        if connection.execute(_LINKED, (REFERENCES, rid, rid)).fetchone()[0]:
            statements.insert(connection, "resource", [absent(rid, reference)])
        else:
            connection.execute("DELETE FROM resource WHERE rid = ?", (rid,))
        return True

    return work


def back_up(connection: sqlite3.Connection, path: Path, progress: Progress) -> None:
    """Copy one snapshot of the database to `path`, whole or not at all; writers go on meanwhile."""
    partial = path.with_name(f"{path.name}.partial")
    partial.unlink(missing_ok=True)
    try:
        _copy(connection, partial, progress)
    except BaseException:
        # On a full disk it would be what fills it.
        partial.unlink(missing_ok=True)
        raise
    os.replace(partial, path)


def _copy(connection: sqlite3.Connection, path: Path, progress: Progress) -> None:
    target = sqlite3.connect(path, isolation_level=None)
    try:
        # The open read transaction keeps the snapshot: without it each write would start the copy again.
        connection.execute("BEGIN")
        try:
            connection.execute("SELECT count(*) FROM meta").fetchone()
            connection.backup(
                target, pages=_BACKUP_PAGES, progress=lambda _, left, total: progress(total - left, total)
            )
        finally:
            connection.execute("COMMIT")
    finally:
        target.close()


def settle(connection: sqlite3.Connection) -> None:
    """Fold the write-ahead log into the file. No ANALYZE: the searches name their indexes and join orders."""
    with suppress(sqlite3.Error):
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
