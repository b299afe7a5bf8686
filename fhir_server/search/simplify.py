"""Joining clauses without needless nesting: AND and OR of search criteria (https://hl7.org/fhir/R4/search.html#combining)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from fhir_server.search import query as q

T = TypeVar("T")

IsSingle = Callable[[str, str], bool]
"""(resource type, parameter code) → whether a resource has at most one value of the parameter."""

MAX_RANGES = 8
"""Alternatives that merging date criteria, each of which may be an Or, may make; those with more are left apart."""


def simplify_or(clauses: Iterable[q.Clause]) -> q.Clause:
    """Some clause holds: nested Or flattened, equal clauses once, Equals of one parameter merged, and Ids."""
    alike: dict[object, list[q.Clause]] = {}
    for clause in _flatten(clauses, q.Or):
        alike.setdefault(_get_or_key(clause), []).append(clause)
    parts = tuple([_merge_or(same) if len(same) > 1 else same[0] for same in alike.values()])
    return parts[0] if len(parts) == 1 else q.Or(parts)


def simplify_and(type: str, clauses: Iterable[q.Clause], is_single: IsSingle) -> q.Clause:
    """Every clause holds for a resource of `type`; nested And flattened, equal clauses once, single values merged.

    `ge…` and `lt…` on a parameter that does not repeat speak of the same value, so that one bounded range says both.
    On a repeating parameter two values may satisfy one each: those stay apart.
    """
    merged: dict[object, q.Clause] = {}
    for clause in _flatten(clauses, q.And):
        key = _get_and_key(type, clause, is_single)
        earlier = merged.get(key)
        if earlier is not None and len(_list_ranges(earlier)) * len(_list_ranges(clause)) > MAX_RANGES:
            key, earlier = clause, None
        merged[key] = clause if earlier is None else _merge_and(earlier, clause, is_single)
    parts = tuple(merged.values())
    return parts[0] if len(parts) == 1 else q.And(parts)


def _flatten(clauses: Iterable[q.Clause], kind: type[q.And] | type[q.Or]) -> Iterator[q.Clause]:
    for clause in clauses:
        if isinstance(clause, kind):
            yield from _flatten(clause.clauses, kind)
        else:
            yield clause


def _get_or_key(clause: q.Clause) -> object:
    match clause:
        case q.Equals(parameter, _):
            return q.Equals, parameter
        case q.Ids():
            return q.Ids
    return clause


def _merge_or(alike: Sequence[q.Clause]) -> q.Clause:
    """One clause for several with the same key."""
    match first := alike[0]:
        case q.Equals(parameter):
            return q.Equals(parameter, _join_distinct(each.terms for each in alike if isinstance(each, q.Equals)))
        case q.Ids():
            return q.Ids(_join_distinct(each.ids for each in alike if isinstance(each, q.Ids)))
    return first


def _get_and_key(type: str, clause: q.Clause, is_single: IsSingle) -> object:
    match clause:
        case q.LastUpdated():
            return q.LastUpdated
        case q.DateRange(parameter) | q.Or((q.DateRange(parameter), *_)) if _list_ranges(clause) and is_single(
            type, parameter
        ):
            return q.DateRange, parameter
        case q.NumberRange(parameter, _, key, unit) if is_single(type, parameter):
            return q.NumberRange, parameter, key, unit
        case q.Chain(parameter, target, _) if is_single(type, parameter):
            return q.Chain, parameter, target
    return clause


def _merge_and(first: q.Clause, second: q.Clause, is_single: IsSingle) -> q.Clause:
    match first, second:
        case q.LastUpdated(bounds), q.LastUpdated(others):
            return q.LastUpdated(_join_distinct((bounds, others)))
        case ((q.DateRange() | q.Or()), (q.DateRange() | q.Or())) if _list_ranges(first):
            pairs = itertools.product(_list_ranges(first), _list_ranges(second))
            joined = ((one.parameter, _join_distinct((one.bounds, other.bounds))) for one, other in pairs)
            return simplify_or(itertools.starmap(q.DateRange, joined))
        case q.NumberRange(parameter, bounds, key, unit), q.NumberRange(_, others):
            return q.NumberRange(parameter, _join_distinct((bounds, others)), key, unit)
        case q.Chain(parameter, type, where), q.Chain(_, _, other):
            return q.Chain(parameter, type, simplify_and(type, (where, other), is_single))
    return first


def _list_ranges(clause: q.Clause) -> tuple[q.DateRange, ...]:
    """The alternative date ranges, all of one parameter, that the clause consists of: `ge` has two. () for others."""
    parts = clause.clauses if isinstance(clause, q.Or) else (clause,)
    ranges = tuple(part for part in parts if isinstance(part, q.DateRange))
    alike = len(ranges) == len(parts) and len({each.parameter for each in ranges}) == 1
    return ranges if alike else ()


def _join_distinct(parts: Iterable[tuple[T, ...]]) -> tuple[T, ...]:
    return tuple(dict.fromkeys(itertools.chain.from_iterable(parts)))
