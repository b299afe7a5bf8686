"""Index entries of a resource, by the expressions of its type's search parameters (https://hl7.org/fhir/R4/search.html).

The resource is taken as valid R4; extensions that no parameter names are not indexed. Of contained resources the types
are, and for chains those that the resource's parameters refer to (`search.inside`); `search.contained` looks into them
when a search asks for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from datetime import UTC, tzinfo
from functools import partial
from typing import Any

from fhir_server.fhir.definitions import Definitions
from fhir_server.fhir.outcome import Invalid
from fhir_server.fhir.path import ExpressionError, Path, find_missing_step, parse_for
from fhir_server.fhir.references import find_literal_references, find_local_target
from fhir_server.search.composite_index import plant_group
from fhir_server.search.entries import CONTAINED, SEPARATOR, Entries, TextParameter
from fhir_server.search.nested_index import Reader, with_contents
from fhir_server.search.parameters import TYPES
from fhir_server.search.parameters.criteria import Extract, Surroundings
from fhir_server.search.parameters.element_keys import place
from fhir_server.search.parameters.quantity import CANONICAL, CANONICAL_EXTRACT
from fhir_server.search.parameters.reference import IDENTIFIER, identifier, in_place, standing_in
from fhir_server.search.parameters.string import FAMILY_WORDS, FAMILY_WORDS_EXTRACT, name_steps
from fhir_server.search.parameters.token import CASELESS, CASELESS_EXTRACT
from fhir_server.search.parameters.token_modifiers import OF_TYPE, TEXT, TEXTS, TYPED_IDENTIFIERS
from fhir_server.search.registry import Parameter, Registry
from fhir_server.search.trie import KINDS, Accepts, Found, Node
from fhir_server.search.trie_builder import Planter, PlantLeaf
from fhir_server.search.trie_codegen import Walk, made, unrolled
from fhir_server.search.words import left_out, texts

BY_STORE = frozenset({"_id", "_lastUpdated"})
"""Parameters that every store answers from what it keeps of a resource anyway; they have no entries."""

_TRUE, _FALSE = (f"true{SEPARATOR}",), (f"false{SEPARATOR}",)


_PSEUDO: Mapping[str, Sequence[tuple[str, Mapping[str, Extract], int]]] = {
    "reference": ((IDENTIFIER, {"Reference": identifier}, KINDS.index("terms")),),
    "token": (
        (TEXT, TEXTS, KINDS.index("terms")),
        (OF_TYPE, TYPED_IDENTIFIERS, KINDS.index("terms")),
        (CASELESS, CASELESS_EXTRACT, KINDS.index("terms")),
    ),
    "quantity": ((CANONICAL, CANONICAL_EXTRACT, KINDS.index("numbers")),),
}
"""Per parameter type, what its elements are also indexed by: suffix of the pseudo-parameter, extraction, kind."""


class Index:
    """Makes the entries of resources; with `full_text`, they have texts.

    The expressions of a type are compiled when its first resource comes. `check` is for those that are not R4's: a bad
    one raises ValueError here.
    """

    def __init__(
        self, registry: Registry, definitions: Definitions, zone: tzinfo = UTC, full_text: bool = False
    ) -> None:
        planter = Planter(definitions.properties)
        self._zone = zone
        self._types = frozenset(definitions.resource_types)
        self._strings = {type: frozenset(_codes(registry, type, "string")) for type in registry.types}
        self._references = {type: _codes(registry, type, "reference") for type in registry.types}
        self._walks = _walks(planter, registry, registry.types)
        self._left_out = left_out(definitions) if full_text else None

    def renewed(self, registry: Registry, definitions: Definitions, types: Iterable[str]) -> Index:
        """This index with the parameters that another registry has for some of the types."""
        planter = Planter(definitions.properties)
        other = copy(self)
        changed = tuple(types)
        other._strings = self._strings | {type: frozenset(_codes(registry, type, "string")) for type in changed}
        other._references = self._references | {type: _codes(registry, type, "reference") for type in changed}
        other._walks = self._walks | _walks(planter, registry, changed)
        return other

    def entries(
        self, type: str, resource: dict[str, Any], base: str = "", beside: Sequence[dict[str, Any]] = ()
    ) -> Entries:
        """The entries of a resource of a served type; absolute references below `base`, this server's URL, are local.

        `beside`: of a contained resource, all that its container contains. Raises Invalid for a date that no calendar
        has.
        """
        found: Found = ({}, {}, {})
        contained = resource.get("contained", beside)
        try:
            self._walks[type](resource, found, Surroundings(self._zone, base, self._types, resource, contained))
        except ValueError as error:
            raise Invalid(f"A date in this {type} cannot be indexed: {error}") from None
        for sink in found:
            for code, values in sink.items():
                if len(values) > 1:
                    sink[code] = _ordered(values)
        references, strings = find_literal_references(resource, base, self._types), self._strings[type]
        made = Entries(found[0], found[1], found[2], references, strings, self.texts(resource))
        if "contained" in resource:
            within = {f"#{each['id']}": each for each in contained if each.get("id")}
        elif type == "Bundle" and not made.terms.keys().isdisjoint(self._references["Bundle"]):
            within = self._entries_of_bundle(resource, base)
            contained = tuple(within.values())
        else:
            return made
        found[0][CONTAINED] = tuple(sorted({each["resourceType"] for each in contained}))
        beside = contained if "contained" in resource else ()
        return with_contents(
            type, made, within, Reader(partial(self.entries, base=base, beside=beside), self._references)
        )

    def _entries_of_bundle(self, bundle: dict[str, Any], base: str) -> dict[str, dict[str, Any]]:
        # Bundles inside it are not looked into: each level of them would multiply the work.
        found: dict[str, dict[str, Any]] = {}
        for entry in bundle.get("entry", ()):
            resource, url = entry.get("resource"), entry.get("fullUrl")
            if resource is not None and resource["resourceType"] != "Bundle":
                found.setdefault(in_place(resource), resource)
                if url:
                    found.setdefault(find_local_target(url, base, self._types) or url, resource)
        return found

    def texts(self, resource: dict[str, Any]) -> dict[TextParameter, str]:
        """The texts of a resource's entries."""
        return texts(resource, self._left_out) if self._left_out is not None else {}


def check(definitions: Definitions, parameter: Parameter) -> None:
    """Raises ExpressionError where the expression of a parameter finds nothing that its type can index."""
    planter = Planter(definitions.properties)
    for branch in parse_for(parameter.expression, parameter.base):
        try:
            made(_trie(planter, parameter.base, (replace(parameter, expression=branch.text),)))
        except SyntaxError:
            at = parameter.expression.find(branch.text)
            raise ExpressionError(f"`{branch.text}` goes through too many lists inside each other.", at + 1) from None
        except ValueError as error:
            step = find_missing_step(definitions.properties, parameter.base, branch.steps)
            at = parameter.expression.find(branch.text)
            raise ExpressionError(str(error), at + max(0, branch.text.rfind(step)) + 1) from None


def _codes(registry: Registry, type: str, kind: str) -> tuple[str, ...]:
    """The codes of a type's search parameters of one kind, sorted."""
    return tuple(sorted([code for code, parameter in registry.parameters(type).items() if parameter.type == kind]))


def _ordered(values: Sequence[Any]) -> tuple[Any, ...]:
    """The values distinct and sorted."""
    if len(values) == 2:  # the most frequent case, at a quarter of the cost
        first, second = values
        return (first, second) if first < second else (second, first) if second < first else (first,)
    return tuple(sorted(set(values)))


def _walks(planter: Planter, registry: Registry, types: Iterable[str]) -> dict[str, Walk]:
    return {type: unrolled(partial(_trie, planter, type, registry.parameters(type).values())) for type in types}


def _trie(planter: Planter, type: str, parameters: Iterable[Parameter]) -> Node:
    """The trie of all expressions of a type."""
    root = Node()
    composites: dict[Path, list[Parameter]] = {}
    for parameter in parameters:
        if parameter.type == "special" or parameter.code in BY_STORE:
            continue
        for branch in parse_for(parameter.expression, type):
            if parameter.type == "composite":
                composites.setdefault(branch.steps, []).append(parameter)
            elif branch.truth:
                root.add(_truth(planter.accepts(branch.truth, type)), parameter.code)
            elif not _plant(planter, root, parameter, branch.steps):
                raise ValueError(f"`{type}.{parameter.code}`: nothing to index at `{branch.text}`.")
    for steps, sharing in composites.items():
        if not planter.plant(root, type, steps, _composites(planter, type, sharing)):
            raise ValueError(f"`{type}.{sharing[0].code}`: there is no such element.")
    root.prune()
    return root


def _plant(planter: Planter, root: Node, parameter: Parameter, steps: Path) -> int:
    """Plants one branch of a parameter that is no composite; returns how many leaves it took."""
    kind = TYPES[parameter.type]
    extracts = kind.extract
    if parameter.type == "reference":
        extracts = {**extracts, "Resource": standing_in(parameter.targets)}
    for suffix, pseudo, at in _PSEUDO.get(parameter.type, ()):
        name = parameter.code if suffix == IDENTIFIER else place(parameter.code, steps)
        planter.plant(root, parameter.base, steps, planter.leaf(pseudo, name + suffix, at))
    if parameter.type == "string" and parameter.family_names:
        owner = name_steps(steps)
        words = planter.leaf(FAMILY_WORDS_EXTRACT, place(parameter.code, owner) + FAMILY_WORDS)
        planter.plant(root, parameter.base, owner, words)
    return planter.plant(root, parameter.base, steps, planter.leaf(extracts, parameter.code, KINDS.index(kind.kind)))


def _composites(planter: Planter, type: str, composites: Sequence[Parameter]) -> PlantLeaf:
    """What plants the composites of one element of a resource type."""
    return lambda node, element_type: plant_group(planter, node, (type, element_type), composites)


def _truth(accepts: Accepts) -> Extract:
    return lambda resource, around: _TRUE if accepts(resource, around) else _FALSE
