"""Chains, `_has`, hierarchies and distances, answered before the search they are part of (https://hl7.org/fhir/R4/search.html#chaining).

The inner criteria are answered first; the outer clause then names the resources found. What is left knows no other
collection, so that one index scan answers it. At most MOST resources are named: beyond, the search is too costly.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, replace

from fhir_server.search import query as q
from fhir_server.search.entries import SEPARATOR, URL, VERSION, list_canonicals
from fhir_server.search.geodesy import compute_distance, compute_latitudes
from fhir_server.search.nested_index import (
    MAX_NESTED,
    describe_overflow,
    name_nested,
    name_nested_prefix,
    name_overflow,
    nest_clause,
)
from fhir_server.store.mongo.aggregation import FEW, Aggregations, Stage
from fhir_server.store.mongo.compile import (
    LIVE,
    Filter,
    compile_current,
    match_all,
    match_current,
    match_one_of,
)
from fhir_server.store.mongo.indexes import Document
from fhir_server.store.mongo.patterns import build_condition, build_prefix_range
from fhir_server.store.mongo.plans import compile_bounded, iterate_parts
from fhir_server.store.mongo.trigrams import widen_clause
from fhir_server.store.protocol import BudgetExceeded

MOST = 50_000


@dataclass(frozen=True, slots=True)
class Follower:
    """Follows the links of one search, whose inner criteria are aggregations of their own."""

    aggregations: Aggregations

    async def build_filter(self, where: q.Clause, type: str, among: Filter | None = None) -> Filter:
        """The filter of the current resources of `type` that match; `among` narrows it. Raises BudgetExceeded."""
        followed = await self.follow(where, type, among)
        widest = widen_clause(followed)
        if widest != followed:
            await self.aggregations.check_rows(type, await self._compile(widest, type, among))
        return await self._compile(followed, type, among)

    async def _compile(self, clause: q.Clause, type: str, among: Filter | None) -> Filter:
        compiled = await compile_bounded(clause, lambda part: self.aggregations.count_matches(type, part))
        return match_current(clause, compiled, among)

    async def follow(self, clause: q.Clause, type: str, among: Filter | None = None) -> q.Clause:
        """The clause on resources of `type`, those of `among`, without the clauses about other ones.

        Raises BudgetExceeded.
        """
        match clause:
            case q.And() if _asks_of_every(clause):
                return await self._follow_narrowed(clause, type, among)
            case q.Or(clauses) if sum(isinstance(each, q.Has) for each in clauses) > FEW:
                wanted = [
                    each
                    for each in clauses
                    if not isinstance(each, q.Has) or await self.aggregations.has_type(each.type)
                ]
                return q.Or(tuple([await self.follow(part, type, among) for part in wanted]))
            case q.And(clauses) | q.Or(clauses):
                return replace(clause, clauses=tuple([await self.follow(part, type, among) for part in clauses]))
            case q.Not(negated):
                return q.Not(await self.follow(negated, type, among))
            case q.Every():
                return await self._follow_every(clause, type, among)
            case q.Chain():
                return await self._follow_chain(clause, type)
            case q.Within():
                return q.Or(tuple(await self._follow_nested(clause, type)))
            case q.Has():
                return await self._follow_has(clause, type)
            case q.CanonicalChain():
                return await self._follow_canonical_chain(clause)
            case q.CanonicalHas():
                return await self._follow_canonical_has(clause)
            case q.Lineage():
                return await self._follow_lineage(clause, type)
            case q.Near():
                return await self._follow_near(clause, type)
            case _:
                return clause

    async def _follow_chain(self, clause: q.Chain, type: str) -> q.Clause:
        ids = await self._find_ids(clause.type, await self.build_filter(clause.where, clause.type))
        direct = q.Equals(clause.parameter, tuple(f"{clause.type}/{id}" for id in ids))
        within = await self._follow_nested(clause, type)
        return q.Or((direct, *within)) if within else direct

    async def _follow_narrowed(self, clause: q.And, type: str, among: Filter | None) -> q.Clause:
        """The parts that ask of every reference after the others, so that they look at the matches of those alone."""
        parts = list(iterate_parts(clause))
        plain = q.And(tuple([await self.follow(part, type, among) for part in parts if not _asks_of_every(part)]))
        left = await self._compile(plain, type, among)
        return q.And((plain, *[await self.follow(part, type, left) for part in parts if _asks_of_every(part)]))

    async def _follow_every(self, clause: q.Every, type: str, among: Filter | None) -> q.Clause:
        """The references of the resources in question are listed, and those that lead elsewhere are forbidden."""
        targets = await self._find_targets(type, match_all((among or {}, LIVE)), f"{clause.parameter}=")
        outside = set(targets)
        for scope in clause.scopes:
            prefix = f"{scope.type}/"
            ids = [target[len(prefix) :] for target in targets if target.startswith(prefix)]
            if ids:
                where = await self.build_filter(scope.where, scope.type, match_one_of("_id", ids))
                outside -= {f"{prefix}{id}" for id in await self._find_ids(scope.type, where)}
        return q.Not(q.Equals(clause.parameter, tuple(sorted(outside)))) if outside else q.EVERYTHING

    async def _follow_nested(self, clause: q.Chain | q.Within, type: str) -> list[q.Clause]:
        """The clause once for each element in which the resources of the type nest others (`nested_index.py`)."""
        found: list[q.Clause] = []
        parameter, its_type = clause.parameter, clause.type
        if not await self._is_anywhere(type, name_nested_prefix(parameter, its_type)):
            return found
        if await self._is_anywhere(type, f"{name_overflow(parameter, its_type)}="):
            raise BudgetExceeded(describe_overflow(clause))
        for number in range(MAX_NESTED):
            if not await self._is_anywhere(type, f"{name_nested(parameter, its_type, number)}="):
                break
            found.append(await self.follow(nest_clause(clause, number), type))
        return found

    async def _is_anywhere(self, type: str, prefix: str) -> bool:
        """Whether some current resource of a type has a term that begins so."""
        there = {"terms": {"$elemMatch": build_prefix_range(prefix)}}
        return bool(
            await self.aggregations.find_all(type, [{"$match": there}, {"$limit": 1}, {"$project": {"_id": 1}}])
        )

    async def _follow_has(self, clause: q.Has, type: str) -> q.Clause:
        where = await self.build_filter(clause.where, clause.type)
        return q.Ids(tuple(await self._find_targets(clause.type, where, f"{clause.parameter}={type}/")))

    async def _follow_canonical_chain(self, clause: q.CanonicalChain) -> q.Clause:
        url, version = build_prefix_range(f"{URL}="), build_prefix_range(f"{VERSION}=")
        own = {"$or": [build_condition(url), build_condition(version)]}
        wanted: list[Stage] = [
            {"$match": match_all(({"terms": {"$elemMatch": url}}, await self.build_filter(clause.where, clause.type)))},
            {"$project": {"_id": 0, "terms": {"$filter": {"input": "$terms", "cond": own}}}},
        ]
        found = [each["terms"] async for each in self._find_limited(clause.type, wanted)]
        names = dict.fromkeys(name for terms in found for name in list_canonicals(_group_terms(terms)))
        return q.Equals(clause.parameter, tuple(names))

    async def _follow_canonical_has(self, clause: q.CanonicalHas) -> q.Clause:
        """The URLs named, and those named with a version."""
        where = await self.build_filter(clause.where, clause.type)
        targets = await self._find_targets(clause.type, where, f"{clause.parameter}=")
        named = [target.partition(SEPARATOR) for target in targets]
        urls = tuple(url for url, _, version in named if not version and ":" in url)
        versions = [
            q.And((q.Equals(URL, (url,)), q.Equals(VERSION, (f"{version}{SEPARATOR}",))))
            for url, _, version in named
            if version and ":" in url
        ]
        return q.Or((q.Equals(URL, urls), *versions))

    async def _find_targets(self, type: str, where: Filter, prefix: str) -> list[str]:
        """The terms with a prefix, without it and each once, of the resources of a type that match the filter."""
        pointing = build_prefix_range(prefix)
        wanted: list[Stage] = [
            {"$match": match_all(({"terms": {"$elemMatch": pointing}}, where))},
            {"$project": {"_id": 0, "target": {"$filter": {"input": "$terms", "cond": build_condition(pointing)}}}},
            {"$unwind": "$target"},
            {"$group": {"_id": "$target"}},
        ]
        return [document["_id"][len(prefix) :] async for document in self._find_limited(type, wanted)]

    async def _follow_lineage(self, clause: q.Lineage, type: str) -> q.Clause:
        """One aggregation a level; a resource is looked up once, so that a circle ends."""
        step = self._find_children if clause.direction == "below" else self._find_parents
        reached, level = set(clause.ids), set(clause.ids)
        while level:
            if len(reached) > self._get_limit():
                raise self._build_too_many_error(f"The hierarchy of `{clause.parameter}` in `{type}` has")
            level = set(await step(clause.parameter, type, level)) - reached
            reached |= level
        return q.Ids(tuple(sorted(reached)))

    async def _find_children(self, parameter: str, type: str, ids: Iterable[str]) -> list[str]:
        above = q.Equals(parameter, tuple(f"{type}/{id}" for id in ids))
        return await self._find_ids(type, compile_current(above))

    async def _find_parents(self, parameter: str, type: str, ids: Iterable[str]) -> list[str]:
        return await self._find_targets(type, match_all((match_one_of("_id", list(ids)), LIVE)), f"{parameter}={type}/")

    async def _follow_near(self, clause: q.Near, type: str) -> q.Clause:
        """The positions between two latitudes, each measured here."""
        south, north = compute_latitudes(clause.latitude, clause.metres)
        here = {"p": clause.parameter, "k": "", "l": {"$gte": south, "$lte": north}}
        own = {"$and": [{"$eq": ["$$this.p", clause.parameter]}, {"$eq": ["$$this.k", ""]}]}
        wanted: list[Stage] = [
            {"$match": {"numbers": {"$elemMatch": here}}},
            {"$project": {"numbers": {"$filter": {"input": "$numbers", "cond": own}}}},
        ]
        found = self._find_limited(type, wanted)
        return q.Ids(tuple([each["_id"] async for each in found if _is_near(clause, each["numbers"])]))

    async def _find_ids(self, type: str, where: Filter) -> list[str]:
        wanted: list[Stage] = [{"$match": where}, {"$project": {"_id": 1}}]
        return [document["_id"] async for document in self._find_limited(type, wanted)]

    async def _find_limited(self, type: str, pipeline: list[Stage]) -> AsyncIterator[Document]:
        seen = 0
        async with self.aggregations.open_cursor(type, [*pipeline, {"$limit": self._get_limit() + 1}]) as found:
            async for document in found:
                seen += 1
                if seen > self._get_limit():
                    raise self._build_too_many_error(f"A chain, `_has`, hierarchy or distance over `{type}` finds")
                yield document

    def _get_limit(self) -> int:
        return min(MOST, self.aggregations.budget.rows)

    def _build_too_many_error(self, what: str) -> BudgetExceeded:
        if self.aggregations.budget.rows < MOST:
            return self.aggregations.budget.build_rows_error()
        return BudgetExceeded(f"{what} more than the {MOST:,} resources that one search may name. Add criteria to it.")


def _asks_of_every(clause: q.Clause) -> bool:
    return isinstance(clause, q.Every) or (
        isinstance(clause, q.And | q.Or | q.Not) and any(map(_asks_of_every, q.iterate_children(clause)))
    )


def _group_terms(found: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The terms of a document by parameter."""
    kept: dict[str, tuple[str, ...]] = {}
    for parameter, _, term in (each.partition("=") for each in found):
        kept[parameter] = (*kept.get(parameter, ()), term)
    return kept


def _is_near(clause: q.Near, positions: Iterable[Document]) -> bool:
    return any(
        compute_distance(clause.latitude, clause.longitude, each["l"], each["h"]) <= clause.metres for each in positions
    )
