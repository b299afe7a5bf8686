"""The order of a search's matches as SQL: sort keys, page positions, and walks along an index in that order.

Paging is by key (`query.Query.after`); missing values come last both ways (https://hl7.org/fhir/R4/search.html#sort).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fhir_server.search.query import Sort, SortKey
from fhir_server.store.sqlite.conditions import Sql, both
from fhir_server.store.sqlite.context import Context, path
from fhir_server.store.sqlite.fulltext import score_of
from fhir_server.store.sqlite.rows import ordered, unordered

Value = int | float | str | None
"""A sort key's value as SQL has it: numbers are `rows.ordered`, an id is the reference; a score's six decimals last."""


@dataclass(frozen=True, slots=True)
class Key:
    """One sort key in SQL. `indexed`: it is the column that a walk goes along, or else is never missing."""

    expression: Sql
    descending: bool
    indexed: bool = False

    @property
    def order(self) -> Sql:
        """Its term of ORDER BY; NULL is lowest in SQLite, so only the ascending order must say where it goes."""
        text, values = self.expression
        word = " DESC" if self.descending else "" if self.indexed else " NULLS LAST"
        return f"{text}{word}", values

    def beyond(self, value: Value) -> Sql | None:
        """The condition that the key comes after a value; None when nothing does."""
        if value is None:
            return None
        text, values = self.expression
        sign = "<" if self.descending else ">"
        if self.indexed:
            return f"{text} {sign} ?", (*values, value)
        return f"({text} {sign} ? OR {text} IS NULL)", (*values, value, *values)


def key_of(sort: Sort) -> Key:
    """A sort key computed from the row `r` of `resource` and the row `e` of `entries`."""
    descending, parameter = sort.descending, sort.parameter
    match sort.kind, descending:
        case "id", _:
            return Key(("r.ref", ()), descending)
        case "lastUpdated", _:
            return Key(("r.updated", ()), descending)
        case "score", _:
            return Key(score_of(sort), descending, indexed=True)
        case "term", _:
            return Key(_of_terms(parameter, "[#-1]" if descending else "[0]"), descending)
        case "date", False:
            return Key(("json_extract(e.quick, ?)", (path("d", parameter) + "[0][0]",)), descending)
        case "date", True:
            end, part = "max(json_extract(value, '$[1]'))", "d"
        case _, True:
            end, part = "max(json_extract(value, '$[2]'))", "n"
        case _:
            end, part = "min(json_extract(value, '$[1]'))", "n"
    column = "quick" if part == "d" else "numbers"
    return Key((f"(SELECT {end} FROM json_each(e.{column}, ?))", (path(part, parameter),)), descending)


def _of_terms(parameter: str, end: str) -> Sql:
    text = "coalesce(json_extract(e.terms, ?), json_extract(e.quick, ?))"
    return text, (path("t", parameter) + end, path("l", parameter) + end)


def to_sql(sort: Sequence[Sort], after: SortKey, type: str) -> tuple[Value, ...]:
    """A page position's sort values as SQL compares them in one type."""
    return tuple(_to_sql(key, value, type) for key, value in zip(sort, after, strict=False))


def _to_sql(sort: Sort, value: int | float | str | None, type: str) -> Value:
    if value is None:
        return None
    if isinstance(value, str):
        return f"{type}/{value}" if sort.kind == "id" else value
    if sort.kind == "score":
        return float(value)
    return ordered(value) if sort.kind == "number" else int(value)


def from_sql(sort: Sort, value: Value) -> int | float | str | None:
    """A sort value of the protocol from SQL's."""
    if sort.kind == "id" and isinstance(value, str):
        return value.partition("/")[2]
    return unordered(value) if sort.kind == "number" and isinstance(value, int) else value


def position(keys: Sequence[Key], after: Sequence[Value], reference: str) -> Sql:
    """The condition that a resource comes after a page position: beyond in some key, equal in those before it."""
    equal: list[Sql] = []
    cases: list[Sql] = []
    for key, value in zip(keys, after, strict=True):
        beyond = key.beyond(value)
        if beyond is not None:
            cases.append(both((*equal, beyond)))
        text, values = key.expression
        equal.append((f"{text} IS ?", (*values, value)))
    cases.append(both((*equal, ("r.ref > ?", (reference,)))))
    text, values = both(((f"({text})", values) for text, values in cases), "OR")
    return f"({text})", values


@dataclass(frozen=True, slots=True)
class Walk:
    """Resources of a type in the order of the first sort key. `once`: the row is the resource's first in this order."""

    source: str
    condition: Sql
    key: Key | None
    once: Sql = ("1", ())
    live: bool = False


def walk_by_reference(type: str, descending: bool, after: str | None) -> Walk:
    """The resources of a type by id, from a reference on, itself included."""
    low, high = f"{type}/", f"{type}0"  # "0" follows "/"
    if after is not None:
        low, high = (low, min(high, after)) if descending else (max(low, after), high)
    return Walk("resource r INDEXED BY resource_ref", ("r.ref >= ? AND r.ref <= ?", (low, high)), None)


def walk(sort: Sort, type: str, context: Context) -> Walk | None:
    """A walk along the index of a sort key, over the resources that have a value; None when no index has this order."""
    if sort.kind == "lastUpdated":
        condition: Sql = ("r.type = ? AND r.deleted = 0", (context.code(type),))
        key = Key(("r.updated", ()), sort.descending, indexed=True)
        return Walk("resource r INDEXED BY resource_updated", condition, key, live=True)
    tp = context.tp(type, sort.parameter)
    if sort.kind == "date":
        return _walk_dates(sort, tp)
    if sort.kind in ("number", "score") or context.connection.execute(_LINKS, (tp,)).fetchone()[0]:
        return None
    return _walk_terms(sort, tp)


# Links are in the order in which their targets came.
_LINKS = "SELECT EXISTS (SELECT 1 FROM link WHERE tp = ?)"
_WALKED = "w.tp = ? AND r.rid = w.rid AND e.rid = w.rid"


def _along(table: str) -> str:
    return f"{table} CROSS JOIN resource r CROSS JOIN entries e"


def _walk_terms(sort: Sort, tp: int) -> Walk:
    end = "[#-1]" if sort.descending else "[0]"
    once: Sql = ("json_extract(e.terms, ?) = w.value", (path("t", sort.parameter) + end,))
    key = Key(("w.value", ()), sort.descending, indexed=True)
    return Walk(_along("term w"), (_WALKED, (tp,)), key, once, live=True)


def _walk_dates(sort: Sort, tp: int) -> Walk:
    where = path("d", sort.parameter)
    if sort.descending:
        low, high = "json_extract(value, '$[0]')", "json_extract(value, '$[1]')"
        later = f"{high} > w.high OR ({high} = w.high AND {low} > w.low)"
        once: Sql = (f"NOT EXISTS (SELECT 1 FROM json_each(e.quick, ?) WHERE {later})", (where,))
        key = Key(("w.high", ()), True, indexed=True)
        return Walk(_along("date w INDEXED BY date_high"), (_WALKED, (tp,)), key, once, live=True)
    first = "json_extract(e.quick, ?) = w.low AND json_extract(e.quick, ?) = w.high"
    once = (first, (f"{where}[0][0]", f"{where}[0][1]"))
    key = Key(("w.low", ()), False, indexed=True)
    return Walk(_along("date w NOT INDEXED"), (_WALKED, (tp,)), key, once, live=True)


def from_value(sort: Sort, value: Value, word: str) -> Sql:
    """The terms of a walk from a value on, itself included where `word` is `=`; all of them from None."""
    return ("1", ()) if value is None else (f"value {'<' if sort.descending else '>'}{word} ?", (value,))


def before_value(sort: Sort, value: Value) -> Sql:
    """The terms of a walk that come before a value."""
    return f"value {'>' if sort.descending else '<'} ?", (value,)


def stretch(sort: Sort, begin: Sql, rows: int, context: Context, type: str) -> tuple[str, str, int]:
    """The first and the last value of so many index rows, and how many there are."""
    ends = "max(value), min(value)" if sort.descending else "min(value), max(value)"
    inner = f"SELECT value FROM term WHERE tp = ? AND {begin[0]} ORDER BY value{' DESC' if sort.descending else ''}"
    values = (context.tp(type, sort.parameter), *begin[1], rows)
    first, last, count = context.connection.execute(
        f"SELECT {ends}, count(*) FROM ({inner} LIMIT ?)", values
    ).fetchone()
    return first, last, count
