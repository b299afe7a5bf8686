"""How a page is found: enter by a rare clause and sort its few resources, or walk along the order and stop early.

The matches of each clause are counted in its index, up to a limit. With n candidates among N resources and a page of p,
entering costs n tests and a sort, walking p·N/matches tests; each test's cost is that of its clauses, cheap and rarely
true ones first. A walk that meets fewer matches than expected is stopped in time, and the clause entered after all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, sqrt

from fhir_server.search.query import (
    And,
    CanonicalChain,
    CanonicalHas,
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
from fhir_server.store.sqlite.cardinality import CAP, Size, Sizes
from fhir_server.store.sqlite.clauses import conjunction, drivable
from fhir_server.store.sqlite.context import Context

_LEAST_CAP = 200
_MOST_DRIVERS = 40
"""Of so many criteria one is rare enough; counting all of a thousand would take longer than the search."""
_READ_AT_ONCE = (
    *(Equals, StartsWith, TermRange, Contains, EndsWith, Words, DateRange, NumberRange, Near, Lineage, Or),
    *(Chain, Has, CanonicalChain, CanonicalHas),
)
_FOLLOWING = Chain | Has | CanonicalChain | CanonicalHas

# Costs in µs, as measured: of testing one resource, of reading one index row, and of each further step.
_TEST_COSTS: Mapping[type, float] = {
    Equals: 0.8, NumberRange: 0.8, Near: 2.0, Lineage: 2.0, Ids: 0.2, LastUpdated: 0.5, DateRange: 2.0, StartsWith: 3.3,
    TermRange: 3.3, Contains: 3.5, EndsWith: 3.5, Words: 2.0, Present: 2.3, Chain: 2.0, Has: 2.0,
    CanonicalChain: 6.0, CanonicalHas: 6.0,
}  # fmt: skip
# How many resources refer to one by a parameter, at a guess.
_SOURCES = 5
_READ_COSTS: Mapping[type, float] = {DateRange: 0.15, NumberRange: 0.06, Has: 3.0, CanonicalHas: 3.0}
# Of what is not counted to its end, how many times the cap is read at a guess: many sources lead to one resource.
_UNCOUNTED_READS: Mapping[type, int] = {Chain: 2, Has: 3, CanonicalChain: 2, CanonicalHas: 3}
_READ_COST, _FOUND_COST, _SORTED_COST, _WALKED_COST = 0.1, 0.25, 2.0, 0.15
# Of a chain: of listing one target, and of looking one up.
_LISTED_COST, _LOOKED_UP_COST = 0.6, 0.5
_FEW = 100

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


def plan(where: Clause, type: str, limit: int, context: Context, sizes: Sizes, sorts: bool = False) -> Plan:
    """Choose for one type and a page of `limit` resources; `sorts`: by more than the id."""
    parts = conjunction(where)
    drivers = tuple(dict.fromkeys(part for part in parts if drivable(part)))[:_MOST_DRIVERS]
    if not drivers:
        return Plan(parts, None, True, 0, context)
    total = sizes.of_type(context.connection, context.code(type))
    # About where entering one clause alone begins to cost more than walking.
    cap = CAP if limit == 1 else min(CAP, max(_LEAST_CAP, int(1.5 * sqrt(limit * total))))
    counted = sizes.of_clauses(drivers, type, context, cap)
    guess = {part: counted[part].matches if part in counted else max(cap, total // 4) for part in drivers}
    shares = {part: min(1.0, guess.get(part, total / 2) / total) for part in parts}
    parts = tuple(sorted(parts, key=lambda part: _test_cost(part) / (1.001 - shares[part])))
    best = min(drivers, key=lambda part: _reading(part, counted.get(part, Size(guess[part], guess[part]))))
    matches = float(total)
    for part in drivers:
        matches *= shares[part]
    rows = min(float(total), limit * total / max(matches, 0.5))
    others = [part for part in parts if part is not best]
    read = max(guess[best], _UNCOUNTED_READS.get(best.__class__, 1) * cap)
    entering = _reading(best, counted.get(best, Size(guess[best], read)))
    entering += guess[best] * (_FOUND_COST + _testing(others, shares))
    entering += _SORTED_COST * matches if sorts else 0.0
    walking = rows * (_WALKED_COST + _testing(parts, shares))
    walk = walking < entering
    # A guess that is too high would let a walk along chains go on for long, and entered they cost little more.
    least = min(1.0, cap / guess[best]) if best not in counted and isinstance(best, _FOLLOWING) else 1.0
    probes = rows if walk else guess[best]
    tested = parts if walk else others
    compiling = replace(context, small=_small(counted, best, probes), near=_near(tested, probes, context, sizes))
    return Plan(parts, best, walk, int(rows), compiling, max(_TRIAL, least * entering))


def _reading(clause: Clause, size: Size) -> float:
    return size.read * _READ_COSTS.get(clause.__class__, _READ_COST)


def _test_cost(clause: Clause) -> float:
    if isinstance(clause, Not):
        return _test_cost(clause.clause)
    if isinstance(clause, And | Or):
        return sum(map(_test_cost, clause.clauses))
    if isinstance(clause, Chain | CanonicalChain):
        return _TEST_COSTS[clause.__class__] + _test_cost(clause.where)
    if isinstance(clause, Has | CanonicalHas):
        return _TEST_COSTS[clause.__class__] + _SOURCES * _test_cost(clause.where)
    return _TEST_COSTS[clause.__class__]


def _testing(parts: Sequence[Clause], shares: Mapping[Clause, float]) -> float:
    """What testing a resource for all the parts costs, when each is tested only if those before it hold."""
    cost, reached = 0.0, 1.0
    for part in parts:
        cost += reached * _test_cost(part)
        reached *= shares[part]
    return cost


def _small(counted: Mapping[Clause, Size], best: Clause, probes: float) -> frozenset[Clause]:
    """The clauses that are cheaper to read whole than to test `probes` times."""
    return frozenset(
        part
        for part, size in counted.items()
        if part is not best and isinstance(part, _READ_AT_ONCE)
        if _reading(part, size) < probes * _test_cost(part)
    )


def _near(parts: Sequence[Clause], probes: float, context: Context, sizes: Sizes) -> frozenset[Clause]:
    """The chains whose targets, all that match, are cheaper to read first than to look up and test `probes` times."""
    found: list[Clause] = []
    for part in parts:
        if isinstance(part, Chain) and drivable(part.where) and probes > _FEW:
            size = sizes.of_clauses((part.where,), part.type, context, CAP).get(part.where)
            reading = _reading(part.where, size) + size.matches * _LISTED_COST if size is not None else inf
            if reading < probes * (_LOOKED_UP_COST + _test_cost(part.where)):
                found.append(part)
    return frozenset(found)
