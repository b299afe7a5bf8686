"""Grows tries of JSON keys from the FHIRPath steps of search expressions (http://hl7.org/fhirpath/N1/)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fhir_server.fhir.definitions import Property
from fhir_server.fhir.path import All, Compare, Condition, Exists, Member, Path, Resolves, Some, Where, find_keys
from fhir_server.search.parameters.criteria import Extractor, Surroundings
from fhir_server.search.parameters.reference import leads_to
from fhir_server.search.trie import Accepts, Node
from fhir_server.search.trie_codegen import unroll_lazily

PlantLeaf = Callable[[Node, str], int]
"""(node, its type) → how many leaves it planted there: none for a type that it has no use for."""

Properties = Mapping[str, Mapping[str, Property]]


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
            return self.plant(self._add_filter(node, type, first.condition), type, rest, plant_leaf)
        return sum(
            self.plant(node.get_member(key, first.index, property.element.repeats), property.type, rest, plant_leaf)
            for key, property in find_keys(self._properties.get(type, {}), first)
        )

    def make_leaf_planter(self, extracts: Mapping[str, Extractor], code: str, kind: int = 0) -> PlantLeaf:
        """What plants an extraction at a node, if there is one for its type; an extension is indexed by its value."""

        def plant(node: Node, type: str) -> int:
            if type == "Extension":
                return self.plant(node, type, (Member("value"),), plant)
            if type not in extracts:
                return 0
            node.add(extracts[type], code, kind)
            return 1

        return plant

    def _add_filter(self, node: Node, type: str, condition: Condition) -> Node:
        for planted, _, below in node.filters:
            if planted == condition:
                return below
        below = Node()
        node.filters.append((condition, self.compile_condition(condition, type), below))
        return below

    def compile_condition(self, condition: Condition, type: str) -> Accepts:
        """The condition as a function of an element of `type`. Raises ValueError when a path leads nowhere."""
        match condition:
            case Resolves(target):
                return lambda value, around: leads_to(value, target, around)
            case All(conditions):
                every = [self.compile_condition(each, type) for each in conditions]
                return lambda value, around: all(accepts(value, around) for accepts in every)
            case Some(conditions):
                some = [self.compile_condition(each, type) for each in conditions]
                return lambda value, around: any(accepts(value, around) for accepts in some)
            case Exists(path):
                select = self.compile_selector(path, type)
                return lambda value, around: bool(select(value, around))
            case Compare(path, operator, literal):
                return self._compile_comparison(path, operator, literal, type)
        raise ValueError(f"{condition} is not a condition.")

    def _compile_comparison(self, path: Path, operator: str, literal: Any, type: str) -> Accepts:
        first = path[0]
        if operator == "=" and len(path) == 1 and isinstance(first, Member):
            property = self._properties[type].get(first.name)
            if property and not property.element.repeats:
                return lambda value, around: value.get(first.name) == literal
        select = self.compile_selector(path, type)
        if operator == "=":
            return lambda value, around: literal in select(value, around)
        return lambda value, around: bool(found := select(value, around)) and literal not in found

    def compile_selector(self, path: Path, type: str) -> Callable[[Any, Surroundings], Sequence[Any]]:
        """The values at a path below an element, by a trie of their own."""
        node = Node()
        if not self.plant(node, type, path, _plant_itself):
            raise ValueError(f"`{type}` has nothing at {path}.")
        node.prune()
        walk = unroll_lazily(lambda: node)

        def select(value: Any, around: Surroundings) -> Sequence[Any]:
            found: dict[str, Any] = {}
            walk(value, (found,), around)
            return tuple(found.get("", ()))

        return select


def _extract_itself(value: Any, around: Surroundings) -> tuple[Any, ...]:
    return (value,)


def _plant_itself(node: Node, type: str) -> int:
    node.add(_extract_itself, "")
    return 1
