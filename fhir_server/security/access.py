"""Reading as a principal: all that is read for an answer is read through a `Reader`, which applies the access policy.

What the policy hides is absent: a search does not find it, a chain does not lead through it, a read answers as if it
had never been stored. Restrictions speak of the resource itself, and at most of what refers to it or of all that it
refers to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import orjson

from fhir_server.search.query import (
    EVERYTHING,
    NOTHING,
    And,
    CanonicalChain,
    CanonicalHas,
    Chain,
    Clause,
    Equals,
    Every,
    Has,
    Ids,
    Or,
    Query,
    Scope,
    iterate_children,
    rewrite_clause,
)
from fhir_server.security.bounded_cache import BoundedCache
from fhir_server.security.check import IndexEntries, LinkedCheck
from fhir_server.store.protocol import HistoryPage, HistoryQuery, Page, Store, Stored

Run = Callable[..., Awaitable[bool]]
"""(size in bytes, function, arguments) → what the function gives; where the size is large, out of a thread."""

_IN_A_ROW = 20
"""Resources that are looked at before others get a turn."""

_MOST_COMPARED = 8
"""Criteria of a search, and alternatives of a restriction, that are compared with each other."""

HISTORY_PAGES = 20
"""Pages of hidden versions that one history request skips before it answers with a shorter page."""


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
    find_check: Callable[[str], LinkedCheck]
    """Type → the check of what may be read."""
    key: Hashable = None
    """What else the answer of a check depends on, beside the version; None where it cannot be remembered."""
    answers: BoundedCache[bool] | None = None

    def recall(self, stored: Stored) -> bool | None:
        """Whether a version may be seen, where that is known and depends on no other resource."""
        if self.answers is None:
            return None
        return self.answers.recall((self.key, stored.type, stored.id, stored.version, None))

    async def shows(self, stored: Stored, is_linked: bool | None) -> bool:
        """Whether the content of a version (not a deletion) may be seen.

        `is_linked`: whether its links hold now; None where the policy is not about others.
        """
        key = (self.key, stored.type, stored.id, stored.version, is_linked)
        known = self.answers.recall(key) if self.answers is not None else None
        if known is not None:
            return known
        check = self.find_check(stored.type)
        check_now = check.otherwise if is_linked is False else check.if_linked
        allowed = await self.run(len(stored.raw or b""), check_now.allows, stored, self.index)
        if self.answers is not None and self.key is not None:
            self.answers.keep(key, allowed)
        return allowed

    def restrict(self, scope: Scope) -> Scope:
        """The scope without what is hidden, which is neither found nor followed by a chain."""
        return Scope(scope.type, conjoin(self.restrict_links(scope.where), self.search_clause_of(scope.type)))

    def restrict_links(self, clause: Clause) -> Clause:
        """The clause whose chains and reverse chains lead through visible resources alone."""
        if not iterate_children(clause):
            return clause
        restricted = rewrite_clause(clause, self.restrict_links)
        if isinstance(restricted, Chain | Has | CanonicalChain | CanonicalHas):
            return replace(restricted, where=conjoin(restricted.where, self.search_clause_of(restricted.type)))
        return restricted


def conjoin(clause: Clause, restriction: Clause) -> Clause:
    """Both clauses, without those conditions of the restriction that a condition of the clause implies.

    So an app that asks for the data of its own patient costs the store no second look at whose they are.
    """
    if restriction == EVERYTHING:
        return clause
    if clause == EVERYTHING:
        return restriction
    asked = clause.clauses if isinstance(clause, And) else (clause,)
    known = [each for each in asked[:_MOST_COMPARED] if isinstance(each, Equals | Ids)]
    demanded = restriction.clauses if isinstance(restriction, And) else (restriction,)
    left = [each for each in demanded if not _is_implied(each, known)]
    return And((*asked, *left)) if left else clause


def _is_implied(clause: Clause, known: Sequence[Clause]) -> bool:
    """Whether the clause, or one of its alternatives, is among those that hold."""
    if isinstance(clause, Or):
        return any(each in known for each in clause.clauses[:_MOST_COMPARED])
    return clause in known


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
        if stored is None or self._restrictions is None:
            return stored
        known = self._restrictions.recall(stored) if stored.raw is not None else None
        visible = known if known is not None else await self._is_visible(stored)
        return stored if visible else None

    async def vread(self, type: str, id: str, version: int) -> Stored | None:
        """See `Store.vread`; None for a version whose content is hidden."""
        stored = await self._store.vread(type, id, version)
        return stored if stored is None or self._restrictions is None or await self._is_visible(stored) else None

    async def shows(self, stored: Stored) -> bool:
        """Whether a version that was read from the store may be seen."""
        return await self._is_visible(stored)

    async def read_many(self, references: Iterable[str], deletions: bool = False) -> Mapping[str, Stored]:
        """See `Store.read_many`; without what is hidden."""
        found = await self._store.read_many(references, deletions)
        if self._restrictions is None:
            return found
        linked = await self._find_linked(found.values())
        visible: dict[str, Stored] = {}
        for position, (reference, stored) in enumerate(found.items()):
            if await self._is_visible_in_turn(stored, position, linked):
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
            linked = await self._find_linked(page.versions)
            for position, version in enumerate(page.versions):
                if await self._is_visible_in_turn(version, position, linked):
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
        if self._restrictions is None or len(types) < _IN_A_ROW:
            return
        for position, type in enumerate(types):
            if position % _IN_A_ROW == _IN_A_ROW - 1:
                await asyncio.sleep(0)
            self._restrictions.clause_of(type)
            self._restrictions.search_clause_of(type)

    async def _find_linked(self, versions: Iterable[Stored]) -> frozenset[str]:
        """Of what has a policy that is about other resources, too, that for which it holds.

        References where others refer to it; `_name_version` where it refers to others.
        """
        restrictions = self._restrictions
        by_type: dict[str, list[Stored]] = {}
        for version in versions:
            by_type.setdefault(version.type, []).append(version)
        found: set[str] = set()
        for type, alike in by_type.items():
            check = None if restrictions is None else restrictions.find_check(type)
            if check is None:
                continue
            if check.links is not None:
                found |= await self._store.find_matching(sorted({each.reference for each in alike}), check.links)
            if check.every is not None:
                found |= await self._find_supported(check.every, alike)
        return frozenset(found)

    async def _find_supported(self, every: Every, versions: Iterable[Stored]) -> set[str]:
        """Those of the versions, deletions aside, all of whose references of a parameter lead to visible resources."""
        restrictions = self._restrictions
        terms: dict[str, tuple[str, ...]] = {}
        for version in versions:
            if version.raw is not None and restrictions is not None:
                tree = orjson.loads(version.raw)
                entries = restrictions.index(version.type, tree, frozenset({every.parameter}))
                terms[_name_version(version)] = entries.terms.get(every.parameter, ())
        wanted = sorted({term for each in terms.values() for term in each})
        visible: set[str] = set()
        for scope in every.scopes:
            references = [term for term in wanted if term.startswith(f"{scope.type}/")]
            if references:
                visible |= await self._store.find_matching(references, scope.where)
        return {name for name, each in terms.items() if visible.issuperset(each)}

    async def _is_visible_in_turn(self, stored: Stored, position: int, linked: frozenset[str]) -> bool:
        """As `_is_visible`, for one of many."""
        if position % _IN_A_ROW == _IN_A_ROW - 1:
            await asyncio.sleep(0)
        return await self._is_visible(stored, linked)

    async def _is_visible(self, stored: Stored, linked: frozenset[str] | None = None) -> bool:
        """Whether a version may be seen; a deletion where the version before it may. `linked`: where known."""
        restrictions = self._restrictions
        if restrictions is None:
            return True
        content: Stored | None = stored
        if stored.raw is not None:
            known = restrictions.recall(stored)
            if known is not None:
                return known
        else:
            if restrictions.clause_of(stored.type) in (EVERYTHING, NOTHING):
                return restrictions.clause_of(stored.type) == EVERYTHING
            content = await self._store.vread(stored.type, stored.id, stored.version - 1)
        if content is None or content.raw is None:
            return False
        check = restrictions.find_check(stored.type)
        if check.links is None and check.every is None:
            return await restrictions.shows(content, None)
        if linked is None or (check.every is not None and content is not stored):
            linked = await self._find_linked((content,))
        return await restrictions.shows(
            content, (content.reference if check.every is None else _name_version(content)) in linked
        )


def _name_version(stored: Stored) -> str:
    return f"{stored.reference}/_history/{stored.version}"
