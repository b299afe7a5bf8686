"""A resource's index entries as rows of the index tables and as JSON.

The JSON is what an update compares with, and what a search reads when it comes from the resource: in three texts, so
that the frequent questions (where does it point to, when was it) parse little.
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


def ordered(value: float) -> int:
    """A float as an integer that sorts the same: exact in SQLite's columns and in its JSON, which floats are not."""
    bits: int = _INTEGER.unpack(_DOUBLE.pack(value + 0.0))[0]
    return bits if bits >= 0 else -(bits & _MANTISSA)


def unordered(value: int) -> float:
    """The float of `ordered`."""
    found: float = _DOUBLE.unpack(_INTEGER.pack(value))[0] if value >= 0 else -_DOUBLE.unpack(_INTEGER.pack(-value))[0]
    return found


def is_local(term: str) -> bool:
    """Whether a term is a local reference, `Type/id`: kept as a link to that resource's number instead of its text."""
    return "/" in term and _LOCAL(term) is not None


Codes = Mapping[str, int]
"""The numbers of a type's parameters (`names.Names`)."""

Columns = tuple[str, str, str]
"""The columns of `entries`, JSON by parameter: `quick` (`d` dates, `l` terms of parameters that hold links), `terms`
(`t` the other terms; `r` all references) and `numbers` (`n`, ordered). What is empty is left out."""


class Keys(NamedTuple):
    """The index rows of one resource but for its `rid`: links by `Type/id`, everything by the parameter's number.

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

    def without(self, other: Keys) -> Keys:
        """The keys that are not among the other's."""
        return Keys(
            _without(self.terms, other.terms),
            _without(self.links, other.links),
            _without(self.dates, other.dates),
            _without(self.numbers, other.numbers),
            self.strings,
        )


def _without(mine: Sequence[Any], others: Sequence[Any]) -> list[Any]:
    excluded = set(others)
    return [key for key in mine if key not in excluded]


def keys_and_columns(entries: Entries, codes: Codes) -> tuple[Keys, Columns]:
    """What the file keeps of entries. Raises KeyError for a parameter that has no number yet."""
    ordered_numbers = {
        name: [_ordered(value) for value in values] for name, values in entries.numbers.items() if values
    }
    dates, references = {name: values for name, values in entries.dates.items() if values}, entries.references
    keys = _keys(entries.terms.items(), dates, ordered_numbers, references, codes)
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
    quick = _text(("d", dates), ("l", links))
    return keys, (quick, _text(("t", texts), ("r", references)), _text(("n", ordered_numbers)))


def keys_of(columns: Columns, codes: Codes) -> Keys:
    """The keys of what is stored. Raises KeyError for a parameter that has no number here yet."""
    quick, texts, numbers = map(orjson.loads, columns)
    terms = {**quick.get("l", {}), **texts.get("t", {})}  # what is in both is whole in the second
    return _keys(terms.items(), quick.get("d", {}), numbers.get("n", {}), texts.get("r", ()), codes)


def _keys(
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


def _ordered(entry: NumberEntry) -> tuple[str, int, int, str]:
    key, low, high, unit = entry
    first = ordered(low)
    return key, first, first if high == low else ordered(high), unit


def _text(*parts: tuple[str, Any]) -> str:
    return orjson.dumps({part: found for part, found in parts if found}).decode()


Row = tuple[Any, ...]


@dataclass(slots=True)
class IndexRows:
    """Rows of the index tables, each in its table's order of columns; `strings`: see `Keys`."""

    term: list[Row] = field(default_factory=list)
    link: list[Row] = field(default_factory=list)
    date: list[Row] = field(default_factory=list)
    number: list[Row] = field(default_factory=list)
    strings: set[int] = field(default_factory=set)

    def tables(self) -> tuple[tuple[str, list[Row]], ...]:
        """The rows by table."""
        return ("term", self.term), ("link", self.link), ("date", self.date), ("number", self.number)

    def add(self, keys: Keys, targets: Mapping[str, int], rid: int) -> None:
        """Add the rows of a resource; `targets`: the numbers (`rid`) of what it links to."""
        self.strings |= keys.strings
        self.term += [(tp, value, rid) for tp, value in keys.terms]
        self.link += [(tp, targets[target], rid) for tp, target in keys.links]
        self.date += [(tp, low, high, rid) for tp, low, high in keys.dates]
        self.number += [(tp, key, rid, low, high, unit) for tp, key, low, high, unit in keys.numbers]
