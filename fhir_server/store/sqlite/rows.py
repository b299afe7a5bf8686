"""A resource's index entries as rows of the index tables and as JSON.

The JSON is what an update compares with, and what a search reads when it comes from the resource: in three texts, so
that the frequent questions (where does it point to, when was it) parse little.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from fhir_server.search.entries import Entries
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


Tree = dict[str, Any]
"""Entries as JSON, by parameter: `t` terms, `l` terms of parameters that hold links, `d` dates, `n` numbers (ordered);
and `r`, all references."""

Columns = tuple[str, str, str]
"""The tree as the columns of `entries`: `quick` (`d`, `l`), `terms` (`t`, `r`) and `numbers` (`n`)."""

NO_COLUMNS: Columns = ("{}", "{}", "{}")


def tree_of(entries: Entries) -> Tree:
    """The JSON tree of entries; empty parts and parameters are left out."""
    tree: Tree = {}
    terms, links = {}, {}
    for parameter, values in entries.terms.items():
        if any(map(is_local, values)):
            links[parameter] = values
        elif values:
            terms[parameter] = values
    dates = {parameter: values for parameter, values in entries.dates.items() if values}
    numbers = {
        parameter: [(key, ordered(low), ordered(high), unit) for key, low, high, unit in values]
        for parameter, values in entries.numbers.items()
        if values
    }
    for part, found in (("t", terms), ("l", links), ("d", dates), ("n", numbers), ("r", entries.references)):
        if found:
            tree[part] = found
    return tree


def columns_of(tree: Tree) -> Columns:
    """The tree as JSON texts."""
    return _text(tree, "d", "l"), _text(tree, "t", "r"), _text(tree, "n")


def _text(tree: Tree, *parts: str) -> str:
    return orjson.dumps({part: tree[part] for part in parts if part in tree}).decode()


def tree_from(columns: Columns) -> Tree:
    """The tree that was stored."""
    tree: Tree = {}
    for text in columns:
        tree |= orjson.loads(text)
    return tree


def parameters_of(tree: Tree) -> set[str]:
    """The parameters that have entries in a tree."""
    return {parameter for part in "tldn" for parameter in tree.get(part, ())}


def targets_of(tree: Tree) -> set[str]:
    """The resources that a tree links to, as `Type/id`."""
    found = set(tree.get("r", ()))
    for values in tree.get("l", {}).values():
        found.update(filter(is_local, values))
    return found


Row = tuple[Any, ...]


@dataclass(slots=True)
class IndexRows:
    """Rows of the index tables, each in its table's order of columns."""

    term: list[Row] = field(default_factory=list)
    link: list[Row] = field(default_factory=list)
    date: list[Row] = field(default_factory=list)
    number: list[Row] = field(default_factory=list)

    def tables(self) -> tuple[tuple[str, list[Row]], ...]:
        """The rows by table."""
        return ("term", self.term), ("link", self.link), ("date", self.date), ("number", self.number)

    def add(self, tree: Tree, codes: Mapping[str, int], numbers: Mapping[str, int], rid: int) -> None:
        """Add the rows of a resource's tree; `codes` by parameter, `numbers` (`rid`) by target."""
        self.term += [(codes[name], value, rid) for name, values in tree.get("t", {}).items() for value in values]
        for name, values in tree.get("l", {}).items():
            tp = codes[name]
            for value in values:
                if is_local(value):
                    self.link.append((tp, numbers[value], rid))
                else:
                    self.term.append((tp, value, rid))
        self.link += [(REFERENCES, numbers[target], rid) for target in tree.get("r", ())]
        for name, values in tree.get("d", {}).items():
            self.date += [(codes[name], low, high, rid) for low, high in values]
        for name, values in tree.get("n", {}).items():
            self.number += [(codes[name], key, rid, low, high, unit) for key, low, high, unit in values]

    def extend(self, other: IndexRows) -> None:
        """Add other rows."""
        for (_, mine), (_, theirs) in zip(self.tables(), other.tables(), strict=True):
            mine += theirs

    def without(self, other: IndexRows) -> IndexRows:
        """The rows that are not among the other's."""
        kept = (
            [row for row in mine if row not in excluded]
            for (_, mine), excluded in zip(self.tables(), (set(rows) for _, rows in other.tables()), strict=True)
        )
        return IndexRows(*kept)
