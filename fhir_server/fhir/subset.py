"""The part of a resource that `_summary` or `_elements` asks for (https://hl7.org/fhir/R4/search.html#summary).

Top-level members keep their bytes; only `_summary=true` also cuts inside complex elements. The result is tagged
SUBSETTED, so that no client stores it back as the whole resource.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from fhir_server.fhir.definitions import Definitions, Property
from fhir_server.fhir.json_tree import decode, encode
from fhir_server.fhir.outcome import Invalid
from fhir_server.fhir.resource import join_members, split_members

_SUBSETTED = b'{"system":"http://terminology.hl7.org/CodeSystem/v3-ObservationValue","code":"SUBSETTED"}'
_IDENTITY = frozenset({"resourceType", "id", "meta"})


def write_subset(
    raw: bytes, type: str, definitions: Definitions, summary: str | None, elements: tuple[str, ...]
) -> bytes:
    """The text of the part of a resource of `type`, tagged.

    `summary`: `true` (summary elements at every level), `text` (text, id, meta), `data` (all but text); with None only
    the top-level `elements` are included (all of them when `elements` is empty), with both the `elements` of the
    summary. Mandatory elements, id and meta are always included. Raises Invalid for another `summary`.
    """
    if summary not in _FILTERS:
        raise Invalid(f"`_summary={summary}` is none of true, text and data.", code="value")
    properties = definitions.properties[type]
    accepts, names = _FILTERS[summary], frozenset(elements)
    parts: dict[str, bytes | msgspec.Raw] = {}
    for key, text in split_members(raw).items():
        property = properties.get(key.removeprefix("_"))
        if key in _IDENTITY or (property and _is_included(key, property, accepts, names)):
            has_parts = summary == "true" and key in properties and properties[key].type not in definitions.primitives
            parts[key] = _summarise_text(bytes(text), properties[key].type, definitions) if has_parts else text
    parts["meta"] = _add_tag(bytes(parts.get("meta", b"{}")))
    return join_members(parts)


def find_unknown_elements(type: str, names: Iterable[str], definitions: Definitions) -> tuple[str, ...]:
    """Those of `names` that are no top-level elements of `type`; a choice may be named `value` or `valueQuantity`."""
    known = {"resourceType"}
    for key, property in definitions.properties[type].items():
        known |= {key, property.element.name}
    return tuple(name for name in names if name not in known)


def _is_in_summary(property: Property) -> bool:
    return property.element.summary or property.element.minimum > 0


# `_summary` → which of the top-level elements that are neither mandatory nor id and meta are included.
_FILTERS = {
    "true": _is_in_summary,
    "text": lambda property: property.element.name == "text",
    "data": lambda property: property.element.name != "text",
    None: lambda property: True,
}


def _is_included(key: str, property: Property, accepts: Any, names: frozenset[str]) -> bool:
    element = property.element
    return element.minimum > 0 or (accepts(property) and (not names or element.name in names or key in names))


def _summarise_text(text: bytes, type: str, definitions: Definitions) -> bytes:
    return encode(_summarise(decode(text), type, definitions))


def _summarise(tree: Any, type: str, definitions: Definitions) -> Any:
    """The summary elements of a complex element; one without any stays whole, as FHIR has no empty elements."""
    if isinstance(tree, list):
        return [_summarise(item, type, definitions) for item in tree]
    if not isinstance(tree, dict):
        return tree
    properties: Mapping[str, Property] = definitions.properties.get(tree.get("resourceType", type), {})
    parts = {}
    for key, value in tree.items():
        property = properties.get(key.removeprefix("_"))
        if property is None and key == "resourceType":
            parts[key] = value
        elif property is not None and _is_in_summary(property):
            is_complex = property.type not in definitions.primitives and not key.startswith("_")
            parts[key] = _summarise(value, property.type, definitions) if is_complex else value
    return parts or tree


def _add_tag(meta: bytes) -> bytes:
    """The meta with the tag SUBSETTED."""
    parts: dict[str, bytes | msgspec.Raw] = {**split_members(meta)}
    tags = bytes(parts.get("tag", b"[]")).strip()
    if b'"SUBSETTED"' in tags:
        return meta
    separator = b"" if tags[1:-1].strip() == b"" else b","
    parts["tag"] = tags[:-1] + separator + _SUBSETTED + b"]"
    return join_members(parts)
