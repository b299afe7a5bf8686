"""Chains and `_has`, followed before the search they are part of (https://hl7.org/fhir/R4/search.html#chaining).

The inner criteria are answered first; the outer clause then names the resources found. What is left knows no other
collection, so that one index scan answers it. At most MOST resources are named: beyond, the search is too costly.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from pymongo.asynchronous.client_session import AsyncClientSession

from fhir_server.search.query import And, Chain, Clause, Equals, Has, Ids, Not, Or
from fhir_server.store.mongo.compile import LIVE, every, filter_of, starting
from fhir_server.store.mongo.indexes import Database, Document
from fhir_server.store.protocol import BudgetExceeded

MOST = 50_000


@dataclass(frozen=True, slots=True)
class Follow:
    """Where the inner criteria are asked: the database, the session of an open transaction, and ms per question."""

    database: Database
    session: AsyncClientSession | None
    milliseconds: int

    async def followed(self, clause: Clause, type: str) -> Clause:
        """The clause on resources of `type` without Chain and Has. Raises BudgetExceeded."""
        match clause:
            case And(clauses):
                return And(tuple([await self.followed(part, type) for part in clauses]))
            case Or(clauses):
                return Or(tuple([await self.followed(part, type) for part in clauses]))
            case Not(negated):
                return Not(await self.followed(negated, type))
            case Chain():
                return await self._chain(clause)
            case Has():
                return await self._has(clause, type)
            case _:
                return clause

    async def _chain(self, clause: Chain) -> Clause:
        where = filter_of(await self.followed(clause.where, clause.type))
        wanted = [{"$match": every((where, LIVE))}, {"$project": {"_id": 1}}]
        found = [document["_id"] async for document in self._some(clause.type, wanted)]
        return Equals(clause.parameter, tuple(f"{clause.type}/{id}" for id in found))

    async def _has(self, clause: Has, type: str) -> Clause:
        where = filter_of(await self.followed(clause.where, clause.type))
        prefix = f"{clause.parameter}={type}/"
        pointing = starting(prefix)
        own = {"$and": [{operator: ["$$this", value]} for operator, value in pointing.items()]}
        wanted: list[dict[str, Any]] = [
            {"$match": every(({"terms": {"$elemMatch": pointing}}, where, LIVE))},
            {"$project": {"_id": 0, "target": {"$filter": {"input": "$terms", "cond": own}}}},
            {"$unwind": "$target"},
            {"$group": {"_id": "$target"}},
        ]
        return Ids(tuple([document["_id"][len(prefix) :] async for document in self._some(clause.type, wanted)]))

    async def _some(self, type: str, pipeline: list[dict[str, Any]]) -> AsyncIterator[Document]:
        limited = [*pipeline, {"$limit": MOST + 1}]
        seen = 0
        async with await self.database[type].aggregate(
            limited, session=self.session, maxTimeMS=self.milliseconds
        ) as cursor:
            async for document in cursor:
                seen += 1
                if seen > MOST:
                    raise BudgetExceeded(
                        f"A chain or `_has` over `{type}` matches more than {MOST:,} resources. Add criteria to it."
                    )
                yield document
