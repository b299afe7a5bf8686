"""How a search was found: the plan chosen, the indexes in their order, and what it took (https://www.sqlite.org/eqp.html)."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator

from fhir_server.search.explain import describe_clause
from fhir_server.search.query import Query, Scope
from fhir_server.store.sqlite.cardinality import CAP, Sizes, count_clauses
from fhir_server.store.sqlite.context import Context
from fhir_server.store.sqlite.expand import expanded
from fhir_server.store.sqlite.fulltext import OF_FTS5
from fhir_server.store.sqlite.interned_names import Names
from fhir_server.store.sqlite.plan import plan
from fhir_server.store.sqlite.search import Search

MOST_SCOPES = 5
MOST_STATEMENTS = 10


def explain(
    connection: sqlite3.Connection, search: Search, names: Names, sizes: Sizes, query: Query
) -> tuple[str, ...]:
    """Runs the search once more, listening. The connection is the search's own, and nobody else uses it meanwhile."""
    context = Context(names, connection)
    with search.limited():
        lines = [line for scope in query.scopes[:MOST_SCOPES] for line in _planned(scope, query, context, sizes)]
    statements: list[str] = []
    connection.set_trace_callback(statements.append)
    started = time.perf_counter()
    try:
        page = search.page(query)
    finally:
        took = (time.perf_counter() - started) * 1000
        connection.set_trace_callback(None)
    shown = [text for text in statements if text.startswith("SELECT") and OF_FTS5 not in text]
    for text in shown[:MOST_STATEMENTS]:
        steps = connection.execute(f"EXPLAIN QUERY PLAN {text}").fetchall()
        lines.append("SQLite: " + "; ".join(step[3] for step in steps) + ".")
    lines.append(f"The search ran {len(shown)} statements in {took:.2f} ms and found {len(page.matches)} on this page.")
    return tuple(lines)


def _planned(scope: Scope, query: Query, context: Context, sizes: Sizes) -> Iterator[str]:
    """What the planner chose for one type, and how many index rows each clause would read."""
    total = sizes.of_type(context.connection, context.code(scope.type))
    where = expanded(scope.where, scope.type, context)
    chosen = plan(where, scope.type, query.count + 1, context, sizes, bool(query.sort))
    counted = count_clauses(chosen.parts, scope.type, context)
    for part in chosen.parts:
        rows = f"{counted[part]} index rows" if part in counted else f"{CAP} index rows or more, or not counted"
        yield f"{scope.type}: {describe_clause(part)}: {rows}."
    if chosen.enter is None:
        yield f"{scope.type}: no clause can be entered by, so about {total} resources are walked along the order."
    elif chosen.walk:
        yield f"{scope.type}: about {chosen.rows} of {total} resources are walked along the order first."
    else:
        yield f"{scope.type}: entered by {describe_clause(chosen.enter)}, the rarest clause; {total} resources in all."
