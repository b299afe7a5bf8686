"""The validator's schema as components of an OpenAPI 3.1 document (https://spec.openapis.org/oas/v3.1.1.html#schema-object).

The validator's schema is a fast first check, which may refuse what is rare. A published schema must accept all that the
server accepts and answers: siblings of primitives, nulls beside them, and elements with only an extension are added.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from fhir_server.fhir.definitions import Definitions, Property
from fhir_server.validation.schema import Schema, allows_sibling, build_root_schema, find_choice_keys

ALWAYS = ("Bundle", "CapabilityStatement", "OperationOutcome", "Parameters")
"""The resource types that a server answers or takes even if it does not store them."""

_SIBLINGS = "Element.siblings"
_NESTED: Schema = {"type": "object", "required": ["resourceType"]}
"""The schema of any resource in the validator's schema."""


def refer(name: str, kind: str = "schemas") -> Schema:
    """A reference to a component."""
    return {"$ref": f"#/components/{kind}/{name}"}


def build_component_schemas(definitions: Definitions, types: Collection[str]) -> dict[str, Schema]:
    """A schema for each resource type of `types` and ALWAYS, and for each type of their elements."""
    parts: dict[str, Schema] = build_root_schema(definitions)["definitions"]
    for owner, elements in definitions.properties.items():
        parts[owner] = _widen(definitions, parts[owner], elements)
    parts["Element"].pop("required", None)
    schemas: dict[str, Schema] = {name: _translate(part) for name, part in parts.items()}
    schemas[_SIBLINGS] = {"type": "array", "items": {"anyOf": [refer("Element"), {"type": "null"}]}}
    here = sorted({*types, *ALWAYS})
    schemas["Resource"] = {
        "oneOf": [refer(type) for type in here],
        "discriminator": {"propertyName": "resourceType"},
    }
    others = sorted(set(definitions.resource_types) - set(here))
    if others:
        schemas["Resource"]["oneOf"].append(refer("Resource.other"))
        schemas["Resource.other"] = {
            "description": "A resource of a type that is not stored here by itself, such as one that is contained.",
            **_NESTED,
            "properties": {"resourceType": {"enum": others}},
        }
    return _find_reachable(schemas, ["Resource"])


def _widen(definitions: Definitions, part: Schema, elements: Mapping[str, Property]) -> Schema:
    """The schema of one type with what the fast check refuses."""
    properties: dict[str, Any] = dict(part["properties"])
    bare: set[str] = set()
    for key, property in elements.items():
        if key not in properties:  # the id of an extension
            properties[key] = {"$ref": f"#/definitions/primitive.{property.type}"}
        if not allows_sibling(property, definitions.primitives):
            bare.add(key)
        elif property.element.repeats:
            items = {"anyOf": [properties[key]["items"], {"type": "null"}]}
            properties |= {key: {**properties[key], "items": items}, f"_{key}": {"$ref": f"#/definitions/{_SIBLINGS}"}}
        else:
            properties[f"_{key}"] = {"$ref": "#/definitions/Element"}
    widened: Schema = {"type": "object", "minProperties": 1, "properties": properties, "additionalProperties": False}
    mandatory = [key for key, each in elements.items() if each.element.minimum and not each.element.choice]
    required = sorted(
        [*(key for key in mandatory if key in bare), *(["resourceType"] * ("resourceType" in properties))]
    )
    if required:
        widened["required"] = required
    rules = [_require_present(key, bare) for key in mandatory if key not in bare]
    for element, keys in find_choice_keys(elements).items():
        alternatives = [_require_present(key, bare) for key in keys]
        none: list[Schema] = [] if element.minimum else [{"not": {"anyOf": list(alternatives)}}]
        rules.append({"oneOf": alternatives + none})
    return {**widened, "allOf": rules} if rules else widened


def _require_present(key: str, bare: Collection[str]) -> Schema:
    """The rule that an element is present, if only with an extension."""
    if key in bare:
        return {"required": [key]}
    return {"anyOf": [{"required": [key]}, {"required": [f"_{key}"]}]}


def _translate(schema: Any) -> Any:
    """Draft 4 as the validator uses it → the dialect of OpenAPI 3.1 (JSON Schema 2020-12)."""
    if isinstance(schema, list):
        return [_translate(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if schema == _NESTED:
        return refer("Resource")
    if isinstance(schema.get("$ref"), str):
        return refer(schema["$ref"].removeprefix("#/definitions/"))
    return {
        "prefixItems" if name == "items" and isinstance(value, list) else name: _translate(value)
        for name, value in schema.items()
    }


def _find_reachable(schemas: Mapping[str, Schema], names: list[str]) -> dict[str, Schema]:
    """The schemas of these names and those that they refer to, sorted by name."""
    waiting, reached = list(names), set(names)
    while waiting:
        for name in _find_references(schemas[waiting.pop()]):
            if name not in reached:
                reached.add(name)
                waiting.append(name)
    return {name: schemas[name] for name in sorted(reached)}


def _find_references(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        if isinstance(schema.get("$ref"), str):
            yield schema["$ref"].rpartition("/")[2]
        for value in schema.values():
            yield from _find_references(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _find_references(value)
