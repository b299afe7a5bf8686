"""Searches among contained resources: `_contained`, `_containedType` (https://hl7.org/fhir/R4/search.html#contained).

Contained resources have no index of their own: containers are found by the types that they contain, then read.
Matches of both kinds have one order: by the sort keys, then by the reference that is returned.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cmp_to_key, partial
from itertools import chain

import orjson

from fhir_server.fhir.outcome import TooCostly
from fhir_server.requests.long_work import LongWork
from fhir_server.search.contained import Contained, ContainedSearch, IndexEntries, find_matches, list_contained
from fhir_server.search.match import Candidate, compare_keys, compute_sort_key
from fhir_server.search.query import Query, Scope, SortKey
from fhir_server.security.access import Reader
from fhir_server.store.protocol import Page, Stored

MOST_CONTAINERS = 5_000
"""Containers that one search looks into."""

_AT_ONCE = 500

Match = tuple[SortKey, Stored | Contained]
"""A position in the order, and what is there."""
# What the containers that are read at once may have together.
_MOST_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ContainedPage:
    """A page as `store.protocol.Page`.

    `inside`: matches on all pages that are contained resources. `container_count`: containers that were read.
    """

    matches: tuple[Stored | Contained, ...]
    next: SortKey | None
    inside: int
    container_count: int


@dataclass(frozen=True, slots=True)
class ContainerReading:
    """What is needed to look into containers: how resources are indexed, the served types, and a thread for both."""

    index: IndexEntries
    types: Collection[str]
    long_work: LongWork

    def find_position(self, query: Query, found: Stored) -> SortKey:
        """Where a resource that is found stands in the order of the query."""
        entries = self.index(found.type, orjson.loads(found.raw or b"{}"))
        return compute_sort_key(query.sort, Candidate(found.type, found.id, found.last_updated, entries))


async def search_contained(
    reader: Reader, query: Query, inside: ContainedSearch, reading: ContainerReading
) -> ContainedPage:
    """A page of what `query` finds and of what is found inside containers. Raises TooCostly for too many containers."""
    matches, container_count = await _match_contained(reader, query, inside, reading)
    page = await reader.search(query) if query.count and query.scopes else Page((), None)
    if query.count == 0:
        return ContainedPage((), None, len(matches), container_count)
    left: list[Match] = [
        match for match in matches if query.after is None or compare_keys(query.sort, match[0], query.after) > 0
    ]
    positions = await reading.long_work.run_each(partial(reading.find_position, query), page.matches)
    left += zip(positions, page.matches, strict=True)

    def compare_positions(one: Match, other: Match) -> int:
        return compare_keys(query.sort, one[0], other[0])

    left.sort(key=cmp_to_key(compare_positions))
    shown = left[: query.count]
    more = page.next is not None or len(left) > len(shown)
    return ContainedPage(
        tuple(found for _, found in shown), shown[-1][0] if more else None, len(matches), container_count
    )


async def _match_contained(
    reader: Reader, query: Query, inside: ContainedSearch, reading: ContainerReading
) -> tuple[list[Match], int]:
    """The matches among contained resources in any order: each resource, or each container once.

    Also tells how many containers there are.
    """
    container_count = 0
    alone: list[Match] = []
    by_container: dict[str, Match] = {}
    async for containers in _iterate_containers(reader, inside):
        container_count += len(containers)
        family = await _read_contents(containers.values(), reading)
        for scope in inside.scopes:
            for found in await find_matches(scope.where, scope.type, family, reader):
                key = compute_sort_key(query.sort, found)
                if inside.without_containers:
                    alone.append((key, found))
                    continue
                at = (*key[:-1], found.within)
                earlier = by_container.get(found.within)
                if earlier is None or compare_keys(query.sort, at, earlier[0]) < 0:
                    by_container[found.within] = at, containers[found.within]
    if inside.without_containers:
        return alone, container_count
    ordinary = await _find_ordinary_matches(reader, by_container, query.scopes)
    return [match for reference, match in by_container.items() if reference not in ordinary], container_count


async def _iterate_containers(reader: Reader, inside: ContainedSearch) -> AsyncIterator[dict[str, Stored]]:
    """The containers by reference, some hundred at a time."""
    query: Query | None = Query(inside.containers, count=_AT_ONCE, most_bytes=_MOST_BYTES)
    container_count = 0
    while query is not None:
        page = await reader.search(query)
        container_count += len(page.matches)
        if container_count > MOST_CONTAINERS or (container_count == MOST_CONTAINERS and page.next):
            types = " or ".join(f"`{scope.type}`" for scope in inside.scopes[:5])
            raise TooCostly(
                f"More than {MOST_CONTAINERS} resources contain a {types}; contained resources have no index. "
                "Name a time by `_lastUpdated`, or search without `_contained`."
            )
        yield {each.reference: each for each in page.matches}
        query = None if page.next is None else replace(query, after=page.next)


async def _read_contents(containers: Iterable[Stored], reading: ContainerReading) -> list[Contained]:
    def look_into(stored: Stored) -> Sequence[Contained]:
        return list_contained(stored, reading.index, reading.types)

    return list(chain.from_iterable(await reading.long_work.run_each(look_into, containers)))


async def _find_ordinary_matches(reader: Reader, references: Iterable[str], scopes: Sequence[Scope]) -> set[str]:
    """Those of the containers that match the search themselves."""
    found: set[str] = set()
    for scope in scopes:
        own = [reference for reference in references if reference.startswith(f"{scope.type}/")]
        if own:
            found |= await reader.find_matching(own, scope.where)
    return found
