"""Searches: a page of each type in order, counts and tests, in one aggregation each (https://hl7.org/fhir/R4/search.html)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cmp_to_key

from pymongo.asynchronous.client_session import AsyncClientSession

from fhir_server.search.match import compare_keys
from fhir_server.search.query import Clause, Query, Scope, SortKey
from fhir_server.store.mongo import order, scoring
from fhir_server.store.mongo.aggregation import Aggregations, Listen, Stage, ignore_pipeline, translate_limits
from fhir_server.store.mongo.compile import Filter, every
from fhir_server.store.mongo.documents import SHOWN, stored
from fhir_server.store.mongo.follow import Follow
from fhir_server.store.mongo.indexes import Database
from fhir_server.store.protocol import BUDGET, Budget, Page, Stored

Found = tuple[SortKey, Stored]


class Search:
    """Answers searches from one database, each within the budget; inside a transaction when given its session."""

    def __init__(self, database: Database, budget: Budget = BUDGET, listen: Listen = ignore_pipeline) -> None:
        self._database = database
        self._budget = budget
        self._listen = listen

    async def page(self, query: Query, session: AsyncClientSession | None = None) -> Page:
        """A page of matches. Raises BudgetExceeded and the driver's errors."""
        if query.count == 0:
            return Page((), None)
        found: list[Found] = []
        aggregations = self._aggregations(session)

        def by_position(left: Found, right: Found) -> int:
            return compare_keys(query.sort, left[0], right[0])

        with translate_limits(self._budget):
            for scope in sorted(query.scopes, key=lambda scope: scope.type):
                wanted = query.count + 1 if query.sort else query.count + 1 - len(found)
                if wanted > 0:
                    found += await _of_scope(aggregations, scope, query, wanted)
        if len(query.scopes) > 1 and query.sort:
            found.sort(key=cmp_to_key(by_position))
        page = found[: query.count]
        return Page(tuple([match for _, match in page]), page[-1][0] if len(found) > query.count else None)

    async def count(self, query: Query) -> int:
        """The number of matches. Raises BudgetExceeded and the driver's errors."""
        total = 0
        aggregations = self._aggregations(None)
        with translate_limits(self._budget):
            for scope in query.scopes:
                wanted = await Follow(aggregations).filter(scope.where, scope.type)
                left = aggregations.milliseconds()
                total += await self._database[scope.type].count_documents(wanted, maxTimeMS=left)
        return total

    async def matching(self, references: Sequence[str], where: Clause) -> frozenset[str]:
        """Those of the references, all of one type, that match."""
        if not references:
            return frozenset()
        type = references[0].partition("/")[0]
        ids = list({reference.partition("/")[2] for reference in references})
        aggregations = self._aggregations(None)
        with translate_limits(self._budget):
            wanted = await Follow(aggregations).filter(where, type, {"_id": {"$in": ids}})
            left = aggregations.milliseconds()
            async with self._database[type].find(wanted, {"_id": 1}, max_time_ms=left) as cursor:
                return frozenset([f"{type}/{document['_id']}" async for document in cursor])

    def _aggregations(self, session: AsyncClientSession | None) -> Aggregations:
        deadline = time.monotonic() + self._budget.seconds
        return Aggregations(self._database, session, self._budget, deadline, self._listen)


async def _of_scope(aggregations: Aggregations, scope: Scope, query: Query, limit: int) -> list[Found]:
    type = scope.type
    keys = order.keys_of(query.sort, type)
    where = await Follow(aggregations).filter(scope.where, type)
    if any(key.field == order.SCORE for key in keys):
        return await _scored(aggregations, type, where, query, limit)
    deciding = order.deciding(keys, query.after, type)
    if not order.walks(deciding):
        if not deciding[0].expression:
            where = every((where, await _bound(aggregations, where, deciding[0], query.after, (type, limit))))
        start = order.start(deciding, query.after) if query.after else {}
        await aggregations.check_rows(type, every((where, start)))
    stages = pipeline(where, keys, query.after, type, limit)
    return [
        ((*(key.value(document) for key in keys), f"{type}/{document['_id']}"), stored(type, document))
        for document in await aggregations.find_all(type, stages)
    ]


async def _scored(aggregations: Aggregations, type: str, where: Filter, query: Query, limit: int) -> list[Found]:
    """The page in the order of scores: the words of all matches are read, then the resources of the page."""
    keys = order.keys_of(query.sort, type)
    page = scoring.page_of(await aggregations.find_all(type, scoring.pipeline(where, keys)), query, type, limit)
    # Whatever was changed in between still has to match.
    wanted: list[Stage] = [{"$match": every(({"_id": {"$in": list(page)}}, where))}, {"$project": SHOWN}]
    found = {document["_id"]: stored(type, document) for document in await aggregations.find_all(type, wanted)}
    return [(position, found[id]) for id, position in page.items() if id in found]


async def _bound(
    aggregations: Aggregations, where: Filter, first: order.Key, after: SortKey | None, wanted: tuple[str, int]
) -> Filter:
    """What further keys have to order, so that a page does not need every match sorted.

    A walk along the first key alone finds the value up to which there are enough matches: `wanted` is (type, how many).
    """
    type, limit = wanted
    beyond = {} if after is None else first.beyond(after[0])
    if beyond is None:
        return {first.field: first.stored_value(after[0])} if after else {}
    stages: list[Stage] = [
        {"$match": every((where, beyond))},
        {"$sort": {**first.order, "_id": 1}},
        {"$skip": limit - 1},
        {"$limit": 1},
        {"$project": {first.field: 1}},
    ]
    last = await aggregations.find_all(type, stages)
    return first.up_to(first.value(last[0])) if last else {}


def pipeline(where: Filter, keys: Sequence[order.Key], after: SortKey | None, type: str, limit: int) -> list[Stage]:
    """The aggregation of one page of one type. Stored keys sort along an index; computed ones need every match."""
    deciding = order.deciding(keys, after, type)
    later = order.position(deciding, after, type) if after is not None else {}
    sort: list[Stage] = [{"$sort": order.ordering(deciding)}, {"$limit": limit}]
    shown = SHOWN | {key.field: key.expression or 1 for key in keys}
    computed = [key.field for key in deciding if key.expression]
    if not computed:
        return [{"$match": every((where, later))}, *sort, {"$project": shown}]
    missing = {f"{field}_missing": {"$eq": [f"${field}", None]} for field in computed}
    start = order.start(deciding, after) if after is not None else {}
    positioned: list[Stage] = [{"$match": later}] if later else []
    return [{"$match": every((where, start))}, {"$project": shown}, *positioned, {"$set": missing}, *sort]
