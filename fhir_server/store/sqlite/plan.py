"""How a page is found: enter by the rarest clause and sort its few resources, or walk along the order and stop early.

The sizes of the clauses are counted up to a limit in their indexes. With n candidates among N resources and a page of
p, sorting costs n and walking p·N/n, so the rarest clause is entered when n² < p·N, and the order walked otherwise.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from fhir_server.search.query import (
    Chain,
    Clause,
    Contains,
    DateRange,
    EndsWith,
    Has,
    NumberRange,
    Or,
    Present,
    StartsWith,
)
from fhir_server.store.sqlite.compile import Context, conjunction, drivable, drive

CAP = 4000
"""Index rows counted at most per clause: beyond, walking is cheaper at any size that this store is made for."""

_UNCOUNTED = (Contains, EndsWith, Present)
_READ_AT_ONCE = (StartsWith, Contains, EndsWith, DateRange, NumberRange, Chain, Has, Or)

# Reading an index row into a set against testing one resource by its JSON, as measured.
_ROWS_PER_PROBE = 16


@dataclass(frozen=True, slots=True)
class Plan:
    """`enter`: the clause to enter by (None: none can); `walk`: try along the order first, for at most `rows` resources."""

    parts: tuple[Clause, ...]
    enter: Clause | None
    walk: bool
    rows: int
    context: Context


class Sizes:
    """How many resources each type has, roughly; counted anew when the file has grown by a quarter."""

    def __init__(self) -> None:
        self._counted: dict[int, tuple[int, int]] = {}

    def of_type(self, connection: sqlite3.Connection, code: int) -> int:
        """About how many resources the type with this code has, at least 1."""
        newest = connection.execute("SELECT max(rid) FROM resource").fetchone()[0] or 0
        at, count = self._counted.get(code, (-1, 0))
        if at < 0 or newest > at * 5 // 4 + 1000 or newest < at:
            statement = "SELECT count(*) FROM resource INDEXED BY resource_updated WHERE type = ? AND deleted = 0"
            count = connection.execute(statement, (code,)).fetchone()[0]
            self._counted[code] = (newest, count)
        return max(1, count)


def plan(where: Clause, type: str, limit: int, context: Context, sizes: Sizes) -> Plan:
    """Choose for one type and a page of `limit` resources."""
    parts = conjunction(where)
    drivers = tuple(dict.fromkeys(part for part in parts if drivable(part)))
    if not drivers:
        return Plan(parts, None, True, 0, context)
    total = sizes.of_type(context.connection, context.code(type))
    counted = count_clauses(drivers, type, context)
    guess = {part: float(counted.get(part, max(CAP, total // 4))) for part in drivers}
    best = min(drivers, key=lambda part: guess[part])
    share = 1.0
    for part in drivers:
        share *= min(1.0, guess[part] / total)
    expected = max(total * share, 0.5)
    rows = min(float(total), limit * total / expected)
    walk = rows < guess[best]
    small = _small(counted, best, rows if walk else guess[best])
    return Plan(parts, best, walk, int(rows), replace(context, small=small))


def count_clauses(clauses: Sequence[Clause], type: str, context: Context) -> Mapping[Clause, int]:
    """The matches of each clause by itself; those with CAP or more, and those dear to count, are left out."""
    wanted = [(part, drive(part, type, context)) for part in clauses if not isinstance(part, _UNCOUNTED)]
    known = [(part, sql) for part, sql in wanted if sql is not None]
    if not known:
        return {}
    columns = ", ".join(f"(SELECT count(*) FROM ({text} LIMIT {CAP}))" for _, (text, _) in known)
    values = [value for _, (_, values) in known for value in values]
    found = context.connection.execute(f"SELECT {columns}", values).fetchone()
    return {part: count for (part, _), count in zip(known, found, strict=True) if count < CAP}


def _small(counted: Mapping[Clause, int], best: Clause, probes: float) -> frozenset[Clause]:
    """The clauses that are cheaper to read whole than to test `probes` times."""
    return frozenset(
        part
        for part, count in counted.items()
        if part is not best and isinstance(part, _READ_AT_ONCE) and count < probes * _ROWS_PER_PROBE
    )
