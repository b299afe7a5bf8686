"""Finding elements of a resource by a FHIRPath, for FHIRPath Patch (https://hl7.org/fhir/R4/fhirpatch.html).

The part of FHIRPath that names places: `Patient.name[0].given`, `where(use = 'official' and period.end = @2026)`,
`first()`, `last()`, `single()`, `extension('url')`, `ofType(Quantity)`, `as(Quantity)`, `$this` in `where`. Choices are
written as FHIRPath has them: `Observation.value`, not `Observation.valueQuantity`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from fhir_server.fhir.definitions import Definitions, Property
from fhir_server.fhir.json_tree import Tree, normalize_value
from fhir_server.fhir.outcome import Invalid, NotSupported, TooCostly

LENGTH_LIMIT = 1000
"""The longest path, in characters."""

_TOKEN = re.compile(
    r"\s*(?:(?P<string>'(?:[^'\\]|\\.)*')|(?P<date>@[0-9T:.+\-Z]+)|(?P<number>-?[0-9]+(?:\.[0-9]+)?)"
    r"|(?P<name>\$this|[A-Za-z_][A-Za-z0-9_]*|`[^`]+`)|(?P<mark>[.()\[\]=]))"
)
_ESCAPE = re.compile(r"\\(.)")
_ABSTRACT = frozenset({"Resource", "DomainResource"})


@dataclass(frozen=True, slots=True)
class Child:
    """`.name`: the child elements of that name."""

    name: str


@dataclass(frozen=True, slots=True)
class At:
    """`[index]`, `first()` (0) or `last()` (-1)."""

    index: int


@dataclass(frozen=True, slots=True)
class Where:
    """`where(…)`: elements for which each path yields exactly the one value."""

    conditions: tuple[tuple[Steps, str | Decimal | bool], ...]


@dataclass(frozen=True, slots=True)
class OfType:
    """`ofType(…)` or `as(…)`."""

    type: str


@dataclass(frozen=True, slots=True)
class Single:
    """`single()`: an error when there are several elements."""


MOST_STEPS = 200_000
"""Elements that the paths of one patch may visit."""


class Walk:
    """What the paths of one patch share: the definitions, and how many elements they may still visit."""

    def __init__(self, definitions: Definitions, most: int = MOST_STEPS) -> None:
        self.properties = definitions.properties
        self.primitives = definitions.primitives
        self._most = self._left = most
        self._choices: dict[tuple[str, str], Mapping[str, Property]] = {}

    def count(self, visited: int) -> None:
        """Count elements as visited. Raises TooCostly when they are too many."""
        self._left -= visited
        if self._left < 0:
            raise TooCostly(
                f"The paths of the patch visit more than {self._most:,} elements; make them shorter, or send a PUT."
            )

    def find_choices(self, owner: str, name: str) -> Mapping[str, Property]:
        """`choices`, looked up once."""
        found = self._choices.get((owner, name))
        if found is None:
            found = self._choices[owner, name] = find_choices(owner, name, self)
        return found


Step = Child | At | Where | OfType | Single
Steps = tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Node:
    """One element in a tree: `holder[key]`, or `holder[key][index]` when it repeats.

    `owner` is the type of the holder and `definition` what the key means there (None for the resource itself); a
    primitive's id and extensions are in `holder["_" + key]`. The holder is the tree's own object.
    """

    holder: dict[str, Any]
    key: str
    index: int | None
    owner: str
    definition: Property | None
    type: str

    @property
    def value(self) -> Tree:
        """The element's JSON; None for a primitive that has only extensions."""
        return _get_item(self.holder.get(self.key), self.index)

    @property
    def sibling(self) -> Tree:
        """The object with id and extensions of a primitive, or None."""
        return _get_item(self.holder.get(f"_{self.key}"), self.index)


def make_root(tree: Tree) -> Node:
    """The node of a whole resource."""
    return Node({"": tree}, "", None, "", None, tree["resourceType"])


def parse(path: str) -> Steps:
    """The steps of a path. Raises Invalid for what is no such path and NotSupported for other FHIRPath functions."""
    if len(path) > LENGTH_LIMIT:
        raise Invalid(f"The path is longer than {LENGTH_LIMIT} characters.", code="too-long")
    return _Parser(path).parse()


def select(start: Node, steps: Iterable[Step], walk: Walk) -> list[Node]:
    """The nodes that the steps lead to from `start`, in document order.

    Raises Invalid for an element that its type has not.
    """
    nodes = [start]
    for position, step in enumerate(steps):
        walk.count(1 + len(nodes))
        if position == 0 and isinstance(step, Child) and _names_type(step.name, start):
            continue
        nodes = _follow(nodes, step, walk)
    return nodes


def find_choices(owner: str, name: str, walk: Walk) -> Mapping[str, Property]:
    """The JSON keys of the element `name` in type `owner`, several for a choice. Raises Invalid when there is none."""
    properties = walk.properties
    members = properties.get("Extension" if owner in walk.primitives else owner, {})
    found = {
        key: property
        for key, property in members.items()
        if property.element.name == name and (owner not in walk.primitives or key in ("id", "extension"))
    }
    if found:
        return found
    hint = f"; a choice is written `{members[name].element.name}`" if name in members else ""
    raise Invalid(f"`{owner}` has no element `{name}`{hint}.", code="structure")


def _names_type(name: str, start: Node) -> bool:
    return start.definition is None and (name == start.type or name in _ABSTRACT)


def _get_item(value: Tree, index: int | None) -> Tree:
    if index is None:
        return value
    return value[index] if isinstance(value, list) and index < len(value) else None


def _follow(nodes: list[Node], step: Step, walk: Walk) -> list[Node]:
    match step:
        case Child(name):
            return [child for node in nodes for child in _find_children(node, name, walk)]
        case At(index):
            return nodes[index:][:1]
        case Where(conditions):
            return [node for node in nodes if all(_holds(node, *condition, walk) for condition in conditions)]
        case OfType(type):
            return [node for node in nodes if node.type == type]
        case Single():
            if len(nodes) > 1:
                raise Invalid(f"`single()` met {len(nodes)} elements.", code="multiple-matches")
            return nodes


def _find_children(node: Node, name: str, walk: Walk) -> list[Node]:
    held = node.sibling if node.type in walk.primitives else node.value
    keys = walk.find_choices(node.type, name)
    if not isinstance(held, dict):
        return []
    return [
        Node(held, key, index, node.type, property, _find_type(property, _get_item(held.get(key), index), walk))
        for key, property in keys.items()
        for index in _list_indexes(held, key, property)
    ]


def _list_indexes(held: dict[str, Any], key: str, property: Property) -> Iterable[int | None]:
    present = [held[name] for name in (key, f"_{key}") if name in held]
    if not property.element.repeats:
        return (None,) if present else ()
    return range(max((len(items) for items in present if isinstance(items, list)), default=0))


def _find_type(property: Property, value: Tree, walk: Walk) -> str:
    """The property's type; where any resource may stand, the type of the one that stands there."""
    if property.type != "Resource" or not isinstance(value, dict):
        return property.type
    type = value.get("resourceType")
    return type if isinstance(type, str) and type in walk.properties else property.type


def _holds(node: Node, steps: Steps, expected: str | Decimal | bool, walk: Walk) -> bool:
    values = [normalize_value(found.value) for found in select(node, steps, walk)]
    return values == [(type(expected), expected)]


class _Parser:
    """A recursive descent over one path's tokens."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.tokens = _tokenize(path)
        self.position = 0

    def parse(self) -> Steps:
        steps = self.steps()
        if self.position < len(self.tokens):
            raise self.make_error()
        return steps

    def steps(self) -> Steps:
        name = self.next("name")[1]
        steps: list[Step] = [] if name == "$this" else self.invocation(name)
        while self.at(".", "["):
            if self.next("mark")[1] == "[":
                steps.append(self.index())
                self.skip("]")
            else:
                steps += self.invocation(self.next("name")[1])
        return tuple(steps)

    def index(self) -> At:
        if self.position < len(self.tokens) and not self.tokens[self.position][1].isdecimal():
            raise self.make_error()
        return At(int(self.next("number")[1]))

    def invocation(self, name: str) -> list[Step]:
        if not self.at("("):
            return [Child(name.strip("`"))]
        self.skip("(")
        steps = self.function(name)
        self.skip(")")
        return steps

    def function(self, name: str) -> list[Step]:
        match name:
            case "first":
                return [At(0)]
            case "last":
                return [At(-1)]
            case "single":
                return [Single()]
            case "ofType" | "as":
                return [OfType(self.type_name())]
            case "extension":
                return [Child("extension"), Where((((Child("url"),), self.next("string", "name")[1]),))]
            case "where":
                return [Where(self.conditions())]
        raise NotSupported(
            f"The function `{name}()` of the path `{self.path}` is not supported in a patch; where, first, last, "
            "single, extension, ofType and as are."
        )

    def type_name(self) -> str:
        """`Quantity`, `FHIR.Quantity`."""
        name = self.next("name")[1]
        if name == "FHIR" and self.at("."):
            self.skip(".")
            name = self.next("name")[1]
        return name

    def conditions(self) -> tuple[tuple[Steps, str | Decimal | bool], ...]:
        conditions = [self.condition()]
        while self.position < len(self.tokens) and self.tokens[self.position] == ("name", "and"):
            self.position += 1
            conditions.append(self.condition())
        return tuple(conditions)

    def condition(self) -> tuple[Steps, str | Decimal | bool]:
        steps = self.steps()
        self.skip("=")
        kind, text = self.next("string", "number", "date", "name")
        if kind == "name" and text not in ("true", "false"):
            raise Invalid(f"`where` in `{self.path}` compares with a literal, not with `{text}`.", code="value")
        if kind == "name":
            return steps, text == "true"
        return steps, Decimal(text) if kind == "number" else text

    def at(self, *marks: str) -> bool:
        return self.position < len(self.tokens) and self.tokens[self.position] in [("mark", mark) for mark in marks]

    def skip(self, mark: str) -> None:
        if not self.at(mark):
            raise self.make_error()
        self.position += 1

    def next(self, *kinds: str) -> tuple[str, str]:
        if self.position >= len(self.tokens) or self.tokens[self.position][0] not in kinds:
            raise self.make_error()
        self.position += 1
        return self.tokens[self.position - 1]

    def make_error(self) -> Invalid:
        found = f"at `{self.tokens[self.position][1]}`" if self.position < len(self.tokens) else "at its end"
        return Invalid(f"The path `{self.path}` cannot be understood {found}.", code="value")


def _tokenize(path: str) -> list[tuple[str, str]]:
    """(kind, text) of each token; strings unescaped, dates without the `@`."""
    tokens, position, end = [], 0, len(path.rstrip())
    while position < end:
        match = _TOKEN.match(path, position)
        if match is None:
            raise Invalid(f"The path `{path}` cannot be understood at `{path[position:]}`.", code="value")
        kind = str(match.lastgroup)
        text = match[kind]
        if kind == "string":
            text = _ESCAPE.sub(r"\1", text[1:-1])
        tokens.append((kind, text.removeprefix("@") if kind == "date" else text))
        position = match.end()
    return tokens
