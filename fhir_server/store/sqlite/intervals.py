"""Date intervals by index: which of the two orders, by low or by high ends, has the shorter range to read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from fhir_server.search.query import Bound, DateRange
from fhir_server.store.sqlite.conditions import Sql, both, bounds
from fhir_server.store.sqlite.context import Context

# Sampled when both a lower and an upper limit are given on different ends: which index range is shorter?
_SAMPLE = 1000

_BY_LOW, _BY_HIGH = "NOT INDEXED", "INDEXED BY date_high"


def drive_date(clause: DateRange, type: str, context: Context) -> Sql:
    """A SELECT of the `rid`s with an interval that passes every test."""
    condition, values = bounds(clause.bounds, "low", "high", int)
    return (
        f"SELECT DISTINCT rid FROM date {_index(clause, type, context)} WHERE tp = ? AND {condition}",
        (context.tp(type, clause.parameter), *values),
    )


def drive_dates(clauses: Sequence[DateRange], type: str, context: Context) -> Sql | None:
    """The same for any of several clauses on one parameter: one range that holds them all, None if it has no end."""
    after, before = [_limit(clause, "g") for clause in clauses], [_limit(clause, "l") for clause in clauses]
    if None not in after:
        index, limit, value = _BY_HIGH, "high >= ?", min(end for end in after if end is not None)
    elif None not in before:
        index, limit, value = _BY_LOW, "low <= ?", max(end for end in before if end is not None)
    else:
        return None
    text, values = both((bounds(clause.bounds, "low", "high", int) for clause in clauses), "OR")
    return (
        f"SELECT DISTINCT rid FROM date {index} WHERE tp = ? AND {limit} AND ({text})",
        (context.tp(type, clauses[0].parameter), value, *values),
    )


def _limit(clause: DateRange, direction: Literal["g", "l"]) -> int | None:
    """The tightest limit in a direction, whichever end it is of: as low ≤ high, it holds for the other end's index."""
    values = [int(test.value) for test in clause.bounds if test.comparison[0] == direction]
    return None if not values else max(values) if direction == "g" else min(values)


def _index(clause: DateRange, type: str, context: Context) -> str:
    """The index whose range is shorter: that of the low ends or that of the high ends."""
    directions = {test.comparison[0] for test in clause.bounds}
    if len(directions) < 2:
        # The end that is tested has the range of just the matches, where it is tested the other way the longer one.
        end, tight, loose = ("low", _BY_LOW, _BY_HIGH) if "g" in directions else ("high", _BY_HIGH, _BY_LOW)
        return tight if any(test.end == end for test in clause.bounds) else loose
    low = [test for test in clause.bounds if test.end == "low" or test.comparison in ("lt", "le")]
    high = [test for test in clause.bounds if test.end == "high" or test.comparison in ("gt", "ge")]
    if _closed(low):
        return _BY_LOW
    if _closed(high):
        return _BY_HIGH
    tp = context.tp(type, clause.parameter)
    below = _sample(context, f"FROM date {_BY_HIGH} WHERE tp = ? AND ", bounds(high, "high", "high", int), tp)
    above = _sample(context, f"FROM date {_BY_LOW} WHERE tp = ? AND ", bounds(low, "low", "low", int), tp)
    return _BY_HIGH if below < above else _BY_LOW


def _closed(tests: Sequence[Bound]) -> bool:
    words = {test.comparison[0] for test in tests}
    return words == {"l", "g"}


def _sample(context: Context, source: str, condition: Sql, tp: int) -> int:
    text = f"SELECT count(*) FROM (SELECT 1 {source}{condition[0]} LIMIT {_SAMPLE})"
    count: int = context.connection.execute(text, (tp, *condition[1])).fetchone()[0]
    return count
