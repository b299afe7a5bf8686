"""One JSON Schema for every R4 type, from the definitions (https://hl7.org/fhir/R4/json.html).

The root wants `{resource type: resource}`, so that all types share one compiled schema. It is the fast check: whatever
it accepts is right, and what it refuses is put before `diagnosis`, which decides. So it leaves out what Draft 4 cannot
say or what is rare: nulls and siblings in arrays of primitives, required elements that have only an extension, ids of
extensions, `_` members with only an id. Of a nested resource it asks no more than that it is an object: that one goes
through the root by itself.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import Any

from fhir_server.fhir.definitions import Definitions, Element, Property
from fhir_server.validation import formats

Schema = dict[str, Any]

# Draft 4 is the last draft in which `1.0` is not an integer.
DRAFT = "http://json-schema.org/draft-04/schema#"


def root_schema(definitions: Definitions) -> Schema:
    """The schema of `{resource type: resource}`."""
    parts: dict[str, Schema] = {f"primitive.{type_}": schema for type_, schema in formats.schemas().items()}
    for owner, elements in definitions.properties.items():
        parts[owner] = _object_schema(owner, elements, definitions)
    # Beside no value an id alone is too little; whether there is a value cannot be seen from here.
    parts["Element"]["required"] = ["extension"]
    return {
        "$schema": DRAFT,
        "definitions": parts,
        "type": "object",
        "properties": {type_: _reference(type_) for type_ in definitions.resource_types},
        "additionalProperties": False,
    }


def siblings_allowed(property_: Property, primitives: Container[str]) -> bool:
    """Whether `_key` may stand beside the key: all primitives but ids, `Extension.url` and XHTML, which are bare."""
    element = property_.element
    bare = element.name == "id" or element.path == "Extension.url" or property_.type == "xhtml"
    return property_.type in primitives and not bare


def _object_schema(owner: str, elements: Mapping[str, Property], definitions: Definitions) -> Schema:
    properties: dict[str, Schema] = {}
    required = [
        key for key, property_ in elements.items() if property_.element.minimum and not property_.element.choice
    ]
    if owner in definitions.resource_types:
        properties["resourceType"] = {"enum": [owner]}
        required.append("resourceType")
    for key, property_ in elements.items():
        properties[key] = _property_schema(property_, definitions)
        plain = not property_.element.repeats and not property_.element.choice
        if plain and siblings_allowed(property_, definitions.primitives):
            properties[f"_{key}"] = _reference("Element")
    schema: Schema = {"type": "object", "minProperties": 1, "properties": properties, "additionalProperties": False}
    if required:
        schema["required"] = sorted(required)
    if owner == "Extension":
        # Exactly url and a value, or url and extensions: counting two keys is cheaper than comparing fifty.
        del properties["id"]
        schema |= {"minProperties": 2, "maxProperties": 2}
        return schema
    choices = [_choice_schema(element, keys) for element, keys in choice_keys(elements).items()]
    return schema | {"allOf": choices} if choices else schema


def choice_keys(elements: Mapping[str, Property]) -> dict[Element, list[str]]:
    """The choice elements among a type's elements, each with its JSON keys."""
    choices: dict[Element, list[str]] = {}
    for key, property_ in elements.items():
        if property_.element.choice:
            choices.setdefault(property_.element, []).append(key)
    return choices


def _choice_schema(element: Element, keys: Iterable[str]) -> Schema:
    """One key at most; one exactly when the element is required."""
    alternatives: list[Schema] = [{"required": [key]} for key in keys]
    if not element.minimum:
        alternatives.append({"not": {"anyOf": list(alternatives)}})
    return {"oneOf": alternatives}


def _property_schema(property_: Property, definitions: Definitions) -> Schema:
    codes = property_.element.codes
    if property_.type == "Resource":
        schema: Schema = {"type": "object", "required": ["resourceType"]}
    elif property_.type == "code" and codes is not None:
        schema = {"enum": list(codes)}
    elif property_.type in definitions.primitives:
        schema = _reference(f"primitive.{property_.type}")
    elif codes is not None:
        schema = {"allOf": [_reference(property_.type), _coded_schema(property_.type, codes)]}
    else:
        schema = _reference(property_.type)
    return _array(schema) if property_.element.repeats else schema


def _coded_schema(type_: str, codes: Iterable[str]) -> Schema:
    """A Coding among `codes` (`system|code`), or a CodeableConcept whose first Coding is."""
    by_system: dict[str, list[str]] = {}
    for pair in codes:
        system, _, code = pair.rpartition("|")
        by_system.setdefault(system, []).append(code)
    alternatives = [
        {"properties": {"system": {"enum": [system]}, "code": {"enum": found}}, "required": ["system", "code"]}
        for system, found in by_system.items()
    ]
    if type_ != "CodeableConcept":
        return {"anyOf": alternatives}
    return {"properties": {"coding": {"items": [{"anyOf": alternatives}]}}, "required": ["coding"]}


def _array(items: Schema) -> Schema:
    return {"type": "array", "minItems": 1, "items": items}


def _reference(name: str) -> Schema:
    return {"$ref": f"#/definitions/{name}"}
