"""What one database transaction does: several transactions of the protocol, checked in turn and written together.

The state of every resource that the group names is read at once, each transaction is checked and applied to it in
memory, and the rows of all go to the file together: few statements, sorted rows. A transaction is checked whole before
it changes anything, so a refused one leaves no trace and needs no savepoint. What is pending is flushed before a
query must see it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, NamedTuple

from fhir_server.search.entries import TextParameter
from fhir_server.search.query import Query
from fhir_server.store.checks import SOURCES_SHOWN, Checks, changes_registry, check_matches, check_registry
from fhir_server.store.operations import Method, Transaction, VersionIs, Write, Written
from fhir_server.store.protocol import Committed, Page, Stored
from fhir_server.store.sqlite import fulltext, rows, statements, trigrams
from fhir_server.store.sqlite.interned_names import Names
from fhir_server.store.sqlite.link_targets import absent
from fhir_server.store.sqlite.schema import REFERENCES
from fhir_server.store.sqlite.search import Search

MILLISECOND = 1000

RAISE_REGISTRY = "UPDATE meta SET value = value + 1 WHERE key = 'registry'"

_STATES = (
    "SELECT json_group_array(json_array(r.ref, r.rid, r.version, r.updated, r.seq, r.deleted))"
    " FROM json_each(?) j CROSS JOIN resource r WHERE r.ref = j.value"
)
_COLUMNS = (
    "SELECT json_group_array(json_array(e.rid, e.quick, e.terms, e.numbers))"
    " FROM json_each(?) j CROSS JOIN entries e WHERE e.rid = j.value"
)
_NEXT = (
    "SELECT (SELECT max(rid) FROM resource), (SELECT max(seq) FROM version), (SELECT max(updated) FROM version),"
    " (SELECT value FROM meta WHERE key = 'purged_seq'), (SELECT value FROM meta WHERE key = 'purged_updated'),"
    " (SELECT value FROM meta WHERE key = 'registry')"
)
_SOURCES = (
    "SELECT r.ref FROM link l CROSS JOIN resource r WHERE l.tp = ? AND l.target = ? AND r.rid = l.rid"
    " AND r.type NOT IN (SELECT value FROM json_each(?)) AND r.ref NOT IN (SELECT value FROM json_each(?)) LIMIT ?"
)


class Draft(NamedTuple):
    """A write with its entries in the forms that the file keeps; made before the lock is taken."""

    write: Write
    reference: str
    keys: rows.Keys
    columns: rows.Columns


_NO_KEYS = rows.Keys()
_NO_COLUMNS: rows.Columns = ("{}", "{}", "{}")


def draft(write: Write, names: Names) -> Draft:
    """Prepare a write. Raises KeyError when the type or a parameter has no number yet."""
    codes = names.of_type(write.type)
    keys, columns = _NO_KEYS, _NO_COLUMNS
    if write.content is not None:
        keys, columns = rows.keys_and_columns(write.entries, codes)
    return Draft(write, f"{write.type}/{write.id}", keys, columns)


@dataclass(slots=True)
class State:
    """A resource as the group sees it. `stored`, `columns`: its entries in the file and by now; `new`: no row yet.

    `texts`: those of its entries.
    """

    rid: int
    version: int = 0
    updated: int = 0
    seq: int = 0
    live: bool = False
    new: bool = False
    stored: rows.Columns | None = None
    columns: rows.Columns | None = None
    keys: rows.Keys = _NO_KEYS
    texts: Mapping[TextParameter, str] | None = None
    method: Method = "POST"
    raw: bytes | None = None


_ABSENT = State(0)


class Group:
    """One open database transaction of the writer."""

    def __init__(self, connection: sqlite3.Connection, names: Names, search: Search, now: int) -> None:
        self._connection = connection
        self._names = names
        self._search = search
        rid, seq, updated, purged_seq, purged_updated, self._registry = connection.execute(_NEXT).fetchone()
        self._rid = rid or 0
        self._seq = max(seq or 0, purged_seq or 0)
        # Never below what any reader has seen: otherwise `_since` the newest version known could miss this one.
        self._now = max(now // MILLISECOND * MILLISECOND, updated or 0, purged_updated or 0)
        self._states: dict[str, State] = {}
        self._dirty: dict[str, State] = {}
        self._versions: list[tuple[Any, ...]] = []

    def load(self, prepared: Sequence[tuple[Transaction, Sequence[Draft]]]) -> None:
        """Read the state of every resource that transactions and their drafts name or link to; number the new ones."""
        numbered: set[str] = set()
        named: set[str] = set()
        written: set[str] = set()
        for transaction, drafts in prepared:
            for each in drafts:
                written.add(each.reference)
                numbered |= each.keys.targets
            named.update(transaction.required, transaction.reads, transaction.released)
            named.update(f"{a.type}/{a.id}" for a in transaction.assertions if isinstance(a, VersionIs))
        numbered |= written
        self._learn(numbered | named)
        existing = {
            state.rid: state for name in written if (state := self._states.get(name)) is not None and state.live
        }
        if existing:
            for rid, *columns in statements.one_json(self._connection, _COLUMNS, sorted(existing)):
                existing[rid].stored = (columns[0], columns[1], columns[2])
        # Numbered in the order of the references: both B-trees of `resource` are filled in key order.
        for reference in sorted(numbered - self._states.keys()):
            self._rid += 1
            self._states[reference] = State(self._rid, new=True)

    def _learn(self, references: Iterable[str]) -> None:
        for reference, rid, version, updated, seq, deleted in statements.one_json(
            self._connection, _STATES, sorted(references)
        ):
            self._states[reference] = State(rid, version, updated, seq, not deleted)

    def run(self, transaction: Transaction, drafts: Sequence[Draft]) -> Committed:
        """Check and apply one transaction. Raises the protocol's errors; then it has changed nothing."""
        check_registry(transaction.registry, self._registry)
        writes = {each.reference: each.write for each in drafts}
        checks = Checks(transaction, writes, lambda reference: self._states.get(reference, _ABSENT))
        for assertion in transaction.assertions:
            if isinstance(assertion, VersionIs):
                checks.check_version(assertion)
            else:
                check_matches(assertion, self._page(assertion.first_page))
        checks.check_required()
        if transaction.released:
            checks.check_released(self._find_sources(transaction, writes))
        checks.check_reads()
        written = tuple([self._write(each) for each in drafts])
        if changes_registry(written):
            self._registry += 1
            self._connection.execute(RAISE_REGISTRY)
        found = tuple(self._read(reference) for reference in transaction.reads)
        return Committed(written, found, tuple(self._page(query) for query in transaction.queries))

    def _find_sources(self, transaction: Transaction, writes: dict[str, Write]) -> Iterator[tuple[str, str]]:
        """(target, source) of the current resources that refer to the released ones and are not written here."""
        self.flush()
        exempt = statements.as_json(self._names.code(self._connection, type) for type in transaction.exempt)
        touched = statements.as_json(writes)
        for target in transaction.released:
            state = self._states.get(target)
            values = (REFERENCES, state.rid if state else None, exempt, touched, SOURCES_SHOWN)
            for (source,) in self._connection.execute(_SOURCES, values).fetchall():
                yield target, source

    def _write(self, each: Draft) -> Written:
        write, state = each.write, self._states[each.reference]
        content = write.content
        if content is None and not state.live:
            return Written(write.type, write.id, 0, 0, False)
        created = content is not None and not state.live
        updated = max(self._now, state.updated + MILLISECOND)
        self._seq += 1
        state.version, state.updated, state.seq = state.version + 1, updated, self._seq
        state.live, state.method = content is not None, write.method
        self._dirty[each.reference] = state
        state.keys, state.columns, state.texts, state.raw = each.keys, each.columns, None, None
        if content is not None:
            state.texts = write.entries.texts
            state.raw = content.build_text(state.version, updated)
        type = self._names.of_type(write.type)[""]
        self._versions.append((self._seq, state.rid, state.version, type, updated, write.method, state.raw))
        return Written(write.type, write.id, state.version, updated, created)

    def _read(self, reference: str) -> Stored:
        state = self._states[reference]
        type, _, id = reference.partition("/")
        method, raw = state.method, state.raw
        if raw is None:
            statement = "SELECT method, raw FROM version WHERE seq = ?"
            method, raw = self._connection.execute(statement, (state.seq,)).fetchone()
        return Stored(type, id, state.version, state.updated, method, raw)

    def _page(self, query: Query) -> Page:
        self.flush()
        return self._search.page(query)

    def flush(self) -> None:
        """Write what is pending to the file."""
        if not self._versions:
            return
        connection, removed, added = self._connection, rows.IndexRows(), rows.IndexRows()
        resources, columns = [], []
        texts: list[fulltext.Kept] = []
        linked: set[str] = set()
        dirty, self._dirty = self._dirty, {}
        for reference, state in dirty.items():
            state.new = False
            codes = self._names.of_type(reference.partition("/")[0])
            row = (state.rid, reference, codes[""], state.version, state.updated, state.seq, int(not state.live))
            resources.append(row)
            if state.texts or state.stored is not None:
                texts.append((state.rid, codes[""], state.texts))
            if state.columns is not None and state.columns != state.stored:
                linked |= state.keys.targets
                self._index(state, codes, removed, added)
                columns.append((state.rid, *state.columns))
                state.stored = state.columns
        resources += self._absent(linked)
        statements.insert(connection, "resource", sorted(resources, key=itemgetter(1)))
        statements.insert(connection, "version", self._versions)
        statements.insert(connection, "entries", sorted(columns))
        statements.delete_index(connection, removed)
        statements.insert_index(connection, added)
        trigrams.settle(connection, removed, added)
        if texts:
            fulltext.keep(connection, texts)
        self._versions = []

    def _absent(self, linked: Iterable[str]) -> list[tuple[Any, ...]]:
        """Rows for the targets that were never stored, and are not being stored either."""
        found: list[tuple[Any, ...]] = []
        for reference in linked:
            state = self._states[reference]
            if state.new:
                state.new = False
                found.append(absent(state.rid, reference))
        return found

    def _index(self, state: State, codes: rows.Codes, removed: rows.IndexRows, added: rows.IndexRows) -> None:
        """The index rows between what the file has for a resource and what it should have."""
        if state.stored is None:
            added.add(state.keys, self._rids(state.keys), state.rid)
            return
        try:
            before = rows.keys_of(state.stored, codes)
        except KeyError:
            self._names.refresh(self._connection)  # another process stored this resource under newer names
            before = rows.keys_of(state.stored, codes)
        gone, fresh = before.without(state.keys), state.keys.without(before)
        removed.add(gone, self._rids(gone), state.rid)
        added.add(fresh, self._rids(fresh), state.rid)

    def _rids(self, keys: rows.Keys) -> dict[str, int]:
        try:
            return {target: self._states[target].rid for _, target in keys.links}
        except KeyError:
            self._learn(keys.targets - self._states.keys())
            return {target: self._states[target].rid for _, target in keys.links}
