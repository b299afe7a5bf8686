"""Reference `:above` and `:below`: hierarchies of resources, versions of canonicals (https://hl7.org/fhir/R4/search.html#recursive).

A type has a hierarchy when its search parameter `partof`, `part-of` or `parent` may refer to the type itself: Location,
Organization, Encounter and a few more. It is followed to its end, and once round a circle.
For canonicals the hierarchy is that of versions: `1` is above `1.2`, and no version is above them all.
"""

from __future__ import annotations

from typing import Literal

from fhir_server.fhir.references import parse
from fhir_server.search.entries import SEPARATOR
from fhir_server.search.escapes import split, unescape
from fhir_server.search.parameters.criteria import Criteria, make_or, reject
from fhir_server.search.query import Chain, Clause, Equals, Lineage, StartsWith
from fhir_server.search.registry import Parameter, Registry

_PARENTS = ("partof", "part-of", "parent")


def find_parent_parameter(registry: Registry, type: str) -> str | None:
    """The search parameter by which a resource of the type names the one that it is part of."""
    parameters = registry.parameters(type)
    return next((code for code in _PARENTS if code in parameters and type in parameters[code].targets), None)


def parse_clause(parameter: Parameter, modifier: str, text: str, direct: Clause, criteria: Criteria) -> Clause:
    """References to the resource or canonical itself (`direct`) and to what is below, or above, it."""
    parts = [unescape(part) for part in split(text, "|")]
    if len(parts) == 2:
        return _parse_version(parameter, modifier, parts[0], parts[1])
    reference = parse(parts[0], criteria.base, criteria.registry.types)
    id = parts[0] if reference.kind == "logical" else reference.id if reference.kind == "local" else None
    clauses: list[Clause] = [direct]
    direction: Literal["above", "below"] = "below" if modifier == "below" else "above"
    types = [reference.type] if reference.kind == "local" else parameter.targets or criteria.registry.types
    for type in types:
        parent = find_parent_parameter(criteria.registry, type) if type in criteria.registry.types else None
        if type and parent and id:
            clauses.append(Chain(parameter.code, type, Lineage(parent, (id,), direction)))
    if len(clauses) == 1 and id:
        known = ", ".join(
            f"`{type}`" for type in criteria.registry.types if find_parent_parameter(criteria.registry, type)
        )
        raise reject(parameter, text, f"`:{modifier}` needs a type with a hierarchy, which is one of {known}.")
    return make_or(clauses)


def _parse_version(parameter: Parameter, modifier: str, url: str, version: str) -> Clause:
    if modifier == "below":
        exact = f"{url}{SEPARATOR}{version}"
        return make_or((Equals(parameter.code, (exact,)), StartsWith(parameter.code, f"{exact}.")))
    labels = version.split(".")
    above = [".".join(labels[:count]) for count in range(len(labels), 0, -1)]
    return Equals(parameter.code, tuple(f"{url}{SEPARATOR}{each}" for each in (*above, "")))
