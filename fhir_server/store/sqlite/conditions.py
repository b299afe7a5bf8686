"""Conditions on one index row: texts, intervals and units of the search tree as SQL."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from fhir_server.search import query as q
from fhir_server.search.entries import SEPARATOR, compute_successor
from fhir_server.store.sqlite.statements import format_json

Sql = tuple[str, tuple[Any, ...]]
"""SQL text and the values of its `?` marks, in order."""

TextClause = q.StartsWith | q.Contains | q.EndsWith | q.TermRange

_OPERATORS = {"lt": "<", "le": "<=", "gt": ">", "ge": ">="}

_MOST_JOINED = 100
"""Conditions joined in a row: SQLite nests them, a thousand levels at most."""


def join(parts: Iterable[Sql], word: str = "AND") -> Sql:
    """Conditions joined by a word, without parentheses around them."""
    listed = list(parts)
    if len(listed) > _MOST_JOINED and word in ("AND", "OR"):
        groups = (join(listed[at : at + _MOST_JOINED], word) for at in range(0, len(listed), _MOST_JOINED))
        return join([(f"({text})", values) for text, values in groups], word)
    return f" {word} ".join(text for text, _ in listed), tuple(value for _, values in listed for value in values)


def compile_membership(column: str, values: Sequence[str]) -> Sql:
    """The column has one of the values."""
    if len(values) == 1:
        return f"{column} = ?", (values[0],)
    if len(values) == 2:
        return f"{column} IN (?, ?)", tuple(values)
    return f"{column} IN (SELECT value FROM json_each(?))", (format_json(values),)


def compile_text(clause: TextClause, column: str) -> Sql:
    """The column's term fulfils the clause."""
    match clause:
        case q.TermRange(low=low, high=high):
            parts = [(f"{column} >= ?", (low or "",)), *([(f"{column} < ?", (high,))] if high is not None else [])]
            return join(parts)
        case q.EndsWith(suffix=suffix, normalised=True):
            # Text has no separator: followed by one, it ends the normalised part.
            values = (SEPARATOR, suffix + SEPARATOR, SEPARATOR, SEPARATOR)
            return f"instr({column} || ?, ?) BETWEEN 1 AND instr({column} || ?, ?)", values
        case q.StartsWith(prefix=prefix):
            end = compute_successor(prefix)
            if end is None:
                return f"{column} >= ?", (prefix,)
            return f"{column} >= ? AND {column} < ?", (prefix, end)
        case q.Contains(text="") | q.EndsWith(suffix=""):
            return f"{column} >= ?", ("",)
        case q.Contains(text=text):
            # Text has no separator: found before it starts means found within the normalised part.
            return f"instr({column}, ?) BETWEEN 1 AND instr({column} || ?, ?)", (text, SEPARATOR, SEPARATOR)
        case q.EndsWith(suffix=suffix):
            return f"substr({column}, ?) = ?", (-len(suffix), suffix)


def compile_interval(tests: Sequence[q.Bound], low: str, high: str, convert: Callable[[Any], int]) -> Sql:
    """The interval of two columns passes every test; as low ≤ high, a test of one end also limits the other."""
    parts: list[Sql] = []
    for test in tests:
        column, other = (low, high) if test.end == "low" else (high, low)
        value = convert(test.value)
        parts.append((f"{column} {_OPERATORS[test.comparison]} ?", (value,)))
        if (test.end == "low") == (test.comparison in ("gt", "ge")) and column != other:
            parts.append((f"{other} {_OPERATORS[test.comparison]} ?", (value,)))
    return join(parts) if parts else ("1", ())


def compile_unit(unit: tuple[str | None, str] | None, column: str) -> Sql:
    """The column's unit fits that of a `NumberRange`."""
    if unit is None:
        return "1", ()
    system, code = unit
    if system is not None:
        prefix = f"{system}{SEPARATOR}{code}{SEPARATOR}"
        return f"{column} >= ? AND {column} < ?", (prefix, compute_successor(prefix))
    text = SEPARATOR + code
    return f"(instr({column}, ?) OR substr({column}, ?) = ?)", (text + SEPARATOR, -len(text), text)
