"""A bound on the plans that MongoDB tries for one question (https://www.mongodb.com/docs/manual/core/query-plans/).

It makes a plan for each criterion that can enter an index, up to 64, and runs all of them side by side until one wins.
Of a search with many criteria only the most selective ones are left to its planner; the others test what these find.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from hashlib import blake2b

from fhir_server.search import query as q
from fhir_server.store.mongo import trigrams
from fhir_server.store.mongo.compile import Filter, compile_clause, match_all, match_any
from fhir_server.store.mongo.expressions import build_test, has_test

MOST_PLANS = 6
"""Plans of one question that the criteria may make; the order of a sort and what is there add one each."""

FEW = 50
"""Resources of a criterion beside which no other one has to enter an index: half of what a plan reads on trial."""

MOST_COUNTED = 1_000
"""Up to how many resources a criterion is counted; beyond, one is as good as the other."""

_REMEMBERED, _SECONDS = 10_000, 600.0

Count = Callable[[q.Clause], Awaitable[int]]
"""How many resources a criterion finds, at most MOST_COUNTED."""

_RANKS: dict[type, int] = {
    q.Ids: 0,
    q.Equals: 1,
    q.NumberRange: 2,
    q.DateRange: 3,
    q.TermRange: 3,
    q.StartsWith: 3,
    q.LastUpdated: 4,
    q.Words: 4,
}
_COUNTED, _LAST = 4, 5
"""Ranks up to which a look into the index counts; alternatives, patterns and what is only present come after them."""


class Counts:
    """What criteria found a while ago, by type: for ten minutes, as it only chooses the way to the same answer."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._found: OrderedDict[bytes, tuple[float, int]] = OrderedDict()

    async def get(self, type: str, clause: q.Clause, ask: Callable[[], Awaitable[int]]) -> int:
        """The count that is remembered, or the one that is asked for now."""
        key = blake2b(f"{type} {clause!r}".encode(), digest_size=16).digest()
        at, count = self._found.get(key, (-math.inf, 0))
        if self._clock() - at > _SECONDS:
            count = await ask()
            self._found[key] = self._clock(), count
            self._found.move_to_end(key)
            if len(self._found) > _REMEMBERED:
                self._found.popitem(last=False)
        return count


def count_plans(clause: q.Clause) -> int:
    """In how many ways MongoDB can enter its indexes by a clause; 0: it cannot."""
    match clause:
        case q.And(clauses):
            return sum(map(count_plans, clauses))
        case q.Or(clauses):
            return math.prod(map(count_plans, clauses))
        case q.Not():
            return 0
        case q.DateRange():
            return 2
        case q.Words(words=words):
            return len(set(words))
        case q.Contains():
            return max(1, len(trigrams.select_terms(clause)))
    return 1


async def compile_bounded(clause: q.Clause, count: Count) -> Filter:
    """The filter of `compile_clause`, with which MongoDB makes no more than a handful of plans."""
    if count_plans(clause) <= MOST_PLANS:
        return compile_clause(clause)
    if isinstance(clause, q.Or):
        return match_any([_compile_branch(each) for each in clause.clauses])
    parts = list(dict.fromkeys(iterate_parts(clause)))
    chosen = await _choose(parts, count)
    return _compile_parts(parts, chosen)


def iterate_parts(clause: q.Clause) -> Iterator[q.Clause]:
    """The clauses that all have to hold."""
    if isinstance(clause, q.And):
        for each in clause.clauses:
            yield from iterate_parts(each)
    else:
        yield clause


async def _choose(parts: list[q.Clause], count: Count) -> list[q.Clause]:
    """The most selective ones, as many as make no more than MOST_PLANS; one that finds few by itself."""
    ranked: list[tuple[int, int, q.Clause]] = []
    for part in sorted(filter(count_plans, parts), key=_get_rank):
        rank = _get_rank(part)
        found = await count(part) if rank <= _COUNTED else MOST_COUNTED
        if found <= FEW:
            return [part]
        ranked.append((found, rank, part))
    ranked.sort(key=lambda each: each[:2])
    chosen: list[q.Clause] = []
    plans = 0
    for _, _, part in ranked:
        plans += count_plans(part)
        if chosen and plans > MOST_PLANS:
            break
        chosen.append(part)
    return chosen


def _get_rank(clause: q.Clause) -> int:
    return _RANKS.get(clause.__class__, _LAST)


def _compile_parts(parts: list[q.Clause], chosen: list[q.Clause]) -> Filter:
    """The chosen parts and the negated ones as they are, the others as a test."""
    tested = [part for part in parts if part not in chosen and count_plans(part) and has_test(part)]
    test = {"$expr": build_test(q.And(tuple(tested)))} if tested else {}
    return match_all((*(_compile_branch(part) for part in parts if part not in tested), test))


def _compile_branch(clause: q.Clause) -> Filter:
    """One of several alternatives or of the chosen parts, by one criterion: the plans of alternatives multiply."""
    if isinstance(clause, q.Or):
        return match_any([_compile_branch(each) for each in clause.clauses])
    if not isinstance(clause, q.And):
        return compile_clause(clause)
    parts = list(dict.fromkeys(iterate_parts(clause)))
    able = [part for part in parts if count_plans(part)]
    return _compile_parts(parts, [min(able, key=_get_rank)] if able else [])
