"""What one database transaction does: several transactions of the protocol, checked in turn and written together.

The state of every resource that the group names is read at once, each transaction is checked and applied to it in
memory, and the rows of all go to the file together: few statements, sorted rows. A transaction is checked whole before
it changes anything, so a refused one leaves no trace and needs no savepoint. What is pending is flushed before a
query must see it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Any, NamedTuple

from fhir_server.search.entries import TextParameter
from fhir_server.search.query import Query
from fhir_server.store.operations import Assertion, Matches, Method, Transaction, VersionIs, Write, Written
from fhir_server.store.protocol import (
    SEARCH_PARAMETER,
    AssertionFailed,
    Committed,
    Page,
    ReadFailed,
    RegistryChanged,
    StillReferenced,
    Stored,
    TargetsMissing,
)
from fhir_server.store.sqlite import fulltext, rows, statements, trigrams
from fhir_server.store.sqlite.interned_names import Names
from fhir_server.store.sqlite.link_targets import absent
from fhir_server.store.sqlite.schema import REFERENCES
from fhir_server.store.sqlite.search import Search

MILLISECOND = 1000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SOURCES_SHOWN = 10

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
        self._stamps: dict[int, str] = {}

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
        if transaction.registry not in (None, self._registry):
            raise RegistryChanged(f"the registry is {self._registry}, not {transaction.registry}")
        writes = {each.reference: each.write for each in drafts}
        for assertion in transaction.assertions:
            if not self._holds(assertion):
                raise AssertionFailed(assertion)
        missing = [target for target in dict.fromkeys(transaction.required) if not self._exists(target, writes)]
        if missing:
            raise TargetsMissing(missing)
        if transaction.released:
            self._check_released(transaction, writes)
        for reference in transaction.reads:
            if not self._exists(reference, writes):
                raise ReadFailed(reference, deleted=self._version(reference) > 0)
        written = tuple([self._write(each) for each in drafts])
        if any(each.type == SEARCH_PARAMETER and each.version for each in written):
            self._registry += 1
            self._connection.execute(RAISE_REGISTRY)
        found = tuple(self._read(reference) for reference in transaction.reads)
        return Committed(written, found, tuple(self._page(query) for query in transaction.queries))

    def _version(self, reference: str) -> int:
        state = self._states.get(reference)
        return state.version if state else 0

    def _exists(self, reference: str, writes: dict[str, Write]) -> bool:
        write = writes.get(reference)
        if write is not None:
            return write.content is not None
        state = self._states.get(reference)
        return state is not None and state.live

    def _holds(self, assertion: Assertion) -> bool:
        if isinstance(assertion, VersionIs):
            return self._version(f"{assertion.type}/{assertion.id}") == assertion.version
        return self._finds(assertion)

    def _finds(self, assertion: Matches) -> bool:
        query = replace(assertion.query, sort=(), after=None, count=len(assertion.ids) + 1)
        return tuple(match.id for match in self._page(query).matches) == assertion.ids

    def _check_released(self, transaction: Transaction, writes: dict[str, Write]) -> None:
        self.flush()
        exempt = statements.as_json(self._names.code(self._connection, type) for type in transaction.exempt)
        touched = statements.as_json(writes)
        sources: dict[str, list[str]] = {}
        for target in transaction.released:
            state = self._states.get(target)
            values = (REFERENCES, state.rid if state else None, exempt, touched, _SOURCES_SHOWN)
            found = [source for (source,) in self._connection.execute(_SOURCES, values).fetchall()]
            found += [
                source
                for source, write in writes.items()
                if write.content is not None and write.type not in transaction.exempt
                if target in write.entries.references
            ]
            if found:
                sources[target] = sorted(found)[:_SOURCES_SHOWN]
        if sources:
            raise StillReferenced(sources)

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
            member = f'"versionId":"{state.version}","lastUpdated":"{self._stamp(updated)}"'
            state.raw = b"".join((content.head, member.encode(), content.tail))
        type = self._names.of_type(write.type)[""]
        self._versions.append((self._seq, state.rid, state.version, type, updated, write.method, state.raw))
        return Written(write.type, write.id, state.version, updated, created)

    def _stamp(self, updated: int) -> str:
        text = self._stamps.get(updated)
        if text is None:
            moment = _EPOCH + timedelta(microseconds=updated)
            text = self._stamps[updated] = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return text

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
