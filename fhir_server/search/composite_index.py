"""Composites as index entries: the components of an element are walked once for all of them (https://hl7.org/fhir/R4/search.html#composite)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fhir_server.fhir.outcome import TooCostly
from fhir_server.fhir.path import parse
from fhir_server.search.parameters import TYPES
from fhir_server.search.parameters.composite import MOST_COMBINED, Combiner, find_kind, make_combiner
from fhir_server.search.parameters.composite_components import add_element, name_components
from fhir_server.search.parameters.criteria import Extractor, Surroundings
from fhir_server.search.parameters.quantity import CANONICAL, CANONICAL_EXTRACTORS, UNCOMMON_EXTRACTORS
from fhir_server.search.registry import Component, Parameter
from fhir_server.search.trie import KINDS, GroupExtractor, Node, Sinks, add
from fhir_server.search.trie_builder import Planter
from fhir_server.search.trie_codegen import Walk, unroll_lazily


def build_combination_error(code: str) -> TooCostly:
    """The error where the lists of one element multiply to more entries than a composite may have."""
    return TooCostly(
        f"The codes and values of one element make more than {MOST_COMBINED:,} combinations for the search parameter "
        f"`{code}`, which is more than can be indexed; divide them."
    )


Keys = tuple[str, ...]
"""One key for each component of a composite, under which its entries are while an element is walked."""

EntryNames = Sequence[tuple[str, int, str]]
"""(key, index of the kind, name within the composite)."""


@dataclass(slots=True)
class _Element:
    """One element while its composites are planted; `types`: the resource's and its own.

    `roots`: the nodes of the element and of the resource, below which components are planted. `combined`: by keys, the
    codes of the composites, the index of their kind and their combiner. `separate`: (code, keys required, entry names)
    of the composites whose components are looked up one by one.
    """

    planter: Planter
    types: tuple[str, str]
    roots: tuple[Node, Node] = field(default_factory=lambda: (Node(), Node()))
    combined: dict[Keys, tuple[list[str], int, Combiner]] = field(default_factory=dict)
    separate: list[tuple[str, Keys, EntryNames]] = field(default_factory=list)

    def plant(self, component: Component, extractors: Mapping[str, Extractor], key: str) -> int:
        """Plants a component below the element, or below the resource where it says `%resource`; counts its leaves."""
        plant_leaf = self.planter.make_leaf_planter(extractors, key)
        leaves = 0
        for branch in parse(component.expression):
            from_resource = branch.root == "%resource"
            type = self.types[not from_resource]
            leaves += self.planter.plant(self.roots[from_resource], type, branch.steps, plant_leaf)
        return leaves

    def plant_base_units(self, components: Sequence[Component], extractors: Mapping[str, Extractor]) -> dict[str, str]:
        """Plants the quantities once more, in base units; returns the keys of these entries by those of the others."""
        suffix = "always in base units" if extractors is CANONICAL_EXTRACTORS else "if uncommon in base units"
        keys: dict[str, str] = {}
        for component in (each for each in components if each.type == "quantity"):
            key = f"quantity {component.expression}"
            keys[key] = f"{key} {suffix}"
            self.plant(component, extractors, keys[key])
        return keys

    def combine(self, keys: Keys, code: str, components: Sequence[Component]) -> None:
        """Adds a composite whose entries combine those of its components."""
        kind = KINDS.index(find_kind(components))
        self.combined.setdefault(keys, ([], kind, make_combiner(components)))[0].append(code)


def plant_group(planter: Planter, node: Node, types: tuple[str, str], composites: Sequence[Parameter]) -> int:
    """Plants all composites of one element; `types`: the resource's and the element's.

    Raises ValueError for a component that finds nothing to index.
    """
    element = _Element(planter, types)
    for parameter in composites:
        components, is_separate = parameter.components, find_kind(parameter.components) == "parts"
        keys = tuple(f"{component.type} {component.expression}" for component in components)
        for key, component in zip(keys, components, strict=True):
            if not element.plant(component, TYPES[component.type].extractors, key):
                raise ValueError(f"`{types[0]}.{parameter.code}`: nothing to index at `{component.expression}`.")
        in_base_units = element.plant_base_units(
            components, CANONICAL_EXTRACTORS if is_separate else UNCOMMON_EXTRACTORS
        )
        if is_separate:
            element.separate.append((parameter.code, keys, _name_entries(components, keys, in_base_units)))
            continue
        element.combine(keys, parameter.code, components)
        if in_base_units:
            other_keys = tuple(in_base_units.get(key, key) for key in keys)
            element.combine(other_keys, parameter.code + CANONICAL, components)
    below, above = element.roots
    below.prune()
    walk_resource = None if above.prune() else unroll_lazily(lambda: above)
    node.groups.append(_make_group_extractor(unroll_lazily(lambda: below), walk_resource, element))
    return 1


def _name_entries(components: Sequence[Component], keys: Keys, in_base_units: Mapping[str, str]) -> EntryNames:
    """The names within the composite of its components' entries, those in base units included."""
    names: list[tuple[str, int, str]] = []
    for name, component, key in zip(name_components(components), components, keys, strict=True):
        kind = KINDS.index(TYPES[component.type].kind)
        names.append((key, kind, name))
        if key in in_base_units:
            names.append((in_base_units[key], kind, name + CANONICAL))
    return names


def _make_group_extractor(walk_element: Walk, walk_resource: Walk | None, element: _Element) -> GroupExtractor:
    """What walks the components of an element once and adds the entries of all its composites."""
    combined, separate = [(keys, *plan) for keys, plan in element.combined.items()], element.separate

    def extract_group(value: Any, sinks: Sinks, around: Surroundings) -> None:
        parts: dict[str, Any] = {}
        walk_element(value, (parts,), around)
        if walk_resource:
            walk_resource(around.resource, (parts,), around)
        for keys, codes, kind, combiner in combined:
            values = [parts[key] for key in keys if key in parts]
            if len(values) == len(keys):
                entries = combiner(values)
                if len(entries) > MOST_COMBINED:
                    raise build_combination_error(codes[0])
                for code in codes if entries else ():
                    add(sinks[kind], code, entries)
        for code, required, names in separate:
            if all(key in parts for key in required):
                add_element(sinks, code, [(name, kind, parts[key]) for key, kind, name in names if key in parts])

    return extract_group
