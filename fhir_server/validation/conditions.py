"""Conditions on the members of one object, as JSON Schema, so that the compiled schema checks them with the structure.

A condition names elements as the specification does; `build` says them in the JSON keys of a type: a choice has a key
for each of its types, and a primitive may have nothing but extensions under `_key`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fhir_server.fhir.definitions import Property

Schema = dict[str, Any]
Elements = Mapping[str, Property]
"""The elements of a type by JSON key."""

Condition = Callable[[Elements], Schema]


def has(*names: str) -> Condition:
    """Any of the elements is there."""

    def build(elements: Elements) -> Schema:
        keys = [key for key, property in elements.items() if property.element.name in names]
        siblings = [f"_{key}" for key in keys if elements[key].type[:1].islower()]
        if "extension" in names:
            keys.append("extension")
        required: list[Schema] = [{"required": [key]} for key in dict.fromkeys((*keys, *siblings))]
        return required[0] if len(required) == 1 else {"anyOf": required}

    return build


def lacks(*names: str) -> Condition:
    """None of the elements is there."""
    return negate(has(*names))


def negate(condition: Condition) -> Condition:
    """The condition does not hold."""
    return lambda elements: {"not": condition(elements)}


def either(*conditions: Condition) -> Condition:
    """At least one of the conditions holds."""
    return lambda elements: {"anyOf": [condition(elements) for condition in conditions]}


def both(*conditions: Condition) -> Condition:
    """All conditions hold."""
    return lambda elements: {"allOf": [condition(elements) for condition in conditions]}


def one_of(*conditions: Condition) -> Condition:
    """Exactly one of the conditions holds."""
    return lambda elements: {"oneOf": [condition(elements) for condition in conditions]}


def same(first: Condition, second: Condition) -> Condition:
    """Both conditions hold, or neither does."""
    return either(both(first, second), both(negate(first), negate(second)))


def implies(first: Condition, second: Condition) -> Condition:
    """Where the first condition holds, the second one does."""
    return either(negate(first), second)


def is_value(name: str, *values: Any) -> Condition:
    """The element is one of the values."""
    return lambda elements: {"required": [name], "properties": {name: {"enum": list(values)}}}


def is_none_of(*values: Any) -> Condition:
    """A plain value is none of these; for the items of an element."""
    return lambda elements: {"not": {"enum": list(values)}}


def at_least(name: str, least: float) -> Condition:
    """The number is not below."""
    return lambda elements: {"properties": {name: {"minimum": least}}}


def above(name: str, bound: float) -> Condition:
    """The number is above."""
    return lambda elements: {"properties": {name: {"minimum": bound, "exclusiveMinimum": True}}}


def matches(name: str, pattern: str) -> Condition:
    """The text matches a regular expression (those of both Rust and Python)."""
    return lambda elements: {"properties": {name: {"pattern": pattern}}}


def is_coded(name: str, system: str, *codes: str) -> Condition:
    """The CodeableConcept has a coding of these."""
    coding = {
        "required": ["system", "code"],
        "properties": {"system": {"enum": [system]}, "code": {"enum": list(codes)}},
    }
    concept = {"required": ["coding"], "properties": {"coding": {"not": {"items": {"not": coding}}}}}
    return lambda elements: {"required": [name], "properties": {name: concept}}


def each(name: str, condition: Condition) -> Condition:
    """The condition, on plain keys, holds for each item of the element."""
    return lambda elements: {"properties": {name: {"items": condition({})}}}


def inside(name: str, condition: Condition) -> Condition:
    """The condition, on plain keys, holds for the element's own members."""
    return lambda elements: {"properties": {name: condition({})}}


def has_key(*keys: str) -> Condition:
    """One of these JSON keys is there."""
    return lambda elements: {"anyOf": [{"required": [key]} for key in keys]}


def more_than(name: str, count: int) -> Condition:
    """The element repeats more often than that."""
    return lambda elements: {"required": [name], "properties": {name: {"minItems": count + 1}}}
