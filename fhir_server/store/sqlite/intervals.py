"""Date intervals by index: which of the two orders, by low or by high ends, has the shorter range to read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fhir_server.search.query import DateRange, Test
from fhir_server.store.sqlite.conditions import Sql, bounds

if TYPE_CHECKING:
    from fhir_server.store.sqlite.compile import Context

# Sampled when both a lower and an upper limit are given on different ends: which index range is shorter?
_SAMPLE = 1000


def drive_date(clause: DateRange, type: str, context: Context) -> Sql:
    """A SELECT of the `rid`s with an interval that passes every test."""
    condition, values = bounds(clause.tests, "low", "high", int)
    return (
        f"SELECT DISTINCT rid FROM date {_index(clause, type, context)} WHERE tp = ? AND {condition}",
        (context.tp(type, clause.parameter), *values),
    )


def _index(clause: DateRange, type: str, context: Context) -> str:
    """The index whose range is shorter: that of the low ends or that of the high ends."""
    low = [test for test in clause.tests if test.end == "low" or test.comparison in ("lt", "le")]
    high = [test for test in clause.tests if test.end == "high" or test.comparison in ("gt", "ge")]
    by_high = "INDEXED BY date_high"
    if not low or not high:
        return by_high if high else "NOT INDEXED"
    if _closed(low):
        return "NOT INDEXED"
    if _closed(high):
        return by_high
    tp = context.tp(type, clause.parameter)
    below = _sample(context, f"FROM date {by_high} WHERE tp = ? AND ", bounds(high, "high", "high", int), tp)
    above = _sample(context, "FROM date NOT INDEXED WHERE tp = ? AND ", bounds(low, "low", "low", int), tp)
    return by_high if below < above else "NOT INDEXED"


def _closed(tests: Sequence[Test]) -> bool:
    words = {test.comparison[0] for test in tests}
    return words == {"l", "g"}


def _sample(context: Context, source: str, condition: Sql, tp: int) -> int:
    text = f"SELECT count(*) FROM (SELECT 1 {source}{condition[0]} LIMIT {_SAMPLE})"
    count: int = context.connection.execute(text, (tp, *condition[1])).fetchone()[0]
    return count
