"""Searches: a page of each type in order, counts and tests, in one aggregation each (https://hl7.org/fhir/R4/search.html)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cmp_to_key

from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import OperationFailure

from fhir_server.search.match import compare_keys
from fhir_server.search.query import Clause, Query, Scope, SortKey
from fhir_server.store.mongo import order, scoring
from fhir_server.store.mongo.aggregation import Aggregations, Listen, Stage, ignore_pipeline, translate_limits
from fhir_server.store.mongo.compile import LIVE, Filter, match_all, match_one_of
from fhir_server.store.mongo.documents import PROJECTION, parse_current
from fhir_server.store.mongo.errors import is_too_costly
from fhir_server.store.mongo.follow import Follower
from fhir_server.store.mongo.indexes import Database, Document
from fhir_server.store.mongo.plans import Counts
from fhir_server.store.protocol import BUDGET, Budget, Page, Stored, cut_page

Match = tuple[SortKey, Stored]

SIZE = "size"
"""Where the bytes of a text stand in what is sorted in its place."""

_LISTED = {"version": 1, "updated": 1, "method": 1, "live": 1, SIZE: {"$binarySize": "$raw"}}


class Search:
    """Answers searches from one database, each within the budget; inside a transaction when given its session."""

    def __init__(self, database: Database, budget: Budget = BUDGET, listen: Listen = ignore_pipeline) -> None:
        self._database = database
        self._budget = budget
        self._listen = listen
        self._counts = Counts()

    async def find_page(self, query: Query, session: AsyncClientSession | None = None) -> Page:
        """A page of matches. Raises BudgetExceeded and the driver's errors."""
        if query.count == 0:
            return Page((), None)
        found: list[Match] = []
        aggregations = self._start_aggregations(session)

        def by_position(left: Match, right: Match) -> int:
            return compare_keys(query.sort, left[0], right[0])

        with translate_limits(self._budget):
            for scope in await aggregations.list_stored(query.scopes):
                wanted = query.count + 1 if query.sort else query.count + 1 - len(found)
                if wanted > 0:
                    found += await _search_scope(aggregations, scope, query, wanted)
        if len(query.scopes) > 1 and query.sort:
            found.sort(key=cmp_to_key(by_position))
        return cut_page(found, query)

    async def count(self, query: Query) -> int:
        """The number of matches. Raises BudgetExceeded and the driver's errors."""
        total = 0
        aggregations = self._start_aggregations(None)
        with translate_limits(self._budget):
            for scope in await aggregations.list_stored(query.scopes):
                wanted = await Follower(aggregations).build_filter(scope.where, scope.type)
                left = aggregations.compute_remaining_ms()
                total += await self._database[scope.type].count_documents(wanted, maxTimeMS=left)
        return total

    async def find_matching(self, references: Sequence[str], where: Clause) -> frozenset[str]:
        """Those of the references, all of one type, that match."""
        if not references:
            return frozenset()
        type = references[0].partition("/")[0]
        ids = list({reference.partition("/")[2] for reference in references})
        aggregations = self._start_aggregations(None)
        with translate_limits(self._budget):
            wanted = await Follower(aggregations).build_filter(where, type, {"_id": {"$in": ids}})
            left = aggregations.compute_remaining_ms()
            async with self._database[type].find(wanted, {"_id": 1}, max_time_ms=left) as cursor:
                return frozenset([f"{type}/{document['_id']}" async for document in cursor])

    def _start_aggregations(self, session: AsyncClientSession | None) -> Aggregations:
        deadline = time.monotonic() + self._budget.seconds
        return Aggregations(self._database, session, self._budget, deadline, self._listen, self._counts)


async def _search_scope(aggregations: Aggregations, scope: Scope, query: Query, limit: int) -> list[Match]:
    type = scope.type
    keys = order.build_keys(query.sort, type)
    where = await Follower(aggregations).build_filter(scope.where, type)
    if query.sort:
        where = match_all((where, LIVE))  # the indexes of sorts are of what is there alone
    if any(key.field == order.SCORE for key in keys):
        return await _search_by_score(aggregations, type, where, query, limit)
    deciding = order.select_deciding(keys, query.after, type)
    if not order.has_index(deciding):
        if not deciding[0].expression:
            where = match_all((where, await _find_bound(aggregations, where, deciding[0], query.after, (type, limit))))
        start = order.match_start(deciding, query.after) if query.after else {}
        await aggregations.check_rows(type, match_all((where, start)))
    apart = not order.has_index(deciding)
    stages = build_pipeline(where, keys, query.after, type, limit, apart)
    try:
        listed = await aggregations.find_all(type, stages, query.most_bytes)
    except OperationFailure as error:
        # The database chose to sort the matches of a criterion, resources and all; a transaction has ended by this.
        if apart or aggregations.session or not is_too_costly(error):
            raise
        apart = True
        listed = await aggregations.find_all(type, build_pipeline(where, keys, query.after, type, limit, apart))
    positions = [(*(key.read_value(document) for key in keys), f"{type}/{document['_id']}") for document in listed]
    if not apart:
        return [(at, parse_current(type, document)) for at, document in zip(positions, listed, strict=True)]
    current = await _read_listed(aggregations, type, where, listed, query.most_bytes)
    page = [(at, current[at[-1]]) for at in positions if at[-1] in current]
    if len(listed) < limit or len(page) == limit:
        return page
    # Some were changed in between: what follows takes their places, or the page would pass for the last one.
    return page + await _search_scope(aggregations, scope, replace(query, after=positions[-1]), limit - len(page))


async def _read_listed(
    aggregations: Aggregations, type: str, where: Filter, listed: Sequence[Document], most: int | None
) -> dict[object, Stored]:
    """By reference the resources of a page whose keys were sorted, those that still match.

    Those after texts of more than `most` bytes are given without their own.
    """
    found: dict[object, Stored] = {}
    wanted: list[str] = []
    size = 0
    for document in listed:
        if most is None or size <= most:
            wanted.append(document["_id"])
        else:
            found[f"{type}/{document['_id']}"] = parse_current(type, document)
        size += document[SIZE] or 0
    if wanted:
        same = match_all((match_one_of("_id", wanted), where))
        read = await aggregations.find_all(type, [{"$match": same}, {"$project": PROJECTION}])
        found.update({f"{type}/{document['_id']}": parse_current(type, document) for document in read})
    return found


async def _search_by_score(
    aggregations: Aggregations, type: str, where: Filter, query: Query, limit: int
) -> list[Match]:
    """The page in the order of scores: the words of all matches are read, then the resources of the page."""
    keys = order.build_keys(query.sort, type)
    page = scoring.score_page(
        await aggregations.find_all(type, scoring.build_pipeline(where, keys)), query, type, limit
    )
    # Whatever was changed in between still has to match.
    wanted: list[Stage] = [{"$match": match_all(({"_id": {"$in": list(page)}}, where))}, {"$project": PROJECTION}]
    current = {each["_id"]: parse_current(type, each) for each in await aggregations.find_all(type, wanted)}
    found = [(position, current[id]) for id, position in page.items() if id in current]
    if len(page) < limit or len(found) == limit:
        return found
    # What follows takes the places of those that were changed in between, or the page would pass for the last one.
    rest = replace(query, after=list(page.values())[-1])
    return found + await _search_by_score(aggregations, type, where, rest, limit - len(found))


async def _find_bound(
    aggregations: Aggregations, where: Filter, first: order.Key, after: SortKey | None, wanted: tuple[str, int]
) -> Filter:
    """What further keys have to order, so that a page does not need every match sorted.

    A walk along the first key alone finds the value up to which there are enough matches: `wanted` is (type, how many).
    """
    type, limit = wanted
    beyond = {} if after is None else first.match_beyond(after[0])
    if beyond is None:
        return {first.field: first.format_value(after[0])} if after else {}
    stages: list[Stage] = [
        {"$match": match_all((where, beyond))},
        {"$sort": {**first.order, "_id": 1}},
        {"$skip": limit - 1},
        {"$limit": 1},
        {"$project": {first.field: 1}},
    ]
    last = await aggregations.find_all(type, stages)
    return first.match_up_to(first.read_value(last[0])) if last else {}


def build_pipeline(
    where: Filter, keys: Sequence[order.Key], after: SortKey | None, type: str, limit: int, apart: bool
) -> list[Stage]:
    """The aggregation of one page of one type.

    What sorts along an index gives the resources. With `apart`, as where every match is sorted, it gives ids, keys
    and sizes: sorts in memory end at 100 MB (https://www.mongodb.com/docs/manual/reference/operator/aggregation/sort/).
    """
    deciding = order.select_deciding(keys, after, type)
    later = order.match_after(deciding, after, type) if after is not None else {}
    sort: list[Stage] = [{"$sort": order.build_sort(deciding)}, {"$limit": limit}]
    shown = {key.field: key.expression or 1 for key in keys}
    if not apart:
        return [{"$match": match_all((where, later))}, *sort, {"$project": PROJECTION | shown}]
    shown = _LISTED | shown
    computed = [key.field for key in deciding if key.expression]
    if not computed:
        return [{"$match": match_all((where, later))}, {"$project": shown}, *sort]
    missing = {f"{field}_missing": {"$eq": [f"${field}", None]} for field in computed}
    start = order.match_start(deciding, after) if after is not None else {}
    positioned: list[Stage] = [{"$match": later}] if later else []
    return [{"$match": match_all((where, start))}, {"$project": shown}, *positioned, {"$set": missing}, *sort]
