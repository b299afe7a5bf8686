"""What this process wrote last, by which an assertion about a search is checked without running the search.

The assertion names the state in which the search found its matches (`Matches.seen`). Everything that was written since
is known, what other processes wrote is read first: the assertion holds when each of these writes matches exactly where
the assertion names it.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import NamedTuple

from fhir_server.search import query as q
from fhir_server.search.entries import Entries
from fhir_server.search.match import NO_OTHERS, Candidate, Predicate, compile_predicate
from fhir_server.store.operations import Matches
from fhir_server.store.sqlite.catch_up import read_versions

_KEPT = 1000
"""Writes that are kept."""

_LEAVES = (q.Equals, q.StartsWith, q.DateRange, q.TermRange, q.Present, q.Ids)
"""Clauses that the entries of one resource decide."""


class WrittenEntries(NamedTuple):
    """One version: its number, resource and index entries (None: a deletion)."""

    seq: int
    type: str
    id: str
    entries: Entries | None


class Position(NamedTuple):
    """Where the file stands: the largest number of a resource, and of a version with its time (µs), those purged since
    included; the number of the registry, and how often something else than a version changed what searches find.
    """

    rid: int
    seq: int
    updated: int
    registry: int
    upkeep: int


_NEXT = (
    "SELECT (SELECT max(rid) FROM resource), (SELECT max(seq) FROM version), (SELECT max(updated) FROM version),"
    " (SELECT value FROM meta WHERE key = 'purged_seq'), (SELECT value FROM meta WHERE key = 'purged_updated'),"
    " (SELECT value FROM meta WHERE key = 'registry'), (SELECT value FROM meta WHERE key = 'upkeep')"
)


def _read_position(connection: sqlite3.Connection) -> Position:
    rid, seq, updated, purged_seq, purged_updated, registry, upkeep = connection.execute(_NEXT).fetchone()
    newest = max(updated or 0, purged_updated or 0)
    return Position(rid or 0, max(seq or 0, purged_seq or 0), newest, registry, upkeep or 0)


class RecentWrites:
    """The last writes without a gap in their numbers, for whoever has the writing connection."""

    def __init__(self) -> None:
        self._writes: deque[WrittenEntries] = deque()
        self._before = 0
        self._position = Position(0, 0, 0, 0, 0)
        self._data_version: int | None = None

    def begin(self, connection: sqlite3.Connection) -> Position:
        """In the open transaction: add what others wrote, and tell where the file stands.

        What came before is forgotten where that is much, or where something else than a version changed
        (`upkeep.COUNT_UPKEEP`).
        """
        # changes where another connection wrote: https://www.sqlite.org/pragma.html#pragma_data_version
        data_version: int = connection.execute("PRAGMA data_version").fetchone()[0]
        if data_version == self._data_version:
            return self._position
        position = _read_position(connection)
        unknown = self._data_version is None or position.upkeep != self._position.upkeep
        others = None if unknown else read_versions(connection, self._position.seq, position.seq)
        if others is None:
            self._writes.clear()
            # a purge leaves the newest number as it was: what was seen under that number is not known either
            self._before = position.seq + 1
        else:
            self._add(WrittenEntries(seq, stored.type, stored.id, entries) for seq, stored, entries in others)
        self._data_version, self._position = data_version, position
        return position

    def forget(self) -> None:
        """Know nothing: resources were removed or indexed anew."""
        self._data_version = None

    def add(self, writes: Iterable[WrittenEntries], position: Position) -> None:
        """Add what was committed, and where the file stands since."""
        self._add(writes)
        self._position = position

    def _add(self, writes: Iterable[WrittenEntries]) -> None:
        self._writes.extend(writes)
        while len(self._writes) > _KEPT:
            self._before = self._writes.popleft().seq

    def can_check(self, assertion: Matches) -> bool:
        """Whether an assertion can be checked here, if no other process has written."""
        (scope,) = assertion.query.scopes
        return self._knows(assertion) and compile_plain(scope.where) is not None

    def _knows(self, assertion: Matches) -> bool:
        """Whether everything that was written since what an assertion has seen is known."""
        return self._data_version is not None and assertion.seen is not None and assertion.seen >= self._before

    def holds(self, assertion: Matches, own: Sequence[WrittenEntries]) -> bool:
        """Whether an assertion certainly holds; `own`: what the open transaction has written."""
        (scope,) = assertion.query.scopes
        known = _compile(scope.where)
        if known.matches is None or not self._knows(assertion):
            return False
        type, seen = scope.type, assertion.seen or 0
        latest: dict[str, Entries | None] = {}
        for seq, written, id, entries in chain(reversed(own), reversed(self._writes)):
            if seq <= seen:
                break
            if written == type and id not in latest:
                latest[id] = entries
        if not latest:
            return True
        ids = frozenset(assertion.ids)
        if assertion.versions is not None and not ids.isdisjoint(latest):
            return False  # what matched has another version now
        for id, entries in latest.items():
            # most of what is written at one time is about somebody else
            if entries is None or known.lacks_term(entries.terms.get(known.parameter, ())):
                matches = False
            else:
                matches = known.matches(Candidate(type, id, 0, entries))
            if matches != (id in ids):
                return False
        return True


def compile_plain(clause: q.Clause) -> Predicate | None:
    """The clause as a function of a candidate; None where the entries of one resource alone do not tell.

    The same clause is asked about several times in one booking: it is known by what it is, as hashing it takes longer.
    """
    return _compile(clause).matches


class _Compiled(NamedTuple):
    """A clause as a function, None where that is not plain.

    What `lacks_term` is true of, asked about the terms of `parameter`, does not match.
    """

    clause: q.Clause
    matches: Predicate | None
    parameter: str
    lacks_term: Callable[[Iterable[str]], bool]


def _compile(clause: q.Clause) -> _Compiled:
    known = _compiled.get(id(clause))
    if known is None or known.clause is not clause:
        if len(_compiled) >= _MOST_COMPILED:
            _compiled.clear()
        matches = compile_predicate(clause, NO_OTHERS) if _is_plain(clause) else None
        known = _compiled[id(clause)] = _Compiled(clause, matches, *_find_term(clause))
    return known


def _find_term(clause: q.Clause) -> tuple[str, Callable[[Iterable[str]], bool]]:
    """A parameter, and whether terms are none of those of which each match has one."""
    for part in clause.clauses if isinstance(clause, q.And) else (clause,):
        if isinstance(part, q.Equals):
            return part.parameter, frozenset(part.terms).isdisjoint
    return "", lambda terms: False


_MOST_COMPILED = 4096
_compiled: dict[int, _Compiled] = {}


def _is_plain(clause: q.Clause) -> bool:
    if isinstance(clause, q.And | q.Or | q.Not):
        return all(map(_is_plain, q.iterate_children(clause)))
    return isinstance(clause, _LEAVES)
