"""Clauses as this snapshot of the database answers them: terms for a part of a text, ids for a long chain's end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import takewhile

from fhir_server.search.entries import SEPARATOR, compute_successor
from fhir_server.search.nested_index import MAX_NESTED, describe_overflow, name_nested, name_overflow, nest_clause
from fhir_server.search.query import (
    NOTHING,
    And,
    CanonicalChain,
    CanonicalHas,
    Chain,
    Clause,
    Contains,
    Equals,
    Has,
    Ids,
    Lineage,
    Not,
    Or,
    StartsWith,
    Within,
)
from fhir_server.search.simplify import simplify_or
from fhir_server.store.protocol import BudgetExceeded
from fhir_server.store.sqlite import trigrams
from fhir_server.store.sqlite.clauses import conjunction, inner_clauses
from fhir_server.store.sqlite.compile import select
from fhir_server.store.sqlite.context import Context
from fhir_server.store.sqlite.statements import snapshot

_MOST = 8
_MOST_VALUES = 100

# SQLite's parser has a stack of 100 places (before 3.46). What each clause takes of them around those inside it, and
# what a whole one may take beside the statement: what stands too deep is asked first, and its ids stand for it.
_TAKES: Mapping[object, int] = {
    Chain: 14, Has: 14, CanonicalChain: 14, CanonicalHas: 14, Or: 14, And: 7, Not: 4, Lineage: 22, Contains: 22, Ids: 8
}  # fmt: skip
_LEAF, _ROOM = 12, 66
_MOST_IDS = 50_000
_MOST_ALTERNATIVES = 400
_SIZES = (64, 128, 256, _MOST_ALTERNATIVES)
"""Alternatives of a long statement: each text that was asked is kept for the next time, with more than a megabyte."""

# Goes from term to term, one descent each, however many resources have it.
_DISTINCT = (
    "WITH RECURSIVE found (value) AS ("
    " SELECT (SELECT value FROM term WHERE tp = ?1 AND value >= ?2 AND value < ?3 ORDER BY value LIMIT 1)"
    " UNION ALL"
    " SELECT (SELECT value FROM term WHERE tp = ?1 AND value > found.value AND value < ?3 ORDER BY value LIMIT 1)"
    " FROM found WHERE found.value IS NOT NULL)"
    " SELECT value FROM found WHERE value IS NOT NULL LIMIT ?4"
)


def expanded(clause: Clause, type: str, context: Context) -> Clause:
    """The same clause in this snapshot of the database, wherever a part of a text stands for few terms.

    Chains look inside resources as well, if anything was ever stored at their places there.
    """
    if _has_links(clause):
        snapshot(context.connection)
        context.names.refresh(context.connection)
    parts = tuple([_expanded(part, type, context, _ROOM) for part in conjunction(clause)])
    return parts[0] if len(parts) == 1 else And(parts)


def _expanded(clause: Clause, type: str, context: Context, room: int) -> Clause:
    """With at most `room` places of the parser's stack, which are enough for ids."""
    takes = _takes(clause, type, context)
    if takes > room:
        return _ids(_expanded(clause, type, context, _ROOM), type, context)
    match clause:
        case StartsWith(prefix=prefix, few=few) if few or SEPARATOR in prefix:
            return _terms(clause, type, context)
        case Contains() if trigrams.applies(clause):
            return _containing(clause, type, context)
        case And():
            within = room - _TAKES[And]
            return And(tuple([_expanded(part, type, context, within) for part in conjunction(clause)]))
        case Or(clauses):
            within = room - _TAKES[Or]
            return _fewer(simplify_or(_expanded(part, type, context, within) for part in clauses), type, context)
        case Not(inner):
            return Not(_expanded(inner, type, context, room - _TAKES[Not]))
        case Chain() | Within():
            return _everywhere(clause, type, context, room)
        case Has() | CanonicalChain() | CanonicalHas():
            return replace(clause, where=_expanded(clause.where, clause.type, context, room - _TAKES[clause.__class__]))
        case _:
            return clause


def _fewer(clause: Clause, type: str, context: Context) -> Clause:
    """The clause itself, or the ids that it finds where it has more alternatives than a statement can have.

    A long one says its last alternative again and again, so that few texts serve all lengths.
    """
    if not isinstance(clause, Or) or len(clause.clauses) <= _SIZES[0] // 2:
        return clause
    if len(clause.clauses) <= _MOST_ALTERNATIVES:
        size = next(size for size in _SIZES if size >= len(clause.clauses))
        return Or((*clause.clauses, *clause.clauses[-1:] * (size - len(clause.clauses))))
    found: list[Clause] = []
    for at in range(0, len(clause.clauses), _MOST_ALTERNATIVES):
        found.append(_ids(Or(clause.clauses[at : at + _MOST_ALTERNATIVES]), type, context))
    return simplify_or(found)


def _takes(clause: Clause, type: str, context: Context) -> int:
    """The places that a clause needs when ids stand for what is inside it."""
    takes = _TAKES.get(clause.__class__, _LEAF)
    if isinstance(clause, Within) or (isinstance(clause, Chain) and _inside(clause, type, context)):
        takes += _TAKES[Or]
    return takes + _TAKES[Ids] if inner_clauses(clause) else takes


def _everywhere(clause: Chain | Within, type: str, context: Context, room: int) -> Clause:
    """The chain, and the same at each place inside the resources of the type."""
    if _is_any(context, type, name_overflow(clause.parameter, clause.type)):
        raise BudgetExceeded(describe_overflow(clause))
    places = _inside(clause, type, context)
    room -= _TAKES[Or] if places else 0
    if isinstance(clause, Within):
        return simplify_or(_expanded(each, type, context, room) for each in places)
    chain = replace(clause, where=_expanded(clause.where, clause.type, context, room - _TAKES[Chain]))
    return Or((chain, *(_expanded(each, type, context, room) for each in places))) if places else chain


def _is_any(context: Context, type: str, parameter: str) -> bool:
    """Whether some resource has a term of the parameter. A name is known for as long as the file lives."""
    if not context.names.known(type, parameter):
        return False
    text = "SELECT EXISTS (SELECT 1 FROM term WHERE tp = ?)"
    return bool(context.connection.execute(text, (context.tp(type, parameter),)).fetchone()[0])


def _inside(chain: Chain | Within, type: str, context: Context) -> list[Clause]:
    """The chain's criteria at each place where anything was ever stored."""
    places = range(MAX_NESTED)
    known = takewhile(
        lambda number: context.names.known(type, name_nested(chain.parameter, chain.type, number)), places
    )
    return [nest_clause(chain, number) for number in known]


def _has_links(clause: Clause) -> bool:
    return isinstance(clause, Chain | Has | CanonicalChain | CanonicalHas | Within) or any(
        map(_has_links, inner_clauses(clause))
    )


def _ids(clause: Clause, type: str, context: Context) -> Ids:
    snapshot(context.connection)
    text, values = select("b.ref", clause, type, "b", context)
    rows = context.connection.execute(f"{text} LIMIT {_MOST_IDS + 1}", values).fetchall()
    if len(rows) > _MOST_IDS:
        raise BudgetExceeded(f"A part of the search finds more than {_MOST_IDS} resources of type `{type}`.")
    return Ids(tuple([reference.partition("/")[2] for (reference,) in rows]))


def _terms(clause: StartsWith, type: str, context: Context) -> Clause:
    snapshot(context.connection)
    end, most = compute_successor(clause.prefix), _MOST_VALUES if clause.few else _MOST
    if end is None:
        return clause
    values = (context.tp(type, clause.parameter), clause.prefix, end, most + 1)
    found = tuple([term for (term,) in context.connection.execute(_DISTINCT, values).fetchall()])
    if clause.few and not found:
        return NOTHING  # an alternative less
    return Equals(clause.parameter, found) if len(found) <= most else clause


def _containing(clause: Contains, type: str, context: Context) -> Clause:
    snapshot(context.connection)
    source, values = trigrams.values(clause, context.tp(type, clause.parameter), context.connection)
    rows = context.connection.execute(f"SELECT g.value {source} LIMIT {_MOST_VALUES + 1}", values).fetchall()
    return Equals(clause.parameter, tuple([value for (value,) in rows])) if len(rows) <= _MOST_VALUES else clause
