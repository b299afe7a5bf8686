"""Composites as index entries: the components of an element are walked once for all of them (https://hl7.org/fhir/R4/search.html#composite)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fhir_server.fhir.path import parse
from fhir_server.search.parameters import TYPES
from fhir_server.search.parameters.composite import Combine, combination, kind_of
from fhir_server.search.parameters.composite_components import keep, names
from fhir_server.search.parameters.criteria import Extract, Surroundings
from fhir_server.search.parameters.quantity import CANONICAL, CANONICAL_EXTRACT, UNCOMMON_EXTRACT
from fhir_server.search.registry import Component, Parameter
from fhir_server.search.trie import KINDS, Found, Group, Node, add
from fhir_server.search.trie_builder import Planter, PlantLeaf
from fhir_server.search.trie_codegen import Walk, unrolled

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

    joined: dict[Keys, tuple[list[str], int, Combine]] = field(default_factory=dict)
    apart: list[tuple[str, Keys, Named]] = field(default_factory=list)

    def join(self, keys: Keys, code: str, components: Sequence[Component]) -> None:
        """One composite more of those with a layout."""
        kind = KINDS.index(kind_of(components))
        self.joined.setdefault(keys, ([], kind, combination(components)))[0].append(code)


def plant_group(planter: Planter, node: Node, types: tuple[str, str], composites: Sequence[Parameter]) -> int:
    """Plants all composites of one element; `types`: the resource's and the element's.

    Raises ValueError for a component that finds nothing to index.
    """
    nodes = Node(), Node()
    plans = _Plans()
    for parameter in composites:
        components, apart = parameter.components, kind_of(parameter.components) == "parts"
        keys = tuple(f"{component.type} {component.expression}" for component in components)
        for key, component in zip(keys, components, strict=True):
            if not _component(planter, nodes, types, component, planter.leaf(TYPES[component.type].extract, key)):
                raise ValueError(f"`{types[0]}.{parameter.code}`: nothing to index at `{component.expression}`.")
        converted = _in_base_units(planter, nodes, types, components, CANONICAL_EXTRACT if apart else UNCOMMON_EXTRACT)
        if apart:
            plans.apart.append((parameter.code, keys, _named(components, keys, converted)))
            continue
        plans.join(keys, parameter.code, components)
        if converted:
            plans.join(tuple(converted.get(key, key) for key in keys), parameter.code + CANONICAL, components)
    below, above = nodes
    below.prune()
    outside = None if above.prune() else unrolled(lambda: above)
    node.groups.append(_group(unrolled(lambda: below), outside, plans))
    return 1


def _in_base_units(
    planter: Planter,
    nodes: tuple[Node, Node],
    types: tuple[str, str],
    components: Sequence[Component],
    extract: Mapping[str, Extract],
) -> Mapping[str, str]:
    """Plants the quantities once more, to be converted; returns the keys of these entries by those of the others."""
    found: dict[str, str] = {}
    for component in components:
        if component.type == "quantity":
            key = f"quantity {component.expression}"
            found[key] = f"{key} {'always' if extract is CANONICAL_EXTRACT else 'if uncommon'} in base units"
            _component(planter, nodes, types, component, planter.leaf(extract, found[key]))
    return found


def _component(
    planter: Planter, nodes: tuple[Node, Node], types: tuple[str, str], component: Component, plant: PlantLeaf
) -> int:
    """Plants one component below the element (first of `nodes`), or below the resource where it says `%resource`."""
    planted = 0
    for branch in parse(component.expression):
        from_resource = branch.root == "%resource"
        planted += planter.plant(nodes[from_resource], types[not from_resource], branch.steps, plant)
    return planted


def _named(components: Sequence[Component], keys: Keys, converted: Mapping[str, str]) -> Named:
    """What the components of one element are kept as, each by itself."""
    found: list[tuple[str, int, str]] = []
    for name, component, key in zip(names(components), components, keys, strict=True):
        kind = KINDS.index(TYPES[component.type].kind)
        found.append((key, kind, name))
        if key in converted:
            found.append((converted[key], kind, name + CANONICAL))
    return found


def _group(below: Walk, above: Walk | None, plans: _Plans) -> Group:
    """Walks the components of an element once and combines what each composite asks for, or keeps it apart."""
    joined, apart = [(keys, *plan) for keys, plan in plans.joined.items()], plans.apart

    def group(value: Any, found: Found, around: Surroundings) -> None:
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
                keep(found, code, [(name, kind, parts[key]) for key, kind, name in named if key in parts])

    return group
