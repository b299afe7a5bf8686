"""Clauses as this snapshot of the database answers them: terms for a part of a text, ids for a long chain's end."""

from __future__ import annotations

from dataclasses import replace

from fhir_server.search.entries import SEPARATOR, successor
from fhir_server.search.inside import PLACES, inside, place
from fhir_server.search.query import And, Chain, Clause, Contains, Equals, Has, Ids, Not, Or, StartsWith
from fhir_server.store.protocol import BudgetExceeded
from fhir_server.store.sqlite import grams
from fhir_server.store.sqlite.compile import Context, select
from fhir_server.store.sqlite.statements import snapshot

_MOST = 8
_MOST_VALUES = 100

# SQLite's parser takes about five of our SELECTs inside each other (its stack has 100 places): the end of a longer
# chain is asked first, and its ids stand for it.
_MOST_LINKS = 3
_MOST_IDS = 50_000

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
    if _links(clause):
        snapshot(context.connection)
        context.names.refresh(context.connection)
    return _expanded(clause, type, context)


def _expanded(clause: Clause, type: str, context: Context) -> Clause:
    match clause:
        case StartsWith(prefix=prefix) if SEPARATOR in prefix:
            return _terms(clause, type, context)
        case Contains() if grams.applies(clause):
            return _containing(clause, type, context)
        case And(clauses) | Or(clauses):
            return replace(clause, clauses=tuple([_expanded(part, type, context) for part in clauses]))
        case Not(inner):
            return Not(_expanded(inner, type, context))
        case Chain():
            return _everywhere(clause, type, context)
        case Has():
            return replace(clause, where=_end(clause, context))
        case _:
            return clause


def _everywhere(clause: Chain, type: str, context: Context) -> Clause:
    """The chain, and the same at each place inside the resources of the type."""
    found: list[Clause] = [replace(clause, where=_end(clause, context))]
    for number in range(PLACES):
        if not context.names.known(type, place(clause.parameter, clause.type, number)):
            break
        found.append(_expanded(inside(clause, number), type, context))
    return Or(tuple(found)) if len(found) > 1 else found[0]


def _end(clause: Chain | Has, context: Context) -> Clause:
    inner = _expanded(clause.where, clause.type, context)
    return inner if _links(inner) < _MOST_LINKS else _ids(inner, clause.type, context)


def _links(clause: Clause) -> int:
    """How deep chains and reverse chains stand inside each other."""
    match clause:
        case And(clauses) | Or(clauses):
            return max(map(_links, clauses), default=0)
        case Not(inner):
            return _links(inner)
        case Chain(where=where) | Has(where=where):
            return 1 + _links(where)
        case _:
            return 0


def _ids(clause: Clause, type: str, context: Context) -> Ids:
    snapshot(context.connection)
    text, values = select("b.ref", clause, type, "b", context)
    rows = context.connection.execute(f"{text} LIMIT {_MOST_IDS + 1}", values).fetchall()
    if len(rows) > _MOST_IDS:
        raise BudgetExceeded(f"A chain goes through more than {_MOST_IDS} resources of type `{type}`.")
    return Ids(tuple([reference.partition("/")[2] for (reference,) in rows]))


def _terms(clause: StartsWith, type: str, context: Context) -> Clause:
    snapshot(context.connection)
    values = (context.tp(type, clause.parameter), clause.prefix, successor(clause.prefix), _MOST + 1)
    found = tuple([term for (term,) in context.connection.execute(_DISTINCT, values).fetchall()])
    return Equals(clause.parameter, found) if len(found) <= _MOST else clause


def _containing(clause: Contains, type: str, context: Context) -> Clause:
    snapshot(context.connection)
    source, values = grams.values(clause, context.tp(type, clause.parameter), context.connection)
    rows = context.connection.execute(f"SELECT g.value {source} LIMIT {_MOST_VALUES + 1}", values).fetchall()
    return Equals(clause.parameter, tuple([value for (value,) in rows])) if len(rows) <= _MOST_VALUES else clause
