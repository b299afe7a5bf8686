"""How a page is found: enter by a rare clause and sort its few resources, or walk along the order and stop early.

The matches of each clause are counted in its index, up to a limit. With n candidates among N resources and a page of p,
entering costs n tests and a sort, walking p·N/matches tests; each test's cost is that of its clauses, cheap and rarely
true ones first. A walk that meets fewer matches than expected is stopped in time, and the clause entered after all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, sqrt

from fhir_server.search import query as q
from fhir_server.store.sqlite.cardinality import CAP, Size, Sizes
from fhir_server.store.sqlite.clauses import has_index, split_conjunction
from fhir_server.store.sqlite.compile import select_clause
from fhir_server.store.sqlite.context import Context

_LEAST_CAP = 200
_MOST_COUNTED = 40
"""Of so many criteria one is rare enough; counting all of a thousand would take longer than the search."""
_FOLLOWING = q.Chain | q.Has | q.CanonicalChain | q.CanonicalHas
_READABLE_WHOLE = (
    *(q.Equals, q.StartsWith, q.TermRange, q.Contains, q.EndsWith, q.Words, q.DateRange, q.NumberRange, q.Near),
    *(q.Lineage, q.Or, q.Chain, q.Has, q.CanonicalChain, q.CanonicalHas),
)

# Costs in µs, as measured: of testing one resource, of reading one index row, and of each further step.
_TEST_COSTS: Mapping[type, float] = {
    q.Equals: 0.8, q.NumberRange: 0.8, q.Near: 2.0, q.Lineage: 2.0, q.Ids: 0.2, q.LastUpdated: 0.5, q.DateRange: 2.0,
    q.StartsWith: 3.3, q.TermRange: 3.3, q.Contains: 3.5, q.EndsWith: 3.5, q.Words: 2.0, q.Present: 2.3, q.Chain: 2.0,
    q.Has: 2.0, q.CanonicalChain: 6.0, q.CanonicalHas: 6.0, q.Every: 6.0,
}  # fmt: skip
# How many resources refer to one by a parameter, at a guess.
_SOURCES: Mapping[type, int] = {q.Has: 5, q.CanonicalHas: 5}
_READ_COSTS: Mapping[type, float] = {q.DateRange: 0.15, q.NumberRange: 0.06, q.Has: 3.0, q.CanonicalHas: 3.0}
# Of what is not counted to its end, how many times the cap is read at a guess: many sources lead to one resource.
_UNCOUNTED_READS: Mapping[type, int] = {q.Chain: 2, q.Has: 3, q.CanonicalChain: 2, q.CanonicalHas: 3}
_READ_COST, _FOUND_COST, _SORTED_COST, _WALKED_COST = 0.1, 0.25, 2.0, 0.15
# Of a chain: of listing one target, and of looking one up.
_LISTED_COST, _LOOKED_UP_COST = 0.6, 0.5
_FEW = 100

_TRIAL = 600.0
"""What a walk may always take, µs."""


@dataclass(frozen=True, slots=True)
class Plan:
    """`entry`: the clause to enter by (None: none has an index); `walks`: try along the order first, for about `rows`.

    `cost`: what entering takes at least, µs; a walk that has taken as much is given up.
    """

    parts: tuple[q.Clause, ...]
    entry: q.Clause | None
    walks: bool
    rows: int
    context: Context
    cost: float = 0.0


def plan(where: q.Clause, type: str, limit: int, context: Context, sizes: Sizes, sorts: bool = False) -> Plan:
    """The plan for one type and a page of `limit` resources; `sorts`: by more than the id."""
    parts = split_conjunction(where)
    indexed = tuple(dict.fromkeys(filter(has_index, parts)))[:_MOST_COUNTED]
    if not indexed:
        return Plan(parts, None, True, 0, context)
    total = sizes.count_type(context.connection, context.find_code(type))
    # About where entering one clause alone begins to cost more than walking.
    cap = CAP if limit == 1 else min(CAP, max(_LEAST_CAP, int(1.5 * sqrt(limit * total))))
    counted = sizes.measure_clauses(indexed, type, context, cap)
    if len(indexed) == 1 and indexed[0] in counted and counted[indexed[0]].rows <= min(limit, _FEW):
        return Plan(parts, indexed[0], False, 0, context)  # any walk would meet as many on its way
    guess = {part: counted[part].matches if part in counted else max(cap, total // 4) for part in indexed}
    shares = {part: min(1.0, guess.get(part, total / 2) / total) for part in parts}
    parts = tuple(sorted(parts, key=lambda part: _estimate_test(part) / (1.001 - shares[part])))
    best = min(indexed, key=lambda part: _estimate_reading(part, counted.get(part, Size(guess[part], guess[part]))))
    matches = float(total)
    for part in indexed:
        matches *= shares[part]
    rows = min(float(total), limit * total / max(matches, 0.5))
    others = [part for part in parts if part is not best]
    read = max(guess[best], _UNCOUNTED_READS.get(best.__class__, 1) * cap)
    entering = _estimate_reading(best, counted.get(best, Size(guess[best], read)))
    entering += guess[best] * (_FOUND_COST + _estimate_tests(others, shares))
    entering += _SORTED_COST * matches if sorts else 0.0
    walks = rows * (_WALKED_COST + _estimate_tests(parts, shares)) < entering
    # A guess that is too high would let a walk along chains go on for long, and entered they cost little more.
    least = min(1.0, cap / guess[best]) if best not in counted and isinstance(best, _FOLLOWING) else 1.0
    probes = rows if walks else guess[best]
    context = replace(
        context,
        read_whole=_choose_read_whole(counted, best, probes),
        targets_first=_choose_targets_first(parts if walks else others, probes, context, sizes),
    )
    return Plan(parts, best, walks, int(rows), context, max(_TRIAL, least * entering))


def plan_brief(where: q.Clause, type: str, context: Context) -> Plan | None:
    """To enter by an equality that few resources fulfil, as of an actor: to weigh it against others takes longer.

    None where there is none. `rows`: how many index rows it has.
    """
    parts = split_conjunction(where)
    entry = next((part for part in parts if isinstance(part, q.Equals | q.StartsWith)), None)
    listed = select_clause(entry, type, context) if entry is not None else None
    if listed is None:
        return None
    values = (*listed[1], _FEW + 1)
    # Index rows exist for current resources only: nothing else needs a look.
    rows = context.connection.execute(f"SELECT count(*) FROM ({listed[0]} LIMIT ?)", values).fetchone()[0]
    return Plan(parts, entry, False, rows, context) if rows <= _FEW else None


def _estimate_reading(clause: q.Clause, size: Size) -> float:
    return size.rows * _READ_COSTS.get(clause.__class__, _READ_COST)


def _estimate_test(clause: q.Clause) -> float:
    if isinstance(clause, q.And | q.Or):
        return sum(map(_estimate_test, clause.clauses))
    if isinstance(clause, q.Not):
        return _estimate_test(clause.clause)
    cost = _TEST_COSTS[clause.__class__]
    if isinstance(clause, _FOLLOWING):
        cost += _SOURCES.get(clause.__class__, 1) * _estimate_test(clause.where)
    return cost


def _estimate_tests(parts: Sequence[q.Clause], shares: Mapping[q.Clause, float]) -> float:
    """What testing a resource for all the parts costs, when each is tested only if those before it hold."""
    cost, reached = 0.0, 1.0
    for part in parts:
        cost += reached * _estimate_test(part)
        reached *= shares[part]
    return cost


def _choose_read_whole(counted: Mapping[q.Clause, Size], best: q.Clause, probes: float) -> frozenset[q.Clause]:
    """The clauses that are cheaper to read whole than to test `probes` times."""
    return frozenset(
        part
        for part, size in counted.items()
        if part is not best and isinstance(part, _READABLE_WHOLE)
        if _estimate_reading(part, size) < probes * _estimate_test(part)
    )


def _choose_targets_first(
    parts: Sequence[q.Clause], probes: float, context: Context, sizes: Sizes
) -> frozenset[q.Clause]:
    """The chains whose targets, all that match, are cheaper to read first than to look up and test `probes` times."""
    chosen: list[q.Clause] = []
    for part in parts:
        if isinstance(part, q.Chain) and has_index(part.where) and probes > _FEW:
            size = sizes.measure_clauses((part.where,), part.type, context, CAP).get(part.where)
            reading = _estimate_reading(part.where, size) + size.matches * _LISTED_COST if size is not None else inf
            if reading < probes * (_LOOKED_UP_COST + _estimate_test(part.where)):
                chosen.append(part)
    return frozenset(chosen)
