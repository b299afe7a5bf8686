"""The keys by which a written version meets the kept answers that it may belong to, without a look at all the others.

An actor has an answer for each day that was asked about, and a visit belongs to one of them. So a key is a term that
each match of a query has, together with a *mark* that each match has as well: a day on which a date of it begins, or
another term of it; None where the query requires neither.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from fhir_server.search import query as q
from fhir_server.search.entries import Entries

Mark = int | str | None
Key = tuple[str, str, str, Mark]
"""Type, parameter, term and mark."""

_DAY = 86_400_000_000
_MOST_DAYS = 8
"""Days of a date range that are marks, each by itself."""
_BEGINS_WITHIN = [("low", "ge"), ("low", "lt")]
_ANY: tuple[Mark, ...] = (None,)


class _Marks(NamedTuple):
    """Each match has one of the marks, by one of the parameters."""

    marks: frozenset[Mark]
    parameters: frozenset[str]


class ScopeKeys(NamedTuple):
    """The keys of one scope of a query, and by which parameters a version has them."""

    keys: tuple[Key, ...]
    parameter: str
    marking: frozenset[str]


def list_scope_keys(scope: q.Scope) -> ScopeKeys | None:
    """The keys of a scope, one of which each of its matches has; None where no term is required of them."""
    parts = _list_parts(scope.where)
    equality = next((part for part in parts if isinstance(part, q.Equals)), None)
    if equality is None:
        return None
    found = _find_marks(part for part in parts if part is not equality)
    marks: Iterable[Mark] = found.marks if found else _ANY
    keys = [(scope.type, equality.parameter, term, mark) for term in equality.terms for mark in marks]
    return ScopeKeys(tuple(keys), equality.parameter, found.parameters if found else frozenset())


def list_keys(type: str, entries: Entries, parameters: Iterable[str], marking: Iterable[str]) -> list[Key]:
    """The keys that a version has, of `ScopeKeys.parameter` and `ScopeKeys.marking` of all scopes of its type."""
    terms, dates = entries.terms, entries.dates
    marks: list[Mark] = [None]
    for parameter in marking:
        if parameter in dates:
            marks += [low // _DAY for low, _ in dates[parameter]]
        if parameter in terms:
            marks += terms[parameter]
    held = [(parameter, term) for parameter in parameters if parameter in terms for term in terms[parameter]]
    return [(type, parameter, term, mark) for parameter, term in held for mark in marks]


def _list_parts(clause: q.Clause) -> tuple[q.Clause, ...]:
    return clause.clauses if isinstance(clause, q.And) else (clause,)


def _find_marks(parts: Iterable[q.Clause]) -> _Marks | None:
    """The marks of the first clause that has some, of clauses that all have to hold."""
    return next((found for part in parts if (found := _list_marks(part)) is not None), None)


def _list_marks(clause: q.Clause) -> _Marks | None:
    """One of which everything that a clause is true of has; None where it says nothing of the kind."""
    match clause:
        case q.Equals(parameter, terms):
            return _Marks(frozenset(terms), frozenset((parameter,)))
        case q.DateRange(parameter, bounds):
            days = _list_days(bounds)
            return _Marks(frozenset(days), frozenset((parameter,))) if days else None
        case q.And(clauses):
            return _find_marks(clauses)
        case q.Or(clauses):
            found = [marks for each in clauses if (marks := _list_marks(each)) is not None]
            if not found or len(found) < len(clauses):
                return None
            return _Marks(
                frozenset().union(*(each.marks for each in found)),
                frozenset().union(*(each.parameters for each in found)),
            )
    return None


def _list_days(bounds: tuple[q.Bound, ...]) -> range:
    """The days on which what is within the bounds begins; empty for what may be long, and for other bounds."""
    if [(bound.end, bound.comparison) for bound in bounds] != _BEGINS_WITHIN:
        return range(0)
    first, end = int(bounds[0].value // _DAY), -int(-bounds[1].value // _DAY)
    return range(first, end) if end - first <= _MOST_DAYS else range(0)
