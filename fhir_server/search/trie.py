"""All search expressions of a type as one trie of JSON keys, walked once per resource (http://hl7.org/fhirpath/N1/).

A node stands for an element; its leaves make entries of the element, its members lead on by JSON key, its filters are
the `where(…)` steps. `Planter` grows the trie from FHIRPath steps; `walk` is the hot path.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fhir_server.fhir.definitions import Property
from fhir_server.fhir.path import All, Compare, Condition, Exists, Member, Path, Resolves, Some, Where, keys
from fhir_server.search.parameters.criteria import Extract, Surroundings
from fhir_server.search.parameters.reference import leads_to

Found = Sequence[dict[str, Any]]
"""Entries by code, in one dict per kind (`KINDS`): a tuple as long as one element gave them all, then a list."""

KINDS = ("terms", "dates", "numbers")

Group = Callable[[Any, Found, Surroundings], None]
"""Adds the entries of all composites of one element."""

PlantLeaf = Callable[["Node", str], int]
"""(node, its type) → how many leaves it planted there: none for a type that it has no use for."""

Accepts = Callable[[Any, Surroundings], bool]
Properties = Mapping[str, Mapping[str, Property]]


class Node:
    """One element of the trie. `plain`: it has leaves and nothing else; known once the trie is pruned."""

    __slots__ = ("filters", "groups", "leaves", "members", "picked", "plain")

    def __init__(self) -> None:
        self.leaves: list[tuple[Extract, int, list[str]]] = []
        self.groups: list[Group] = []
        self.members: dict[str, Node] = {}
        self.picked: list[tuple[str, int, Node]] = []
        self.filters: list[tuple[Condition, Accepts, Node]] = []
        self.plain = False

    def add(self, extract: Extract, code: str, kind: int = 0) -> None:
        """Plants a leaf whose entries go to `KINDS[kind]`; parameters with the same extraction share one."""
        for planted, _, codes in self.leaves:
            if planted is extract:
                if code not in codes:
                    codes.append(code)
                return
        self.leaves.append((extract, kind, [code]))

    def member(self, key: str, index: int | None) -> Node:
        """The node of a JSON key, or of one element of its list."""
        if index is None:
            return self.members.setdefault(key, Node())
        for picked, at, node in self.picked:
            if (picked, at) == (key, index):
                return node
        self.picked.append((key, index, Node()))
        return self.picked[-1][2]

    def prune(self) -> bool:
        """Removes what leads to no leaf; True when nothing is left."""
        self.members = {key: node for key, node in self.members.items() if not node.prune()}
        self.picked = [each for each in self.picked if not each[2].prune()]
        self.filters = [each for each in self.filters if not each[2].prune()]
        self.plain = not (self.groups or self.members or self.picked or self.filters)
        return self.plain and not self.leaves


def walk(values: Sequence[Any], node: Node, found: Found, around: Surroundings) -> None:
    """Adds the entries of the values of an element, and of all below them, to `found`."""
    for value in values:
        if value is None:  # a list of primitives has null where a value has only extensions
            continue
        for extract, kind, codes in node.leaves:
            entries = extract(value, around)
            if entries:
                sink = found[kind]
                for code in codes:
                    if code in sink:
                        add(sink, code, entries)
                    else:
                        sink[code] = entries
        if not node.plain:
            _descend(value, node, found, around)


def add(sink: dict[str, Any], code: str, entries: tuple[Any, ...]) -> None:
    """Puts more entries under a code; a list of its own, so that ten thousand members of a Group stay linear."""
    earlier = sink.get(code)
    if earlier is None:
        sink[code] = entries
    elif earlier.__class__ is list:
        earlier.extend(entries)
    else:
        sink[code] = [*earlier, *entries]


def _descend(value: Any, node: Node, found: Found, around: Surroundings) -> None:
    for group in node.groups:
        group(value, found, around)
    members = node.members
    for key in members if len(members) < len(value) else value:
        if key in members and key in value:
            child = value[key]
            walk(child if child.__class__ is list else (child,), members[key], found, around)
    for _, accepts, below in node.filters:
        if accepts(value, around):
            walk((value,), below, found, around)
    for key, index, below in node.picked:
        walk(value.get(key, ())[index : index + 1], below, found, around)


class Planter:
    """Grows tries along FHIRPath steps, by the elements that each type has."""

    def __init__(self, properties: Properties) -> None:
        self._properties = properties

    def plant(self, node: Node, type: str, steps: Path, plant_leaf: PlantLeaf) -> int:
        """Follows the steps from `node`, an element of `type`; plants a leaf at each end and returns how many."""
        if not steps:
            return plant_leaf(node, type)
        first, rest = steps[0], steps[1:]
        if isinstance(first, Where):
            return self.plant(self._filter(node, type, first.condition), type, rest, plant_leaf)
        return sum(
            self.plant(node.member(key, first.index), property.type, rest, plant_leaf)
            for key, property in keys(self._properties.get(type, {}), first)
        )

    def _filter(self, node: Node, type: str, condition: Condition) -> Node:
        for planted, _, below in node.filters:
            if planted == condition:
                return below
        below = Node()
        node.filters.append((condition, self.accepts(condition, type), below))
        return below

    def accepts(self, condition: Condition, type: str) -> Accepts:
        """The condition as a function of an element of `type`. Raises ValueError when a path leads nowhere."""
        match condition:
            case Resolves(target):
                return lambda value, around: leads_to(value, target, around)
            case All(conditions):
                every = [self.accepts(each, type) for each in conditions]
                return lambda value, around: all(accepts(value, around) for accepts in every)
            case Some(conditions):
                some = [self.accepts(each, type) for each in conditions]
                return lambda value, around: any(accepts(value, around) for accepts in some)
            case Exists(path):
                select = self.selector(path, type)
                return lambda value, around: bool(select(value, around))
            case Compare(path, operator, literal):
                return self._compares(path, operator, literal, type)
        raise ValueError(f"{condition} is not a condition.")

    def _compares(self, path: Path, operator: str, literal: Any, type: str) -> Accepts:
        first = path[0]
        if operator == "=" and len(path) == 1 and isinstance(first, Member):
            property = self._properties[type].get(first.name)
            if property and not property.element.repeats:
                return lambda value, around: value.get(first.name) == literal
        select = self.selector(path, type)
        if operator == "=":
            return lambda value, around: literal in select(value, around)
        return lambda value, around: bool(found := select(value, around)) and literal not in found

    def selector(self, path: Path, type: str) -> Callable[[Any, Surroundings], Sequence[Any]]:
        """The values at a path below an element, by a trie of their own."""
        node = Node()
        if not self.plant(node, type, path, _plant_itself):
            raise ValueError(f"`{type}` has nothing at {path}.")
        node.prune()

        def select(value: Any, around: Surroundings) -> Sequence[Any]:
            found: dict[str, Any] = {}
            walk((value,), node, (found,), around)
            return tuple(found.get("", ()))

        return select


def _itself(value: Any, around: Surroundings) -> tuple[Any, ...]:
    return (value,)


def _plant_itself(node: Node, type: str) -> int:
    node.add(_itself, "")
    return 1
