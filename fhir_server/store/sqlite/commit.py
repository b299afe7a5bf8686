"""The group commit: several transactions of the protocol, checked in turn and written in one database transaction.

The state of every resource that the group names is read at once, each transaction is checked and applied to it in
memory, and the rows of all go to the file together: few statements, sorted rows. A transaction is checked whole before
it changes anything, so a refused one leaves no trace and needs no savepoint. Pending rows are flushed before a query
that must see them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, NamedTuple

from fhir_server.search.entries import TextParameter
from fhir_server.search.query import Query
from fhir_server.store.checks import SOURCES_SHOWN, Checks, changes_registry, check_matches, check_registry, check_value
from fhir_server.store.operations import Matches, Method, Transaction, ValueIs, VersionIs, Write, Written
from fhir_server.store.protocol import AssertionFailed, Committed, Page, Stored
from fhir_server.store.sqlite import fulltext, rows, statements, trigrams, values
from fhir_server.store.sqlite.interned_names import Names
from fhir_server.store.sqlite.recent import Position, RecentWrites, WrittenEntries
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
_SOURCES = (
    "SELECT r.ref FROM link l CROSS JOIN resource r WHERE l.tp = ? AND l.target = ? AND r.rid = l.rid"
    " AND r.type NOT IN (SELECT value FROM json_each(?)) AND r.ref NOT IN (SELECT value FROM json_each(?)) LIMIT ?"
)


class Draft(NamedTuple):
    """A write with its entries as keys and columns, and the numbers of its type; made before the lock is taken."""

    write: Write
    reference: str
    keys: rows.Keys
    columns: rows.Columns
    codes: rows.Codes


_NO_KEYS = rows.Keys()
_NO_COLUMNS: rows.Columns = ("{}", "{}", "{}")


def make_draft(write: Write, names: Names) -> Draft:
    """The draft of a write. Raises KeyError when the type or a parameter has no number yet."""
    codes = names.get_codes(write.type)
    keys, columns = _NO_KEYS, _NO_COLUMNS
    if write.content is not None:
        keys, columns = rows.entries_to_keys(write.entries, codes)
    return Draft(write, f"{write.type}/{write.id}", keys, columns, codes)


@dataclass(slots=True)
class State:
    """A resource as the group sees it; `new`: it has no row in `resource` yet.

    `stored`, `columns`: its entries in the file and after the writes; `codes`: the numbers of its type, once it is
    written; `texts`: those of its entries.
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
    codes: rows.Codes | None = None
    texts: Mapping[TextParameter, str] | None = None
    method: Method = "POST"
    raw: bytes | None = None


_ABSENT = State(0)


def make_absent_row(rid: int, reference: str) -> tuple[int | str, ...]:
    """The row of `resource` for a target that was never stored."""
    return rid, reference, 0, 0, 0, 0, 1


def write_index(
    connection: sqlite3.Connection,
    entries: Sequence[rows.Row],
    removed: rows.IndexRows,
    added: rows.IndexRows,
    texts: Sequence[fulltext.ResourceTexts],
) -> None:
    """Write the changed entries of resources and all their index rows, in the open transaction."""
    statements.insert(connection, "entries", entries)
    statements.delete_index(connection, removed)
    statements.insert_index(connection, added)
    trigrams.update_trigrams(connection, removed, added)
    if texts:
        fulltext.replace_texts(connection, texts)


class Unsure(Exception):
    """An assertion can be checked by a search alone."""


class Group:
    """One open database transaction of the writer."""

    def __init__(
        self, connection: sqlite3.Connection, names: Names, search: Search, now: int, recent: RecentWrites
    ) -> None:
        self._connection = connection
        self._recent = recent
        self.written: list[WrittenEntries] = []
        self._names = names
        self._search = search
        position = recent.begin(connection)
        self._rid, self._seq, _, self._registry, self._upkeep = position
        # Never below what any reader has seen: otherwise `_since` the newest version known could miss this one.
        self._now = max(now // MILLISECOND * MILLISECOND, position.updated)
        self._newest = position.updated
        self._clock_now = now
        self._values: dict[str, bytes | None] = {}
        self._states: dict[str, State] = {}
        self._dirty: dict[str, State] = {}
        self._versions: list[tuple[Any, ...]] = []
        self._flushed: list[tuple[Any, ...]] = []

    @property
    def position(self) -> Position:
        """Where the file stands once this is committed."""
        return Position(self._rid, self._seq, self._newest, self._registry, self._upkeep)

    def list_stored(self) -> list[Stored]:
        """The versions of `written`, once they are flushed."""
        return [
            Stored(write.type, write.id, version, updated, method, raw)
            for write, (_, _, version, _, updated, method, raw) in zip(self.written, self._flushed, strict=True)
        ]

    def load(self, prepared: Sequence[tuple[Transaction, Sequence[Draft]]]) -> None:
        """Read the state of every resource that transactions and their drafts name or link to; number the new ones."""
        targets: set[str] = set()
        checked: set[str] = set()
        written: set[str] = set()
        for transaction, drafts in prepared:
            for draft in drafts:
                written.add(draft.reference)
                targets |= draft.keys.targets
            checked.update(transaction.required, transaction.reads, transaction.released)
            checked.update(f"{a.type}/{a.id}" for a in transaction.assertions if isinstance(a, VersionIs))
        targets |= written
        self._load_states(targets | checked)
        existing = {
            state.rid: state for name in written if (state := self._states.get(name)) is not None and state.live
        }
        if existing:
            for rid, quick, terms, numbers in statements.read_json(self._connection, _COLUMNS, sorted(existing)):
                existing[rid].stored = quick, terms, numbers
        # Numbered in the order of the references: both B-trees of `resource` are filled in key order.
        for reference in sorted(targets - self._states.keys()):
            self._rid += 1
            self._states[reference] = State(self._rid, new=True)

    def _load_states(self, references: Iterable[str]) -> None:
        for reference, rid, version, updated, seq, deleted in statements.read_json(
            self._connection, _STATES, sorted(references)
        ):
            self._states[reference] = State(rid, version, updated, seq, not deleted)

    def run(self, transaction: Transaction, drafts: Sequence[Draft], searches: bool = True) -> Committed:
        """Check and apply one transaction. Raises the protocol's errors; then it has changed nothing.

        `searches` False: raises Unsure for an assertion that only a search can check.
        """
        check_registry(transaction.registry, self._registry)
        writes = {draft.reference: draft.write for draft in drafts}
        checks = Checks(transaction, writes, lambda reference: self._states.get(reference, _ABSENT))
        for assertion in transaction.assertions:
            if isinstance(assertion, VersionIs):
                checks.check_version(assertion)
            elif isinstance(assertion, ValueIs):
                check_value(assertion, self._read_value(assertion.key))
            elif not self._recent.holds(assertion, self.written):
                if not searches:
                    raise Unsure
                self._check_matches(assertion)
        checks.check_required()
        if transaction.released:
            checks.check_released(self._find_sources(transaction, writes))
        checks.check_reads()
        written = tuple([self._write(draft) for draft in drafts])
        if changes_registry(written):
            self._registry += 1
            self._connection.execute(RAISE_REGISTRY)
        reads = tuple(self._read(reference) for reference in transaction.reads)
        return Committed(written, reads, tuple(self._find_page(query) for query in transaction.queries))

    def _find_sources(self, transaction: Transaction, writes: Mapping[str, Write]) -> Iterator[tuple[str, str]]:
        """(target, source) of the current resources that refer to the released ones and are not written here."""
        self.flush()
        exempt = statements.format_json(self._names.find_code(self._connection, type) for type in transaction.exempt)
        references = statements.format_json(writes)
        for target in transaction.released:
            state = self._states.get(target)
            values = (REFERENCES, state.rid if state else None, exempt, references, SOURCES_SHOWN)
            for (source,) in self._connection.execute(_SOURCES, values).fetchall():
                yield target, source

    def _read_value(self, key: str) -> bytes | None:
        """What is under a key, which nothing changes in this database transaction."""
        if key not in self._values:
            self._values[key] = values.read_value(self._connection, key, self._clock_now)
        return self._values[key]

    def _write(self, draft: Draft) -> Written:
        write, state = draft.write, self._states[draft.reference]
        content = write.content
        if content is None and not state.live:
            return Written(write.type, write.id, 0, 0, False)
        created = content is not None and not state.live
        updated = max(self._now, state.updated + MILLISECOND)
        self._seq += 1
        self._newest = max(self._newest, updated)
        state.version, state.updated, state.seq = state.version + 1, updated, self._seq
        state.live, state.method = content is not None, write.method
        self._dirty[draft.reference] = state
        state.keys, state.columns, state.codes = draft.keys, draft.columns, draft.codes
        state.texts = state.raw = None
        if content is not None:
            state.texts = write.entries.texts
            state.raw = content.build_text(state.version, updated)
        self.written.append(WrittenEntries(self._seq, write.type, write.id, write.entries if content else None))
        self._versions.append((self._seq, state.rid, state.version, draft.codes[""], updated, write.method, state.raw))
        return Written(write.type, write.id, state.version, updated, created)

    def _read(self, reference: str) -> Stored:
        state = self._states[reference]
        type, _, id = reference.partition("/")
        method, raw = state.method, state.raw
        if raw is None:
            statement = "SELECT method, raw FROM version WHERE seq = ?"
            method, raw = self._connection.execute(statement, (state.seq,)).fetchone()
        return Stored(type, id, state.version, state.updated, method, raw)

    def _find_page(self, query: Query) -> Page:
        self.flush()
        return self._search.find_page(query)

    def _check_matches(self, assertion: Matches) -> None:
        if assertion.ids:
            check_matches(assertion, self._find_page(assertion.first_page))
            return
        self.flush()
        if self._search.has_match(assertion.query.scopes[0]):
            raise AssertionFailed(assertion)

    def flush(self) -> None:
        """Write the pending rows to the file."""
        if not self._versions:
            return
        connection, removed, added = self._connection, rows.IndexRows(), rows.IndexRows()
        resources, entries = [], []
        texts: list[fulltext.ResourceTexts] = []
        linked: set[str] = set()
        dirty, self._dirty = self._dirty, {}
        for reference, state in dirty.items():
            state.new = False
            codes = state.codes
            assert codes is not None
            row = (state.rid, reference, codes[""], state.version, state.updated, state.seq, int(not state.live))
            resources.append(row)
            if state.texts or state.stored is not None:
                texts.append((state.rid, codes[""], state.texts))
            if state.columns is not None and state.columns != state.stored:
                linked |= state.keys.targets
                self._compare(state, codes, removed, added)
                entries.append((state.rid, *state.columns))
                state.stored = state.columns
        resources += self._make_absent_rows(linked)
        statements.insert(connection, "resource", sorted(resources, key=itemgetter(1)))
        statements.insert(connection, "version", self._versions)
        write_index(connection, sorted(entries), removed, added, texts)
        self._flushed += self._versions
        self._versions = []

    def _make_absent_rows(self, linked: Iterable[str]) -> list[tuple[Any, ...]]:
        """Rows for the targets that were never stored, and are not being stored either."""
        absent: list[tuple[Any, ...]] = []
        for reference in linked:
            state = self._states[reference]
            if state.new:
                state.new = False
                absent.append(make_absent_row(state.rid, reference))
        return absent

    def _compare(self, state: State, codes: rows.Codes, removed: rows.IndexRows, added: rows.IndexRows) -> None:
        """Add the differences between the index rows of a resource in the file and those after the writes."""
        if state.stored is None:
            added.add(state.keys, self._find_rids(state.keys), state.rid)
            return
        try:
            before = rows.columns_to_keys(state.stored, codes)
        except KeyError:
            self._names.refresh(self._connection)  # another process stored this resource under newer names
            before = rows.columns_to_keys(state.stored, codes)
        gone, fresh = before.subtract(state.keys), state.keys.subtract(before)
        removed.add(gone, self._find_rids(gone), state.rid)
        added.add(fresh, self._find_rids(fresh), state.rid)

    def _find_rids(self, keys: rows.Keys) -> dict[str, int]:
        try:
            return {target: self._states[target].rid for _, target in keys.links}
        except KeyError:
            self._load_states(keys.targets - self._states.keys())
            return {target: self._states[target].rid for _, target in keys.links}
