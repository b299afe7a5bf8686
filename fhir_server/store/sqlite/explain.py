"""How a search finds its matches: the plan chosen, the indexes in their order, and the time (https://www.sqlite.org/eqp.html)."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator

from fhir_server.search.explain import describe_clause
from fhir_server.search.query import Query, Scope
from fhir_server.store.sqlite.cardinality import CAP, Sizes, count_clauses
from fhir_server.store.sqlite.context import Context
from fhir_server.store.sqlite.expand import expand_clause
from fhir_server.store.sqlite.fulltext import FTS5_TABLES
from fhir_server.store.sqlite.interned_names import Names
from fhir_server.store.sqlite.plan import plan
from fhir_server.store.sqlite.search import Search

_MOST_SCOPES = 5
_MOST_STATEMENTS = 10


def explain(
    connection: sqlite3.Connection, search: Search, names: Names, sizes: Sizes, query: Query
) -> tuple[str, ...]:
    """Runs the search and traces its statements. The connection is the search's own; nobody else uses it meanwhile."""
    context = Context(names, connection)
    with search.limit():
        lines = [line for scope in query.scopes[:_MOST_SCOPES] for line in _describe_plan(scope, query, context, sizes)]
    statements: list[str] = []
    connection.set_trace_callback(statements.append)
    started = time.perf_counter()
    try:
        page = search.find_page(query)
    finally:
        took = (time.perf_counter() - started) * 1000
        connection.set_trace_callback(None)
    shown = [text for text in statements if text.startswith("SELECT") and FTS5_TABLES not in text]
    for text in shown[:_MOST_STATEMENTS]:
        steps = connection.execute(f"EXPLAIN QUERY PLAN {text}").fetchall()
        lines.append("SQLite: " + "; ".join(step[3] for step in steps) + ".")
    lines.append(f"The search ran {len(shown)} statements in {took:.2f} ms and found {len(page.matches)} on this page.")
    return tuple(lines)


def _describe_plan(scope: Scope, query: Query, context: Context, sizes: Sizes) -> Iterator[str]:
    """What the planner chose for one type, and how many index rows each clause would read."""
    total = sizes.count_type(context.connection, context.find_code(scope.type))
    where = expand_clause(scope.where, scope.type, context)
    chosen = plan(where, scope.type, query.count + 1, context, sizes, bool(query.sort))
    counted = count_clauses(chosen.parts, scope.type, context)
    for part in chosen.parts:
        rows = f"{counted[part]} index rows" if part in counted else f"{CAP} index rows or more, or not counted"
        yield f"{scope.type}: {describe_clause(part)}: {rows}."
    if chosen.entry is None:
        yield f"{scope.type}: no clause can be entered by, so about {total} resources are walked along the order."
    elif chosen.walks:
        yield f"{scope.type}: about {chosen.rows} of {total} resources are walked along the order first."
    else:
        yield f"{scope.type}: entered by {describe_clause(chosen.entry)}, the rarest clause; {total} resources in all."
