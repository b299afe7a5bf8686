"""Work beside the interactions: reindex, purge, backup, and the end of the log (https://www.sqlite.org/backup.html)."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable
from contextlib import closing, suppress
from pathlib import Path

from fhir_server.store import protocol
from fhir_server.store.checks import check_registry
from fhir_server.store.protocol import Extract, Progress, Reindexed
from fhir_server.store.sqlite import fulltext, rows, statements
from fhir_server.store.sqlite.commit import RAISE_REGISTRY, make_absent_row, write_index
from fhir_server.store.sqlite.interned_names import Names
from fhir_server.store.sqlite.schema import REFERENCES, make_private_file

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

_TARGETS = (
    "SELECT json_group_array(json_array(r.ref, r.rid)) FROM json_each(?) j CROSS JOIN resource r WHERE r.ref = j.value"
)

REGISTRY = "SELECT value FROM meta WHERE key = 'registry'"
COUNT_UPKEEP = "INSERT INTO meta VALUES ('upkeep', 1) ON CONFLICT (key) DO UPDATE SET value = value + 1"
"""Tells every process that something else than a new version has changed what searches find (`standing.py`)."""


def reindex(
    connection: sqlite3.Connection, names: Names, type: str, extract: Extract, registry: int, after: int
) -> Reindexed:
    """Index the next resources of a type, those with `rid` above `after`, in the open transaction."""
    check_registry(registry, connection.execute(REGISTRY).fetchone()[0])
    code = names.find_code(connection, type)
    batch = connection.execute(_INDEXED, (after, code, protocol.REINDEXED_AT_ONCE)).fetchall()
    removed, added, changed = rows.IndexRows(), rows.IndexRows(), []
    texts: list[fulltext.ResourceTexts] = []
    for rid, raw, *stored in batch:
        entries = extract(type, raw)
        texts.append((rid, code, entries.texts))
        codes = _number_parameters(connection, type, [*entries.terms, *entries.dates, *entries.numbers])
        keys, columns = rows.entries_to_keys(entries, codes)
        if columns == tuple(stored):
            continue
        before = rows.columns_to_keys(tuple(stored), codes)
        for difference, table_rows in ((before.subtract(keys), removed), (keys.subtract(before), added)):
            table_rows.add(difference, _number_targets(connection, difference.targets), rid)
        changed.append((rid, *columns))
    write_index(connection, changed, removed, added, texts)
    connection.execute(COUNT_UPKEEP)
    return Reindexed(len(batch), str(batch[-1][0]) if len(batch) == protocol.REINDEXED_AT_ONCE else None)


def _number_targets(connection: sqlite3.Connection, references: Iterable[str]) -> dict[str, int]:
    """The numbers of all the references; a reference without one gets it in the open transaction."""
    distinct = sorted(set(references))
    targets: dict[str, int] = dict(statements.read_json(connection, _TARGETS, distinct))
    if new := [reference for reference in distinct if reference not in targets]:
        last: int = connection.execute("SELECT max(rid) FROM resource").fetchone()[0] or 0
        absent = [make_absent_row(rid, reference) for rid, reference in enumerate(new, last + 1)]
        statements.insert(connection, "resource", absent)
        targets |= {reference: rid for rid, reference in enumerate(new, last + 1)}
    return targets


def _number_parameters(connection: sqlite3.Connection, type: str, parameters: Iterable[str] = ()) -> dict[str, int]:
    """The numbers of all the type's parameters; these ones get theirs in the open transaction.

    They are not added to `Names`: the transaction may yet be rolled back.
    """
    select = "SELECT name, code FROM name WHERE name >= ? AND name < ?"
    numbered = connection.execute(select, (f"{type}.", f"{type}/")).fetchall()
    codes = {name.partition(".")[2]: code for name, code in numbered}
    insert = "INSERT INTO name (name) VALUES (?) RETURNING code"
    for parameter in sorted(set(parameters) - codes.keys()):
        codes[parameter] = connection.execute(insert, (f"{type}.{parameter}",)).fetchone()[0]
    return codes


def purge(connection: sqlite3.Connection, reference: str) -> None:
    """Remove a resource, its versions and its index rows, if it is there, in the open transaction.

    The connection overwrites what it removes (`secure_delete`); the log is cut by the writer, after the commit.
    """
    row = connection.execute(_PURGED, (reference,)).fetchone()
    if row is None:
        return
    rid, *columns = row
    if columns[0]:
        codes = _number_parameters(connection, reference.partition("/")[0])
        keys, removed = rows.columns_to_keys(tuple(columns), codes), rows.IndexRows()
        removed.add(keys, _number_targets(connection, keys.targets), rid)
        write_index(connection, (), removed, rows.IndexRows(), [(rid, 0, None)])
    # The highest numbers stay behind: a change token and a history's horizon must never go back.
    for key, column in (("purged_seq", "seq"), ("purged_updated", "updated")):
        highest = f"SELECT ?, max({column}) FROM version WHERE true"
        better = "DO UPDATE SET value = max(value, excluded.value)"
        connection.execute(f"INSERT INTO meta {highest} ON CONFLICT (key) {better}", (key,))
    if reference.startswith(f"{protocol.SEARCH_PARAMETER}/"):
        connection.execute(RAISE_REGISTRY)
    connection.execute(COUNT_UPKEEP)
    connection.execute("DELETE FROM entries WHERE rid = ?", (rid,))
    connection.execute("DELETE FROM version WHERE rid = ?", (rid,))
    if connection.execute(_LINKED, (REFERENCES, rid, rid)).fetchone()[0]:
        statements.insert(connection, "resource", [make_absent_row(rid, reference)])
    else:
        connection.execute("DELETE FROM resource WHERE rid = ?", (rid,))


def back_up(connection: sqlite3.Connection, path: Path, progress: Progress) -> None:
    """Copy one snapshot of the database to `path`, whole or not at all; writers go on meanwhile."""
    unfinished = path.with_name(f"{path.name}.partial")
    unfinished.unlink(missing_ok=True)
    make_private_file(unfinished)
    try:
        _copy(connection, unfinished, progress)
    except BaseException:
        # On a full disk it may be what fills it.
        unfinished.unlink(missing_ok=True)
        raise
    os.replace(unfinished, path)


def _copy(connection: sqlite3.Connection, path: Path, progress: Progress) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as target:
        # The open read transaction keeps the snapshot: without it each write would start the copy again.
        connection.execute("BEGIN")
        try:
            connection.execute("SELECT count(*) FROM meta").fetchone()
            connection.backup(
                target, pages=_BACKUP_PAGES, progress=lambda _, remaining, total: progress(total - remaining, total)
            )
        finally:
            connection.execute("COMMIT")


def fold_log(connection: sqlite3.Connection) -> None:
    """Fold the write-ahead log into the file. No ANALYZE: the searches name their indexes and join orders."""
    with suppress(sqlite3.Error):
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
