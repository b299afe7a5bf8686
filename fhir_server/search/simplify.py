"""Joining clauses without needless nesting: AND and OR of search criteria (https://hl7.org/fhir/R4/search.html#combining)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

from fhir_server.search.query import And, Bound, Chain, Clause, DateRange, Equals, Ids, LastUpdated, NumberRange, Or

IsSingle = Callable[[str, str], bool]
"""(resource type, parameter code) → a resource has at most one value of it."""

MAX_RANGES = 8
"""Alternatives that merging may make of date criteria, each of which may be an Or: beyond it they stay apart."""


def simplify_or(clauses: Iterable[Clause]) -> Clause:
    """Some clause holds: nested Or flattened, equal clauses once, Equals of one parameter and Ids joined."""
    alike: dict[object, list[Clause]] = {}
    for clause in _flatten(clauses, Or):
        alike.setdefault(_get_or_key(clause), []).append(clause)
    parts = tuple([_merge_or(found) if len(found) > 1 else found[0] for found in alike.values()])
    return parts[0] if len(parts) == 1 else Or(parts)


def simplify_and(type: str, clauses: Iterable[Clause], single: IsSingle) -> Clause:
    """Every clause holds for a resource of `type`; nested And flattened, equal clauses once, single values merged.

    `ge…` and `lt…` on a parameter that does not repeat speak of the same value, so that one bounded range says both.
    On a repeating parameter two values may satisfy one each: those stay apart.
    """
    joined: dict[object, Clause] = {}
    for clause in _flatten(clauses, And):
        key = _get_and_key(type, clause, single)
        earlier = joined.get(key)
        if earlier is not None and len(_list_date_ranges(earlier)) * len(_list_date_ranges(clause)) > MAX_RANGES:
            key, earlier = clause, None
        joined[key] = clause if earlier is None else _merge_and(earlier, clause, single)
    parts = tuple(joined.values())
    return parts[0] if len(parts) == 1 else And(parts)


def _flatten(clauses: Iterable[Clause], kind: type[And] | type[Or]) -> Iterator[Clause]:
    for clause in clauses:
        if isinstance(clause, kind):
            yield from _flatten(clause.clauses, kind)
        else:
            yield clause


def _get_or_key(clause: Clause) -> object:
    match clause:
        case Equals(parameter, _):
            return Equals, parameter
        case Ids():
            return Ids
        case _:
            return clause


def _merge_or(alike: Sequence[Clause]) -> Clause:
    """One clause for several with the same key."""
    match first := alike[0]:
        case Equals(parameter):
            return Equals(parameter, _join_distinct(each.terms for each in alike if isinstance(each, Equals)))
        case Ids():
            return Ids(_join_distinct(each.ids for each in alike if isinstance(each, Ids)))
        case _:
            return first


def _get_and_key(type: str, clause: Clause, single: IsSingle) -> object:
    match clause:
        case LastUpdated():
            return LastUpdated
        case DateRange(parameter, _) | Or((DateRange(parameter, _), *_)) if _list_date_ranges(clause) and single(
            type, parameter
        ):
            return DateRange, parameter
        case NumberRange(parameter, _, key, unit) if single(type, parameter):
            return NumberRange, parameter, key, unit
        case Chain(parameter, target, _) if single(type, parameter):
            return Chain, parameter, target
        case _:
            return clause


def _merge_and(first: Clause, second: Clause, single: IsSingle) -> Clause:
    match first, second:
        case LastUpdated(tests), LastUpdated(more):
            return LastUpdated(_join_bounds(tests, more))
        case ((DateRange() | Or()), (DateRange() | Or())) if _list_date_ranges(first):
            pairs = itertools.product(_list_date_ranges(first), _list_date_ranges(second))
            return simplify_or(DateRange(one.parameter, _join_bounds(one.bounds, other.bounds)) for one, other in pairs)
        case NumberRange(parameter, tests, key, unit), NumberRange(_, more, _, _):
            return NumberRange(parameter, _join_bounds(tests, more), key, unit)
        case Chain(parameter, type, where), Chain(_, _, more):
            return Chain(parameter, type, simplify_and(type, (where, more), single))
        case _:
            return first


def _list_date_ranges(clause: Clause) -> tuple[DateRange, ...]:
    """The alternative date ranges, all of one parameter, that the clause consists of: `ge` has two. () for others."""
    parts = clause.clauses if isinstance(clause, Or) else (clause,)
    ranges = tuple(part for part in parts if isinstance(part, DateRange))
    alike = len(ranges) == len(parts) and len({each.parameter for each in ranges}) == 1
    return ranges if alike else ()


def _join_bounds(first: tuple[Bound, ...], second: tuple[Bound, ...]) -> tuple[Bound, ...]:
    return tuple(dict.fromkeys(first + second))


def _join_distinct(found: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(itertools.chain.from_iterable(found)))
