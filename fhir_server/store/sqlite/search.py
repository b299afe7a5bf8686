"""Searches on one connection: a plan per type, pages, counts and tests (https://hl7.org/fhir/R4/search.html).

A page comes back as a single row (a JSON array beside the joined texts): sqlite3 gives up the GIL at every row, and a
thread would have to win it back from the event loop for each.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cmp_to_key, partial
from typing import Any

import orjson

from fhir_server.search.match import compare_keys
from fhir_server.search.query import And, Clause, DateRange, Equals, Not, Query, Scope, Sort, SortKey, TermRange
from fhir_server.search.words import MAX_SCORED, describe_too_many_scored
from fhir_server.store.protocol import BUDGET, Budget, BudgetExceeded, Page, Stored
from fhir_server.store.sqlite import fulltext, order
from fhir_server.store.sqlite.budget import Meter
from fhir_server.store.sqlite.cardinality import Sizes
from fhir_server.store.sqlite.clauses import found_alive
from fhir_server.store.sqlite.compile import drive, entered, probe
from fhir_server.store.sqlite.conditions import Sql, both
from fhir_server.store.sqlite.context import Context
from fhir_server.store.sqlite.expand import expanded
from fhir_server.store.sqlite.interned_names import Names
from fhir_server.store.sqlite.near import distance
from fhir_server.store.sqlite.plan import Plan, plan
from fhir_server.store.sqlite.statements import as_json, snapshot

# Index rows of a walk by terms that are looked at together, at first and at most.
_STRETCH, _LONGEST_STRETCH = 256, 4096

Found = tuple[SortKey, Stored]
Matching = Callable[[Clause, str, Query, int], list[Found]]
"""The first so many matches of a clause in a type, in the query's order and from its position on."""


class Search:
    """Runs searches on a connection, one at a time; each call has the budget to itself. `patience`: see `Meter`."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        names: Names,
        sizes: Sizes,
        budget: Budget = BUDGET,
        patience: float | None = None,
    ) -> None:
        self._connection = connection
        self._meter = Meter(connection, budget, patience)
        self._context = Context(names, connection)
        self._names = names
        self._sizes = sizes
        connection.create_function("distance", 4, distance, deterministic=True)
        fulltext.register(connection)

    def page(self, query: Query) -> Page:
        """A page of matches. Raises BudgetExceeded."""
        if query.count == 0:
            return Page((), None)
        with self.limited():
            found = self._found(query, query.count + 1)
        more = len(found) > query.count
        page = found[: query.count]
        return Page(tuple([stored for _, stored in page]), page[-1][0] if more else None)

    def count(self, query: Query) -> int:
        """The number of matches. Raises BudgetExceeded."""
        with self.limited():
            if len(query.scopes) > 1:
                snapshot(self._connection)
            return sum(self._count(scope) for scope in query.scopes)

    def matching(self, references: Sequence[str], where: Clause) -> frozenset[str]:
        """Those of the references, all of one type, that match. Raises BudgetExceeded."""
        if not references:
            return frozenset()
        type = references[0].partition("/")[0]
        with self.limited():
            condition, values = probe(expanded(where, type, self._context), type, "r", self._context)
            text = (
                "SELECT json_group_array(r.ref) FROM json_each(?) j CROSS JOIN resource r"
                f" WHERE r.ref = j.value AND r.deleted = 0 AND {condition}"
            )
            found = self._connection.execute(text, (as_json(references), *values)).fetchone()[0]
        return frozenset(orjson.loads(found))

    @contextmanager
    def limited(self) -> Iterator[None]:
        """One question within the budget; a snapshot begun for it ends with it."""
        # Inside the writer's transaction there is a snapshot already. Elsewhere one is begun when several statements
        # make an answer: each statement waits for the interpreter.
        alone = not self._connection.in_transaction
        try:
            with self._meter.question():
                yield
        finally:
            if alone and self._connection.in_transaction:
                self._connection.execute("COMMIT")

    def _count(self, scope: Scope) -> int:
        context = self._context
        chosen = plan(expanded(scope.where, scope.type, context), scope.type, 1, context, self._sizes)
        if chosen.enter is not None and len(chosen.parts) == 1:
            # Index rows exist for current resources only: nothing else needs a look.
            found = drive(chosen.enter, scope.type, context)
            if found is not None:
                return self._number(f"SELECT count(*) FROM ({found[0]})", found[1])
        source, where = entered(chosen.parts, chosen.enter, scope.type, "r", context)
        return self._number(f"SELECT count(*) FROM {source[0]} WHERE {where[0]}", (*source[1], *where[1]))

    def _number(self, text: str, values: Sequence[Any]) -> int:
        number: int = self._connection.execute(text, values).fetchone()[0]
        return number

    def _found(self, query: Query, limit: int) -> list[Found]:
        found: list[Found] = []
        if query.sort or len(query.scopes) > 1:
            snapshot(self._connection)
        for scope in sorted(query.scopes, key=lambda scope: scope.type):
            wanted = limit if query.sort else limit - len(found)
            if wanted > 0:
                found += self._of_scope(scope, query, wanted)
        if len(query.scopes) > 1 and query.sort:
            found.sort(key=cmp_to_key(partial(_compare, query.sort)))
        return found[:limit]

    def _of_scope(self, scope: Scope, query: Query, limit: int) -> list[Found]:
        return self._matching(expanded(scope.where, scope.type, self._context), scope.type, query, limit)

    def _matching(self, where: Clause, type: str, query: Query, limit: int) -> list[Found]:
        chosen = plan(where, type, limit, self._context, self._sizes, bool(query.sort))
        run = _Run(self._connection, chosen, type, query, self._matching)
        if any(key.kind == "score" for key in query.sort):
            self._check_scored(chosen, type)
            return run.entered(limit)
        if not chosen.walk:
            return run.entered(limit)
        if chosen.enter is None:
            return run.walked(limit)
        # None when it has cost as much as entering would: the clauses were correlated, or the matches lie far on.
        found = self._meter.attempt(lambda: run.walked(limit), chosen.cost)
        return run.entered(limit) if found is None else found

    def _check_scored(self, chosen: Plan, type: str) -> None:
        source, where = entered(chosen.parts, chosen.enter, type, "r", chosen.context)
        text = f"SELECT count(*) FROM (SELECT 1 FROM {source[0]} WHERE {where[0]} LIMIT ?)"
        if self._number(text, (*source[1], *where[1], MAX_SCORED + 1)) > MAX_SCORED:
            raise BudgetExceeded(describe_too_many_scored(type))


def _compare(sort: tuple[Sort, ...], left: Found, right: Found) -> int:
    return compare_keys(sort, left[0], right[0])


class _Run:
    """The statements of one planned page of one type."""

    def __init__(
        self, connection: sqlite3.Connection, chosen: Plan, type: str, query: Query, matching: Matching
    ) -> None:
        self._connection = connection
        self._matching = matching
        self._plan = chosen
        self._type = type
        self._query = query
        self._sort = query.sort
        self._after: tuple[order.Value, ...] | None = None
        self._reference = ""
        if query.after is not None:
            self._after = order.to_sql(query.sort, query.after[:-1], type)
            self._reference = str(query.after[-1])

    def entered(self, limit: int) -> list[Found]:
        """Take every match, sort, cut."""
        keys = [order.key_of(sort) for sort in self._sort]
        source, condition = entered(self._plan.parts, self._plan.enter, self._type, "r", self._plan.context)
        if self._sort:
            source = f"{source[0]} CROSS JOIN entries e", source[1]
            condition = both((condition, ("e.rid = r.rid", ())))
        conditions = [condition]
        if self._after is not None:
            conditions.append(order.position(keys, self._after, self._reference))
        return self._rows(keys, source, both(conditions), limit)

    def walked(self, limit: int) -> list[Found]:
        """Go along the order and test each resource until the page is full."""
        if not self._sort or self._sort[0].kind == "id":
            return self._by_reference(limit)
        along = order.walk(self._sort[0], self._type, self._plan.context)
        if along is None:
            return self.entered(limit)
        found: list[Found] = []
        if self._after is None or self._after[0] is not None:
            by_value = self._sort[0].kind == "term"
            found = self._by_value(along, limit) if by_value else self._along(along, limit)
        if len(found) < limit and self._sort[0].kind != "lastUpdated":
            found += self._without_value(limit - len(found))
        return found

    def _probes(self) -> list[Sql]:
        return [probe(part, self._type, "r", self._plan.context) for part in self._plan.parts]

    def _by_reference(self, limit: int) -> list[Found]:
        descending = bool(self._sort) and self._sort[0].descending
        first = [order.Key(("r.ref", ()), descending, indexed=True)] if self._sort else []
        keys = [*first, *(order.key_of(sort) for sort in self._sort[1:])]
        conditions = self._probes()
        if not any(map(found_alive, self._plan.parts)):
            # Only where nothing else says it: SQLite would look up the row of every resource on the way for it.
            conditions.insert(0, ("r.deleted = 0", ()))
        start: str | None = None
        if self._after is not None:
            # With several types the last match's id may be this type's too; then more than the id decides.
            conditions.append(order.position(keys, self._after, self._reference))
            if self._sort and self._after[0] is None:
                return []  # beyond the resources without an id, of which there are none
            start = str(self._after[0]) if self._sort else self._reference
        along = order.walk_by_reference(self._type, descending, start)
        source = along.source
        if len(keys) > 1:
            source += " CROSS JOIN entries e"
            conditions.append(("e.rid = r.rid", ()))
        return self._rows(keys, (source, ()), both([along.condition, *conditions]), limit)

    def _by_value(self, along: order.Walk, limit: int) -> list[Found]:
        """A stretch of the index at a time: that of several values is sorted, one of a single value searched apart.

        Otherwise as many resources would have to be sorted as have the same value, such as a status.
        """
        found: list[Found] = []
        start, word, rows = self._after[0] if self._after else None, "=", _STRETCH
        while len(found) < limit:
            begin = order.from_value(self._sort[0], start, word)
            first, last, count = order.stretch(self._sort[0], begin, rows, self._plan.context, self._type)
            end = count == rows
            if end and first == last:
                found += self._of_value(first, limit - len(found))
                word = ""
            else:
                until = order.before_value(self._sort[0], last) if end else ("1", ())
                found += self._along(along, limit - len(found), both((begin, until)))
                word = "="
            if not end:
                break
            start, rows = last, min(2 * rows, _LONGEST_STRETCH)
        return found

    def _of_value(self, value: str, limit: int) -> list[Found]:
        """The resources whose first (or last) term of the sort's parameter is this one, by the keys that remain."""
        sort, after = self._sort[0], None
        if self._query.after is not None and self._query.after[0] == value:
            after = self._query.after[1:]
        beyond = TermRange(sort.parameter, value + "\0", None) if sort.descending else None
        beyond = beyond or TermRange(sort.parameter, None, value)
        where = And((*self._plan.parts, Equals(sort.parameter, (value,)), Not(beyond)))
        query = replace(self._query, sort=self._sort[1:], after=after)
        return [((value, *keys), match) for keys, match in self._matching(where, self._type, query, limit)]

    def _along(self, along: order.Walk, limit: int, stretch: Sql = ("1", ())) -> list[Found]:
        assert along.key is not None
        keys = [along.key, *(order.key_of(sort) for sort in self._sort[1:])]
        source = along.source
        if len(keys) > 1 and " entries e" not in source:
            source += " CROSS JOIN entries e"
            along_condition = both((along.condition, ("e.rid = r.rid", ())))
        else:
            along_condition = along.condition
        conditions = [along_condition, stretch, *self._probes(), along.once]
        if self._after is not None:
            column = along.key.expression[0]
            # Implied by the position, in the form that lets SQLite start there.
            conditions.append((f"{column} {'<=' if along.key.descending else '>='} ?", (self._after[0],)))
            conditions.append(order.position(keys, self._after, self._reference))
        return self._rows(keys, (source, ()), both(conditions), limit)

    def _without_value(self, limit: int) -> list[Found]:
        first = order.key_of(self._sort[0])
        if len(self._sort) > 1:
            return self._by_the_rest(limit)
        along = order.walk_by_reference(self._type, False, None)
        missing = f"{first.expression[0]} IS NULL", first.expression[1]
        conditions = [along.condition, ("r.deleted = 0 AND e.rid = r.rid", ()), missing, *self._probes()]
        if self._after is not None and self._after[0] is None:
            conditions.append(order.position([], [], self._reference))
        source = f"{along.source} CROSS JOIN entries e"
        return self._rows([order.Key(("NULL", ()), False)], (source, ()), both(conditions), limit)

    def _by_the_rest(self, limit: int) -> list[Found]:
        """The resources without a value of the first sort key, along the order of the keys that remain."""
        sort, after = self._sort[0], None
        if self._query.after is not None and self._query.after[0] is None:
            after = self._query.after[1:]
        missing = Not(DateRange(sort.parameter, ()) if sort.kind == "date" else TermRange(sort.parameter, None, None))
        query = replace(self._query, sort=self._sort[1:], after=after)
        rest = self._matching(And((*self._plan.parts, missing)), self._type, query, limit)
        return [((None, *keys), match) for keys, match in rest]

    def _rows(self, keys: Sequence[order.Key], source: Sql, condition: Sql, limit: int) -> list[Found]:
        names = [f"k{number}" for number in range(len(keys))]
        # A missing first key is one value for all: nothing to sort by.
        ordering = [key.order for key in keys if key.expression[0] != "NULL"]
        ordering.append(("r.ref", ()))
        by = both(ordering, ",")
        columns = "".join(f"{key.expression[0]} AS {name}, " for key, name in zip(keys, names, strict=True))
        listed = "".join(f"p.{name}, " for name in names)
        text = (
            f"SELECT json_group_array(json_array({listed}p.ref, p.version, p.updated, v.method, length(v.raw))),"
            " CAST(group_concat(v.raw, '') AS BLOB)"
            f" FROM (SELECT {columns}r.ref AS ref, r.version AS version, r.updated AS updated, r.seq AS seq"
            f" FROM {source[0]} WHERE {condition[0]} ORDER BY {by[0]} LIMIT ?) p"
            " CROSS JOIN version v WHERE v.seq = p.seq"
        )
        values = [value for key in keys for value in key.expression[1]]
        values += [*source[1], *condition[1], *by[1], limit]
        listed_rows, raw = self._connection.execute(text, values).fetchone()
        return self._split(orjson.loads(listed_rows), raw or b"", len(keys))

    def _split(self, listed: list[list[Any]], raw: bytes, width: int) -> list[Found]:
        found: list[Found] = []
        start = 0
        for row in listed:
            reference, version, updated, method, length = row[width:]
            keys = tuple([order.from_sql(sort, value) for sort, value in zip(self._sort, row[:width], strict=True)])
            stored = Stored(
                self._type, reference[len(self._type) + 1 :], version, updated, method, raw[start : start + length]
            )
            found.append(((*keys, reference), stored))
            start += length
        return found
