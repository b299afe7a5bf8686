"""Clauses as aggregation expressions, which test a document and enter no index (https://www.mongodb.com/docs/manual/reference/operator/query/expr/).

They mean what `compile.py` makes of the same clauses. MongoDB makes a plan for every criterion that can enter an index;
what stands in `$expr` adds none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fhir_server.search import query as q
from fhir_server.search.entries import SEPARATOR
from fhir_server.store.mongo import patterns
from fhir_server.store.mongo.patterns import Expression, build_prefix_range

_TERMS: Expression = {"$ifNull": ["$terms", []]}
_OPERATORS = {"lt": "$lt", "le": "$lte", "gt": "$gt", "ge": "$gte"}
_FEW = 8
"""Terms that are looked for one by one; more of them as a set."""

_MOST = 1_000
"""Terms or ids of one test: a filter looks up in a sorted list, an expression makes a set for each resource."""


def build_test(clause: q.Clause) -> Expression:
    """The expression that is true for the current documents that match; `clause` as for `compile.compile_clause`."""
    return _BUILDERS[clause.__class__](clause)


def has_test(clause: q.Clause) -> bool:
    """Whether a clause has an expression that is no slower than its filter.

    A unit without a system has none, as it is found by a pattern; nor have very many values, as of a chain.
    """
    match clause:
        case q.NumberRange():
            return clause.unit is None or clause.unit[0] is not None
        case q.Equals(terms=values) | q.Ids(values):
            return len(values) <= _MOST
    return all(map(has_test, q.iterate_children(clause)))


def _has_one_of(terms: Sequence[str]) -> Expression:
    if len(terms) > _FEW:
        return {"$ne": [{"$setIntersection": [_TERMS, {"$literal": list(terms)}]}, []]}
    return {"$or": [{"$in": [{"$literal": term}, _TERMS]} for term in terms]}


def _has_any(array: Expression | str, condition: Expression) -> Expression:
    """Some element of an array meets a condition on `$$this`."""
    return {"$anyElementTrue": [{"$map": {"input": {"$ifNull": [array, []]}, "in": condition}}]}


def _has_term_within(bounds: Mapping[str, str]) -> Expression:
    return _has_any("$terms", patterns.build_condition({name: {"$literal": end} for name, end in bounds.items()}))


def _build_term_range(clause: q.TermRange) -> Expression:
    ends = {"$gte": clause.low, "$lt": clause.high}
    named = {name: f"{clause.parameter}={end}" for name, end in ends.items() if end is not None}
    return _has_term_within(build_prefix_range(f"{clause.parameter}=") | named)


def _build_contains(clause: q.Contains) -> Expression:
    if SEPARATOR in clause.text:
        return _NEVER
    condition: Expression = patterns.match_within(clause.parameter, clause.text)["$expr"]
    return condition


def _build_ends_with(clause: q.EndsWith) -> Expression:
    if clause.normalised and SEPARATOR in clause.suffix:
        return _NEVER
    condition: Expression = patterns.match_ending(clause.parameter, clause.suffix, clause.normalised)["$expr"]
    return condition


def _build_words(clause: q.Words) -> Expression:
    """The words side by side, between the blanks before, between and after them."""
    phrase = f" {' '.join(clause.words)}" if clause.prefix else f" {' '.join(clause.words)} "
    condition: Expression = patterns.match_phrase(clause.parameter, phrase)["$expr"]
    return condition


def _compare_ends(bounds: Sequence[q.Bound]) -> list[Expression]:
    ends = {"low": "$$this.l", "high": "$$this.h"}
    return [{_OPERATORS[each.comparison]: [ends[each.end], each.value]} for each in bounds]


def _build_date_range(clause: q.DateRange) -> Expression:
    return _has_any("$dates", {"$and": [{"$eq": ["$$this.p", clause.parameter]}, *_compare_ends(clause.bounds)]})


def _build_number_range(clause: q.NumberRange) -> Expression:
    same = [{"$eq": ["$$this.p", clause.parameter]}, {"$eq": ["$$this.k", {"$literal": clause.key}]}]
    if clause.unit is not None:
        unit = build_prefix_range(f"{clause.unit[0]}{SEPARATOR}{clause.unit[1]}{SEPARATOR}")
        same += [{operator: ["$$this.u", {"$literal": end}]} for operator, end in unit.items()]
    return _has_any("$numbers", {"$and": [*same, *_compare_ends(clause.bounds)]})


def _build_present(clause: q.Present) -> Expression:
    own = {"$eq": ["$$this.p", clause.parameter]}
    terms = _has_term_within(build_prefix_range(f"{clause.parameter}="))
    return {"$or": [terms, _has_any("$dates", own), _has_any("$numbers", own)]}


def _build_last_updated(clause: q.LastUpdated) -> Expression:
    return {"$and": [{_OPERATORS[each.comparison]: ["$updated", each.value]} for each in clause.bounds]}


_NEVER: Expression = {"$or": []}

_BUILDERS: dict[type, Callable[[Any], Expression]] = {
    q.Equals: lambda clause: _has_one_of([f"{clause.parameter}={term}" for term in clause.terms]),
    q.StartsWith: lambda clause: _has_term_within(build_prefix_range(f"{clause.parameter}={clause.prefix}")),
    q.Contains: _build_contains,
    q.EndsWith: _build_ends_with,
    q.TermRange: _build_term_range,
    q.Words: _build_words,
    q.DateRange: _build_date_range,
    q.NumberRange: _build_number_range,
    q.Present: _build_present,
    q.Ids: lambda clause: {"$in": ["$_id", {"$literal": list(clause.ids)}]},
    q.LastUpdated: _build_last_updated,
    q.And: lambda clause: {"$and": [build_test(each) for each in clause.clauses]},
    q.Or: lambda clause: {"$or": [build_test(each) for each in clause.clauses]},
    q.Not: lambda clause: {"$not": [build_test(clause.clause)]},
}
