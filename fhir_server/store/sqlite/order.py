"""The order of a search's matches as SQL: sort keys, page positions, and walks along an index in that order.

Paging is by key (`query.Query.after`); missing values come last both ways (https://hl7.org/fhir/R4/search.html#sort).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fhir_server.search.query import Sort, SortKey
from fhir_server.store.sqlite.conditions import Sql, join
from fhir_server.store.sqlite.context import Context, format_path
from fhir_server.store.sqlite.fulltext import compile_score
from fhir_server.store.sqlite.rows import float_to_integer, integer_to_float

Value = int | float | str | None
"""A sort key's value in SQL: a number by `rows.float_to_integer`, an id as the reference, a score with six decimals."""


@dataclass(frozen=True, slots=True)
class Key:
    """One sort key in SQL. `never_null`: it is the column that a walk goes along, or always has a value."""

    expression: Sql
    descending: bool
    never_null: bool = False

    @property
    def order(self) -> Sql:
        """Its term of ORDER BY; NULL is lowest in SQLite, so only the ascending order must say where it goes."""
        text, values = self.expression
        word = " DESC" if self.descending else "" if self.never_null else " NULLS LAST"
        return f"{text}{word}", values

    def compile_beyond(self, value: Value) -> Sql | None:
        """The condition that the key comes after a value; None when nothing does."""
        if value is None:
            return None
        text, values = self.expression
        sign = "<" if self.descending else ">"
        if self.never_null:
            return f"{text} {sign} ?", (*values, value)
        return f"({text} {sign} ? OR {text} IS NULL)", (*values, value, *values)


def compile_key(sort: Sort) -> Key:
    """A sort key computed from the row `r` of `resource` and the row `e` of `entries`."""
    descending, parameter = sort.descending, sort.parameter
    match sort.kind, descending:
        case "id", _:
            return Key(("r.ref", ()), descending)
        case "lastUpdated", _:
            return Key(("r.updated", ()), descending)
        case "score", _:
            return Key(compile_score(sort), descending, never_null=True)
        case "term", _:
            end = "[#-1]" if descending else "[0]"
            text = "coalesce(json_extract(e.terms, ?), json_extract(e.quick, ?))"
            return Key((text, (format_path("t", parameter) + end, format_path("l", parameter) + end)), descending)
        case "date", False:
            return Key(("json_extract(e.quick, ?)", (format_path("d", parameter) + "[0][0]",)), descending)
        case "date", True:
            end, part = "max(json_extract(value, '$[1]'))", "d"
        case _, True:
            end, part = "max(json_extract(value, '$[2]'))", "n"
        case _:
            end, part = "min(json_extract(value, '$[1]'))", "n"
    column = "quick" if part == "d" else "numbers"
    return Key((f"(SELECT {end} FROM json_each(e.{column}, ?))", (format_path(part, parameter),)), descending)


def position_to_sql(sort: Sequence[Sort], after: SortKey, type: str) -> tuple[Value, ...]:
    """A page position's sort values as SQL compares them in one type."""
    return tuple(_value_to_sql(key, value, type) for key, value in zip(sort, after, strict=False))


def _value_to_sql(sort: Sort, value: int | float | str | None, type: str) -> Value:
    if value is None:
        return None
    if isinstance(value, str):
        return f"{type}/{value}" if sort.kind == "id" else value
    if sort.kind == "score":
        return float(value)
    return float_to_integer(value) if sort.kind == "number" else int(value)


def sql_to_value(sort: Sort, value: Value) -> int | float | str | None:
    """A sort value of the protocol from SQL's."""
    if sort.kind == "id" and isinstance(value, str):
        return value.partition("/")[2]
    return integer_to_float(value) if sort.kind == "number" and isinstance(value, int) else value


def compile_position(keys: Sequence[Key], after: Sequence[Value], reference: str) -> Sql:
    """The condition that a resource comes after a page position: beyond in some key, equal in those before it."""
    equal: list[Sql] = []
    cases: list[Sql] = []
    for key, value in zip(keys, after, strict=True):
        beyond = key.compile_beyond(value)
        if beyond is not None:
            cases.append(join((*equal, beyond)))
        text, values = key.expression
        equal.append((f"{text} IS ?", (*values, value)))
    cases.append(join((*equal, ("r.ref > ?", (reference,)))))
    text, values = join(((f"({text})", values) for text, values in cases), "OR")
    return f"({text})", values


BY_REFERENCE = "resource r INDEXED BY resource_ref"


def compile_references(type: str, descending: bool, after: str | None) -> Sql:
    """The condition of the resources of a type `BY_REFERENCE`, from a reference on, itself included."""
    low, high = f"{type}/", f"{type}0"  # "0" follows "/"
    if after is not None:
        low, high = (low, min(high, after)) if descending else (max(low, after), high)
    return "r.ref >= ? AND r.ref <= ?", (low, high)


@dataclass(frozen=True, slots=True)
class Walk:
    """Resources of a type in the order of the first sort key. `once`: the row is the resource's first in this order."""

    source: str
    condition: Sql
    key: Key
    once: Sql = ("1", ())


def find_walk(sort: Sort, type: str, context: Context) -> Walk | None:
    """A walk along the index of a sort key, over the resources that have a value; None when no index has this order."""
    if sort.kind == "lastUpdated":
        condition: Sql = ("r.type = ? AND r.deleted = 0", (context.find_code(type),))
        key = Key(("r.updated", ()), sort.descending, never_null=True)
        return Walk("resource r INDEXED BY resource_updated", condition, key)
    tp = context.find_code(type, sort.parameter)
    if sort.kind == "date":
        return _walk_dates(sort, tp)
    if sort.kind in ("number", "score") or context.connection.execute(_HAS_LINKS, (tp,)).fetchone()[0]:
        return None
    path = format_path("t", sort.parameter) + ("[#-1]" if sort.descending else "[0]")
    return _walk_index("term w", "w.value", sort.descending, tp, ("json_extract(e.terms, ?) = w.value", (path,)))


# Links are in the order in which their targets came.
_HAS_LINKS = "SELECT EXISTS (SELECT 1 FROM link WHERE tp = ?)"


def _walk_dates(sort: Sort, tp: int) -> Walk:
    path = format_path("d", sort.parameter)
    if sort.descending:
        low, high = "json_extract(value, '$[0]')", "json_extract(value, '$[1]')"
        later = f"{high} > w.high OR ({high} = w.high AND {low} > w.low)"
        once: Sql = (f"NOT EXISTS (SELECT 1 FROM json_each(e.quick, ?) WHERE {later})", (path,))
        return _walk_index("date w INDEXED BY date_high", "w.high", True, tp, once)
    first = "json_extract(e.quick, ?) = w.low AND json_extract(e.quick, ?) = w.high"
    return _walk_index("date w NOT INDEXED", "w.low", False, tp, (first, (f"{path}[0][0]", f"{path}[0][1]")))


def _walk_index(table: str, column: str, descending: bool, tp: int, once: Sql) -> Walk:
    source = f"{table} CROSS JOIN resource r CROSS JOIN entries e"
    condition: Sql = ("w.tp = ? AND r.rid = w.rid AND e.rid = w.rid", (tp,))
    return Walk(source, condition, Key((column, ()), descending, never_null=True), once)


def compile_start(sort: Sort, value: Value, word: str) -> Sql:
    """The terms of a walk from a value on, itself included where `word` is `=`; all of them from None."""
    return ("1", ()) if value is None else (f"value {'<' if sort.descending else '>'}{word} ?", (value,))


def compile_end(sort: Sort, value: Value) -> Sql:
    """The terms of a walk that come before a value."""
    return f"value {'>' if sort.descending else '<'} ?", (value,)


def find_stretch(sort: Sort, start: Sql, rows: int, context: Context, type: str) -> tuple[str, str, int]:
    """The first and the last value of the next `rows` index rows of a walk, and how many rows there are."""
    ends = "max(value), min(value)" if sort.descending else "min(value), max(value)"
    inner = f"SELECT value FROM term WHERE tp = ? AND {start[0]} ORDER BY value{' DESC' if sort.descending else ''}"
    values = (context.find_code(type, sort.parameter), *start[1], rows)
    stretch: tuple[str, str, int] = context.connection.execute(
        f"SELECT {ends}, count(*) FROM ({inner} LIMIT ?)", values
    ).fetchone()
    return stretch
