"""Reading elements of FHIR resources held as dictionaries, whatever is missing in them (https://hl7.org/fhir/R4/datatypes.html)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from decimal import Decimal, InvalidOperation
from typing import Any

Resource = Mapping[str, Any]
Resources = Mapping[str, Resource]
"""Resources by local reference: `Patient/1` to the Patient."""

EMPTY: Resource = {}

# Made once: a union made at each call would cost more than the test
_LISTS = (list, tuple)
_STRUCTURES = (dict, list)
_NO_NUMBERS = (bool, dict, list)


def get_object(element: object, *keys: str) -> Resource:
    """The object at a path of keys; an empty one where there is none."""
    for key in keys:
        element = element.get(key) if isinstance(element, dict) else None
    return element if isinstance(element, dict) else EMPTY


def get_list(element: object, key: str) -> list[Resource]:
    """The objects of a repeating element."""
    values = element.get(key) if isinstance(element, dict) else None
    return [each for each in values if isinstance(each, dict)] if isinstance(values, _LISTS) else []


def get_text(element: object, key: str) -> str:
    """A primitive as text, empty where absent."""
    value = element.get(key) if isinstance(element, dict) else None
    if isinstance(value, str):
        return value
    return "" if value is None or isinstance(value, _STRUCTURES) else str(value)


def get_texts(element: object, key: str) -> list[str]:
    """The values of a repeating primitive."""
    values = element.get(key) if isinstance(element, dict) else None
    return [str(each) for each in values if isinstance(each, str)] if isinstance(values, _LISTS) else []


def get_decimal(element: object, key: str = "value") -> Decimal | None:
    """A number, read by its shortest text; None where there is none or it is not finite."""
    value = element.get(key) if isinstance(element, dict) else None
    if isinstance(value, Decimal):
        return value if value.is_finite() else None
    if value is None or isinstance(value, _NO_NUMBERS):
        return None
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def get_day(text: str) -> date | None:
    """The day with which a date or dateTime begins as written; None where it names no whole day."""
    try:
        return date.fromisoformat(text[:10])
    except ValueError:
        return None


def find_code(concept: object, *systems: str) -> str:
    """The first code of a CodeableConcept in one of the systems (any, where none is named), else empty."""
    codings = concept.get("coding") if isinstance(concept, dict) else None
    for coding in codings if isinstance(codings, _LISTS) else ():
        if isinstance(coding, dict) and (not systems or coding.get("system") in systems):
            return get_text(coding, "code")
    return ""


def find_codes(concepts: Iterable[object], *systems: str) -> list[str]:
    """One code of each CodeableConcept that has one."""
    return [code for concept in concepts if (code := find_code(concept, *systems))]


def find_identifier(resource: object, *systems: str) -> str:
    """The value of the first identifier in one of the systems, else empty."""
    for identifier in get_list(resource, "identifier"):
        if identifier.get("system") in systems:
            return get_text(identifier, "value")
    return ""


def find_typed_identifier(resource: object, code: str) -> str:
    """The value of the first identifier of a type (v2-0203), else empty."""
    for identifier in get_list(resource, "identifier"):
        if find_code(identifier.get("type")) == code:
            return get_text(identifier, "value")
    return ""


def find_extension(element: object, url: str) -> Any:
    """The value[x] of the first extension with the url, else None."""
    for extension in get_list(element, "extension"):
        if extension.get("url") == url:
            return next((value for key, value in extension.items() if key.startswith("value")), None)
    return None


def resolve(reference: object, resources: Resources, container: Resource = EMPTY) -> Resource:
    """The resource that a Reference names, a contained one included; an empty one where it is not there."""
    text = get_text(reference, "reference")
    if text.startswith("#"):
        return next((each for each in get_list(container, "contained") if each.get("id") == text[1:]), EMPTY)
    return resources.get(text, EMPTY)


def iterate_type(resources: Resources, resource_type: str) -> Iterator[Resource]:
    """The resources of one type."""
    return (each for each in resources.values() if each.get("resourceType") == resource_type)


def make_concept(system: str, code: str, text: str = "") -> dict[str, Any]:
    """A CodeableConcept of one coding, with a text where there is one."""
    concept: dict[str, Any] = {"coding": [{"system": system, "code": code}]}
    return concept | {"text": text} if text else concept


def make_money(amount: Decimal, currency: str = "USD") -> dict[str, Any]:
    """A Money."""
    return {"value": amount, "currency": currency}


def drop_empty(resource: dict[str, Any]) -> dict[str, Any]:
    """The resource without elements that are empty text, lists or objects, which FHIR does not allow."""
    return {key: value for key, value in resource.items() if value is not None and value not in ("", [], {})}
