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

from fhir_server.fhir.outcome import Invalid, TooCostly

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
    """One name of a path; `where` is the filter in brackets after it. `at`: its position in the text, from 1."""

    name: str
    where: Filter | None
    at: int


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

_SPACE = re.compile(r"\s*")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_\-]*", re.ASCII)
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_TOKEN = re.compile(r"[^\s)\]]+")


def expand_system_names(value: str) -> str:
    """The value with the names of code systems that a filter may use replaced by their URIs."""
    return _NAMED_SYSTEM.sub(lambda found: _SYSTEMS[found.group()], value)


def iterate_comparisons(part: Filter) -> Iterator[Comparison]:
    """Every comparison in a filter, those in brackets too."""
    match part:
        case Combination(_, parts):
            for each in parts:
                yield from iterate_comparisons(each)
        case Negation(negated):
            yield from iterate_comparisons(negated)
        case Comparison(path):
            yield part
            for step in path:
                if step.where is not None:
                    yield from iterate_comparisons(step.where)


def parse_filter(text: str) -> Filter:
    """The tree of a filter. Raises Invalid with the position of what cannot be read, TooCostly for too many tests."""
    reader = _Reader(text)
    found = reader.read_filter(0)
    if reader.at < len(text):
        raise reader.make_error("`and`, `or` or the end of the filter")
    return found


class _Reader:
    """Recursive descent over the text; `at` is the index of the next character that is no white space."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._comparisons = 0
        self.at = 0
        self._match(_SPACE)

    def read_filter(self, depth: int) -> Filter:
        if depth > MAX_DEPTH:
            raise TooCostly(f"`_filter` is nested more than {MAX_DEPTH} levels deep; search in several steps.")
        found = self._read_term(depth)
        while (word := self._peek(_NAME)) in ("and", "or"):
            self._match(_NAME)
            part = self._read_term(depth)
            joined: Literal["and", "or"] = "and" if word == "and" else "or"
            parts = found.parts if isinstance(found, Combination) and found.word == joined else (found,)
            found = Combination(joined, (*parts, part))
        return found

    def make_error(self, expected: str) -> Invalid:
        rest = self._text[self.at : self.at + 20]
        found = f"`{rest}`" if rest else "its end"
        return Invalid(f"`_filter` cannot be read at position {self.at + 1}: expected {expected}, found {found}.")

    def _read_term(self, depth: int) -> Filter:
        if self._peek(_NAME) == "not" and self._follows("not", "("):
            self._match(_NAME)
            return Negation(self._read_group(depth))
        if self._text[self.at : self.at + 1] == "(":
            return self._read_group(depth)
        return self._read_comparison(depth)

    def _read_group(self, depth: int) -> Filter:
        self._expect("(")
        found = self.read_filter(depth + 1)
        self._expect(")")
        return found

    def _read_comparison(self, depth: int) -> Filter:
        self._comparisons += 1
        if self._comparisons > MAX_COMPARISONS:
            raise TooCostly(f"`_filter` has more than {MAX_COMPARISONS} comparisons; search in several steps.")
        path = [self._read_step(depth)]
        while path[-1].where is not None or self._text[self.at : self.at + 1] == ".":
            self._expect(".")
            path.append(self._read_step(depth))
        operator = self._peek(_NAME)
        if operator not in OPERATORS:
            raise self.make_error("one of the operators " + ", ".join(f"`{each}`" for each in OPERATORS))
        self._match(_NAME)
        return Comparison(tuple(path), operator, self._read_value())

    def _read_step(self, depth: int) -> Step:
        at = self.at
        name = self._match(_NAME)
        if not name:
            raise self.make_error("the name of a search parameter, `not (` or `(`")
        where = None
        if self._text[self.at : self.at + 1] == "[":
            self._expect("[")
            where = self.read_filter(depth + 1)
            self._expect("]")
        return Step(name, where, at + 1)

    def _read_value(self) -> str:
        if self._text[self.at : self.at + 1] != '"':
            found = self._match(_TOKEN)
            if not found:
                raise self.make_error("a value")
            return found
        quoted = self._peek(_STRING)
        try:
            value = str(json.loads(quoted))
            value.encode()  # half of a character, `"\ud800"`, is no text
        except ValueError:
            raise self.make_error("a string in double quotes, written as in JSON") from None
        self._match(_STRING)
        return value

    def _expect(self, sign: str) -> None:
        if self._text[self.at : self.at + 1] != sign:
            raise self.make_error(f"`{sign}`")
        self.at += 1
        self._match(_SPACE)

    def _follows(self, word: str, sign: str) -> bool:
        return self._text[self.at + len(word) :].lstrip().startswith(sign)

    def _peek(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self._text, self.at)
        return found.group() if found else ""

    def _match(self, pattern: re.Pattern[str]) -> str:
        """Takes what matches, "" when nothing does, and the white space after it."""
        found = self._peek(pattern)
        self.at += len(found)
        if found and pattern is not _SPACE:
            self.at += len(self._peek(_SPACE))
        return found
