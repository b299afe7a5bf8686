"""Work beside the interactions: reindex, purge, backup, and what is done at the end (https://www.sqlite.org/backup.html)."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import orjson

from fhir_server.store.protocol import Extract, Progress
from fhir_server.store.sqlite import rows
from fhir_server.store.sqlite.names import Names

_BATCH = 200
_BACKUP_PAGES = 2048


def count_types(connection: sqlite3.Connection, names: Names, types: Sequence[str]) -> int:
    """How many current resources the types have."""
    select = "SELECT count(*) FROM resource INDEXED BY resource_updated WHERE type = ? AND deleted = 0"
    return sum(connection.execute(select, (names.code(connection, type),)).fetchone()[0] for type in set(types))


def reindexing(
    names: Names, type: str, after: int, extract: Extract
) -> Callable[[sqlite3.Connection], tuple[int, int]]:
    """Work that indexes the resources of a type with `rid` above `after`, a batch: the last `rid`, and how many."""

    def work(connection: sqlite3.Connection) -> tuple[int, int]:
        select = (
            "SELECT r.rid, r.ref, v.raw, e.body FROM resource r NOT INDEXED CROSS JOIN version v CROSS JOIN entries e"
            " WHERE r.rid > ? AND r.type = ? AND r.deleted = 0 AND v.seq = r.seq AND e.rid = r.rid"
            " ORDER BY r.rid LIMIT ?"
        )
        found = connection.execute(select, (after, names.code(connection, type), _BATCH)).fetchall()
        removed, added, bodies = rows.IndexRows(), rows.IndexRows(), []
        for rid, _, raw, stored in found:
            tree = rows.tree_of(extract(type, raw))
            body = rows.body_of(tree)
            if body == stored:
                continue
            before = orjson.loads(stored)
            codes = _codes(connection, names, type, before, tree)
            gone, fresh = rows.changed(before, orjson.loads(body))
            removed.add(gone, codes, rid)
            added.add(fresh, codes, rid)
            bodies.append((rid, body))
        rows.insert(connection, "entries", bodies)
        rows.delete_index(connection, removed)
        rows.insert_index(connection, added)
        return (found[-1][0] if found else after), len(found)

    return work


def _codes(connection: sqlite3.Connection, names: Names, type: str, *trees: rows.Tree) -> dict[str, int]:
    """Codes of the trees' parameters; new ones are made in the open transaction, so the process may not keep them yet."""
    codes = dict(names.of_type(type))
    wanted = {parameter for tree in trees for part in "tdn" for parameter in tree.get(part, ())}
    for name in sorted(f"{type}.{parameter}" for parameter in wanted - codes.keys()):
        connection.execute("INSERT OR IGNORE INTO name (name) VALUES (?)", (name,))
        code = connection.execute("SELECT code FROM name WHERE name = ?", (name,)).fetchone()[0]
        codes[name.partition(".")[2]] = code
    return codes


def purging(names: Names, reference: str) -> Callable[[sqlite3.Connection], bool]:
    """Work that removes a resource, its versions and its index rows; False if it was not there."""

    def work(connection: sqlite3.Connection) -> bool:
        select = "SELECT r.rid, e.body FROM resource r LEFT JOIN entries e ON e.rid = r.rid WHERE r.ref = ?"
        found = connection.execute(select, (reference,)).fetchone()
        if found is None:
            return False
        rid, body = found
        tree, removed = orjson.loads(body or rows.NO_BODY), rows.IndexRows()
        removed.add(tree, _codes(connection, names, reference.partition("/")[0], tree), rid)
        rows.delete_index(connection, removed)
        # What was given out stays behind: a change token and a history's horizon must never go back.
        for key, column in (("purged_seq", "seq"), ("purged_updated", "updated")):
            highest = f"SELECT ?, max({column}) FROM version WHERE true"
            better = "DO UPDATE SET value = max(value, excluded.value)"
            connection.execute(f"INSERT INTO meta {highest} ON CONFLICT (key) {better}", (key,))
        for table in ("entries", "version", "resource"):
            connection.execute(f"DELETE FROM {table} WHERE rid = ?", (rid,))
        return True

    return work


def back_up(connection: sqlite3.Connection, path: Path, progress: Progress) -> None:
    """Copy one snapshot of the database to `path`, whole or not at all; writers go on meanwhile."""
    partial = path.with_name(f"{path.name}.partial")
    with suppress(FileNotFoundError):
        partial.unlink()
    target = sqlite3.connect(partial, isolation_level=None)
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
    os.replace(partial, path)


def settle(connection: sqlite3.Connection) -> None:
    """Fold the write-ahead log into the file. No ANALYZE: the searches name their indexes and join orders themselves."""
    with suppress(sqlite3.Error):
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
