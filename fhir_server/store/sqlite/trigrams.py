"""Trigrams of the distinct values of string parameters, the index of `:contains` (https://hl7.org/fhir/R4/search.html#string).

One row for each three consecutive characters of the normalised text of a value, however many resources have the value:
a name or an address is written once, and deleted with the last resource that has it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from fhir_server.search.entries import SEPARATOR
from fhir_server.search.query import Contains
from fhir_server.search.trigrams import LENGTH, LONGEST, list_trigrams
from fhir_server.store.sqlite import statements
from fhir_server.store.sqlite.conditions import Sql, compile_text
from fhir_server.store.sqlite.rows import IndexRows

ANY = ""
"""Stands for all trigrams of a long value: it is looked at whatever is searched."""

_MOST_COUNTED = 100
"""Values counted at most to find the rarest trigram of a text."""

_INDEXED = (
    "EXISTS (SELECT 1 FROM gram WHERE tp = json_extract(j.value, '$[0]') AND gram = json_extract(j.value, '$[1]')"
    " AND value = json_extract(j.value, '$[2]'))"
)
_USED = "EXISTS (SELECT 1 FROM term WHERE tp = json_extract(j.value, '$[0]') AND value = json_extract(j.value, '$[2]'))"
_UNKNOWN = f"SELECT json_group_array(j.key) FROM json_each(?) j WHERE NOT {_INDEXED}"
_UNUSED = f"SELECT json_group_array(j.key) FROM json_each(?) j WHERE {_INDEXED} AND NOT {_USED}"


def update_trigrams(connection: sqlite3.Connection, removed: IndexRows, added: IndexRows) -> None:
    """Bring the table `gram` to the values in use, after these rows were removed from `term` and added to it."""
    strings = added.strings
    fresh = _pair_first_trigrams([(tp, value) for tp, value, _ in added.term if tp in strings]) if strings else None
    if fresh:
        unknown = [fresh[at] for at in statements.read_json(connection, _UNKNOWN, fresh)]
        statements.insert(connection, "gram", sorted(row for tp, _, value in unknown for row in _build_rows(tp, value)))
    gone = _pair_first_trigrams([(tp, value) for tp, value, _ in removed.term]) if removed.term else None
    if gone:
        unused = [gone[at] for at in statements.read_json(connection, _UNUSED, gone)]
        statements.delete(connection, "gram", sorted(row for tp, _, value in unused for row in _build_rows(tp, value)))


def _pair_first_trigrams(terms: Iterable[tuple[int, str]]) -> list[tuple[int, str, str]]:
    """(tp, first trigram, value) of each distinct value that has one; ANY instead of that of a long value."""
    return [
        (tp, value[:LENGTH] if SEPARATOR in value[: LONGEST + 1] else ANY, value)
        for tp, value in dict.fromkeys(terms)
        if SEPARATOR not in value[:LENGTH]
    ]


def _build_rows(tp: int, value: str) -> set[tuple[int, str, str]]:
    if SEPARATOR not in value[: LONGEST + 1]:
        return {(tp, ANY, value)}
    text = value.partition(SEPARATOR)[0]
    return {(tp, gram, value) for gram in list_trigrams(text)}


def can_answer(clause: Contains) -> bool:
    """Whether the trigrams can answer the clause."""
    return clause.strings and len(clause.text) >= LENGTH and SEPARATOR not in clause.text


def compile_values(clause: Contains, tp: int, connection: sqlite3.Connection) -> Sql:
    """The FROM and WHERE of the values `g.value` that contain the text: those of its rarest trigram, re-checked."""
    grams = list_trigrams(clause.text)
    rarest = grams[0] if len(grams) == 1 else min(zip(_count_values(grams, tp, connection), grams, strict=True))[1]
    condition, text_values = compile_text(clause, "g.value")
    return f"FROM gram g WHERE g.tp = ? AND g.gram IN (?, ?) AND {condition}", (tp, rarest, ANY, *text_values)


def _count_values(grams: list[str], tp: int, connection: sqlite3.Connection) -> list[int]:
    count = f"(SELECT count(*) FROM (SELECT 1 FROM gram WHERE tp = ? AND gram = j.value LIMIT {_MOST_COUNTED}))"
    text = f"SELECT {count} FROM json_each(?) j ORDER BY j.key"
    return [number for (number,) in connection.execute(text, (tp, statements.format_json(grams))).fetchall()]
