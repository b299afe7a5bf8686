"""Composites as index entries: the components of an element are walked once for all of them (https://hl7.org/fhir/R4/search.html#composite)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fhir_server.fhir.path import parse
from fhir_server.search.parameters import TYPES
from fhir_server.search.parameters.composite import Combiner, find_kind, make_combiner
from fhir_server.search.parameters.composite_components import add_element, name_components
from fhir_server.search.parameters.criteria import Extractor, Surroundings
from fhir_server.search.parameters.quantity import CANONICAL, CANONICAL_EXTRACTORS, UNCOMMON_EXTRACTORS
from fhir_server.search.registry import Component, Parameter
from fhir_server.search.trie import KINDS, GroupExtractor, Node, Sinks, add
from fhir_server.search.trie_builder import Planter, PlantLeaf
from fhir_server.search.trie_codegen import Walk, unroll_lazily

Keys = tuple[str, ...]
"""What the entries of each component are called while an element is walked."""

Named = Sequence[tuple[str, int, str]]
"""(key, index of the kind, name within the composite)."""


@dataclass(slots=True)
class _Plans:
    """How the composites of one element are made of their components' entries.

    `joined`: keys → codes of the composites, index of their kind, combination. `apart`: (code, keys needed, what is
    kept) of those whose components are looked up by themselves.
    """

    joined: dict[Keys, tuple[list[str], int, Combiner]] = field(default_factory=dict)
    apart: list[tuple[str, Keys, Named]] = field(default_factory=list)

    def add_joined(self, keys: Keys, code: str, components: Sequence[Component]) -> None:
        """One composite more of those with a layout."""
        kind = KINDS.index(find_kind(components))
        self.joined.setdefault(keys, ([], kind, make_combiner(components)))[0].append(code)


def plant_group(planter: Planter, node: Node, types: tuple[str, str], composites: Sequence[Parameter]) -> int:
    """Plants all composites of one element; `types`: the resource's and the element's.

    Raises ValueError for a component that finds nothing to index.
    """
    nodes = Node(), Node()
    plans = _Plans()
    for parameter in composites:
        components, apart = parameter.components, find_kind(parameter.components) == "parts"
        keys = tuple(f"{component.type} {component.expression}" for component in components)
        for key, component in zip(keys, components, strict=True):
            if not _plant_component(
                planter, nodes, types, component, planter.make_leaf_planter(TYPES[component.type].extractors, key)
            ):
                raise ValueError(f"`{types[0]}.{parameter.code}`: nothing to index at `{component.expression}`.")
        converted = _plant_converted(
            planter, nodes, types, components, CANONICAL_EXTRACTORS if apart else UNCOMMON_EXTRACTORS
        )
        if apart:
            plans.apart.append((parameter.code, keys, _name_entries(components, keys, converted)))
            continue
        plans.add_joined(keys, parameter.code, components)
        if converted:
            plans.add_joined(tuple(converted.get(key, key) for key in keys), parameter.code + CANONICAL, components)
    below, above = nodes
    below.prune()
    outside = None if above.prune() else unroll_lazily(lambda: above)
    node.groups.append(_build_group(unroll_lazily(lambda: below), outside, plans))
    return 1


def _plant_converted(
    planter: Planter,
    nodes: tuple[Node, Node],
    types: tuple[str, str],
    components: Sequence[Component],
    extract: Mapping[str, Extractor],
) -> Mapping[str, str]:
    """Plants the quantities once more, to be converted; returns the keys of these entries by those of the others."""
    found: dict[str, str] = {}
    for component in components:
        if component.type == "quantity":
            key = f"quantity {component.expression}"
            found[key] = f"{key} {'always' if extract is CANONICAL_EXTRACTORS else 'if uncommon'} in base units"
            _plant_component(planter, nodes, types, component, planter.make_leaf_planter(extract, found[key]))
    return found


def _plant_component(
    planter: Planter, nodes: tuple[Node, Node], types: tuple[str, str], component: Component, plant: PlantLeaf
) -> int:
    """Plants one component below the element (first of `nodes`), or below the resource where it says `%resource`."""
    planted = 0
    for branch in parse(component.expression):
        from_resource = branch.root == "%resource"
        planted += planter.plant(nodes[from_resource], types[not from_resource], branch.steps, plant)
    return planted


def _name_entries(components: Sequence[Component], keys: Keys, converted: Mapping[str, str]) -> Named:
    """What the components of one element are kept as, each by itself."""
    found: list[tuple[str, int, str]] = []
    for name, component, key in zip(name_components(components), components, keys, strict=True):
        kind = KINDS.index(TYPES[component.type].kind)
        found.append((key, kind, name))
        if key in converted:
            found.append((converted[key], kind, name + CANONICAL))
    return found


def _build_group(below: Walk, above: Walk | None, plans: _Plans) -> GroupExtractor:
    """Walks the components of an element once and combines what each composite asks for, or keeps it apart."""
    joined, apart = [(keys, *plan) for keys, plan in plans.joined.items()], plans.apart

    def group(value: Any, found: Sinks, around: Surroundings) -> None:
        parts: dict[str, Any] = {}
        below(value, (parts,), around)
        if above:
            above(around.resource, (parts,), around)
        for keys, codes, kind, combined in joined:
            values = [parts[key] for key in keys if key in parts]
            if len(values) == len(keys):
                entries = combined(values)
                for code in codes if entries else ():
                    add(found[kind], code, entries)
        for code, needed, named in apart:
            if all(key in parts for key in needed):
                add_element(found, code, [(name, kind, parts[key]) for key, kind, name in named if key in parts])

    return group
