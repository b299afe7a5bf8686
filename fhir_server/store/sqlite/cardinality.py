"""How much there is to find: resources of a type, matches of a clause and the index rows to be read for them."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from fhir_server.search import query as q
from fhir_server.store.sqlite import trigrams
from fhir_server.store.sqlite.compile import select_clause
from fhir_server.store.sqlite.context import Context
from fhir_server.store.sqlite.numbers import sample_numbers

CAP = 4000
"""Index rows counted at most per clause: beyond, walking is cheaper at any size that this store is made for."""

_SAMPLE = 500
_MOST_REMEMBERED = 50_000
"""Values and clauses remembered at most, about 10 MB: a clause may name thousands of values."""

_CLAUSE_SECONDS = 60.0
_TYPE_SECONDS = 0.25


class Size(NamedTuple):
    """About how many resources match a clause, and how many index rows are read to find them all."""

    matches: float
    rows: float


class Sizes:
    """About how many resources each type has and each clause matches; shared by the threads of a store.

    A type is counted again when the file has grown by a quarter, which is checked every `_TYPE_SECONDS`; a clause also
    after `_CLAUSE_SECONDS`: a plan that rests on an old number is slower, never wrong.
    """

    def __init__(self) -> None:
        self._types: dict[int, tuple[float, int, int]] = {}
        self._clauses: dict[tuple[str, q.Clause], tuple[float, int, int, Size | None]] = {}
        self._weight = 0

    def count_type(self, connection: sqlite3.Connection, code: int) -> int:
        """About how many resources the type with this code has, at least 1."""
        checked, at, count = self._types.get(code, (0.0, -1, 0))
        now = time.monotonic()
        if now - checked >= _TYPE_SECONDS:
            newest = connection.execute("SELECT max(rid) FROM resource").fetchone()[0] or 0
            if at < 0 or newest > at * 5 // 4 + 1000 or newest < at:
                statement = "SELECT count(*) FROM resource INDEXED BY resource_updated WHERE type = ? AND deleted = 0"
                at, count = newest, connection.execute(statement, (code,)).fetchone()[0]
            self._types[code] = (now, at, count)
        return max(1, count)

    def measure_clauses(
        self, clauses: Sequence[q.Clause], type: str, context: Context, cap: int
    ) -> Mapping[q.Clause, Size]:
        """`count_clauses`, as remembered where that is not too old, and ranges of numbers by a sample."""
        newest, now = self._types.get(context.find_code(type), (0.0, 0, 0))[1], time.monotonic()
        sizes: dict[q.Clause, Size] = {}
        unknown: list[q.Clause] = []
        for clause in clauses:
            at, largest, counted_to, size = self._clauses.get((type, clause), (0.0, -1, 0, None))
            if now - at > _CLAUSE_SECONDS or largest != newest or (size is None and counted_to < cap):
                unknown.append(clause)
            elif size is not None:
                sizes[clause] = size
        if unknown:
            sizes |= self._sample_ranges(unknown, type, context)
            rest = [clause for clause in unknown if clause not in sizes]
            sizes |= {clause: Size(n, n) for clause, n in count_clauses(rest, type, context, cap).items()}
            weight = sum(map(_weigh, unknown))
            self._weight += weight
            if self._weight > _MOST_REMEMBERED:
                self._clauses.clear()
                self._weight = weight
            for clause in unknown:
                self._clauses[type, clause] = (now, newest, cap, sizes.get(clause))
        return sizes

    def _sample_ranges(self, clauses: Sequence[q.Clause], type: str, context: Context) -> dict[q.Clause, Size]:
        """Ranges of numbers: the index has them by resource, so that counting one would read all of the parameter."""
        sizes: dict[q.Clause, Size] = {}
        for clause in clauses:
            if isinstance(clause, q.NumberRange):
                # The rows of one key, such as a code's, are a part of all.
                most, part = (CAP, 4) if clause.key else (_SAMPLE, 1)
                text, values = sample_numbers(clause, type, context, most)
                sampled, matches = context.connection.execute(text, values).fetchone()
                total = self.count_type(context.connection, context.find_code(type))
                rows = sampled if sampled < most else max(sampled, total // part)
                sizes[clause] = Size(matches if rows == sampled else (matches + 0.5) / (sampled + 1) * rows, rows)
        return sizes


def count_clauses(clauses: Sequence[q.Clause], type: str, context: Context, cap: int = CAP) -> Mapping[q.Clause, int]:
    """The index rows of each clause by itself; those with `cap` or more, and those dear to count, are left out.

    Chains, of whose rows a guess is worst, are counted to CAP.
    """
    compiled = [(part, select_clause(part, type, context)) for part in clauses if _is_countable(part)]
    chains = q.Chain | q.CanonicalChain
    counted = [(part, sql, CAP if isinstance(part, chains) else cap) for part, sql in compiled if sql is not None]
    if not counted:
        return {}
    # Index rows are as good a measure as resources, and need no list of those already seen.
    texts = [text.replace("SELECT DISTINCT ", "SELECT ") for _, (text, _), _ in counted]
    columns = ", ".join(f"(SELECT count(*) FROM ({text} LIMIT ?))" for text in texts)
    values = [value for _, (_, values), most in counted for value in (*values, most)]
    counts = context.connection.execute(f"SELECT {columns}", values).fetchone()
    return {part: count for (part, _, most), count in zip(counted, counts, strict=True) if count < most}


def _weigh(clause: q.Clause) -> int:
    """How much a clause holds: itself, its values and its children."""
    match clause:
        case q.Equals(_, values) | q.Ids(values) | q.Lineage(_, values):
            return 1 + len(values)
        case _:
            return 1 + sum(map(_weigh, q.iterate_children(clause)))


def _is_countable(clause: q.Clause) -> bool:
    if isinstance(clause, q.Contains):
        return trigrams.can_answer(clause)
    return not isinstance(clause, q.EndsWith | q.Present)
