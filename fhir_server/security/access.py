"""Reading as a principal: all that is read for an answer is read through a `Reader`, which applies the access policy.

What the policy hides is absent: a search does not find it, a chain does not lead through it, a read answers as if it
had never been stored. Restrictions speak of the resource itself; they hold no chains.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from fhir_server.search.entries import Entries
from fhir_server.search.match import Candidate, matches
from fhir_server.search.query import (
    EVERYTHING,
    NOTHING,
    And,
    CanonicalChain,
    CanonicalHas,
    Chain,
    Clause,
    Equals,
    Has,
    Not,
    Query,
    Scope,
    rewrite_clause,
)
from fhir_server.store.protocol import HistoryPage, HistoryQuery, Page, Store, Stored

IndexEntries = Callable[[str, dict[str, Any]], Entries]
"""(type, resource) → its index entries."""

Run = Callable[..., Awaitable[bool]]
"""(size in bytes, function, arguments) → what the function gives; where the size is large, out of a thread."""

_IN_A_ROW = 20
"""Resources that are looked at before others get a turn."""

HISTORY_PAGES = 20
"""Pages of hidden versions that one history request skips before it answers with a shorter page."""


class _NoNeighbours:
    """No other resources: a restriction is about the resource itself and follows no reference."""

    def resolve(self, reference: str) -> Candidate | None:
        return None

    def iterate_type(self, type: str) -> Iterable[Candidate]:
        return ()


@dataclass(frozen=True, slots=True)
class Restrictions:
    """What a policy lets a principal see: clauses by type, and how a resource is indexed to test them."""

    clause_of: Callable[[str], Clause]
    """Type → what may be read."""
    search_clause_of: Callable[[str], Clause]
    criteria_clause_of: Callable[[str], Clause]
    index: IndexEntries
    types: tuple[str, ...]
    run: Run

    async def shows(self, stored: Stored) -> bool:
        """Whether the content of a version (not a deletion) may be seen."""
        clause = self.clause_of(stored.type)
        return await self.run(len(stored.raw or b""), matches_restriction, clause, stored, self.index)

    def restrict(self, scope: Scope) -> Scope:
        """The scope without what is hidden, which is neither found nor followed by a chain."""
        return Scope(scope.type, conjoin(self.restrict_links(scope.where), self.search_clause_of(scope.type)))

    def restrict_links(self, clause: Clause) -> Clause:
        """The clause whose chains and reverse chains lead through visible resources alone."""
        restricted = rewrite_clause(clause, self.restrict_links)
        if isinstance(restricted, Chain | Has | CanonicalChain | CanonicalHas):
            return replace(restricted, where=conjoin(restricted.where, self.search_clause_of(restricted.type)))
        return restricted


def matches_restriction(clause: Clause, stored: Stored, index: IndexEntries) -> bool:
    """Whether the content of a version matches a clause of a policy."""
    if clause in (EVERYTHING, NOTHING):
        return clause == EVERYTHING
    if not may_be_labelled(stored.raw or b"") and asks_for_no_label(clause):
        return True
    return allows_entries(clause, stored.type, stored.id, index(stored.type, orjson.loads(stored.raw or b"{}")))


def may_be_labelled(raw: bytes) -> bool:
    """Whether a resource's text may hold `security`; names may be written with escapes as well."""
    return b'"security"' in raw or b"\\u" in raw


def asks_for_no_label(clause: Clause) -> bool:
    """Whether all that a clause says is that the resource has none of some security labels."""
    if isinstance(clause, And):
        return all(map(asks_for_no_label, clause.clauses))
    return isinstance(clause, Not) and isinstance(clause.clause, Equals) and clause.clause.parameter == "_security"


def allows_entries(clause: Clause, type: str, id: str, entries: Entries) -> bool:
    """Whether a resource with these index entries matches a clause of a policy."""
    return matches(clause, Candidate(type, id, 0, entries), _NoNeighbours())


def conjoin(clause: Clause, restriction: Clause) -> Clause:
    """Both clauses; only one where the other matches everything."""
    if restriction == EVERYTHING:
        return clause
    return restriction if clause == EVERYTHING else And((clause, restriction))


class Reader:
    """The reads of a store as one principal sees them; with `restrictions` None, everything is visible."""

    __slots__ = ("_restrictions", "_store")

    def __init__(self, store: Store, restrictions: Restrictions | None) -> None:
        self._store = store
        self._restrictions = restrictions

    def hides(self, type: str) -> bool:
        """Whether the whole type is hidden."""
        return self._restrictions is not None and self._restrictions.clause_of(type) == NOTHING

    async def read(self, type: str, id: str) -> Stored | None:
        """See `Store.read`; None for what is hidden."""
        stored = await self._store.read(type, id)
        return stored if stored is None or self._restrictions is None or await self._is_visible(stored) else None

    async def vread(self, type: str, id: str, version: int) -> Stored | None:
        """See `Store.vread`; None for a version whose content is hidden."""
        stored = await self._store.vread(type, id, version)
        return stored if stored is None or self._restrictions is None or await self._is_visible(stored) else None

    async def read_many(self, references: Iterable[str], deletions: bool = False) -> Mapping[str, Stored]:
        """See `Store.read_many`; without what is hidden."""
        found = await self._store.read_many(references, deletions)
        if self._restrictions is None:
            return found
        visible: dict[str, Stored] = {}
        for position, (reference, stored) in enumerate(found.items()):
            if await self._is_visible_in_turn(stored, position):
                visible[reference] = stored
        return visible

    def restrict(self, query: Query) -> Query:
        """The query that finds only visible resources; for the searches of a transaction after its writes."""
        if self._restrictions is None:
            return query
        return replace(query, scopes=tuple(map(self._restrictions.restrict, query.scopes)))

    def restrict_clause(self, type: str, clause: Clause) -> Clause:
        """The clause of a search for `type` without what is hidden."""
        return clause if self._restrictions is None else self._restrictions.restrict(Scope(type, clause)).where

    def restrict_criteria(self, type: str, clause: Clause) -> Clause:
        """The criteria of a conditional write without what is hidden."""
        restrictions = self._restrictions
        if restrictions is None:
            return clause
        return conjoin(restrictions.restrict_links(clause), restrictions.criteria_clause_of(type))

    async def search(self, query: Query) -> Page:
        """See `Store.search`."""
        await self._make_clauses([scope.type for scope in query.scopes])
        return await self._store.search(self.restrict(query))

    async def count(self, query: Query) -> int:
        """See `Store.count`."""
        await self._make_clauses([scope.type for scope in query.scopes])
        return await self._store.count(self.restrict(query))

    async def find_matching(self, references: Sequence[str], where: Clause) -> frozenset[str]:
        """See `Store.find_matching`."""
        if self._restrictions is not None and references:
            where = self._restrictions.restrict(Scope(references[0].partition("/")[0], where)).where
        return await self._store.find_matching(references, where)

    async def history(self, query: HistoryQuery) -> HistoryPage:
        """See `Store.history`; hidden versions are skipped, so that a page may be shorter than `count`."""
        restrictions = self._restrictions
        if restrictions is None:
            return await self._store.history(query)
        await self._make_clauses(query.types or restrictions.types)
        types = tuple(each for each in query.types or restrictions.types if restrictions.clause_of(each) != NOTHING)
        if not types:
            horizon = (await self._store.history(HistoryQuery(count=1))).horizon
            return HistoryPage((), None, horizon)
        visible: list[Stored] = []
        following, horizon = replace(query, types=types), 0
        for _ in range(HISTORY_PAGES):
            page = await self._store.history(following)
            horizon = horizon or page.horizon
            for position, version in enumerate(page.versions):
                if await self._is_visible_in_turn(version, position):
                    visible.append(version)
                if len(visible) == query.count and (page.next is not None or position + 1 < len(page.versions)):
                    return HistoryPage(
                        tuple(visible), (version.last_updated, version.reference, version.version), horizon
                    )
            if page.next is None:
                return HistoryPage(tuple(visible), None, horizon)
            following = replace(following, before=page.next)
        return HistoryPage(tuple(visible), following.before, horizon)

    async def _make_clauses(self, types: Sequence[str]) -> None:
        """Have the policy make its clauses for many types, which it remembers, with turns for others in between."""
        if self._restrictions is None:
            return
        for position, type in enumerate(types):
            if position % _IN_A_ROW == _IN_A_ROW - 1:
                await asyncio.sleep(0)
            self._restrictions.clause_of(type)
            self._restrictions.search_clause_of(type)

    async def _is_visible_in_turn(self, stored: Stored, position: int) -> bool:
        """As `_is_visible`, for one of many."""
        if position % _IN_A_ROW == _IN_A_ROW - 1:
            await asyncio.sleep(0)
        return await self._is_visible(stored)

    async def _is_visible(self, stored: Stored) -> bool:
        """Whether a version may be seen; a deletion where the version before it may."""
        restrictions = self._restrictions
        if restrictions is None:
            return True
        content: Stored | None = stored
        if stored.raw is None:
            if restrictions.clause_of(stored.type) in (EVERYTHING, NOTHING):
                return restrictions.clause_of(stored.type) == EVERYTHING
            content = await self._store.vread(stored.type, stored.id, stored.version - 1)
        return content is not None and content.raw is not None and await restrictions.shows(content)
