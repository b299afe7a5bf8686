"""Conditions on one index row: texts, intervals and units of the search tree as SQL."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from fhir_server.search.entries import SEPARATOR, compute_successor
from fhir_server.search.query import Bound, Contains, EndsWith, StartsWith, TermRange
from fhir_server.store.sqlite.statements import as_json

Sql = tuple[str, tuple[Any, ...]]
"""SQL text and the values of its `?` marks, in order."""

OPERATORS = {"lt": "<", "le": "<=", "gt": ">", "ge": ">="}


_DEEP = 100
"""Conditions joined in a row: SQLite nests them, a thousand levels at most."""


def both(parts: Iterable[Sql], word: str = "AND") -> Sql:
    """Conditions joined by a word."""
    listed = list(parts)
    if len(listed) > _DEEP and word in ("AND", "OR"):
        grouped = (both(listed[at : at + _DEEP], word) for at in range(0, len(listed), _DEEP))
        return both([(f"({text})", values) for text, values in grouped], word)
    return f" {word} ".join(text for text, _ in listed), tuple(value for _, values in listed for value in values)


def one_of(column: str, values: Sequence[str]) -> Sql:
    if len(values) == 1:
        return f"{column} = ?", (values[0],)
    return f"{column} IN (SELECT value FROM json_each(?))", (as_json(values),)


def text_condition(clause: StartsWith | Contains | EndsWith | TermRange, column: str) -> Sql:
    match clause:
        case TermRange(low=low, high=high):
            parts = [(f"{column} >= ?", (low or "",)), *([(f"{column} < ?", (high,))] if high is not None else [])]
            return both(parts)
        case EndsWith(suffix=suffix, normalised=True):
            # Text has no separator: followed by one, it ends the normalised part.
            return f"instr({column} || ?, ?) BETWEEN 1 AND instr({column} || ?, ?)", (
                *(SEPARATOR, suffix + SEPARATOR),
                *(SEPARATOR, SEPARATOR),
            )
        case StartsWith(prefix=prefix):
            end = compute_successor(prefix)
            if end is None:
                return f"{column} >= ?", (prefix,)
            return f"{column} >= ? AND {column} < ?", (prefix, end)
        case Contains(text="") | EndsWith(suffix=""):
            return f"{column} >= ?", ("",)
        case Contains(text=text):
            # Text has no separator: found before it starts means found within the normalised part.
            return f"instr({column}, ?) BETWEEN 1 AND instr({column} || ?, ?)", (text, SEPARATOR, SEPARATOR)
        case EndsWith(suffix=suffix):
            return f"substr({column}, ?) = ?", (-len(suffix), suffix)


def bounds(tests: Sequence[Bound], low: str, high: str, convert: Callable[[Any], int]) -> Sql:
    """Every test on one interval; as low ≤ high, a test of one end also bounds the other."""
    parts: list[Sql] = []
    for test in tests:
        column, other = (low, high) if test.end == "low" else (high, low)
        value = convert(test.value)
        parts.append((f"{column} {OPERATORS[test.comparison]} ?", (value,)))
        if (test.end == "low") == (test.comparison in ("gt", "ge")) and column != other:
            parts.append((f"{other} {OPERATORS[test.comparison]} ?", (value,)))
    return both(parts) if parts else ("1", ())


def unit_condition(unit: tuple[str | None, str] | None, column: str) -> Sql:
    if unit is None:
        return "1", ()
    system, code = unit
    if system is not None:
        prefix = f"{system}{SEPARATOR}{code}{SEPARATOR}"
        return f"{column} >= ? AND {column} < ?", (prefix, compute_successor(prefix))
    text = SEPARATOR + code
    return f"(instr({column}, ?) OR substr({column}, ?) = ?)", (text + SEPARATOR, -len(text), text)
