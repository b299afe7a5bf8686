"""The text of a `_filter` as a tree (https://hl7.org/fhir/R4/search_filter.html).

filter     = term (("and" | "or") term)*          from left to right, neither binds tighter
term       = ["not"] "(" filter ")" | comparison
comparison = path operator value
path       = name | name "." path | name "[" filter "]" "." path
value      = JSON string | anything up to white space, ")" or "]"
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from fhir_server.fhir.outcome import TooCostly
from fhir_server.search.scanner import Scanner

MAX_COMPARISONS = 100
MAX_DEPTH = 30

OPERATORS = (
    *("eq", "ne", "co", "sw", "ew", "gt", "lt", "ge", "le", "ap", "sa", "eb", "pr", "po"),
    *("ss", "sb", "in", "ni", "re"),
)

TERMINOLOGY = {"ss": "below", "sb": "above", "in": "in", "ni": "not-in"}
"""The operators that need value sets or code systems, and the modifiers of search parameters that do the same."""

_SYSTEMS = {
    "loinc": "http://loinc.org",
    "snomed": "http://snomed.info/sct",
    "rxnorm": "http://www.nlm.nih.gov/research/umls/rxnorm",
    "ucum": "http://unitsofmeasure.org",
}
_NAMED_SYSTEM = re.compile(r"(?<![^|$])(loinc|snomed|rxnorm|ucum)(?=\|)")


@dataclass(frozen=True, slots=True)
class Step:
    """One name of a path, the filter in brackets after it (`where`), and its position in the text, from 1."""

    name: str
    where: Filter | None
    position: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """`path operator value`; a quoted value comes without its quotes."""

    path: tuple[Step, ...]
    operator: str
    value: str


@dataclass(frozen=True, slots=True)
class Combination:
    """Filters of which all (`and`) or some (`or`) hold."""

    word: Literal["and", "or"]
    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Negation:
    """The filter does not hold."""

    part: Filter


Filter = Comparison | Combination | Negation

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_\-]*", re.ASCII)
_NOT_GROUP = re.compile(r"not\s*\(")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_TOKEN = re.compile(r"[^\s)\]]+")


def expand_system_names(value: str) -> str:
    """The value with the names of code systems that a filter may use replaced by their URIs."""
    return _NAMED_SYSTEM.sub(lambda found: _SYSTEMS[found.group()], value)


def iterate_comparisons(tree: Filter, brackets: bool = True) -> Iterator[Comparison]:
    """Every comparison in a filter; with `brackets`, those of the filters in brackets too."""
    match tree:
        case Combination(_, parts):
            for part in parts:
                yield from iterate_comparisons(part, brackets)
        case Negation(part):
            yield from iterate_comparisons(part, brackets)
        case Comparison(path):
            yield tree
            for step in path if brackets else ():
                if step.where is not None:
                    yield from iterate_comparisons(step.where)


def parse_filter(text: str) -> Filter:
    """The tree of a filter. Raises Invalid with the position of what cannot be read, TooCostly for too many tests."""
    reader = _Reader("_filter", text)
    tree = reader.read_filter(0)
    if reader.position < len(text):
        raise reader.make_error("`and`, `or` or the end of the filter")
    return tree


class _Reader(Scanner):
    """Reads the language by recursive descent, one method for each of its rules."""

    _comparisons = 0

    def read_filter(self, depth: int) -> Filter:
        if depth > MAX_DEPTH:
            raise TooCostly(f"`_filter` is nested more than {MAX_DEPTH} levels deep; search in several steps.")
        tree = self._read_term(depth)
        while (name := self.peek(_NAME)) in ("and", "or"):
            word: Literal["and", "or"] = "and" if name == "and" else "or"
            self.read(_NAME)
            parts = tree.parts if isinstance(tree, Combination) and tree.word == word else (tree,)
            tree = Combination(word, (*parts, self._read_term(depth)))
        return tree

    def _read_term(self, depth: int) -> Filter:
        if self.peek(_NOT_GROUP):
            self.read(_NAME)
            return Negation(self._read_group(depth, "(", ")"))
        return self._read_group(depth, "(", ")") if self.starts_with("(") else self._read_comparison(depth)

    def _read_group(self, depth: int, start: str, end: str) -> Filter:
        self.expect(start)
        tree = self.read_filter(depth + 1)
        self.expect(end)
        return tree

    def _read_comparison(self, depth: int) -> Filter:
        self._comparisons += 1
        if self._comparisons > MAX_COMPARISONS:
            raise TooCostly(f"`_filter` has more than {MAX_COMPARISONS} comparisons; search in several steps.")
        path = [self._read_step(depth)]
        while path[-1].where is not None or self.starts_with("."):
            self.expect(".")
            path.append(self._read_step(depth))
        operator = self.peek(_NAME)
        if operator not in OPERATORS:
            raise self.make_error("one of the operators " + ", ".join(f"`{each}`" for each in OPERATORS))
        self.read(_NAME)
        return Comparison(tuple(path), operator, self._read_value())

    def _read_step(self, depth: int) -> Step:
        position = self.position + 1
        name = self.read(_NAME)
        if not name:
            raise self.make_error("the name of a search parameter, `not (` or `(`")
        return Step(name, self._read_group(depth, "[", "]") if self.starts_with("[") else None, position)

    def _read_value(self) -> str:
        if not self.starts_with('"'):
            if value := self.read(_TOKEN):
                return value
            raise self.make_error("a value")
        try:
            value = str(json.loads(self.peek(_STRING)))
            value.encode()  # half of a character, `"\ud800"`, is no text
        except ValueError:
            raise self.make_error("a string in double quotes, written as in JSON") from None
        self.read(_STRING)
        return value
