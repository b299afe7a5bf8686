"""A resource's index entries as rows of the index tables and as JSON.

An update compares the JSON with the new one, and a search that already has the resource reads it. It is in three
texts, so that the frequent questions (where does it point to, when was it) parse little.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from fhir_server.search.entries import SEPARATOR, Entries, NumberEntry
from fhir_server.store.sqlite.schema import REFERENCES

_DOUBLE = struct.Struct("<d")
_INTEGER = struct.Struct("<q")
_DOUBLES = struct.Struct("<dd")
_INTEGERS = struct.Struct("<qq")
_MANTISSA = 2**63 - 1

_LOCAL = re.compile(r"[A-Z][A-Za-z]*/[A-Za-z0-9\-.]{1,64}").fullmatch


def float_to_integer(value: float) -> int:
    """A float as an integer that sorts the same: exact in SQLite's columns and in its JSON, which floats are not."""
    bits: int = _INTEGER.unpack(_DOUBLE.pack(value + 0.0))[0]
    return bits if bits >= 0 else -(bits & _MANTISSA)


def integer_to_float(value: int) -> float:
    """The float of which `float_to_integer` made this integer."""
    magnitude: float = _DOUBLE.unpack(_INTEGER.pack(abs(value)))[0]
    return magnitude if value >= 0 else -magnitude


def is_local(term: str) -> bool:
    """Whether a term is a local reference, `Type/id`, and so stored as a link to that resource's number."""
    return "/" in term and _LOCAL(term) is not None


Codes = Mapping[str, int]
"""The numbers of a type's parameters (`interned_names.Names`)."""

Columns = tuple[str, str, str]
"""The columns of `entries`, JSON by parameter: `quick` (`d` dates, `l` terms of parameters that hold links), `terms`
(`t` the other terms; `r` all references) and `numbers` (`n`, as integers). What is empty is left out."""


class Keys(NamedTuple):
    """The index rows of one resource without its `rid`: links by `Type/id`, everything by the parameter's number.

    `strings`: the numbers of the parameters among `terms` that are strings.
    """

    terms: Sequence[tuple[int, str]] = ()
    links: Sequence[tuple[int, str]] = ()
    dates: Sequence[tuple[int, int, int]] = ()
    numbers: Sequence[tuple[int, str, int, int, str]] = ()
    strings: frozenset[int] = frozenset()

    @property
    def targets(self) -> set[str]:
        """The resources linked to, as `Type/id`."""
        return {target for _, target in self.links}

    def subtract(self, other: Keys) -> Keys:
        """The keys that are not among the other's."""
        return Keys(
            _subtract(self.terms, other.terms),
            _subtract(self.links, other.links),
            _subtract(self.dates, other.dates),
            _subtract(self.numbers, other.numbers),
            self.strings,
        )


def _subtract(minuend: Sequence[Any], subtrahend: Sequence[Any]) -> list[Any]:
    excluded = set(subtrahend)
    return [key for key in minuend if key not in excluded]


def entries_to_keys(entries: Entries, codes: Codes) -> tuple[Keys, Columns]:
    """The keys and the columns of entries. Raises KeyError for a parameter that has no number yet."""
    strings = entries.strings.intersection(entries.terms)
    dates = {name: values for name, values in entries.dates.items() if values}
    numbers = {name: list(map(_to_integers, values)) for name, values in entries.numbers.items() if values}
    terms, links, texts, linked = _split_terms(entries.terms, entries.references, codes)
    keys = Keys(
        terms,
        links,
        _build_date_keys(dates, codes) if dates else (),
        _build_number_keys(numbers, codes) if numbers else (),
        frozenset([codes[name] for name in strings]) if strings else _NO_STRINGS,
    )
    quick = _format_json("d", dates, "l", linked)
    return keys, (quick, _format_json("t", texts, "r", entries.references), _format_json("n", numbers, "", ()))


_NO_STRINGS: frozenset[int] = frozenset()


def columns_to_keys(columns: Columns, codes: Codes) -> Keys:
    """The keys of stored columns. Raises KeyError for a parameter whose number this process does not know yet."""
    quick, texts, numbers = map(orjson.loads, columns)
    # what is in both is whole in the second
    terms, links, _, _ = _split_terms({**quick.get("l", {}), **texts.get("t", {})}, texts.get("r", ()), codes)
    return Keys(
        terms, links, _build_date_keys(quick.get("d", {}), codes), _build_number_keys(numbers.get("n", {}), codes)
    )


_Terms = dict[str, Sequence[str]]


def _split_terms(
    terms: Mapping[str, Sequence[str]], references: Iterable[str], codes: Codes
) -> tuple[list[tuple[int, str]], list[tuple[int, str]], _Terms, _Terms]:
    """The keys of terms that are texts and of those that are links, and both for the columns."""
    text_keys: list[tuple[int, str]] = []
    links = [(REFERENCES, reference) for reference in references]
    texts: _Terms = {}
    linked: _Terms = {}
    for name, values in terms.items():
        tp, before = codes[name], len(links)
        for value in values:
            if "/" in value and _LOCAL(value):
                links.append((tp, value))
            else:
                text_keys.append((tp, value))
        if len(links) == before:
            if values:
                texts[name] = values
        elif SEPARATOR in "".join(values):  # canonicals, some of which are addresses here
            texts[name], linked[name] = values, tuple(filter(is_local, values))
        else:
            linked[name] = values
    return text_keys, links, texts, linked


def _build_date_keys(dates: Mapping[str, Iterable[Any]], codes: Codes) -> list[tuple[int, int, int]]:
    return [(codes[name], low, high) for name, values in dates.items() for low, high in values]


def _build_number_keys(numbers: Mapping[str, Iterable[Any]], codes: Codes) -> list[tuple[int, str, int, int, str]]:
    return [(codes[name], key, low, high, unit) for name, values in numbers.items() for key, low, high, unit in values]


def _to_integers(entry: NumberEntry) -> tuple[str, int, int, str]:
    """The entry with integers as `float_to_integer` makes them."""
    key, low, high, unit = entry
    first, last = _INTEGERS.unpack(_DOUBLES.pack(low + 0.0, high + 0.0))
    return key, first if first >= 0 else -(first & _MANTISSA), last if last >= 0 else -(last & _MANTISSA), unit


def _format_json(name: str, values: Any, other_name: str, other_values: Any) -> str:
    """The JSON object of two members, without those that are empty."""
    if other_values:
        members = {name: values, other_name: other_values} if values else {other_name: other_values}
    elif values:
        members = {name: values}
    else:
        return "{}"
    return orjson.dumps(members).decode()


Row = tuple[Any, ...]


@dataclass(slots=True)
class IndexRows:
    """Rows of the index tables, each in its table's order of columns; `strings`: see `Keys`."""

    term: list[Row] = field(default_factory=list)
    link: list[Row] = field(default_factory=list)
    date: list[Row] = field(default_factory=list)
    number: list[Row] = field(default_factory=list)
    strings: set[int] = field(default_factory=set)

    def list_tables(self) -> tuple[tuple[str, list[Row]], ...]:
        """The rows by table."""
        return ("term", self.term), ("link", self.link), ("date", self.date), ("number", self.number)

    def add(self, keys: Keys, targets: Mapping[str, int], rid: int) -> None:
        """Add the rows of a resource; `targets`: the numbers (`rid`) of what it links to."""
        self.strings |= keys.strings
        if keys.terms:
            self.term += [(tp, value, rid) for tp, value in keys.terms]
        if keys.links:
            self.link += [(tp, targets[target], rid) for tp, target in keys.links]
        if keys.dates:
            self.date += [(tp, low, high, rid) for tp, low, high in keys.dates]
        if keys.numbers:
            self.number += [(tp, key, rid, low, high, unit) for tp, key, low, high, unit in keys.numbers]
