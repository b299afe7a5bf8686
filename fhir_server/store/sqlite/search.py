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

from fhir_server.search import query as q
from fhir_server.search.match import compare_keys
from fhir_server.search.words import MAX_SCORED, describe_too_many_scored
from fhir_server.store.protocol import BUDGET, Budget, BudgetExceeded, Page, Stored, cut_page
from fhir_server.store.sqlite import fulltext, order
from fhir_server.store.sqlite.budget import Meter
from fhir_server.store.sqlite.cardinality import Sizes
from fhir_server.store.sqlite.clauses import implies_current
from fhir_server.store.sqlite.compile import compile_source, probe_clause, select_clause
from fhir_server.store.sqlite.conditions import Sql, join
from fhir_server.store.sqlite.context import Context
from fhir_server.store.sqlite.expand import expand_clause
from fhir_server.store.sqlite.interned_names import Names
from fhir_server.store.sqlite.numbers import measure_distance
from fhir_server.store.sqlite.plan import Plan, plan, plan_brief
from fhir_server.store.sqlite.statements import begin_snapshot, format_json

# Index rows of a walk by terms that are looked at together, at first and at most.
_STRETCH, _LONGEST_STRETCH = 256, 4096

# Resources that are read with their texts whatever their size; of more, large texts are read apart.
_READ_TOGETHER = 21
_TEXTS = "SELECT CAST(group_concat(v.raw, '') AS BLOB) FROM json_each(?) j CROSS JOIN version v WHERE v.seq = j.value"

Match = tuple[q.SortKey, Stored]
Finder = Callable[[q.Clause, str, q.Query, int], list[Match]]
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
        self._sizes = sizes
        connection.create_function("distance", 4, measure_distance, deterministic=True)
        fulltext.register_score(connection)

    def find_page(self, query: q.Query) -> Page:
        """A page of matches. Raises BudgetExceeded."""
        if query.count == 0:
            return Page((), None)
        with self.limit():
            seen = self._read_newest() if query.brief else None
            matches = self._find(query, query.count + 1)
        page = cut_page(matches, query)
        return page if seen is None else page._replace(seen=seen)

    def _read_newest(self) -> int:
        """The number of the newest version, of the state that the following statements see as well."""
        begin_snapshot(self._connection)
        return self._fetch_number("SELECT coalesce(max(seq), 0) FROM version", ())

    def count(self, query: q.Query) -> int:
        """The number of matches. Raises BudgetExceeded."""
        with self.limit():
            if len(query.scopes) > 1:
                begin_snapshot(self._connection)
            return sum(self._count_scope(scope) for scope in query.scopes)

    def find_matching(self, references: Sequence[str], where: q.Clause) -> frozenset[str]:
        """Those of the references, all of one type, that match. Raises BudgetExceeded."""
        if not references:
            return frozenset()
        type = references[0].partition("/")[0]
        with self.limit():
            condition, values = probe_clause(expand_clause(where, type, self._context), type, "r", self._context)
            text = (
                "SELECT json_group_array(r.ref) FROM json_each(?) j CROSS JOIN resource r"
                f" WHERE r.ref = j.value AND r.deleted = 0 AND {condition}"
            )
            matches = self._connection.execute(text, (format_json(references), *values)).fetchone()[0]
        return frozenset(orjson.loads(matches))

    def has_match(self, scope: q.Scope) -> bool:
        """Whether anything matches, for a clause that probably nothing does: its index is entered without a plan.

        Raises BudgetExceeded.
        """
        with self.limit():
            where = expand_clause(scope.where, scope.type, self._context)
            is_plain = isinstance(where, q.Equals | q.StartsWith)
            rids = select_clause(where, scope.type, self._context) if is_plain else None
            if rids is None:
                return bool(self._find(q.Query((scope,)), 1))
            # Index rows exist for current resources only: nothing else needs a look.
            return bool(self._fetch_number(f"SELECT EXISTS ({rids[0]})", rids[1]))

    @contextmanager
    def limit(self) -> Iterator[None]:
        """Keep what runs here within the budget, as one question; a snapshot begun for it ends with it."""
        # Inside the writer's transaction there is a snapshot already. Elsewhere one is begun when several statements
        # make an answer: each statement waits for the interpreter.
        alone = not self._connection.in_transaction
        try:
            with self._meter.limit():
                yield
        finally:
            if alone and self._connection.in_transaction:
                self._connection.execute("COMMIT")

    def _count_scope(self, scope: q.Scope) -> int:
        context = self._context
        chosen = plan(expand_clause(scope.where, scope.type, context), scope.type, 1, context, self._sizes)
        if chosen.entry is not None and len(chosen.parts) == 1:
            # Index rows exist for current resources only: nothing else needs a look.
            rids = select_clause(chosen.entry, scope.type, context)
            if rids is not None:
                return self._fetch_number(f"SELECT count(*) FROM ({rids[0]})", rids[1])
        source, where = compile_source(chosen.parts, chosen.entry, scope.type, "r", context)
        return self._fetch_number(f"SELECT count(*) FROM {source[0]} WHERE {where[0]}", (*source[1], *where[1]))

    def _fetch_number(self, text: str, values: Sequence[Any]) -> int:
        number: int = self._connection.execute(text, values).fetchone()[0]
        return number

    def _find(self, query: q.Query, limit: int) -> list[Match]:
        matches: list[Match] = []
        if query.sort or len(query.scopes) > 1:
            begin_snapshot(self._connection)
        for scope in sorted(query.scopes, key=lambda scope: scope.type):
            missing = limit if query.sort else limit - len(matches)
            if missing > 0:
                where = expand_clause(scope.where, scope.type, self._context)
                matches += self._find_in_type(where, scope.type, query, missing)
        if len(query.scopes) > 1 and query.sort:
            matches.sort(key=cmp_to_key(partial(_compare, query.sort)))
        return matches[:limit]

    def _find_in_type(self, where: q.Clause, type: str, query: q.Query, limit: int) -> list[Match]:
        chosen = plan_brief(where, type, self._context) if query.brief else None
        if chosen is not None and not chosen.rows:
            return []
        chosen = chosen or plan(where, type, limit, self._context, self._sizes, bool(query.sort))
        run = _Run(self._connection, chosen, type, query, self._find_in_type)
        if any(key.kind == "score" for key in query.sort):
            self._check_scored(chosen, type)
            return run.enter(limit)
        if not chosen.walks:
            return run.enter(limit)
        if chosen.entry is None:
            return run.walk(limit)
        # None when it has cost as much as entering would: the clauses were correlated, or the matches lie far on.
        matches = self._meter.attempt(lambda: run.walk(limit), chosen.cost)
        return run.enter(limit) if matches is None else matches

    def _check_scored(self, chosen: Plan, type: str) -> None:
        source, where = compile_source(chosen.parts, chosen.entry, type, "r", chosen.context)
        text = f"SELECT count(*) FROM (SELECT 1 FROM {source[0]} WHERE {where[0]} LIMIT ?)"
        if self._fetch_number(text, (*source[1], *where[1], MAX_SCORED + 1)) > MAX_SCORED:
            raise BudgetExceeded(describe_too_many_scored(type))


def _compare(sort: tuple[q.Sort, ...], left: Match, right: Match) -> int:
    return compare_keys(sort, left[0], right[0])


class _Run:
    """The statements of one planned page of one type."""

    def __init__(self, connection: sqlite3.Connection, chosen: Plan, type: str, query: q.Query, finder: Finder) -> None:
        self._connection = connection
        self._finder = finder
        self._plan = chosen
        self._type = type
        self._query = query
        self._sort = query.sort
        self._after: tuple[order.Value, ...] | None = None
        self._reference = ""
        if query.after is not None:
            self._after = order.position_to_sql(query.sort, query.after[:-1], type)
            self._reference = str(query.after[-1])

    def enter(self, limit: int) -> list[Match]:
        """Read every match by the plan's index, sort, cut."""
        source, condition = compile_source(self._plan.parts, self._plan.entry, self._type, "r", self._plan.context)
        keys, conditions = [order.compile_key(sort) for sort in self._sort], [condition]
        if self._after is not None:
            conditions.append(order.compile_position(keys, self._after, self._reference))
        return self._read_rows(keys, source, conditions, limit, bool(keys))

    def walk(self, limit: int) -> list[Match]:
        """Go along the order and test each resource until the page is full."""
        if not self._sort or self._sort[0].kind == "id":
            return self._walk_references(limit)
        walk = order.find_walk(self._sort[0], self._type, self._plan.context)
        if walk is None:
            return self.enter(limit)
        matches: list[Match] = []
        if self._after is None or self._after[0] is not None:
            by_value = self._sort[0].kind == "term"
            matches = self._walk_values(walk, limit) if by_value else self._walk_stretch(walk, limit)
        if len(matches) < limit and self._sort[0].kind != "lastUpdated":
            matches += self._find_without_value(limit - len(matches))
        return matches

    def _compile_probes(self) -> list[Sql]:
        return [probe_clause(part, self._type, "r", self._plan.context) for part in self._plan.parts]

    def _walk_references(self, limit: int) -> list[Match]:
        descending = bool(self._sort) and self._sort[0].descending
        first = [order.Key(("r.ref", ()), descending, never_null=True)] if self._sort else []
        keys = [*first, *map(order.compile_key, self._sort[1:])]
        conditions = self._compile_probes()
        if not any(map(implies_current, self._plan.parts)):
            # Only where nothing else says it: SQLite would look up the row of every resource on the way for it.
            conditions.insert(0, ("r.deleted = 0", ()))
        start: str | None = None
        if self._after is not None:
            # With several types the last match's id may be this type's too; then more than the id decides.
            conditions.append(order.compile_position(keys, self._after, self._reference))
            if self._sort and self._after[0] is None:
                return []  # beyond the resources without an id, of which there are none
            start = str(self._after[0]) if self._sort else self._reference
        conditions.insert(0, order.compile_references(self._type, descending, start))
        return self._read_rows(keys, (order.BY_REFERENCE, ()), conditions, limit, len(keys) > 1)

    def _walk_values(self, walk: order.Walk, limit: int) -> list[Match]:
        """A stretch of the index at a time: that of several values is sorted, one of a single value searched apart.

        Otherwise as many resources would have to be sorted as have the same value, such as a status.
        """
        matches: list[Match] = []
        value, word, rows = self._after[0] if self._after else None, "=", _STRETCH
        while len(matches) < limit:
            start = order.compile_start(self._sort[0], value, word)
            first, last, count = order.find_stretch(self._sort[0], start, rows, self._plan.context, self._type)
            follows = count == rows
            if follows and first == last:
                matches += self._find_with_value(first, limit - len(matches))
                word = ""
            else:
                end = order.compile_end(self._sort[0], last) if follows else ("1", ())
                matches += self._walk_stretch(walk, limit - len(matches), join((start, end)))
                word = "="
            if not follows:
                break
            value, rows = last, min(2 * rows, _LONGEST_STRETCH)
        return matches

    def _find_with_value(self, value: str, limit: int) -> list[Match]:
        """The resources whose first (or last) term of the sort's parameter is this one, by the keys that remain."""
        name, descending = self._sort[0].parameter, self._sort[0].descending
        beyond = q.TermRange(name, value + "\0", None) if descending else q.TermRange(name, None, value)
        return self._find_by_rest(value, (q.Equals(name, (value,)), q.Not(beyond)), limit)

    def _find_by_rest(self, value: str | None, conditions: tuple[q.Clause, ...], limit: int) -> list[Match]:
        """The matches with this value of the first sort key, along the order of the keys that remain."""
        after = self._query.after
        query = replace(
            self._query, sort=self._sort[1:], after=after[1:] if after is not None and after[0] == value else None
        )
        rest = self._finder(q.And((*self._plan.parts, *conditions)), self._type, query, limit)
        return [((value, *keys), match) for keys, match in rest]

    def _walk_stretch(self, walk: order.Walk, limit: int, stretch: Sql = ("1", ())) -> list[Match]:
        keys = [walk.key, *map(order.compile_key, self._sort[1:])]
        conditions = [walk.condition, stretch, *self._compile_probes(), walk.once]
        if self._after is not None:
            column = walk.key.expression[0]
            # Implied by the position, in the form that lets SQLite start there.
            conditions.append((f"{column} {'<=' if walk.key.descending else '>='} ?", (self._after[0],)))
            conditions.append(order.compile_position(keys, self._after, self._reference))
        with_entries = len(keys) > 1 and self._sort[0].kind == "lastUpdated"  # the other walks have them already
        return self._read_rows(keys, (walk.source, ()), conditions, limit, with_entries)

    def _find_without_value(self, limit: int) -> list[Match]:
        sort = self._sort[0]
        if len(self._sort) > 1:
            dates = sort.kind == "date"
            present = q.DateRange(sort.parameter, ()) if dates else q.TermRange(sort.parameter, None, None)
            return self._find_by_rest(None, (q.Not(present),), limit)
        text, values = order.compile_key(sort).expression
        conditions: list[Sql] = [
            order.compile_references(self._type, False, None),
            ("r.deleted = 0", ()),
            (f"{text} IS NULL", values),
            *self._compile_probes(),
        ]
        if self._after is not None and self._after[0] is None:
            conditions.append(order.compile_position([], [], self._reference))
        return self._read_rows([order.Key(("NULL", ()), False)], (order.BY_REFERENCE, ()), conditions, limit, True)

    def _read_rows(
        self, keys: Sequence[order.Key], source: Sql, conditions: list[Sql], limit: int, with_entries: bool
    ) -> list[Match]:
        """The first rows in the order of the keys; `with_entries`: keys or conditions need the row `e` of `entries`."""
        joined = source[0]
        if with_entries:
            joined += " CROSS JOIN entries e"
            conditions = [*conditions, ("e.rid = r.rid", ())]
        where = join(conditions)
        names = [f"k{number}" for number in range(len(keys))]
        # A missing first key is one value for all: nothing to sort by.
        by = join([*(key.order for key in keys if key.expression[0] != "NULL"), ("r.ref", ())], ",")
        columns = "".join(f"{key.expression[0]} AS {name}, " for key, name in zip(keys, names, strict=True))
        listed = "".join(f"p.{name}, " for name in names)
        rows = f"json_group_array(json_array({listed}p.ref, p.version, p.updated, v.method, v.seq, length(v.raw)))"
        found = (
            f" FROM (SELECT {columns}r.ref AS ref, r.version AS version, r.updated AS updated, r.seq AS seq"
            f" FROM {joined} WHERE {where[0]} ORDER BY {by[0]} LIMIT ?) p"
            " CROSS JOIN version v WHERE v.seq = p.seq"
        )
        values = [value for key in keys for value in key.expression[1]]
        values += [*source[1], *where[1], *by[1], limit]
        most = self._query.most_bytes
        if most is None or limit <= _READ_TOGETHER:
            text = f"SELECT {rows}, CAST(group_concat(v.raw, '') AS BLOB){found}"
            listed_rows, raw = self._connection.execute(text, values).fetchone()
            return self._build_matches(orjson.loads(listed_rows), raw or b"", len(keys))
        begin_snapshot(self._connection)
        # All that is small comes with the rows: together it is not more than `most` bytes.
        text = f"SELECT {rows}, CAST(group_concat(CASE WHEN length(v.raw) <= ? THEN v.raw END, '') AS BLOB){found}"
        listed_rows, raw = self._connection.execute(text, (most // limit, *values)).fetchone()
        return self._build_matches(orjson.loads(listed_rows), raw or b"", len(keys), most // limit)

    def _build_matches(self, rows: list[list[Any]], raw: bytes, width: int, largest: int | None = None) -> list[Match]:
        """The matches of rows that begin with `width` sort values; `raw` has the texts of up to `largest` bytes."""
        texts = _split_texts([row[-1] for row in rows], raw, largest)
        if largest is not None:
            self._add_large(rows, texts, self._query.most_bytes or 0)
        type, skipped = self._type, len(self._type) + 1
        if not self._sort:
            return [
                ((row[width],), Stored(type, row[width][skipped:], row[-5], row[-4], row[-3], text))
                for row, text in zip(rows, texts, strict=True)
            ]
        matches: list[Match] = []
        for row, text in zip(rows, texts, strict=True):
            reference, version, updated, method, _, _ = row[width:]
            keys = [order.sql_to_value(sort, value) for sort, value in zip(self._sort, row[:width], strict=True)]
            matches.append(((*keys, reference), Stored(type, reference[skipped:], version, updated, method, text)))
        return matches

    def _add_large(self, rows: list[list[Any]], texts: list[bytes | None], most: int) -> None:
        """Read the texts that are missing, up to one more than make `most` bytes; take away those that come later."""
        size, missing = 0, []
        for place, row in enumerate(rows):
            if size > most:
                texts[place] = None
            elif texts[place] is None:
                missing.append(place)
            size += row[-1]
        if missing:
            ((raw,),) = self._connection.execute(_TEXTS, (format_json([rows[place][-2] for place in missing]),))
            found = _split_texts([rows[place][-1] for place in missing], raw, None)
            for place, text in zip(missing, found, strict=True):
                texts[place] = text


def _split_texts(lengths: Sequence[int], raw: bytes, largest: int | None) -> list[bytes | None]:
    """The texts that are joined in `raw`, in which those of more than `largest` bytes are not (None: all are)."""
    texts: list[bytes | None] = []
    start = 0
    for length in lengths:
        if largest is not None and length > largest:
            texts.append(None)
        else:
            texts.append(raw[start : start + length])
            start += length
    return texts
