"""Searches: a page of each type in order, counts and tests, in one aggregation each (https://hl7.org/fhir/R4/search.html)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cmp_to_key

from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import DocumentTooLarge

from fhir_server.search.match import compare
from fhir_server.search.query import Clause, Query, Scope, SortKey
from fhir_server.store.mongo import order
from fhir_server.store.mongo.compile import LIVE, Filter, every, filter_of
from fhir_server.store.mongo.documents import SHOWN, stored
from fhir_server.store.mongo.follow import Follow, Listen, Stage, unheard
from fhir_server.store.mongo.indexes import Database
from fhir_server.store.protocol import BudgetExceeded, Page, Stored

MILLISECONDS = 20_000
"""A question that takes longer is stopped by the database; the search raises BudgetExceeded."""

Found = tuple[SortKey, Stored]


class Search:
    """Answers searches from one database; inside a transaction when given its session."""

    def __init__(self, database: Database, milliseconds: int = MILLISECONDS, listen: Listen = unheard) -> None:
        self._database = database
        self._milliseconds = milliseconds
        self._listen = listen

    async def page(self, query: Query, session: AsyncClientSession | None = None) -> Page:
        """A page of matches. Raises BudgetExceeded and the driver's errors."""
        if query.count == 0:
            return Page((), None)
        found: list[Found] = []

        def by_position(left: Found, right: Found) -> int:
            return compare(query.sort, left[0], right[0])

        for scope in sorted(query.scopes, key=lambda scope: scope.type):
            wanted = query.count + 1 if query.sort else query.count + 1 - len(found)
            if wanted > 0:
                with _small_enough():
                    found += await self._of_scope(scope, query, wanted, session)
        if len(query.scopes) > 1 and query.sort:
            found.sort(key=cmp_to_key(by_position))
        page = found[: query.count]
        return Page(tuple([match for _, match in page]), page[-1][0] if len(found) > query.count else None)

    async def count(self, query: Query) -> int:
        """The number of matches. Raises BudgetExceeded and the driver's errors."""
        total = 0
        for scope in query.scopes:
            with _small_enough():
                wanted = await self._filter(scope.where, scope.type, None)
                total += await self._database[scope.type].count_documents(wanted, maxTimeMS=self._milliseconds)
        return total

    async def matching(self, references: Sequence[str], where: Clause) -> frozenset[str]:
        """Those of the references, all of one type, that match."""
        if not references:
            return frozenset()
        type = references[0].partition("/")[0]
        ids = list({reference.partition("/")[2] for reference in references})
        with _small_enough():
            wanted = every(({"_id": {"$in": ids}}, await self._filter(where, type, None)))
            async with self._database[type].find(wanted, {"_id": 1}, max_time_ms=self._milliseconds) as cursor:
                return frozenset([f"{type}/{document['_id']}" async for document in cursor])

    async def _filter(self, where: Clause, type: str, session: AsyncClientSession | None) -> Filter:
        follow = Follow(self._database, session, self._milliseconds, self._listen)
        return every((filter_of(await follow.followed(where, type)), LIVE))

    async def _of_scope(
        self, scope: Scope, query: Query, limit: int, session: AsyncClientSession | None
    ) -> list[Found]:
        keys = order.keys_of(query.sort)
        stages = pipeline(await self._filter(scope.where, scope.type, session), keys, query.after, scope.type, limit)
        self._listen(scope.type, stages)
        async with await self._database[scope.type].aggregate(
            stages, session=session, maxTimeMS=self._milliseconds
        ) as cursor:
            return [
                (
                    (*(key.value(document) for key in keys), f"{scope.type}/{document['_id']}"),
                    stored(scope.type, document),
                )
                async for document in cursor
            ]


@contextmanager
def _small_enough() -> Iterator[None]:
    """A question is a document of its own, which the database bounds like any other."""
    try:
        yield
    except DocumentTooLarge as error:
        raise BudgetExceeded(
            "The criteria name more values or resources than the database takes in one question. Ask for less at once."
        ) from error


def pipeline(where: Filter, keys: Sequence[order.Key], after: SortKey | None, type: str, limit: int) -> list[Stage]:
    """The aggregation of one page of one type. Stored keys sort along an index; computed ones need every match."""
    computed = {key.field: key.expression for key in keys if key.expression}
    later = order.position(keys, after, type) if after is not None else {}
    sort: list[Stage] = [{"$sort": order.ordering(keys)}, {"$limit": limit}]
    if not computed:
        return [{"$match": every((where, later))}, *sort, {"$project": SHOWN}]
    missing = {f"{field}_missing": {"$eq": [f"${field}", None]} for field in computed}
    positioned: list[Stage] = [{"$match": later}] if later else []
    return [{"$match": where}, {"$project": SHOWN | computed}, *positioned, {"$set": missing}, *sort]
