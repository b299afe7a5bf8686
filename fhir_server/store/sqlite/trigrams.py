"""Trigrams of the distinct values of string parameters: what `:contains` is looked up by (https://hl7.org/fhir/R4/search.html#string).

One row for each three characters that stand together in the normalised text of a value, however many resources have the
value: a name or an address is written once, and is gone when the last resource with it is.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from fhir_server.search.entries import SEPARATOR
from fhir_server.search.query import Contains
from fhir_server.search.trigrams import LENGTH, list_trigrams
from fhir_server.store.sqlite import statements
from fhir_server.store.sqlite.conditions import Sql, text_condition
from fhir_server.store.sqlite.rows import IndexRows

_ENOUGH = 100
"""Values counted at most to find the rarest trigram of a text."""

_IS = (
    "EXISTS (SELECT 1 FROM gram WHERE tp = json_extract(j.value, '$[0]') AND gram = json_extract(j.value, '$[1]')"
    " AND value = json_extract(j.value, '$[2]'))"
)
_USED = "EXISTS (SELECT 1 FROM term WHERE tp = json_extract(j.value, '$[0]') AND value = json_extract(j.value, '$[2]'))"
_UNKNOWN = f"SELECT json_group_array(j.key) FROM json_each(?) j WHERE NOT {_IS}"
_UNUSED = f"SELECT json_group_array(j.key) FROM json_each(?) j WHERE {_IS} AND NOT {_USED}"


def settle(connection: sqlite3.Connection, removed: IndexRows, added: IndexRows) -> None:
    """Make the trigrams those of the values in use, after these rows were removed from `term` and added to it."""
    fresh = _beginnings((tp, value) for tp, value, _ in added.term if tp in added.strings)
    if fresh:
        unknown = [fresh[at] for at in statements.one_json(connection, _UNKNOWN, fresh)]
        statements.insert(connection, "gram", sorted(row for tp, _, value in unknown for row in _rows(tp, value)))
    gone = _beginnings((tp, value) for tp, value, _ in removed.term)
    if gone:
        unused = [gone[at] for at in statements.one_json(connection, _UNUSED, gone)]
        statements.delete(connection, "gram", sorted(row for tp, _, value in unused for row in _rows(tp, value)))


def _beginnings(terms: Iterable[tuple[int, str]]) -> list[tuple[int, str, str]]:
    """(tp, first trigram, value) of each distinct value that has one."""
    return [(tp, value[:LENGTH], value) for tp, value in dict.fromkeys(terms) if SEPARATOR not in value[:LENGTH]]


def _rows(tp: int, value: str) -> set[tuple[int, str, str]]:
    text = value.partition(SEPARATOR)[0]
    return {(tp, gram, value) for gram in list_trigrams(text)}


def applies(clause: Contains) -> bool:
    """Whether the trigrams can answer."""
    return clause.strings and len(clause.text) >= LENGTH and SEPARATOR not in clause.text


def values(clause: Contains, tp: int, connection: sqlite3.Connection) -> Sql:
    """The FROM and WHERE of the values `g.value` that contain the text: those of its rarest trigram, re-checked."""
    found = list_trigrams(clause.text)
    rarest = found[0] if len(found) == 1 else min(zip(_counts(found, tp, connection), found, strict=True))[1]
    condition, its_values = text_condition(clause, "g.value")
    return f"FROM gram g WHERE g.tp = ? AND g.gram = ? AND {condition}", (tp, rarest, *its_values)


def _counts(grams: list[str], tp: int, connection: sqlite3.Connection) -> list[int]:
    count = f"(SELECT count(*) FROM (SELECT 1 FROM gram WHERE tp = ? AND gram = j.value LIMIT {_ENOUGH}))"
    text = f"SELECT {count} FROM json_each(?) j ORDER BY j.key"
    return [number for (number,) in connection.execute(text, (tp, statements.as_json(grams))).fetchall()]
