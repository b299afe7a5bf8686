"""How a page is found: enter by a rare clause and sort its few resources, or walk along the order and stop early.

The matches of each clause are counted in its index, up to a limit. With n candidates among N resources and a page of p,
entering costs n tests and a sort, walking p·N/matches tests; each test's cost is that of its clauses, cheap and rarely
true ones first. A walk that meets fewer matches than expected is stopped in time, and the clause entered after all.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import sqrt

from fhir_server.search.query import (
    And,
    Chain,
    Clause,
    Contains,
    DateRange,
    EndsWith,
    Equals,
    Has,
    Ids,
    LastUpdated,
    Lineage,
    Near,
    Not,
    NumberRange,
    Or,
    Present,
    StartsWith,
    TermRange,
    Words,
)
from fhir_server.store.sqlite import grams
from fhir_server.store.sqlite.clauses import conjunction, drivable
from fhir_server.store.sqlite.compile import Context, drive

CAP = 4000
"""Index rows counted at most per clause: beyond, walking is cheaper at any size that this store is made for."""

_LEAST_CAP = 200
_REMEMBERED = 4096
_REMEMBERED_SECONDS = 60.0

_UNCOUNTED = (EndsWith, Present)
_READ_AT_ONCE = (
    *(Equals, StartsWith, TermRange, Contains, EndsWith, Words, DateRange, NumberRange, Near, Lineage, Chain, Has, Or),
)

# Costs in µs, as measured: of testing one resource, of reading one match from the index, and of each further step.
_TEST_COSTS: Mapping[type, float] = {
    Equals: 0.6, NumberRange: 0.7, Near: 2.0, Lineage: 2.0, Ids: 0.2, LastUpdated: 0.5, DateRange: 2.0, StartsWith: 3.3,
    TermRange: 3.3, Contains: 3.5, EndsWith: 3.5, Words: 2.0, Present: 2.3, Chain: 3.0, Has: 2.0,
}  # fmt: skip
# How many resources refer to one by a parameter, at a guess.
_SOURCES = 5
_READ_COSTS: Mapping[type, float] = {DateRange: 0.35, Has: 3.0}
# Of what is not counted to its end, how many times the cap is read at a guess: many sources lead to one resource.
_UNCOUNTED_READS: Mapping[type, int] = {Chain: 2, Has: 3}
_READ_COST, _FOUND_COST, _SORTED_COST, _WALKED_COST = 0.2, 0.8, 2.0, 0.15


_TRIAL = 600.0
"""What a walk may always take, µs."""


@dataclass(frozen=True, slots=True)
class Plan:
    """`enter`: the clause to enter by (None: none can); `walk`: try along the order first, for about `rows` resources.

    `cost`: what entering takes at least, µs; a walk that has taken as much is given up.
    """

    parts: tuple[Clause, ...]
    enter: Clause | None
    walk: bool
    rows: int
    context: Context
    cost: float = 0.0


class Sizes:
    """How many resources each type has, roughly, and each clause finds; shared by the threads of a store.

    A type is counted anew when the file has grown by a quarter, a clause also after a minute: a plan that rests on
    an old number is slower, never wrong.
    """

    def __init__(self) -> None:
        self._counted: dict[int, tuple[int, int]] = {}
        self._remembered: dict[tuple[str, Clause], tuple[float, int, int, int | None]] = {}

    def of_type(self, connection: sqlite3.Connection, code: int) -> int:
        """About how many resources the type with this code has, at least 1."""
        newest = connection.execute("SELECT max(rid) FROM resource").fetchone()[0] or 0
        at, count = self._counted.get(code, (-1, 0))
        if at < 0 or newest > at * 5 // 4 + 1000 or newest < at:
            statement = "SELECT count(*) FROM resource INDEXED BY resource_updated WHERE type = ? AND deleted = 0"
            count = connection.execute(statement, (code,)).fetchone()[0]
            self._counted[code] = (newest, count)
        return max(1, count)

    def of_clauses(self, clauses: Sequence[Clause], type: str, context: Context, cap: int) -> Mapping[Clause, int]:
        """`count_clauses`, as remembered where that is not too old."""
        newest, now = self._counted.get(context.code(type), (0, 0))[0], time.monotonic()
        found: dict[Clause, int] = {}
        unknown: list[Clause] = []
        for clause in clauses:
            at, largest, counted_to, count = self._remembered.get((type, clause), (0.0, -1, 0, None))
            if now - at > _REMEMBERED_SECONDS or largest != newest or (count is None and counted_to < cap):
                unknown.append(clause)
            elif count is not None and count < cap:
                found[clause] = count
        if unknown:
            counted = count_clauses(unknown, type, context, cap)
            if len(self._remembered) > _REMEMBERED:
                self._remembered.clear()
            for clause in unknown:
                self._remembered[type, clause] = (now, newest, cap, counted.get(clause))
            found.update(counted)
        return found


def plan(where: Clause, type: str, limit: int, context: Context, sizes: Sizes, sorts: bool = False) -> Plan:
    """Choose for one type and a page of `limit` resources; `sorts`: by more than the id."""
    parts = conjunction(where)
    drivers = tuple(dict.fromkeys(part for part in parts if drivable(part)))
    if not drivers:
        return Plan(parts, None, True, 0, context)
    total = sizes.of_type(context.connection, context.code(type))
    # About where entering one clause alone begins to cost more than walking.
    cap = CAP if limit == 1 else min(CAP, max(_LEAST_CAP, int(1.5 * sqrt(limit * total))))
    counted = sizes.of_clauses(drivers, type, context, cap)
    guess = {part: float(counted.get(part, max(cap, total // 4))) for part in drivers}
    shares = {part: min(1.0, guess.get(part, total / 2) / total) for part in parts}
    parts = tuple(sorted(parts, key=lambda part: _test_cost(part) / (1.001 - shares[part])))
    best = min(drivers, key=lambda part: guess[part] * _READ_COSTS.get(part.__class__, _READ_COST))
    matches = float(total)
    for part in drivers:
        matches *= shares[part]
    rows = min(float(total), limit * total / max(matches, 0.5))
    others = [part for part in parts if part is not best]
    read = guess[best] if best in counted else max(guess[best], _UNCOUNTED_READS.get(best.__class__, 1) * cap)
    entering = read * _READ_COSTS.get(best.__class__, _READ_COST)
    entering += guess[best] * (_FOUND_COST + _testing(others, shares))
    entering += _SORTED_COST * matches if sorts else 0.0
    walking = rows * (_WALKED_COST + _testing(parts, shares))
    walk = walking < entering
    # A guess that is too high would let a walk along chains go on for long, and entered they cost little more.
    least = min(1.0, cap / guess[best]) if best not in counted and isinstance(best, Chain | Has) else 1.0
    small = _small(counted, best, rows if walk else guess[best])
    return Plan(parts, best, walk, int(rows), replace(context, small=small), max(_TRIAL, least * entering))


def _test_cost(clause: Clause) -> float:
    if isinstance(clause, Not):
        return _test_cost(clause.clause)
    if isinstance(clause, And | Or):
        return sum(map(_test_cost, clause.clauses))
    if isinstance(clause, Chain):
        return _TEST_COSTS[Chain] + _test_cost(clause.where)
    if isinstance(clause, Has):
        return _TEST_COSTS[Has] + _SOURCES * _test_cost(clause.where)
    return _TEST_COSTS[clause.__class__]


def _testing(parts: Sequence[Clause], shares: Mapping[Clause, float]) -> float:
    """What testing a resource for all the parts costs, when each is tested only if those before it hold."""
    cost, reached = 0.0, 1.0
    for part in parts:
        cost += reached * _test_cost(part)
        reached *= shares[part]
    return cost


def count_clauses(clauses: Sequence[Clause], type: str, context: Context, cap: int = CAP) -> Mapping[Clause, int]:
    """The matches of each clause by itself; those with `cap` or more, and those dear to count, are left out."""
    wanted = [(part, drive(part, type, context)) for part in clauses if _countable(part)]
    known = [(part, sql) for part, sql in wanted if sql is not None]
    if not known:
        return {}
    # Index rows are as good a measure as resources, and need no list of those already seen.
    texts = [text.replace("SELECT DISTINCT ", "SELECT ") for _, (text, _) in known]
    columns = ", ".join(f"(SELECT count(*) FROM ({text} LIMIT ?))" for text in texts)
    values = [value for _, (_, values) in known for value in (*values, cap)]
    found = context.connection.execute(f"SELECT {columns}", values).fetchone()
    return {part: count for (part, _), count in zip(known, found, strict=True) if count < cap}


def _countable(clause: Clause) -> bool:
    return grams.applies(clause) if isinstance(clause, Contains) else not isinstance(clause, _UNCOUNTED)


def _small(counted: Mapping[Clause, int], best: Clause, probes: float) -> frozenset[Clause]:
    """The clauses that are cheaper to read whole than to test `probes` times."""
    return frozenset(
        part
        for part, count in counted.items()
        if part is not best and isinstance(part, _READ_AT_ONCE)
        if count * _READ_COSTS.get(part.__class__, _READ_COST) < probes * _test_cost(part)
    )
