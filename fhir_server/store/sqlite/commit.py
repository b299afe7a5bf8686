"""What one database transaction does: several transactions of the protocol, checked one after the other, written together.

The state of every resource that the group names is read at once, each transaction is checked and applied to it in
memory, and the rows of all go to the file together: few statements, sorted rows. A transaction is checked whole before
it changes anything, so a refused one leaves no trace and needs no savepoint. What is pending is flushed before a
query must see it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from fhir_server.search.query import Query
from fhir_server.store.operations import Assertion, Matches, Method, Transaction, VersionIs, Write, Written
from fhir_server.store.protocol import (
    AssertionFailed,
    Committed,
    Page,
    ReadFailed,
    StillReferenced,
    Stored,
    TargetsMissing,
)
from fhir_server.store.sqlite import rows
from fhir_server.store.sqlite.names import Names
from fhir_server.store.sqlite.schema import REFERENCES
from fhir_server.store.sqlite.search import Search

MILLISECOND = 1000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SOURCES_SHOWN = 10

_STATES = (
    "SELECT json_group_array(json_array(r.ref, r.rid, r.version, r.updated, r.seq, r.deleted))"
    " FROM json_each(?) j CROSS JOIN resource r WHERE r.ref = j.value"
)
_BODIES = (
    "SELECT json_group_array(json_array(e.rid, e.body)) FROM json_each(?) j CROSS JOIN entries e WHERE e.rid = j.value"
)
_NEXT = (
    "SELECT (SELECT max(rid) FROM resource), (SELECT max(seq) FROM version), (SELECT max(updated) FROM version),"
    " (SELECT value FROM meta WHERE key = 'purged_seq'), (SELECT value FROM meta WHERE key = 'purged_updated')"
)
_SOURCES = (
    "SELECT r.ref FROM term t CROSS JOIN resource r WHERE t.tp = ? AND t.value = ? AND r.rid = t.rid"
    " AND r.type NOT IN (SELECT value FROM json_each(?)) AND r.ref NOT IN (SELECT value FROM json_each(?)) LIMIT ?"
)


@dataclass(slots=True)
class State:
    """A resource as the group sees it; `stored` and `body` are its entries' JSON in the file and by now."""

    rid: int
    version: int = 0
    updated: int = 0
    seq: int = 0
    live: bool = False
    dirty: bool = False
    stored: str | None = None
    body: str = rows.NO_BODY
    tree: rows.Tree | None = None
    method: Method = "POST"
    raw: bytes | None = None


class Group:
    """One open database transaction of the writer."""

    def __init__(self, connection: sqlite3.Connection, names: Names, search: Search, now: int) -> None:
        self._connection = connection
        self._names = names
        self._search = search
        rid, seq, updated, purged_seq, purged_updated = connection.execute(_NEXT).fetchone()
        self._rid = rid or 0
        self._seq = max(seq or 0, purged_seq or 0)
        # Never below what any reader has seen: otherwise `_since` the newest version known could miss this one.
        self._now = max(now // MILLISECOND * MILLISECOND, updated or 0, purged_updated or 0)
        self._states: dict[str, State] = {}
        self._versions: list[tuple[Any, ...]] = []
        self._stamps: dict[int, str] = {}

    def load(self, transactions: Iterable[Transaction]) -> None:
        """Read the state of every resource that the transactions name, and number the new ones."""
        written: set[str] = set()
        named: set[str] = set()
        for transaction in transactions:
            written.update([f"{write.type}/{write.id}" for write in transaction.writes])
            named.update(transaction.required, transaction.reads)
            named.update(f"{a.type}/{a.id}" for a in transaction.assertions if isinstance(a, VersionIs))
        found = self._read_states(sorted(written | named))
        existing = [found[reference].rid for reference in written & found.keys()]
        if existing:
            bodies = dict(self._one_json(_BODIES, rows.as_json(sorted(existing))))
            for reference in written & found.keys():
                state = found[reference]
                state.body = state.stored = bodies.get(state.rid, rows.NO_BODY)
        # Numbered in the order of the references: both B-trees of `resource` are filled in key order.
        for reference in sorted(written - found.keys()):
            self._rid += 1
            found[reference] = State(self._rid)
        self._states = found

    def _read_states(self, references: Sequence[str]) -> dict[str, State]:
        return {
            reference: State(rid, version, updated, seq, not deleted)
            for reference, rid, version, updated, seq, deleted in self._one_json(_STATES, rows.as_json(references))
        }

    def _one_json(self, statement: str, parameter: str) -> list[Any]:
        found: list[Any] = orjson.loads(self._connection.execute(statement, (parameter,)).fetchone()[0])
        return found

    def run(self, transaction: Transaction) -> Committed:
        """Check and apply one transaction. Raises the protocol's errors; then it has changed nothing."""
        writes = {f"{write.type}/{write.id}": write for write in transaction.writes}
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
        written = tuple([self._write(reference, write) for reference, write in writes.items()])
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
        exempt = rows.as_json(self._names.code(self._connection, type) for type in transaction.exempt)
        touched = rows.as_json(writes)
        sources: dict[str, list[str]] = {}
        for target in transaction.released:
            values = (REFERENCES, target, exempt, touched, _SOURCES_SHOWN)
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

    def _write(self, reference: str, write: Write) -> Written:
        state, content = self._states[reference], write.content
        if content is None and not state.live:
            return Written(write.type, write.id, 0, 0, False)
        created = content is not None and not state.live
        updated = max(self._now, state.updated + MILLISECOND)
        self._seq += 1
        state.version, state.updated, state.seq = state.version + 1, updated, self._seq
        state.live, state.method, state.dirty = content is not None, write.method, True
        if content is None:
            state.raw, state.tree, state.body = None, None, rows.NO_BODY
        else:
            member = f'"versionId":"{state.version}","lastUpdated":"{self._stamp(updated)}"'
            state.raw = b"".join((content.head, member.encode(), content.tail))
            state.tree = rows.tree_of(write.entries)
            state.body = rows.body_of(state.tree)
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
        resources, bodies = [], []
        for reference in sorted(reference for reference, state in self._states.items() if state.dirty):
            state = self._states[reference]
            state.dirty = False
            codes = self._names.of_type(reference.partition("/")[0])
            row = (state.rid, reference, codes[""], state.version, state.updated, state.seq, int(not state.live))
            resources.append(row)
            if state.body != state.stored:
                self._index(state, codes, removed, added)
                bodies.append((state.rid, state.body))
                state.stored = state.body
        rows.insert(connection, "resource", resources)
        rows.insert(connection, "version", self._versions)
        rows.insert(connection, "entries", bodies)
        rows.delete_index(connection, removed)
        rows.insert_index(connection, added)
        self._versions = []

    def _index(self, state: State, codes: dict[str, int], removed: rows.IndexRows, added: rows.IndexRows) -> None:
        """The index rows between what the file has for a resource and what it should have."""
        if state.stored is None or state.stored == rows.NO_BODY:
            added.add(state.tree or {}, codes, state.rid)
            return
        gone, fresh = rows.changed(orjson.loads(state.stored), orjson.loads(state.body))
        if any(gone.get(part, {}).keys() - codes.keys() for part in "tdn"):
            self._names.refresh(self._connection)  # another process stored this resource under newer names
        removed.add(gone, codes, state.rid)
        added.add(fresh, codes, state.rid)
