"""Index entries of a resource, by the expressions of its type's search parameters (https://hl7.org/fhir/R4/search.html).

The resource is taken to be valid R4; extensions that no parameter names are not indexed. Of contained resources, the
types are indexed, and for chains those resources that a parameter refers to (`search.nested_index`). `search.contained`
indexes the others when a search asks for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from datetime import UTC, tzinfo
from functools import partial
from typing import Any

from fhir_server.fhir.definitions import Definitions
from fhir_server.fhir.outcome import Invalid
from fhir_server.fhir.path import ExpressionError, Path, find_missing_step, parse_for
from fhir_server.fhir.references import BaseUrls, find_local_target
from fhir_server.search.composite_index import plant_group
from fhir_server.search.entries import CONTAINED, SEPARATOR, Entries, TextParameter
from fhir_server.search.held_references import find_held_references
from fhir_server.search.nested_index import NestedIndexer, add_nested_entries
from fhir_server.search.parameters import TYPES
from fhir_server.search.parameters.criteria import Extractor, Surroundings
from fhir_server.search.parameters.element_keys import name_element
from fhir_server.search.parameters.quantity import CANONICAL, CANONICAL_EXTRACTORS
from fhir_server.search.parameters.reference import (
    IDENTIFIER,
    extract_identifier,
    make_embedded_extractor,
    name_embedded,
)
from fhir_server.search.parameters.string import FAMILY_WORDS, FAMILY_WORDS_EXTRACTORS, trim_to_name
from fhir_server.search.parameters.token import CASELESS, CASELESS_EXTRACTORS
from fhir_server.search.parameters.token_modifiers import OF_TYPE, OF_TYPE_EXTRACTORS, TEXT, TEXT_EXTRACTORS
from fhir_server.search.registry import Parameter, Registry
from fhir_server.search.trie import KINDS, MOST_ENTRIES, Accepts, Node, Sinks, build_number_error
from fhir_server.search.trie_builder import Planter, PlantLeaf
from fhir_server.search.trie_codegen import Walk, unroll, unroll_lazily
from fhir_server.search.words import extract_texts, list_non_prose

BY_STORE = frozenset({"_id", "_lastUpdated"})
"""Parameters that every store answers from columns or members of its own; they have no entries."""

_TRUE, _FALSE = (f"true{SEPARATOR}",), (f"false{SEPARATOR}",)


_PSEUDO_PARAMETERS: Mapping[str, Sequence[tuple[str, Mapping[str, Extractor], int]]] = {
    "reference": ((IDENTIFIER, {"Reference": extract_identifier}, KINDS.index("terms")),),
    "token": (
        (TEXT, TEXT_EXTRACTORS, KINDS.index("terms")),
        (OF_TYPE, OF_TYPE_EXTRACTORS, KINDS.index("terms")),
        (CASELESS, CASELESS_EXTRACTORS, KINDS.index("terms")),
    ),
    "quantity": ((CANONICAL, CANONICAL_EXTRACTORS, KINDS.index("numbers")),),
}
"""By parameter type, the pseudo-parameters that its elements are also indexed by: suffix, extractors, kind."""


_MOST_SOME_WALKS = 500
"""Sets of search parameters by which resources are indexed for a policy."""


class Index:
    """Makes the entries of resources, with their texts where `full_text` is on.

    `include_bases`: the base URL of a request → all of this server's.

    The expressions of a type are compiled when its first resource is indexed; a bad one raises ValueError then.
    R4's are good; `check_expression` tests all others before.
    """

    def __init__(
        self,
        registry: Registry,
        definitions: Definitions,
        zone: tzinfo = UTC,
        full_text: bool = False,
        include_bases: Callable[[str], BaseUrls] = lambda base: base,
    ) -> None:
        self._zone = zone
        self._include_bases = include_bases
        self._types = frozenset(definitions.resource_types)
        self._non_prose = list_non_prose(definitions) if full_text else None
        self._strings: dict[str, frozenset[str]] = {}
        self._references: dict[str, tuple[str, ...]] = {}
        self._walks: dict[str, Walk] = {}
        self._some_walks: dict[tuple[str, frozenset[str]], Walk] = {}
        self._registry, self._planter = registry, Planter(definitions.properties)
        self._add_types(registry, definitions, registry.types)

    def replace_types(self, registry: Registry, definitions: Definitions, types: Iterable[str]) -> Index:
        """A copy of this index with the parameters that another registry has for these types."""
        other = copy(self)
        other._strings, other._references, other._walks = dict(self._strings), dict(self._references), dict(self._walks)
        other._some_walks, other._registry = {}, registry
        other._add_types(registry, definitions, types)
        return other

    def _add_types(self, registry: Registry, definitions: Definitions, types: Iterable[str]) -> None:
        planter = Planter(definitions.properties)
        for type in types:
            self._strings[type] = frozenset(_list_codes(registry, type, "string"))
            self._references[type] = _list_codes(registry, type, "reference")
            trie = partial(_build_trie, planter, type, registry.parameters(type).values())
            self._walks[type] = unroll_lazily(trie)

    def make_entries(
        self, type: str, resource: dict[str, Any], base: str = "", siblings: Sequence[dict[str, Any]] = ()
    ) -> Entries:
        """The entries of a resource of a served type; absolute references below a URL of this server are local.

        `siblings`: for a contained resource, all that its container contains. Raises Invalid for a date that is in no
        calendar.
        """
        sinks: Sinks = ({}, {}, {})
        contained = resource.get("contained", siblings)
        bases = self._include_bases(base)
        try:
            self._walks[type](resource, sinks, Surroundings(self._zone, bases, self._types, resource, contained))
        except ValueError as error:
            raise Invalid(f"A date in this {type} cannot be indexed: {error}") from None
        for sink in sinks:
            for code, values in sink.items():
                if len(values) > 1:
                    if len(values) > MOST_ENTRIES:
                        raise build_number_error(code)
                    sink[code] = _sort_distinct(values)
        references, strings = find_held_references(resource, bases, self._types), self._strings[type]
        entries = Entries(sinks[0], sinks[1], sinks[2], references, strings, self.make_texts(resource))
        if "contained" in resource:
            by_reference = {f"#{each['id']}": each for each in contained if each.get("id")}
        elif type == "Bundle" and not entries.terms.keys().isdisjoint(self._references["Bundle"]):
            by_reference = self._list_bundle_resources(resource, bases)
            contained = tuple(by_reference.values())
        else:
            return entries
        sinks[0][CONTAINED] = tuple(sorted({each["resourceType"] for each in contained}))
        siblings = contained if "contained" in resource else ()
        index = partial(self.make_entries, base=base, siblings=siblings)
        return add_nested_entries(type, entries, by_reference, NestedIndexer(index, self._references))

    def make_some_entries(
        self, type: str, resource: dict[str, Any], codes: frozenset[str] | None, base: str = ""
    ) -> Entries:
        """The entries of `make_entries`, or of some search parameters alone: then none of what it contains."""
        parameters = self._registry.parameters(type)
        if codes is None or not codes <= parameters.keys():
            return self.make_entries(type, resource, base)
        walk = self._some_walks.get((type, codes))
        if walk is None:
            if len(self._some_walks) >= _MOST_SOME_WALKS:
                self._some_walks.clear()
            walk = unroll(_build_trie(self._planter, type, [parameters[code] for code in sorted(codes)]))
            self._some_walks[type, codes] = walk
        sinks: Sinks = ({}, {}, {})
        around = Surroundings(
            self._zone, self._include_bases(base), self._types, resource, resource.get("contained", ())
        )
        try:
            walk(resource, sinks, around)
        except ValueError as error:
            raise Invalid(f"A date in this {type} cannot be indexed: {error}") from None
        return Entries(*({code: tuple(values) for code, values in sink.items()} for sink in sinks))  # type: ignore[arg-type]

    def _list_bundle_resources(self, bundle: dict[str, Any], base: BaseUrls) -> dict[str, dict[str, Any]]:
        """The resources of a Bundle by the terms of references to them.

        Bundles inside it are not looked into: each level of them would multiply the work.
        """
        resources: dict[str, dict[str, Any]] = {}
        for entry in bundle.get("entry", ()):
            resource, url = entry.get("resource"), entry.get("fullUrl")
            if resource is not None and resource["resourceType"] != "Bundle":
                resources.setdefault(name_embedded(resource), resource)
                if url:
                    resources.setdefault(find_local_target(url, base, self._types) or url, resource)
        return resources

    def make_texts(self, resource: dict[str, Any]) -> dict[TextParameter, str]:
        """The texts of a resource's entries."""
        return extract_texts(resource, self._non_prose) if self._non_prose is not None else {}


def check_expression(definitions: Definitions, parameter: Parameter) -> None:
    """Raises ExpressionError where the expression of a parameter finds nothing that its type can index."""
    planter = Planter(definitions.properties)
    for branch in parse_for(parameter.expression, parameter.base):
        try:
            unroll(_build_trie(planter, parameter.base, (replace(parameter, expression=branch.text),)))
        except SyntaxError:
            at = parameter.expression.find(branch.text)
            raise ExpressionError(f"`{branch.text}` goes through too many lists inside each other.", at + 1) from None
        except ValueError as error:
            step = find_missing_step(definitions.properties, parameter.base, branch.steps)
            at = parameter.expression.find(branch.text)
            raise ExpressionError(str(error), at + max(0, branch.text.rfind(step)) + 1) from None


def _list_codes(registry: Registry, type: str, kind: str) -> tuple[str, ...]:
    """The codes of a type's search parameters of one kind, sorted."""
    return tuple(sorted([code for code, parameter in registry.parameters(type).items() if parameter.type == kind]))


def _sort_distinct(values: Sequence[Any]) -> tuple[Any, ...]:
    """The values distinct and sorted."""
    if len(values) == 2:  # the most frequent case, at a quarter of the cost
        first, second = values
        return (first, second) if first < second else (second, first) if second < first else (first,)
    return tuple(sorted(set(values)))


def _build_trie(planter: Planter, type: str, parameters: Iterable[Parameter]) -> Node:
    """The trie of all expressions of a type."""
    root = Node()
    composites: dict[Path, list[Parameter]] = {}
    for parameter in parameters:
        if parameter.type == "special" or parameter.code in BY_STORE or parameter.parts:
            continue
        for branch in parse_for(parameter.expression, type):
            if parameter.type == "composite":
                composites.setdefault(branch.steps, []).append(parameter)
            elif branch.truth:
                root.add(_make_truth_extractor(planter.compile_condition(branch.truth, type)), parameter.code)
            elif not _plant(planter, root, parameter, branch.steps):
                raise ValueError(f"`{type}.{parameter.code}`: nothing to index at `{branch.text}`.")
    for steps, sharing in composites.items():
        if not planter.plant(root, type, steps, _make_composite_planter(planter, type, sharing)):
            raise ValueError(f"`{type}.{sharing[0].code}`: there is no such element.")
    root.prune()
    return root


def _plant(planter: Planter, root: Node, parameter: Parameter, steps: Path) -> int:
    """Plants one branch of a parameter that is no composite; returns how many leaves it took."""
    kind = TYPES[parameter.type]
    extracts = kind.extractors
    if parameter.type == "reference":
        extracts = {**extracts, "Resource": make_embedded_extractor(parameter.targets)}
    for suffix, pseudo, at in _PSEUDO_PARAMETERS.get(parameter.type, ()):
        name = parameter.code if suffix == IDENTIFIER else name_element(parameter.code, steps)
        planter.plant(root, parameter.base, steps, planter.make_leaf_planter(pseudo, name + suffix, at))
    if parameter.type == "string" and parameter.family_names:
        owner = trim_to_name(steps)
        words = planter.make_leaf_planter(FAMILY_WORDS_EXTRACTORS, name_element(parameter.code, owner) + FAMILY_WORDS)
        planter.plant(root, parameter.base, owner, words)
    return planter.plant(
        root, parameter.base, steps, planter.make_leaf_planter(extracts, parameter.code, KINDS.index(kind.kind))
    )


def _make_composite_planter(planter: Planter, type: str, composites: Sequence[Parameter]) -> PlantLeaf:
    """What plants the composites of one element of a resource type."""
    return lambda node, element_type: plant_group(planter, node, (type, element_type), composites)


def _make_truth_extractor(accepts: Accepts) -> Extractor:
    return lambda resource, around: _TRUE if accepts(resource, around) else _FALSE
