"""SearchParameters of this installation: what a resource says, and whether it can be applied (https://hl7.org/fhir/R4/searchparameter.html).

Those with the status `active` are in force. A code that R4 has for a type stays R4's there: a SearchParameter that is
derived from R4's, or has its expression, is accepted as a description of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fhir_server.fhir.definitions import Definitions, SearchParameterFacts
from fhir_server.fhir.outcome import Issue
from fhir_server.fhir.path import ExpressionError, parse, parse_for
from fhir_server.search import index
from fhir_server.search.parameters import TYPES
from fhir_server.search.registry import Parameter, Registry, build_parameter, find_components, iterate_bases

RESOURCE_TYPE = "SearchParameter"
ACTIVE = "active"

_CODE = re.compile(r"[A-Za-z_][A-Za-z0-9_\-]*")
_ABSTRACT = ("Resource", "DomainResource")

_CODE_IN_USE = (
    "`{}` has a search parameter `{}` already, `{}`; choose another code, or say `derivedFrom` where this one only "
    "describes that one."
)

Reserved = frozenset[str]
"""Names that the search syntax has for itself, such as `_sort`."""


def read_facts(resource: Mapping[str, Any]) -> SearchParameterFacts:
    """What a valid SearchParameter resource says."""
    return SearchParameterFacts(
        code=resource["code"],
        url=resource["url"],
        type=resource["type"],
        base=tuple(resource["base"]),
        expression=resource.get("expression", ""),
        targets=tuple(resource.get("target", ())),
        components=tuple((each["definition"], each["expression"]) for each in resource.get("component", ())),
        multiple_and=resource.get("multipleAnd", True),
        multiple_or=resource.get("multipleOr", True),
        comparators=tuple(resource.get("comparator", ())),
        modifiers=tuple(resource.get("modifier", ())),
    )


def find_problems(
    resource: Mapping[str, Any],
    definitions: Definitions,
    registry: Registry,
    reserved: Reserved = frozenset(),
    others: Sequence[SearchParameterFacts] = (),
) -> tuple[Issue, ...]:
    """Why a valid SearchParameter resource that is `active` cannot be applied; () when it can.

    `registry`: the parameters in force without this one. `others`: those that come into force together with it.
    """
    if resource["status"] != ACTIVE:
        return ()
    facts = read_facts(resource)
    return tuple(
        Issue("error", "business-rule", sentence, (f"{RESOURCE_TYPE}.{element}",))
        for element, sentence in _find_faults(facts, resource, definitions, registry, reserved, others)
    )


def _find_faults(
    facts: SearchParameterFacts,
    resource: Mapping[str, Any],
    definitions: Definitions,
    registry: Registry,
    reserved: Reserved,
    others: Sequence[SearchParameterFacts],
) -> Iterator[tuple[str, str]]:
    """(element, sentence) for each fault."""
    if not _CODE.fullmatch(facts.code) or facts.code in reserved:
        yield (
            "code",
            f"`{facts.code}` cannot be the code of a search parameter here: it takes letters, digits, `-` and `_`, "
            "and must not be a name of the search syntax itself.",
        )
        return
    unknown = [base for base in facts.base if base not in (*registry.types, *_ABSTRACT, *definitions.resource_types)]
    if unknown:
        yield "base", f"`{unknown[0]}` is no resource type of R4."
        return
    if facts.type not in TYPES or facts.type == "special":
        yield "type", f"A search parameter of type `{facts.type}` cannot be evaluated by its expression."
        return
    described = [type for type in iterate_bases(facts, registry.types) if facts.code in registry.parameters(type)]
    for type in described:
        other = registry.parameters(type)[facts.code]
        if not _is_description(facts, resource, other, type):
            yield "code", _CODE_IN_USE.format(type, facts.code, other.url)
    types = [type for type in iterate_bases(facts, registry.types) if type not in described]
    for other_facts in (each for each in others if each.code == facts.code):
        for type in set(types).intersection(iterate_bases(other_facts, registry.types)):
            yield "code", _CODE_IN_USE.format(type, facts.code, other_facts.url)
            return
    yield from _find_expression_faults(facts, definitions, registry, types, others)


def _is_description(facts: SearchParameterFacts, resource: Mapping[str, Any], other: Parameter, type: str) -> bool:
    """Whether the new one is no more than a description of a parameter of R4."""
    if other.edition:
        return False
    if other.url in (facts.url, resource.get("derivedFrom")):
        return True
    try:
        return " | ".join(branch.text for branch in parse_for(facts.expression, type)) == other.expression
    except ExpressionError:
        return False


def _name_by_url(
    definitions: Definitions, registry: Registry, others: Sequence[SearchParameterFacts]
) -> dict[str, SearchParameterFacts | Parameter]:
    """What the components of a composite may be: some 20,000 parameters, which other types need not look at."""
    known: dict[str, SearchParameterFacts | Parameter] = {each.url: each for each in definitions.search_parameters}
    in_force = (parameter for type in registry.types for parameter in registry.parameters(type).values())
    return known | {each.url: each for each in in_force} | {each.url: each for each in others}


def _find_expression_faults(
    facts: SearchParameterFacts,
    definitions: Definitions,
    registry: Registry,
    types: Sequence[str],
    others: Sequence[SearchParameterFacts],
) -> Iterator[tuple[str, str]]:
    """The faults of the expressions for these types: the first one, with its position."""
    if not facts.expression:
        if types:
            yield "expression", "An active search parameter needs an expression, such as `Patient.birthDate`."
        return
    try:
        known = _name_by_url(definitions, registry, others) if facts.components else {}
        components = find_components(facts, known)
    except ValueError as error:
        yield "component", f"{error} Store that one first."
        return
    try:
        parse(facts.expression)
        for type in types:
            parameter = build_parameter(definitions, facts, type, components)
            if not parameter.expression:
                yield "expression", f"`{facts.expression}` has no part for `{type}`, which is in `base`."
                return
            index.check_expression(definitions, parameter)
    except ExpressionError as error:
        yield "expression", f"{error} (at character {error.position} of `{facts.expression}`)"
    except ValueError as error:
        yield "component", str(error)
