"""Prefixes of tokens (`code` without a system) as the few terms that begin so, which one index row can answer for."""

from __future__ import annotations

from dataclasses import replace

from fhir_server.search.entries import SEPARATOR
from fhir_server.search.query import And, Chain, Clause, Equals, Has, Not, Or, StartsWith
from fhir_server.store.sqlite.compile import Context
from fhir_server.store.sqlite.conditions import successor

_MOST = 8

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
    """The same clause in this snapshot of the database, wherever a token's prefix has few terms."""
    match clause:
        case StartsWith(prefix=prefix) if SEPARATOR in prefix:
            return _terms(clause, type, context)
        case And(clauses) | Or(clauses):
            return replace(clause, clauses=tuple([expanded(part, type, context) for part in clauses]))
        case Not(inner):
            return Not(expanded(inner, type, context))
        case Chain(where=where) | Has(where=where):
            return replace(clause, where=expanded(where, clause.type, context))
        case _:
            return clause


def _terms(clause: StartsWith, type: str, context: Context) -> Clause:
    values = (context.tp(type, clause.parameter), clause.prefix, successor(clause.prefix), _MOST + 1)
    found = tuple([term for (term,) in context.connection.execute(_DISTINCT, values).fetchall()])
    return Equals(clause.parameter, found) if len(found) <= _MOST else clause
