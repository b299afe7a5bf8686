"""Chains, `_has`, hierarchies and distances, answered before the search they are part of (https://hl7.org/fhir/R4/search.html#chaining).

The inner criteria are answered first; the outer clause then names the resources found. What is left knows no other
collection, so that one index scan answers it. At most MOST resources are named: beyond, the search is too costly.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

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
from fhir_server.search.query import (
    And,
    CanonicalChain,
    CanonicalHas,
    Chain,
    Clause,
    Equals,
    Has,
    Ids,
    Lineage,
    Near,
    Not,
    Or,
    Within,
)
from fhir_server.store.mongo.aggregation import Aggregations, Stage
from fhir_server.store.mongo.compile import LIVE, Filter, every, filter_of, one_of, starting
from fhir_server.store.mongo.indexes import Document
from fhir_server.store.mongo.trigrams import widened
from fhir_server.store.protocol import BudgetExceeded

MOST = 50_000


@dataclass(frozen=True, slots=True)
class Follow:
    """Where the inner criteria are asked."""

    aggregations: Aggregations

    async def filter(self, where: Clause, type: str, among: Filter | None = None) -> Filter:
        """The current resources of `type` that match, if need be among those of a filter. Raises BudgetExceeded."""
        followed = await self.followed(where, type)
        widest = widened(followed)
        if widest != followed:
            await self.aggregations.check_rows(type, every((among or {}, filter_of(widest), LIVE)))
        return every((among or {}, filter_of(followed), LIVE))

    async def followed(self, clause: Clause, type: str) -> Clause:
        """The clause on resources of `type`, with nothing that asks about others. Raises BudgetExceeded."""
        match clause:
            case And(clauses):
                return And(tuple([await self.followed(part, type) for part in clauses]))
            case Or(clauses):
                return Or(tuple([await self.followed(part, type) for part in clauses]))
            case Not(negated):
                return Not(await self.followed(negated, type))
            case Chain():
                return await self._chain(clause, type)
            case Within():
                return Or(tuple(await self._inside(clause, type)))
            case Has():
                return await self._has(clause, type)
            case CanonicalChain():
                return await self._canonical_chain(clause)
            case CanonicalHas():
                return await self._canonical_has(clause)
            case Lineage():
                return await self._lineage(clause, type)
            case Near():
                return await self._near(clause, type)
            case _:
                return clause

    async def _chain(self, clause: Chain, type: str) -> Clause:
        where = await self.filter(clause.where, clause.type)
        wanted: list[Stage] = [{"$match": where}, {"$project": {"_id": 1}}]
        ids = [document["_id"] async for document in self._some(clause.type, wanted)]
        direct = Equals(clause.parameter, tuple(f"{clause.type}/{id}" for id in ids))
        within = await self._inside(clause, type)
        return Or((direct, *within)) if within else direct

    async def _inside(self, clause: Chain | Within, type: str) -> list[Clause]:
        """The same at each place inside the resources of the type."""
        found: list[Clause] = []
        parameter, its_type = clause.parameter, clause.type
        if not await self._is_anywhere(type, name_nested_prefix(parameter, its_type)):
            return found
        if await self._is_anywhere(type, f"{name_overflow(parameter, its_type)}="):
            raise BudgetExceeded(describe_overflow(clause))
        for number in range(MAX_NESTED):
            if not await self._is_anywhere(type, f"{name_nested(parameter, its_type, number)}="):
                break
            found.append(await self.followed(nest_clause(clause, number), type))
        return found

    async def _is_anywhere(self, type: str, prefix: str) -> bool:
        """Whether some current resource of a type has a term that begins so."""
        there = every(({"terms": {"$elemMatch": starting(prefix)}}, LIVE))
        return bool(
            await self.aggregations.find_all(type, [{"$match": there}, {"$limit": 1}, {"$project": {"_id": 1}}])
        )

    async def _has(self, clause: Has, type: str) -> Clause:
        where = await self.filter(clause.where, clause.type)
        return Ids(tuple(await self._referred(clause.type, where, f"{clause.parameter}={type}/")))

    async def _canonical_chain(self, clause: CanonicalChain) -> Clause:
        url, version = starting(f"{URL}="), starting(f"{VERSION}=")
        own = {"$or": [_within(url), _within(version)]}
        wanted: list[Stage] = [
            {"$match": every(({"terms": {"$elemMatch": url}}, await self.filter(clause.where, clause.type)))},
            {"$project": {"_id": 0, "terms": {"$filter": {"input": "$terms", "cond": own}}}},
        ]
        found = [
            name async for each in self._some(clause.type, wanted) for name in list_canonicals(_terms(each["terms"]))
        ]
        return Equals(clause.parameter, tuple(dict.fromkeys(found)))

    async def _canonical_has(self, clause: CanonicalHas) -> Clause:
        """The URLs named, and those named with a version."""
        where = await self.filter(clause.where, clause.type)
        named = [term.partition(SEPARATOR) for term in await self._referred(clause.type, where, f"{clause.parameter}=")]
        urls = tuple(url for url, _, version in named if not version and ":" in url)
        versions = [
            And((Equals(URL, (url,)), Equals(VERSION, (f"{version}{SEPARATOR}",))))
            for url, _, version in named
            if version and ":" in url
        ]
        return Or((Equals(URL, urls), *versions))

    async def _referred(self, type: str, where: Filter, prefix: str) -> list[str]:
        """What follows the prefix in the terms of the resources of a type that match the filter, each once."""
        pointing = starting(prefix)
        wanted: list[Stage] = [
            {"$match": every(({"terms": {"$elemMatch": pointing}}, where))},
            {"$project": {"_id": 0, "target": {"$filter": {"input": "$terms", "cond": _within(pointing)}}}},
            {"$unwind": "$target"},
            {"$group": {"_id": "$target"}},
        ]
        return [document["_id"][len(prefix) :] async for document in self._some(type, wanted)]

    async def _lineage(self, clause: Lineage, type: str) -> Clause:
        """A question for each level; what was reached before is not asked again, so that a circle ends."""
        step = self._below if clause.direction == "below" else self._above
        reached, level = set(clause.ids), set(clause.ids)
        while level:
            if len(reached) > self._most():
                raise self._too_many(f"The hierarchy of `{clause.parameter}` in `{type}` has")
            level = set(await step(clause.parameter, type, level)) - reached
            reached |= level
        return Ids(tuple(sorted(reached)))

    async def _below(self, parameter: str, type: str, ids: Iterable[str]) -> list[str]:
        above = Equals(parameter, tuple(f"{type}/{id}" for id in ids))
        wanted: list[Stage] = [{"$match": every((filter_of(above), LIVE))}, {"$project": {"_id": 1}}]
        return [document["_id"] async for document in self._some(type, wanted)]

    async def _above(self, parameter: str, type: str, ids: Iterable[str]) -> list[str]:
        return await self._referred(type, every((one_of("_id", list(ids)), LIVE)), f"{parameter}={type}/")

    async def _near(self, clause: Near, type: str) -> Clause:
        """The positions between two latitudes, each measured here."""
        south, north = compute_latitudes(clause.latitude, clause.metres)
        here = {"p": clause.parameter, "k": "", "l": {"$gte": south, "$lte": north}}
        own = {"$and": [{"$eq": ["$$this.p", clause.parameter]}, {"$eq": ["$$this.k", ""]}]}
        wanted: list[Stage] = [
            {"$match": every(({"numbers": {"$elemMatch": here}}, LIVE))},
            {"$project": {"numbers": {"$filter": {"input": "$numbers", "cond": own}}}},
        ]
        return Ids(tuple([each["_id"] async for each in self._some(type, wanted) if _is_near(clause, each["numbers"])]))

    async def _some(self, type: str, pipeline: list[Stage]) -> AsyncIterator[Document]:
        seen = 0
        async with self.aggregations.open_cursor(type, [*pipeline, {"$limit": self._most() + 1}]) as found:
            async for document in found:
                seen += 1
                if seen > self._most():
                    raise self._too_many(f"A chain, `_has`, hierarchy or distance over `{type}` finds")
                yield document

    def _most(self) -> int:
        return min(MOST, self.aggregations.budget.rows)

    def _too_many(self, what: str) -> BudgetExceeded:
        if self.aggregations.budget.rows < MOST:
            return self.aggregations.budget.out_of_rows()
        return BudgetExceeded(f"{what} more than the {MOST:,} resources that one search may name. Add criteria to it.")


def _within(bounds: Filter) -> Filter:
    """The condition of a text as an expression on the element at hand."""
    return {"$and": [{operator: ["$$this", value]} for operator, value in bounds.items()]}


def _terms(found: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The terms of a document by parameter."""
    kept: dict[str, tuple[str, ...]] = {}
    for parameter, _, term in (each.partition("=") for each in found):
        kept[parameter] = (*kept.get(parameter, ()), term)
    return kept


def _is_near(clause: Near, positions: Iterable[Document]) -> bool:
    return any(
        compute_distance(clause.latitude, clause.longitude, each["l"], each["h"]) <= clause.metres for each in positions
    )
