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
    numbers = {name: [_to_integers(value) for value in values] for name, values in entries.numbers.items() if values}
    dates, references = {name: values for name, values in entries.dates.items() if values}, entries.references
    keys = _build_keys(entries.terms.items(), dates, numbers, references, codes)
    if not entries.strings.isdisjoint(entries.terms):
        keys = keys._replace(strings=frozenset([codes[name] for name in entries.strings.intersection(entries.terms)]))
    linked = {tp for tp, _ in keys.links}
    texts, links = {}, {}
    for name, values in entries.terms.items():
        if codes[name] not in linked:
            if values:
                texts[name] = values
        elif any(SEPARATOR in value for value in values):  # canonicals, some of which are addresses here
            texts[name], links[name] = values, tuple(filter(is_local, values))
        else:
            links[name] = values
    quick = _format_json(("d", dates), ("l", links))
    return keys, (quick, _format_json(("t", texts), ("r", references)), _format_json(("n", numbers)))


def columns_to_keys(columns: Columns, codes: Codes) -> Keys:
    """The keys of stored columns. Raises KeyError for a parameter whose number this process does not know yet."""
    quick, texts, numbers = map(orjson.loads, columns)
    terms = {**quick.get("l", {}), **texts.get("t", {})}  # what is in both is whole in the second
    return _build_keys(terms.items(), quick.get("d", {}), numbers.get("n", {}), texts.get("r", ()), codes)


def _build_keys(
    terms: Iterable[tuple[str, Iterable[str]]],
    dates: Mapping[str, Iterable[Any]],
    numbers: Mapping[str, Iterable[Any]],
    references: Iterable[str],
    codes: Codes,
) -> Keys:
    texts: list[tuple[int, str]] = []
    links = [(REFERENCES, reference) for reference in references]
    for name, values in terms:
        tp = codes[name]
        for value in values:
            if "/" in value and _LOCAL(value):
                links.append((tp, value))
            else:
                texts.append((tp, value))
    return Keys(
        texts,
        links,
        [(codes[name], low, high) for name, values in dates.items() for low, high in values],
        [(codes[name], key, low, high, unit) for name, values in numbers.items() for key, low, high, unit in values],
    )


def _to_integers(entry: NumberEntry) -> tuple[str, int, int, str]:
    key, low, high, unit = entry
    first = float_to_integer(low)
    return key, first, first if high == low else float_to_integer(high), unit


def _format_json(*parts: tuple[str, Any]) -> str:
    return orjson.dumps({part: values for part, values in parts if values}).decode()


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
        self.term += [(tp, value, rid) for tp, value in keys.terms]
        self.link += [(tp, targets[target], rid) for tp, target in keys.links]
        self.date += [(tp, low, high, rid) for tp, low, high in keys.dates]
        self.number += [(tp, key, rid, low, high, unit) for tp, key, low, high, unit in keys.numbers]
