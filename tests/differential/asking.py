"""Random searches made of values that the data holds; the same seed gives the same searches.

https://hl7.org/fhir/R4/search.html
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from fhir_server.app import Server
from fhir_server.search.entries import OPEN_HIGH, OPEN_LOW, SEPARATOR, Entries
from fhir_server.search.registry import Parameter
from tests.differential.both import Ask

PREFIXES = ("", "eq", "ne", "gt", "ge", "lt", "le", "sa", "eb", "ap")
DAY = ("%Y", "%Y-%m", "%Y-%m-%d", "%Y-%m-%dT%H:%MZ", "%Y-%m-%dT%H:%M:%SZ")
SORTABLE = ("string", "token", "reference", "date", "number", "quantity", "uri")

Values = Mapping[str, Mapping[str, list[Any]]]
"""Resource type → parameter code → values found."""


@dataclass(frozen=True, slots=True)
class Edge:
    """Some resource of `source` refers with `code` to one of `target`."""

    source: str
    code: str
    target: str


@dataclass(slots=True)
class Vocabulary:
    """What the data holds: ids and element names by type, search values as written in a URL, and references."""

    ids: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    elements: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    values: dict[str, dict[str, list[str]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    parameters: dict[str, Mapping[str, Parameter]] = field(default_factory=dict)
    edges: list[Edge] = field(default_factory=list)
    compartments: Mapping[str, Any] = field(default_factory=dict)


def escaped(text: str) -> str:
    r"""A value as part of a search parameter: `\`, `,`, `$` and `|` escaped."""
    for special in ("\\", ",", "$", "|"):
        text = text.replace(special, f"\\{special}")
    return text


def vocabulary(server: Server, trees: Mapping[str, dict[str, Any]]) -> Vocabulary:
    """What there is to ask for."""
    context, found, edges = server.context, Vocabulary(), set()
    for reference, tree in trees.items():
        type, _, id = reference.partition("/")
        found.ids[type].append(id)
        found.elements[type] |= {name for name in tree if not name.startswith("_")} - {"resourceType"}
        parameters = found.parameters.setdefault(type, context.registry.parameters(type))
        for code, value in _written(parameters, context.index.make_entries(type, tree, "http://test/fhir")):
            if value not in found.values[type][code]:
                found.values[type][code].append(value)
            target = value.partition("/")[0]
            if parameters[code].type == "reference" and value in trees:
                edges.add((type, code, target))
    found.edges = [Edge(*edge) for edge in sorted(edges)]
    found.compartments = context.definitions.compartments
    return found


def _written(parameters: Mapping[str, Parameter], entries: Entries) -> Iterator[tuple[str, str]]:
    """(code, value without prefix) for each index entry of a plain parameter."""
    for code, terms in entries.terms.items():
        if code in parameters and parameters[code].type in _TERM_TEXT:
            yield from ((code, text) for term in terms if (text := _TERM_TEXT[parameters[code].type](term)))
    for code, dates in entries.dates.items():
        for low, high in dates if code in parameters else ():
            end = low if low > OPEN_LOW else high
            if OPEN_LOW < end < OPEN_HIGH:
                moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=end)
                yield code, f"{moment.isoformat()} {moment.strftime(_precision(high - low + 1))}"
    for code, numbers in entries.numbers.items():
        if code in parameters and parameters[code].type in ("number", "quantity"):
            for _, value, _, unit in numbers:
                system, unit_code, _ = (*unit.split(SEPARATOR), "", "")[:3]
                unit_text = f"|{escaped(system)}|{escaped(unit_code)}" if unit_code else ""
                yield code, f"{value:g}{unit_text}" if abs(value) < 1e300 else "0"


def _precision(width: int) -> str:
    """The format of a search value as wide as the stored interval (µs), so that equality is met exactly."""
    days = width / 86_400_000_000
    return DAY[0] if 364 < days < 367 else DAY[1] if 27 < days < 32 else DAY[2] if days == 1 else DAY[4]


def _token(term: str) -> str:
    code, _, system = term.partition(SEPARATOR)
    return f"{escaped(system)}|{escaped(code)}" if code else ""


_TERM_TEXT: Mapping[str, Callable[[str], str]] = {
    "string": lambda term: escaped(term.partition(SEPARATOR)[2].strip()),
    "token": _token,
    "reference": lambda term: escaped(term.partition(SEPARATOR)[0]),
    "uri": escaped,
}


class Asking:
    """A source of random searches over a vocabulary."""

    def __init__(self, known: Vocabulary, seed: int) -> None:
        self._known = known
        self._random = random.Random(seed)
        self._types = sorted(type for type in known.values if len(known.values[type]) > 2)
        # what real systems ask for has many resources here; the long tail of types has one or two each
        self._weights = [min(len(known.ids[type]), 120) + 3 for type in self._types]

    def search(self) -> Ask:
        """A search in a type, a compartment or the system; one in six as a form."""
        roll = self._random
        kind = roll.random()
        if kind < 0.05:
            return self._system()
        path, type = self._compartment() if kind < 0.15 else self._type()
        pairs = [self.criterion(type) for _ in range(roll.choice((0, 1, 1, 1, 2, 2, 3)))]
        pairs += self._result(type)
        roll.shuffle(pairs)
        return Ask(path, tuple(pairs), form=roll.random() < 0.16)

    def _type(self) -> tuple[str, str]:
        type = self._random.choices(self._types, self._weights)[0]
        return f"/{type}", type

    def _compartment(self) -> tuple[str, str]:
        owner = self._random.choice(["Patient", "Patient", "Encounter", "Practitioner"])
        id = self._random.choice(self._known.ids[owner])
        near = sorted({edge.source for edge in self._known.edges if edge.target == owner})
        within = [type for type in near if type in self._known.compartments[owner] and type in self._types]
        type = self._random.choice(within)
        return f"/{owner}/{id}/{type}", type

    def _system(self) -> Ask:
        types = sorted(set(self._random.choices(self._types, self._weights, k=3)))
        pairs = [("_type", ",".join(types)), ("_count", "15"), ("_total", "accurate")]
        if self._random.random() < 0.5:
            pairs.append(("_sort", self._random.choice(("_lastUpdated", "-_lastUpdated", "_id", "-_id"))))
        if self._random.random() < 0.5:
            pairs.append(("_id:not" if self._random.random() < 0.1 else "_id", self._ids(types[0])))
        if self._random.random() < 0.4:
            pairs.append(("_lastUpdated", "ge2026-01-05T08:00:00.3Z"))
        return Ask("/", tuple(pairs))

    def _ids(self, type: str) -> str:
        return ",".join(self._random.choices(self._known.ids[type], k=2))

    def criterion(self, type: str, depth: int = 0) -> tuple[str, str]:
        """One `name=value` for a resource of a type; chains and `_has` at most two deep."""
        kind = self._random.random()
        if depth < 2 and kind < 0.12 and (edge := self._edge(lambda edge: edge.source == type)):
            name, value = self.criterion(edge.target, depth + 1)
            target = f":{edge.target}" if self._random.random() < 0.6 else ""
            return f"{edge.code}{target}.{name}", value
        if depth < 2 and kind < 0.2 and (edge := self._edge(lambda edge: edge.target == type)):
            name, value = self.criterion(edge.source, depth + 1)
            return f"_has:{edge.source}:{edge.code}:{name}", value
        if kind < 0.25:
            return "_id", self._ids(type)
        if kind < 0.3:
            return (
                "_lastUpdated",
                f"{self._random.choice(PREFIXES[1:7])}2026-01-05T08:00:0{self._random.randint(0, 1)}Z",
            )
        return self._plain(type)

    def _edge(self, wanted: Callable[[Edge], bool]) -> Edge | None:
        edges = [edge for edge in self._known.edges if wanted(edge) and edge.target in self._types]
        return self._random.choice(edges) if edges else None

    def _plain(self, type: str) -> tuple[str, str]:
        codes = sorted(self._known.values[type])
        if not codes:
            return "_id", self._ids(type)
        code = self._random.choice(codes)
        if self._random.random() < 0.1:
            missing = self._random.choice(sorted(self._known.parameters[type]))
            return f"{missing}:missing", self._random.choice(("true", "false"))
        kind = self._known.parameters[type][code].type
        name, written = _WRITERS[kind](self._random, code)
        values = self._random.choices(self._known.values[type][code], k=self._random.choice((1, 1, 1, 2, 3)))
        return name, ",".join(written(value) for value in values)

    def _result(self, type: str) -> list[tuple[str, str]]:
        roll, known, pairs = self._random, self._known, []
        pairs.append(("_count", str(roll.choice((1, 2, 3, 5, 10, 20, 50, 1000)))))
        if roll.random() < 0.5:
            pairs.append(("_total", roll.choice(("accurate", "accurate", "estimate", "none"))))
        if roll.random() < 0.55:
            pairs.append(("_sort", self._sort(type)))
        shape = roll.random()
        if shape < 0.12:
            pairs.append(("_summary", roll.choice(("true", "text", "data", "count", "false"))))
        elif shape < 0.25:
            names = roll.sample(sorted(known.elements[type]), k=min(2, len(known.elements[type])))
            pairs.append(("_elements", ",".join(names)))
        elif shape < 0.55:
            pairs += self._includes(type)
        return pairs

    def _sort(self, type: str) -> str:
        found = [
            code for code in sorted(self._known.values[type]) if self._known.parameters[type][code].type in SORTABLE
        ]
        codes = self._random.sample([*found, "_id", "_lastUpdated"], k=self._random.choice((1, 1, 2, 2)))
        return ",".join(self._random.choice(("", "-")) + code for code in codes)

    def _includes(self, type: str) -> list[tuple[str, str]]:
        pairs = []
        if (edge := self._edge(lambda edge: edge.source == type)) is not None:
            target = edge.target
            wanted = self._random.choice((f"{edge.code}:{target}", edge.code, edge.code, "*"))
            pairs.append(("_include", f"{type}:{wanted}"))
            further = self._edge(lambda further: further.source == target)
            if further and self._random.random() < 0.5:
                pairs.append(("_include:iterate", f"{further.source}:{further.code}"))
        if self._random.random() < 0.6 and (edge := self._edge(lambda edge: edge.target == type)):
            pairs.append(("_revinclude", f"{edge.source}:{edge.code}"))
            back = self._edge(lambda next: next.target == edge.source)
            if back and self._random.random() < 0.3:
                pairs.append(("_revinclude:iterate", f"{back.source}:{back.code}"))
        return pairs


Writer = Callable[[random.Random, str], tuple[str, Callable[[str], str]]]
"""(randomness, code) → the parameter's name with a modifier or none, and how a found value is written."""


def _string(roll: random.Random, code: str) -> tuple[str, Callable[[str], str]]:
    modifier = roll.choice(("", "", ":exact", ":contains"))
    if modifier == ":exact":
        return code + modifier, str
    first, last = (roll.randint(0, 3), roll.randint(4, 9)) if modifier else (0, roll.randint(1, 8))
    change = roll.choice((str, str.upper, str.lower))
    return code + modifier, lambda value: change(value[first:last].rstrip("\\") or value[:1].replace("\\", "a"))


def _tokens(roll: random.Random, code: str) -> tuple[str, Callable[[str], str]]:
    modifier = roll.choice(("", "", "", ":not"))
    form = roll.random()
    if form < 0.4:
        return code + modifier, lambda value: value.partition("|")[2] or "x"
    if form < 0.5:
        return code + modifier, lambda value: f"{value.partition('|')[0]}|" if not value.startswith("|") else value
    return code + modifier, str


def _reference(roll: random.Random, code: str) -> tuple[str, Callable[[str], str]]:
    form = roll.random()
    if form < 0.2:
        return code, lambda value: value.rpartition("/")[2] if not value.startswith("http") else value
    if form < 0.3:
        return code, lambda value: f"http://test/fhir/{value}" if ":" not in value else value
    return code, str


def _date(roll: random.Random, code: str) -> tuple[str, Callable[[str], str]]:
    prefix, form = roll.choice((*PREFIXES, "", "eq", "ne", "le", "ge")), roll.choice(DAY)
    if roll.random() < 0.5:
        return code, lambda value: prefix + value.partition(" ")[2].rjust(4, "0")
    return code, lambda value: prefix + datetime.fromisoformat(value.partition(" ")[0]).strftime(form).rjust(4, "0")


def _number(roll: random.Random, code: str) -> tuple[str, Callable[[str], str]]:
    prefix, bare = roll.choice(PREFIXES), roll.random() < 0.4
    return code, lambda value: prefix + (value.partition("|")[0] if bare else value)


def _uri(roll: random.Random, code: str) -> tuple[str, Callable[[str], str]]:
    modifier = roll.choice(("", "", "", ":below"))
    return code + modifier, (lambda value: value.rpartition("/")[0] or value) if modifier == ":below" else str


_WRITERS: Mapping[str, Writer] = {
    "string": _string,
    "token": _tokens,
    "reference": _reference,
    "date": _date,
    "number": _number,
    "quantity": _number,
    "uri": _uri,
}
