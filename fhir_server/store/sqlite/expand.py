"""Clauses rewritten for this snapshot of the database: terms for a part of a text, ids for the end of a long chain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import takewhile

from fhir_server.search import query as q
from fhir_server.search.entries import SEPARATOR, compute_successor
from fhir_server.search.nested_index import MAX_NESTED, describe_overflow, name_nested, name_overflow, nest_clause
from fhir_server.search.simplify import simplify_or
from fhir_server.store.protocol import BudgetExceeded
from fhir_server.store.sqlite import trigrams
from fhir_server.store.sqlite.clauses import split_conjunction
from fhir_server.store.sqlite.compile import select_matches
from fhir_server.store.sqlite.context import Context
from fhir_server.store.sqlite.statements import begin_snapshot

_MOST_TERMS = 8
_MOST_VALUES = 100

# SQLite's parser has a stack of 100 entries (before 3.46). How many each clause takes beside those of its children, and
# how many a whole one may take beside the statement: what is deeper is searched first, and its ids stand for it.
_DEPTHS: Mapping[object, int] = {
    q.Chain: 14, q.Has: 14, q.CanonicalChain: 14, q.CanonicalHas: 14, q.Or: 14, q.And: 7, q.Not: 4, q.Lineage: 22,
    q.Every: 28, q.Contains: 22, q.Ids: 8,
}  # fmt: skip
_LEAF_DEPTH, _MOST_DEPTH = 12, 66
_MOST_IDS = 50_000
_MOST_ALTERNATIVES = 400
_SHORT = 32
_SIZES = (64, 128, 256, _MOST_ALTERNATIVES)
"""Alternatives of a long statement: SQLite caches each text that was run, with more than a megabyte."""

# Goes from term to term, one descent each, however many resources have it.
_DISTINCT = (
    "WITH RECURSIVE found (value) AS ("
    " SELECT (SELECT value FROM term WHERE tp = ?1 AND value >= ?2 AND value < ?3 ORDER BY value LIMIT 1)"
    " UNION ALL"
    " SELECT (SELECT value FROM term WHERE tp = ?1 AND value > found.value AND value < ?3 ORDER BY value LIMIT 1)"
    " FROM found WHERE found.value IS NOT NULL)"
    " SELECT value FROM found WHERE value IS NOT NULL LIMIT ?4"
)


def expand_clause(clause: q.Clause, type: str, context: Context) -> q.Clause:
    """An equivalent clause in this snapshot, with the terms in place of a part of a text that few terms have.

    Chains look inside resources as well, if anything was ever stored at their places there.
    """
    listed = split_conjunction(clause)
    if all(map(_is_plain, listed)):
        return clause
    if _has_links(clause):
        begin_snapshot(context.connection)
        context.names.refresh(context.connection)
    parts = tuple([_expand(part, type, context, _MOST_DEPTH) for part in listed])
    return parts[0] if len(parts) == 1 else q.And(parts)


def _is_plain(clause: q.Clause, levels: int = 3) -> bool:
    """Whether nothing about it is expanded: tokens, references and dates, a few, at most so many levels of them."""
    if isinstance(clause, q.Equals | q.DateRange):
        return True
    children = q.iterate_children(clause) if isinstance(clause, q.And | q.Or | q.Not) else ()
    return levels > 0 and 0 < len(children) <= _SHORT and all(_is_plain(each, levels - 1) for each in children)


def _expand(clause: q.Clause, type: str, context: Context, room: int) -> q.Clause:
    """The clause with at most `room` entries on the parser's stack, which are enough for ids."""
    if isinstance(clause, q.Equals) and room >= _LEAF_DEPTH:
        return clause
    if _measure_depth(clause, type, context) > room:
        return _find_ids(_expand(clause, type, context, _MOST_DEPTH), type, context)
    within = room - _DEPTHS.get(clause.__class__, _LEAF_DEPTH)
    match clause:
        case q.StartsWith(prefix=prefix, few=few) if few or SEPARATOR in prefix:
            return _find_terms(clause, type, context)
        case q.Contains() if trigrams.can_answer(clause):
            return _find_values(clause, type, context)
        case q.And():
            return q.And(tuple([_expand(part, type, context, within) for part in split_conjunction(clause)]))
        case q.Or(clauses):
            return _shorten(simplify_or(_expand(part, type, context, within) for part in clauses), type, context)
        case q.Not(child):
            expanded_child = _expand(child, type, context, within)
            return clause if expanded_child is child else q.Not(expanded_child)
        case q.Chain() | q.Within():
            return _expand_nested(clause, type, context, room)
        case q.Has() if not context.names.has_code(clause.type, clause.parameter):
            return q.Ids(())  # nothing was ever stored with the parameter
        case q.Has() | q.CanonicalChain() | q.CanonicalHas():
            return replace(clause, where=_expand(clause.where, clause.type, context, within))
        case q.Every(parameter, scopes):
            stored = [scope for scope in scopes if context.names.has_code(scope.type, "")]
            expanded = [q.Scope(each.type, _expand(each.where, each.type, context, within)) for each in stored]
            return q.Every(parameter, tuple(expanded))
        case _:
            return clause


def _shorten(clause: q.Clause, type: str, context: Context) -> q.Clause:
    """The clause itself, or the ids that it finds where it has more alternatives than a statement can have.

    A long one repeats its last alternative, so that few texts serve all lengths.
    """
    if not isinstance(clause, q.Or) or len(clause.clauses) <= _SHORT:
        return clause
    if len(clause.clauses) <= _MOST_ALTERNATIVES:
        size = next(size for size in _SIZES if size >= len(clause.clauses))
        return q.Or((*clause.clauses, *clause.clauses[-1:] * (size - len(clause.clauses))))
    starts = range(0, len(clause.clauses), _MOST_ALTERNATIVES)
    groups = [q.Or(clause.clauses[start : start + _MOST_ALTERNATIVES]) for start in starts]
    return simplify_or([_find_ids(group, type, context) for group in groups])


def _measure_depth(clause: q.Clause, type: str, context: Context) -> int:
    """The entries of the stack that a clause takes when ids stand for its children."""
    depth = _DEPTHS.get(clause.__class__, _LEAF_DEPTH)
    if isinstance(clause, q.Within) or (isinstance(clause, q.Chain) and _expand_inside(clause, type, context)):
        depth += _DEPTHS[q.Or]
    return depth + _DEPTHS[q.Ids] if q.iterate_children(clause) else depth


def _expand_nested(clause: q.Chain | q.Within, type: str, context: Context, room: int) -> q.Clause:
    """The chain, and the same at each place inside the resources of the type."""
    if _has_terms(context, type, name_overflow(clause.parameter, clause.type)):
        raise BudgetExceeded(describe_overflow(clause))
    nested = _expand_inside(clause, type, context)
    room -= _DEPTHS[q.Or] if nested else 0
    if isinstance(clause, q.Within):
        return simplify_or(_expand(child, type, context, room) for child in nested)
    chain = replace(clause, where=_expand(clause.where, clause.type, context, room - _DEPTHS[q.Chain]))
    return q.Or((chain, *(_expand(child, type, context, room) for child in nested))) if nested else chain


def _has_terms(context: Context, type: str, parameter: str) -> bool:
    """Whether some resource has a term of the parameter. A name is known for as long as the file lives."""
    if not context.names.has_code(type, parameter):
        return False
    text = "SELECT EXISTS (SELECT 1 FROM term WHERE tp = ?)"
    return bool(context.connection.execute(text, (context.find_code(type, parameter),)).fetchone()[0])


def _expand_inside(chain: q.Chain | q.Within, type: str, context: Context) -> list[q.Clause]:
    """The chain's criteria at each place where anything was ever stored."""
    names = context.names
    numbers = takewhile(
        lambda number: names.has_code(type, name_nested(chain.parameter, chain.type, number)), range(MAX_NESTED)
    )
    return [nest_clause(chain, number) for number in numbers]


def _has_links(clause: q.Clause) -> bool:
    return isinstance(clause, q.Link | q.Every) or any(map(_has_links, q.iterate_children(clause)))


def _find_ids(clause: q.Clause, type: str, context: Context) -> q.Ids:
    begin_snapshot(context.connection)
    text, values = select_matches("b.ref", clause, type, "b", context)
    rows = context.connection.execute(f"{text} LIMIT {_MOST_IDS + 1}", values).fetchall()
    if len(rows) > _MOST_IDS:
        raise BudgetExceeded(f"A part of the search finds more than {_MOST_IDS} resources of type `{type}`.")
    return q.Ids(tuple([reference.partition("/")[2] for (reference,) in rows]))


def _find_terms(clause: q.StartsWith, type: str, context: Context) -> q.Clause:
    begin_snapshot(context.connection)
    end, most = compute_successor(clause.prefix), _MOST_VALUES if clause.few else _MOST_TERMS
    if end is None:
        return clause
    values = (context.find_code(type, clause.parameter), clause.prefix, end, most + 1)
    terms = tuple([term for (term,) in context.connection.execute(_DISTINCT, values).fetchall()])
    if clause.few and not terms:
        return q.NOTHING  # an alternative less
    return q.Equals(clause.parameter, terms) if len(terms) <= most else clause


def _find_values(clause: q.Contains, type: str, context: Context) -> q.Clause:
    begin_snapshot(context.connection)
    source, values = trigrams.compile_values(clause, context.find_code(type, clause.parameter), context.connection)
    rows = context.connection.execute(f"SELECT g.value {source} LIMIT {_MOST_VALUES + 1}", values).fetchall()
    return q.Equals(clause.parameter, tuple([value for (value,) in rows])) if len(rows) <= _MOST_VALUES else clause
