"""How much there is to find: resources of a type, matches of a clause and the index rows to be read for them."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from fhir_server.search.query import (
    CanonicalChain,
    Chain,
    Clause,
    Contains,
    EndsWith,
    Equals,
    Ids,
    Lineage,
    NumberRange,
    Present,
)
from fhir_server.store.sqlite import trigrams
from fhir_server.store.sqlite.clauses import inner_clauses
from fhir_server.store.sqlite.compile import drive
from fhir_server.store.sqlite.context import Context
from fhir_server.store.sqlite.quantities import sample

CAP = 4000
"""Index rows counted at most per clause: beyond, walking is cheaper at any size that this store is made for."""

_SAMPLE = 500
_REMEMBERED = 50_000
"""Values and clauses remembered at most, about 10 MB: a clause may name thousands of values."""

_REMEMBERED_SECONDS = 60.0
_LOOKED_AT_SECONDS = 0.25

_UNCOUNTED = (EndsWith, Present)


class Size(NamedTuple):
    """About how many resources match a clause, and how many index rows are read to find them all."""

    matches: float
    read: float


class Sizes:
    """How many resources each type has, roughly, and each clause finds; shared by the threads of a store.

    A type is counted anew when the file has grown by a quarter, which is looked at now and then; a clause also after a
    minute: a plan that rests on an old number is slower, never wrong.
    """

    def __init__(self) -> None:
        self._counted: dict[int, tuple[float, int, int]] = {}
        self._remembered: dict[tuple[str, Clause], tuple[float, int, int, Size | None]] = {}
        self._weight = 0

    def of_type(self, connection: sqlite3.Connection, code: int) -> int:
        """About how many resources the type with this code has, at least 1."""
        looked, at, count = self._counted.get(code, (0.0, -1, 0))
        now = time.monotonic()
        if now - looked >= _LOOKED_AT_SECONDS:
            newest = connection.execute("SELECT max(rid) FROM resource").fetchone()[0] or 0
            if at < 0 or newest > at * 5 // 4 + 1000 or newest < at:
                statement = "SELECT count(*) FROM resource INDEXED BY resource_updated WHERE type = ? AND deleted = 0"
                at, count = newest, connection.execute(statement, (code,)).fetchone()[0]
            self._counted[code] = (now, at, count)
        return max(1, count)

    def of_clauses(self, clauses: Sequence[Clause], type: str, context: Context, cap: int) -> Mapping[Clause, Size]:
        """`count_clauses`, as remembered where that is not too old, and ranges of numbers by a sample."""
        code = context.code(type)
        newest, now = self._counted.get(code, (0.0, 0, 0))[1], time.monotonic()
        found: dict[Clause, Size] = {}
        unknown: list[Clause] = []
        for clause in clauses:
            at, largest, counted_to, size = self._remembered.get((type, clause), (0.0, -1, 0, None))
            if now - at > _REMEMBERED_SECONDS or largest != newest or (size is None and counted_to < cap):
                unknown.append(clause)
            elif size is not None:
                found[clause] = size
        if unknown:
            sizes = self._sampled(unknown, type, context)
            rest = [clause for clause in unknown if clause not in sizes]
            sizes |= {clause: Size(n, n) for clause, n in count_clauses(rest, type, context, cap).items()}
            weight = sum(map(_weight, unknown))
            self._weight += weight
            if self._weight > _REMEMBERED:
                self._remembered.clear()
                self._weight = weight
            for clause in unknown:
                self._remembered[type, clause] = (now, newest, cap, sizes.get(clause))
            found |= sizes
        return found

    def _sampled(self, clauses: Sequence[Clause], type: str, context: Context) -> dict[Clause, Size]:
        """Ranges of numbers: the index has them by resource, so that counting one would read all of the parameter."""
        found: dict[Clause, Size] = {}
        for clause in clauses:
            if isinstance(clause, NumberRange):
                # The rows of one key, such as a code's, are a part of all.
                most, part = (CAP, 4) if clause.key else (_SAMPLE, 1)
                text, values = sample(clause, type, context, most)
                rows, matches = context.connection.execute(text, values).fetchone()
                total = self.of_type(context.connection, context.code(type))
                read = rows if rows < most else max(rows, total // part)
                found[clause] = Size(matches if read == rows else (matches + 0.5) / (rows + 1) * read, read)
        return found


def count_clauses(clauses: Sequence[Clause], type: str, context: Context, cap: int = CAP) -> Mapping[Clause, int]:
    """The index rows of each clause by itself; those with `cap` or more, and those dear to count, are left out.

    Chains, of whose rows a guess is worst, are counted to CAP.
    """
    wanted = [(part, drive(part, type, context)) for part in clauses if _countable(part)]
    chains = Chain | CanonicalChain
    known = [(part, sql, CAP if isinstance(part, chains) else cap) for part, sql in wanted if sql is not None]
    if not known:
        return {}
    # Index rows are as good a measure as resources, and need no list of those already seen.
    texts = [text.replace("SELECT DISTINCT ", "SELECT ") for _, (text, _), _ in known]
    columns = ", ".join(f"(SELECT count(*) FROM ({text} LIMIT ?))" for text in texts)
    values = [value for _, (_, values), most in known for value in (*values, most)]
    found = context.connection.execute(f"SELECT {columns}", values).fetchone()
    return {part: count for (part, _, most), count in zip(known, found, strict=True) if count < most}


def _weight(clause: Clause) -> int:
    """How much a clause holds: itself, its values and those inside it."""
    match clause:
        case Equals(_, values) | Ids(values) | Lineage(_, values):
            return 1 + len(values)
        case _:
            return 1 + sum(map(_weight, inner_clauses(clause)))


def _countable(clause: Clause) -> bool:
    return trigrams.applies(clause) if isinstance(clause, Contains) else not isinstance(clause, _UNCOUNTED)
