"""The part of a resource that `_summary` or `_elements` asks for (https://hl7.org/fhir/R4/search.html#summary).

Top-level members keep the bytes they were written with; only for `_summary=true` complex ones are cut inside. What
comes out carries the tag SUBSETTED, so that nobody stores it back as the whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from fhir_server.fhir.definitions import Definitions, Property
from fhir_server.fhir.json_tree import decode, encode
from fhir_server.fhir.outcome import Invalid
from fhir_server.fhir.resource import join_members, members

_SUBSETTED = b'{"system":"http://terminology.hl7.org/CodeSystem/v3-ObservationValue","code":"SUBSETTED"}'
_IDENTITY = frozenset({"resourceType", "id", "meta"})


def subset(raw: bytes, type: str, definitions: Definitions, summary: str | None, elements: tuple[str, ...]) -> bytes:
    """The text of a resource of `type`, cut and tagged.

    `summary`: `true` (summary elements at every level), `text` (text, id, meta), `data` (all but text); with None only
    the top-level `elements` stay (all of them when there are none). Mandatory elements and the identity (id, meta)
    stay always. `summary` and `elements` together: `_elements` of the summary. Raises Invalid for another `summary`.
    """
    if summary not in _KEPT:
        raise Invalid(f"`_summary={summary}` is none of true, text and data.", code="value")
    properties = definitions.properties[type]
    kept, names = _KEPT[summary], frozenset(elements)
    parts: dict[str, bytes | msgspec.Raw] = {}
    for key, text in members(raw).items():
        property = properties.get(key.removeprefix("_"))
        if key in _IDENTITY or (property and _stays(key, property, kept, names)):
            cut = summary == "true" and key in properties and properties[key].type not in definitions.primitives
            parts[key] = _summarised_text(bytes(text), properties[key].type, definitions) if cut else text
    parts["meta"] = _tagged(bytes(parts.get("meta", b"{}")))
    return join_members(parts)


def unknown_elements(type: str, names: Iterable[str], definitions: Definitions) -> tuple[str, ...]:
    """Those of `names` that are no top-level elements of `type`; a choice may be named `value` or `valueQuantity`."""
    known = {"resourceType"}
    for key, property in definitions.properties[type].items():
        known |= {key, property.element.name}
    return tuple(name for name in names if name not in known)


def _summary_element(property: Property) -> bool:
    return property.element.summary or property.element.minimum > 0


# For each `_summary`, which top-level elements stay that are neither mandatory nor the identity.
_KEPT = {
    "true": _summary_element,
    "text": lambda property: property.element.name == "text",
    "data": lambda property: property.element.name != "text",
    None: lambda property: True,
}


def _stays(key: str, property: Property, kept: Any, names: frozenset[str]) -> bool:
    element = property.element
    if element.minimum > 0:
        return True
    return kept(property) and (not names or element.name in names or key in names)


def _summarised_text(text: bytes, type: str, definitions: Definitions) -> bytes:
    return encode(_summarised(decode(text), type, definitions))


def _summarised(tree: Any, type: str, definitions: Definitions) -> Any:
    """The summary elements of a complex element; one that has none stays as it is, for FHIR knows no empty element."""
    if isinstance(tree, list):
        return [_summarised(item, type, definitions) for item in tree]
    if not isinstance(tree, dict):
        return tree
    properties: Mapping[str, Property] = definitions.properties.get(tree.get("resourceType", type), {})
    kept = {}
    for key, value in tree.items():
        property = properties.get(key.removeprefix("_"))
        if property is None and key == "resourceType":
            kept[key] = value
        elif property is not None and _summary_element(property):
            is_complex = property.type not in definitions.primitives and not key.startswith("_")
            kept[key] = _summarised(value, property.type, definitions) if is_complex else value
    return kept or tree


def _tagged(meta: bytes) -> bytes:
    """The meta with the tag SUBSETTED."""
    parts: dict[str, bytes | msgspec.Raw] = {**members(meta)}
    tags = bytes(parts.get("tag", b"[]")).strip()
    if b'"SUBSETTED"' in tags:
        return meta
    separator = b"" if tags[1:-1].strip() == b"" else b","
    parts["tag"] = tags[:-1] + separator + _SUBSETTED + b"]"
    return join_members(parts)
