"""Search parameters by resource type: official and the project's own (https://hl7.org/fhir/R4/searchparameter-registry.html)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from fhir_server.fhir.definitions import Definitions, Property, SearchParameterFacts
from fhir_server.fhir.path import Branch, Member, Path, find_keys, parse, parse_for


@dataclass(frozen=True, slots=True)
class Component:
    """One part of a composite: its defining parameter's code and type, and its FHIRPath relative to the element.

    `coded`: as in Parameter.
    """

    code: str
    type: str
    expression: str
    coded: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Parameter:
    """One search parameter as it applies to one resource type.

    `type`: string | token | reference | date | number | quantity | uri | composite | near | special.
    `targets`: resource types that a reference may point to (() means any). `repeats`: a resource may have several
    values; False lets a store merge the bounds of a range. `datatypes`: the FHIR types of its elements, sorted.
    `family_names`: some of its elements are a HumanName, or the `family` of one.
    `coded`: the official paths (`ContactPoint.system`) of those of type code, and `boolean` for all booleans, sorted.
    `edition`: which version of which stored SearchParameter says so, "" for those of R4. `pending`: resources written
    before it are not indexed by it yet, so that no search may use it.
    `parts`: the parameters whose values together are those of this one, which is not indexed then (`find_parts`).
    """

    code: str
    base: str
    type: str
    url: str
    expression: str
    targets: tuple[str, ...] = ()
    components: tuple[Component, ...] = ()
    repeats: bool = True
    datatypes: tuple[str, ...] = ()
    family_names: bool = False
    coded: tuple[str, ...] = ()
    edition: str = ""
    pending: bool = False
    parts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CustomParameter:
    """A SearchParameter of this installation, and its `edition`: its id, `@`, and a text that each version changes."""

    facts: SearchParameterFacts
    edition: str


class Registry:
    """All search parameters that are in force."""

    def __init__(self, parameters: Mapping[str, Mapping[str, Parameter]]) -> None:
        self._parameters = parameters
        self._types = tuple(sorted(parameters))

    @property
    def types(self) -> tuple[str, ...]:
        """The resource types served, sorted."""
        return self._types

    def parameters(self, type: str) -> Mapping[str, Parameter]:
        """The parameters of a resource type by code, `_id`, `_lastUpdated`, `_tag` … included."""
        return self._parameters[type]

    @cached_property
    def custom_types(self) -> tuple[str, ...]:
        """The types that have a parameter which is not R4's alone."""
        return tuple(type for type in self._types if any(each.edition for each in self._parameters[type].values()))


_PLAIN_RESOURCES = frozenset({"Binary", "Bundle", "Parameters"})
"""The resources that are no DomainResource."""

_NOT_CRITERIA = frozenset({"_has", "_type"})
"""Published as parameters of Resource, but part of the search syntax: the parser knows them."""

_SWAPPED_COMPONENTS = frozenset({"http://hl7.org/fhir/SearchParameter/DocumentReference-relationship"})
"""R4 gives these composites' two components each other's expression (corrected in R4B)."""

_FAMILY = "HumanName.family"

_TYPES_BY_URL = {"http://hl7.org/fhir/SearchParameter/Location-near": "near"}
"""Special parameters that are parameter types here."""

_SINGLE_DATATYPES = frozenset(
    {"boolean", "code", "string", "markdown", "uri", "url", "canonical", "oid", "uuid", "id", "integer", "decimal"}
    | {"positiveInt", "unsignedInt", "date", "dateTime", "instant", "Period", "Timing", "Quantity", "SimpleQuantity"}
    | {"Age", "Duration", "Distance", "Count", "Money", "Range", "SampledData", "Reference", "Coding", "Identifier"}
    | {"ContactPoint"}
)
"""Datatypes of which one element gives at most one entry."""


Indexed = Mapping[str, Mapping[str, str]]
"""By type and code, the edition of the custom parameter by which all resources of the type are indexed."""


def build(definitions: Definitions, types: Sequence[str] | None = None) -> Registry:
    """R4's parameters of the served types (None: every concrete type but Parameters).

    A parameter that the standard leaves without an expression, or whose type is special, becomes `special`: it has no
    entries and cannot be searched. Raises ValueError for an expression beyond `fhir.path`.
    """
    served = tuple(type for type in definitions.resource_types if type != "Parameters") if types is None else types
    by_url = {facts.url: facts for facts in definitions.search_parameters}
    tables: dict[str, dict[str, Parameter]] = {type: {} for type in served}
    for facts in definitions.search_parameters:
        if facts.code in _NOT_CRITERIA:
            continue
        components = find_components(facts, by_url)
        for type in iterate_bases(facts, served):
            tables[type][facts.code] = build_parameter(definitions, facts, type, components)
    for table in tables.values():
        for code, parts in find_parts(table).items():
            table[code] = replace(table[code], parts=parts)
    return Registry(tables)


_DIVISIBLE = frozenset({"token", "quantity", "composite", "string"})
"""References and URIs are not, since includes, chains and canonicals go by the code of the parameter."""


def find_parts(table: Mapping[str, Parameter]) -> dict[str, tuple[str, ...]]:
    """By code, the parameters that look at some elements of this one, and together at all: the parts of `combo-code`.

    Of two that look at the same elements, such as `name` and `phonetic`, the shorter code has its own entries.
    """
    branches = {code: _list_branches(each) for code, each in table.items() if each.type in _DIVISIBLE}
    found: dict[str, tuple[str, ...]] = {}
    for code, own in branches.items():
        parts = [
            other for other in branches if _is_part(other, code, branches) and _is_alike(table[other], table[code])
        ]
        if parts and frozenset().union(*[branches[part] for part in parts]) == own:
            found[code] = tuple(parts)
    return {code: tuple([part for part in parts if part not in found]) for code, parts in found.items()}


def _list_branches(parameter: Parameter) -> frozenset[tuple[Path, object]]:
    return frozenset((branch.steps, branch.truth) for branch in parse_for(parameter.expression, parameter.base))


def _is_part(other: str, code: str, branches: Mapping[str, frozenset[tuple[Path, object]]]) -> bool:
    if branches[other] == branches[code]:
        return (len(other), other) < (len(code), code)
    return branches[other] < branches[code]


def _is_alike(one: Parameter, other: Parameter) -> bool:
    """Whether both make the same entries of the same element."""
    components = [[(each.type, parse(each.expression)) for each in parameter.components] for parameter in (one, other)]
    return one.type == other.type and components[0] == components[1]


def add_custom(
    registry: Registry, definitions: Definitions, custom: Sequence[CustomParameter], indexed: Indexed
) -> Registry:
    """The registry with custom parameters; where two have the same code for a type, the first is in force.

    Raises ValueError for an expression beyond `fhir.path`, and for a composite of parameters that are not known.
    """
    by_url = {facts.url: facts for facts in (*definitions.search_parameters, *(each.facts for each in custom))}
    tables = {type: dict(registry.parameters(type)) for type in registry.types}
    for each in custom:
        components = find_components(each.facts, by_url)
        for type in iterate_bases(each.facts, registry.types):
            if each.facts.code not in tables[type]:
                pending = indexed.get(type, {}).get(each.facts.code) != each.edition
                parameter = build_parameter(definitions, each.facts, type, components)
                tables[type][each.facts.code] = replace(parameter, edition=each.edition, pending=pending)
    return Registry(tables)


def remove_custom(registry: Registry, ids: Iterable[str]) -> Registry:
    """The registry without the parameters of these stored SearchParameters."""
    removed = frozenset(ids)
    tables = {type: registry.parameters(type) for type in registry.types}
    for type in registry.custom_types:
        table = tables[type].items()
        tables[type] = {code: each for code, each in table if each.edition.partition("@")[0] not in removed}
    return Registry(tables)


FULL_TEXT = "full-text"
"""The edition of `_text` and `_content` where resources are indexed by their words."""


def add_full_text(registry: Registry, indexed: Indexed) -> Registry:
    """The registry with `_text` and `_content` as parameters that wait for a reindex of each type."""
    tables = {type: dict(registry.parameters(type)) for type in registry.types}
    for type, table in tables.items():
        for code in ("_text", "_content"):
            if code in table:
                pending = indexed.get(type, {}).get(code) != FULL_TEXT
                table[code] = replace(table[code], edition=FULL_TEXT, pending=pending)
    return Registry(tables)


def iterate_bases(facts: SearchParameterFacts, served: Sequence[str]) -> Iterator[str]:
    """The served types that a parameter is for."""
    for type in served:
        abstract = {"Resource"} if type in _PLAIN_RESOURCES else {"Resource", "DomainResource"}
        if type in facts.base or not abstract.isdisjoint(facts.base):
            yield type


def find_components(
    facts: SearchParameterFacts, by_url: Mapping[str, SearchParameterFacts | Parameter]
) -> tuple[Component, ...]:
    """The parts of a composite. Raises ValueError when it names a parameter that is not known."""
    unknown = [url for url, _ in facts.components if url not in by_url]
    if unknown:
        raise ValueError(f"`{facts.code}` is composed of `{unknown[0]}`, which is not known here.")
    expressions = [expression for _, expression in facts.components]
    if facts.url in _SWAPPED_COMPONENTS:
        expressions.reverse()
    definitions = [by_url[url] for url, _ in facts.components]
    return tuple(Component(each.code, each.type, text) for each, text in zip(definitions, expressions, strict=True))


def build_parameter(
    definitions: Definitions, facts: SearchParameterFacts, type: str, components: tuple[Component, ...]
) -> Parameter:
    """A parameter as it applies to one type. Raises ValueError for an expression beyond `fhir.path`."""
    branches = parse_for(facts.expression, type) if facts.expression else ()
    elements = _find_elements(definitions, type, branches)
    return Parameter(
        code=facts.code,
        base=type,
        type=_TYPES_BY_URL.get(facts.url, facts.type) if branches else "special",
        url=facts.url,
        expression=" | ".join(branch.text for branch in branches),
        targets=facts.targets,
        components=tuple(_apply_component(definitions, type, branches, each) for each in components),
        repeats=_may_repeat(definitions, type, branches),
        datatypes=tuple(sorted({datatype for datatype, _ in elements})),
        family_names=any(datatype == "HumanName" or path == _FAMILY for datatype, path in elements),
        coded=_list_coded(elements),
    )


def _apply_component(
    definitions: Definitions, type: str, branches: Sequence[Branch], component: Component
) -> Component:
    """The component with the coded elements that it finds in the elements of a composite."""
    elements: set[tuple[str, str]] = set()
    for part in parse(component.expression):
        starts = {type} if part.root else {owner for owner, _ in _find_elements(definitions, type, branches)}
        for start in starts:
            elements |= _find_elements(definitions, start, (part,))
    return replace(component, coded=_list_coded(elements))


def _list_coded(elements: Collection[tuple[str, str]]) -> tuple[str, ...]:
    paths = {path for datatype, path in elements if datatype == "code"}
    return tuple(sorted({*paths, "boolean"} if any(datatype == "boolean" for datatype, _ in elements) else paths))


def _find_elements(definitions: Definitions, type: str, branches: Iterable[Branch]) -> set[tuple[str, str]]:
    """(type, official path) of the elements that expressions lead to from a type."""
    elements: set[tuple[str, str]] = set()
    for branch in branches:
        ends = _iterate_ends(definitions.properties, type, "", branch.steps)
        elements.update((("boolean", ""),) if branch.truth else ends)
    return elements


def _iterate_ends(
    properties: Mapping[str, Mapping[str, Property]], type: str, path: str, steps: Path
) -> Iterator[tuple[str, str]]:
    if not steps:
        yield type, path
    elif isinstance(steps[0], Member):
        for _, property in find_keys(properties.get(type, {}), steps[0]):
            yield from _iterate_ends(properties, property.type, property.element.path, steps[1:])
    else:
        yield from _iterate_ends(properties, type, path, steps[1:])


def _may_repeat(definitions: Definitions, type: str, branches: Sequence[Branch]) -> bool:
    """Whether a resource may have several values: unless all branches are types of the same single elements."""
    elements = {tuple(step.name for step in branch.steps if isinstance(step, Member)) for branch in branches}
    paths = [branch.steps for branch in branches if branch.truth is None]
    return len(elements) != 1 or any(_path_repeats(definitions.properties, type, steps) for steps in paths)


def _path_repeats(properties: Mapping[str, Mapping[str, Property]], type: str, steps: Path) -> bool:
    if not steps:
        return type not in _SINGLE_DATATYPES
    first, rest = steps[0], steps[1:]
    if not isinstance(first, Member):
        return _path_repeats(properties, type, rest)
    return any(
        (property.element.repeats and first.index is None) or _path_repeats(properties, property.type, rest)
        for _, property in find_keys(properties.get(type, {}), first)
    )
