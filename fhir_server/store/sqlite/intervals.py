"""Date intervals by index: of the two orders, by low and by high ends, the one with the shorter range is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from fhir_server.search.query import Bound, DateRange
from fhir_server.store.sqlite.conditions import Sql, compile_interval, join
from fhir_server.store.sqlite.context import Context

# Rows counted at most in each index, where a lower and an upper limit are on different ends.
_SAMPLE = 1000

_BY_LOW, _BY_HIGH = "NOT INDEXED", "INDEXED BY date_high"


def select_date(clause: DateRange, type: str, context: Context) -> Sql:
    """A SELECT of the `rid`s with an interval that passes every test."""
    condition, values = compile_interval(clause.bounds, "low", "high", int)
    return (
        f"SELECT DISTINCT rid FROM date {_choose_index(clause, type, context)} WHERE tp = ? AND {condition}",
        (context.find_code(type, clause.parameter), *values),
    )


def select_dates(clauses: Sequence[DateRange], type: str, context: Context) -> Sql | None:
    """The same for any of several clauses on one parameter: one index range around them all, None if it has no end."""
    after, before = [_find_limit(clause, "g") for clause in clauses], [_find_limit(clause, "l") for clause in clauses]
    if None not in after:
        index, limit, value = _BY_HIGH, "high >= ?", min(end for end in after if end is not None)
    elif None not in before:
        index, limit, value = _BY_LOW, "low <= ?", max(end for end in before if end is not None)
    else:
        return None
    text, values = join((compile_interval(clause.bounds, "low", "high", int) for clause in clauses), "OR")
    return (
        f"SELECT DISTINCT rid FROM date {index} WHERE tp = ? AND {limit} AND ({text})",
        (context.find_code(type, clauses[0].parameter), value, *values),
    )


def _find_limit(clause: DateRange, direction: Literal["g", "l"]) -> int | None:
    """The tightest limit in a direction, whichever end it is of: as low ≤ high, it holds for the other end's index."""
    values = [int(test.value) for test in clause.bounds if test.comparison[0] == direction]
    return None if not values else max(values) if direction == "g" else min(values)


def _choose_index(clause: DateRange, type: str, context: Context) -> str:
    """The index whose range is shorter: that of the low ends or that of the high ends."""
    directions = {test.comparison[0] for test in clause.bounds}
    if len(directions) < 2:
        # The end that is tested has the range of just the matches, where it is tested the other way the longer one.
        end, tight, loose = ("low", _BY_LOW, _BY_HIGH) if "g" in directions else ("high", _BY_HIGH, _BY_LOW)
        return tight if any(test.end == end for test in clause.bounds) else loose
    low = [test for test in clause.bounds if test.end == "low" or test.comparison in ("lt", "le")]
    high = [test for test in clause.bounds if test.end == "high" or test.comparison in ("gt", "ge")]
    if _is_closed(low):
        return _BY_LOW
    if _is_closed(high):
        return _BY_HIGH
    tp = context.find_code(type, clause.parameter)
    below = _count_sample(context, _BY_HIGH, compile_interval(high, "high", "high", int), tp)
    above = _count_sample(context, _BY_LOW, compile_interval(low, "low", "low", int), tp)
    return _BY_HIGH if below < above else _BY_LOW


def _is_closed(bounds: Sequence[Bound]) -> bool:
    return {test.comparison[0] for test in bounds} == {"l", "g"}


def _count_sample(context: Context, index: str, condition: Sql, tp: int) -> int:
    text = f"SELECT count(*) FROM (SELECT 1 FROM date {index} WHERE tp = ? AND {condition[0]} LIMIT {_SAMPLE})"
    count: int = context.connection.execute(text, (tp, *condition[1])).fetchone()[0]
    return count
