"""What this process wrote last, by which an assertion about a search is checked without running the search.

The assertion names the state in which the search found its matches (`Matches.seen`). When no other process has written
meanwhile, everything that was written since is known: the assertion holds when each of these writes matches exactly
where the assertion names it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from itertools import chain, takewhile
from typing import NamedTuple

from fhir_server.search import query as q
from fhir_server.search.entries import Entries
from fhir_server.search.match import Candidate, CurrentResources, compile_predicate
from fhir_server.store.operations import Matches

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


class _NoOthers:
    """The clauses look at no other resource."""

    def resolve(self, reference: str) -> Candidate | None:
        return None

    def iterate_type(self, type: str) -> Iterable[Candidate]:
        return ()


_NO_OTHERS: CurrentResources = _NoOthers()


class RecentWrites:
    """The last writes without a gap in their numbers, for whoever has the writing connection."""

    def __init__(self) -> None:
        self._writes: deque[WrittenEntries] = deque()
        self._before = 0
        self._data_version: int | None = None

    def begin(self, newest: int, data_version: int) -> None:
        """Note the number of the newest version in the file; what came before is forgotten where others changed it.

        `data_version`: the number of https://www.sqlite.org/pragma.html#pragma_data_version for the writing connection.
        """
        if data_version != self._data_version:
            self._writes.clear()
            # a purge leaves the newest number as it was: what was seen under that number is not known either
            self._before, self._data_version = newest + 1, data_version

    def forget(self) -> None:
        """Know nothing: resources were removed or indexed anew."""
        self._data_version = None

    def add(self, writes: Iterable[WrittenEntries]) -> None:
        """Add what was committed."""
        self._writes.extend(writes)
        while len(self._writes) > _KEPT:
            self._before = self._writes.popleft().seq

    def can_check(self, assertion: Matches) -> bool:
        """Whether an assertion can be checked here, if no other process has written."""
        (scope,) = assertion.query.scopes
        if self._data_version is None or assertion.seen is None or assertion.seen < self._before:
            return False
        return _is_plain(scope.where)

    def holds(self, assertion: Matches, own: Sequence[WrittenEntries]) -> bool:
        """Whether an assertion certainly holds; `own`: what the open transaction has written."""
        if not self.can_check(assertion):
            return False
        (scope,) = assertion.query.scopes
        seen = assertion.seen or 0
        latest: dict[str, Entries | None] = {}
        for write in takewhile(lambda each: each.seq > seen, chain(reversed(own), reversed(self._writes))):
            if write.type == scope.type:
                latest.setdefault(write.id, write.entries)
        if not latest:
            return True
        matches, ids = compile_predicate(scope.where, _NO_OTHERS), frozenset(assertion.ids)
        return all(
            (entries is not None and matches(Candidate(scope.type, id, 0, entries))) == (id in ids)
            for id, entries in latest.items()
        )


def _is_plain(clause: q.Clause) -> bool:
    if isinstance(clause, q.And | q.Or | q.Not):
        return all(map(_is_plain, q.iterate_children(clause)))
    return isinstance(clause, _LEAVES)
