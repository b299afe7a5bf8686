"""One JSON Schema for every R4 type, from the definitions (https://hl7.org/fhir/R4/json.html).

The root takes `{resource type: resource}`, so that all types share one compiled schema. It is the fast check: what it
accepts is right, and what it refuses is decided by `diagnosis`. So it may refuse what Draft 4 cannot express or what is
rare: nulls and siblings in arrays of primitives, required elements with only an extension, ids of extensions, `_`
members with only an id. Of a nested resource it checks only that it is an object with a type: each is checked by
itself, as a root. The conditions of `invariants.py` may be part of it.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from typing import Any

from fhir_server.fhir.definitions import Definitions, Element, Property
from fhir_server.validation import formats
from fhir_server.validation.invariants import list_invariants

Schema = dict[str, Any]

# Draft 4 is the last draft in which `1.0` is not an integer.
DRAFT = "http://json-schema.org/draft-04/schema#"


def build_root_schema(definitions: Definitions, invariants: bool = False) -> Schema:
    """The schema of `{resource type: resource}`; with `invariants` it has their conditions too."""
    parts: dict[str, Schema] = {f"primitive.{type}": schema for type, schema in formats.build_schemas().items()}
    for owner, elements in definitions.properties.items():
        parts[owner] = _build_object_schema(owner, elements, definitions, invariants)
    # An id alone is too little without a value, and Draft 4 cannot see whether there is one.
    parts["Element"]["required"] = ["extension"]
    return {
        "$schema": DRAFT,
        "definitions": parts,
        "type": "object",
        "properties": {type: _refer(type) for type in definitions.resource_types},
        "additionalProperties": False,
    }


def allows_sibling(property: Property, primitives: Container[str]) -> bool:
    """Whether `_key` is allowed beside the key: for all primitives but ids, `Extension.url` and XHTML."""
    element = property.element
    bare = element.name == "id" or element.path == "Extension.url" or property.type == "xhtml"
    return property.type in primitives and not bare


def _build_object_schema(
    owner: str, elements: Mapping[str, Property], definitions: Definitions, invariants: bool
) -> Schema:
    properties: dict[str, Schema] = {}
    required = [key for key, property in elements.items() if property.element.minimum and not property.element.choice]
    if owner in definitions.resource_types:
        properties["resourceType"] = {"enum": [owner]}
        required.append("resourceType")
    for key, property in elements.items():
        properties[key] = _build_property_schema(property, definitions)
        plain = not property.element.repeats and not property.element.choice
        if plain and allows_sibling(property, definitions.primitives):
            properties[f"_{key}"] = _refer("Element")
    schema: Schema = {"type": "object", "minProperties": 1, "properties": properties, "additionalProperties": False}
    if required:
        schema["required"] = sorted(required)
    if owner == "Extension":
        # Exactly url and a value, or url and extensions: counting two keys is cheaper than comparing fifty.
        del properties["id"]
        schema |= {"minProperties": 2, "maxProperties": 2}
        return schema
    choices = [_build_choice_schema(element, keys) for element, keys in find_choice_keys(elements).items()]
    rules = [row.condition(elements) for row in list_invariants(owner, elements)] if invariants else []
    return schema | {"allOf": [*choices, *rules]} if choices or rules else schema


def find_choice_keys(elements: Mapping[str, Property]) -> dict[Element, list[str]]:
    """The choice elements among a type's elements, each with its JSON keys."""
    return group_keys(elements, lambda element: element.choice)


def group_keys(elements: Mapping[str, Property], accepts: Callable[[Element], bool]) -> dict[Element, list[str]]:
    """The elements of a type that `accepts` accepts, each with its JSON keys."""
    keys: dict[Element, list[str]] = {}
    for key, property in elements.items():
        if accepts(property.element):
            keys.setdefault(property.element, []).append(key)
    return keys


def _build_choice_schema(element: Element, keys: Iterable[str]) -> Schema:
    """At most one key; exactly one when the element is required."""
    alternatives: list[Schema] = [{"required": [key]} for key in keys]
    if not element.minimum:
        alternatives.append({"not": {"anyOf": list(alternatives)}})
    return {"oneOf": alternatives}


def _build_property_schema(property: Property, definitions: Definitions) -> Schema:
    codes = property.element.codes
    if property.type == "Resource":
        schema: Schema = {"type": "object", "required": ["resourceType"]}
    elif property.type == "code" and codes is not None:
        schema = {"enum": list(codes)}
    elif property.type in definitions.primitives:
        schema = _refer(f"primitive.{property.type}")
    elif codes is not None:
        schema = {"allOf": [_refer(property.type), _build_coded_schema(property.type, codes)]}
    else:
        schema = _refer(property.type)
    return _wrap_array(schema) if property.element.repeats else schema


def _build_coded_schema(type: str, codes: Iterable[str]) -> Schema:
    """A Coding among `codes` (`system|code`), or a CodeableConcept whose first Coding is."""
    by_system: dict[str, list[str]] = {}
    for pair in codes:
        system, _, code = pair.rpartition("|")
        by_system.setdefault(system, []).append(code)
    alternatives = [
        {"properties": {"system": {"enum": [system]}, "code": {"enum": listed}}, "required": ["system", "code"]}
        for system, listed in by_system.items()
    ]
    if type != "CodeableConcept":
        return {"anyOf": alternatives}
    return {"properties": {"coding": {"items": [{"anyOf": alternatives}]}}, "required": ["coding"]}


def _wrap_array(items: Schema) -> Schema:
    return {"type": "array", "minItems": 1, "items": items}


def _refer(name: str) -> Schema:
    return {"$ref": f"#/definitions/{name}"}
