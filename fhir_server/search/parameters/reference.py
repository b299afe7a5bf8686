"""Reference parameters: what a resource points to (https://hl7.org/fhir/R4/search.html#reference).

A version in a reference or in a criterion is dropped: the parameter finds what points to the resource. A reference to a
contained resource is its text, `#id`. A Reference's identifier is found under the pseudo-parameter `code:identifier`.
A canonical names a resource by its URL, perhaps with a version; where it reads as an address here, it is that too.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from fhir_server.fhir.outcome import Invalid
from fhir_server.fhir.references import find_local_target, parse
from fhir_server.search.chains import CANONICAL
from fhir_server.search.entries import SEPARATOR
from fhir_server.search.escapes import split, unescape
from fhir_server.search.parameters import hierarchy, token
from fhir_server.search.parameters.criteria import (
    Criteria,
    Extractor,
    ParameterType,
    Surroundings,
    make_or,
    reject,
)
from fhir_server.search.query import Clause, Equals, StartsWith
from fhir_server.search.registry import Parameter

IDENTIFIER = ":identifier"
_extract_token = token.TOKEN.extractors["Identifier"]
FORM = "a reference is `Type/id`, `id`, an absolute URL, or the URL of a canonical resource, perhaps with `|version`."


def parse_clause(parameter: Parameter, modifier: str | None, text: str, criteria: Criteria) -> Clause:
    """By `Type/id`, by id in every target type, by URL or by canonical, as the modifier says."""
    if modifier in ("above", "below"):
        return hierarchy.parse_clause(
            parameter, modifier, text, parse_clause(parameter, None, text, criteria), criteria
        )
    if modifier == "identifier":
        return token.parse_clause(replace(parameter, code=parameter.code + IDENTIFIER), None, text, criteria)
    parts = [unescape(part) for part in split(text, "|")]
    if not parts[0] or len(parts) > 2 or not parts[-1]:
        raise reject(parameter, text, FORM)
    url = parts[0]
    if len(parts) == 2:
        return Equals(parameter.code, (f"{url}{SEPARATOR}{parts[1]}",))
    if "/" not in url and ":" not in url:
        return Equals(parameter.code, _list_terms(parameter, modifier, url, criteria))
    reference = parse(url, criteria.base, criteria.registry.types)
    if reference.kind == "logical":
        raise reject(parameter, text, FORM)
    if modifier and reference.type != modifier:
        raise Invalid(f"`{parameter.code}:{modifier}={text}` names another type than `{modifier}`.")
    term = f"{reference.type}/{reference.id}" if reference.kind == "local" else url
    if term == url and CANONICAL.isdisjoint(parameter.datatypes):
        return Equals(parameter.code, (term,))
    return make_or((Equals(parameter.code, tuple({term: 0, url: 0})), StartsWith(parameter.code, f"{url}{SEPARATOR}")))


def _list_terms(parameter: Parameter, modifier: str | None, id: str, criteria: Criteria) -> tuple[str, ...]:
    """`Type/id` for the type of the modifier, or for each type that the parameter may point to."""
    targets = (modifier,) if modifier else parameter.targets or criteria.registry.types
    return tuple(f"{target}/{id}" for target in targets)


def leads_to(value: Any, type: str, around: Surroundings) -> bool:
    """Whether a Reference is to a resource of `type`, as far as its text or its `type` member tell."""
    text = value.get("reference")
    if text and text[0] == "#":
        return any(each.get("id") == text[1:] and each["resourceType"] == type for each in around.contained)
    if text:
        if text.startswith(type) and text[len(type) : len(type) + 1] == "/":
            return True
        target = parse(text, around.base, around.types).type
        if target:
            return target == type
    return bool(value.get("type", "").rpartition("/")[2] == type)


def _extract_reference(value: Any, around: Surroundings) -> tuple[str, ...]:
    text = value.get("reference")
    if not text:
        return ()
    return (text if text[0] == "#" else find_local_target(text, around.base, around.types) or text,)


def extract_identifier(value: Any, around: Surroundings) -> tuple[str, ...]:
    """The entries of a Reference under the pseudo-parameter `code:identifier`."""
    identifier = value.get("identifier")
    return _extract_token(identifier, around) if identifier else ()


def _extract_canonical(value: Any, around: Surroundings) -> tuple[str, ...]:
    url, _, version = value.partition("|")
    if url[:1] == "#":
        return (url,)
    here = find_local_target(url, around.base, around.types)
    return (f"{url}{SEPARATOR}{version}", here) if here else (f"{url}{SEPARATOR}{version}",)


def name_embedded(resource: Mapping[str, Any]) -> str:
    """The term for a resource that stands where a reference to it would: `Type/id`, or `#Type` when it has no id."""
    type, id = resource["resourceType"], resource.get("id")
    return f"{type}/{id}" if id else f"#{type}"


def make_embedded_extractor(targets: Collection[str]) -> Extractor:
    """For `Bundle.entry[0].resource`: a resource of a target type stands where the reference to it would."""

    def extract(value: Any, around: Surroundings) -> tuple[str, ...]:
        return (name_embedded(value),) if value.get("resourceType") in targets else ()

    return extract


REFERENCE = ParameterType(
    kind="terms",
    extractors={"Reference": _extract_reference, "canonical": _extract_canonical, "uri": _extract_canonical},
    parse_clause=parse_clause,
    modifiers=frozenset({"identifier", "above", "below"}),
)
