"""What is structurally wrong with a resource, fault by fault (https://hl7.org/fhir/R4/json.html).

Every fault becomes one issue with its FHIRPath. This walk decides what is valid; it is ten to twenty times slower than
the schema of `schema.py`, which lets most resources pass without it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fhir_server.fhir.definitions import Definitions, Element, Property
from fhir_server.fhir.outcome import Issue
from fhir_server.validation import formats
from fhir_server.validation.schema import choice_keys, siblings_allowed

_ABSENT: Any = object()
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_JSON_TYPES = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}


@dataclass(frozen=True, slots=True)
class _Shape:
    """A type's elements by JSON key, and the keys of its required and of its choice elements."""

    elements: Mapping[str, Property]
    required: tuple[tuple[Element, tuple[str, ...]], ...]
    choices: tuple[tuple[Element, tuple[str, ...]], ...]
    resource: bool


class Diagnosis:
    """The walk over a resource that names every structural fault."""

    def __init__(self, definitions: Definitions) -> None:
        self._primitives = definitions.primitives
        self._shapes = {
            type_: _shape(elements, type_ in definitions.resource_types)
            for type_, elements in definitions.properties.items()
        }

    def issues(self, resource: Any) -> Iterator[Issue]:
        """Every structural fault of a resource as parsed from JSON, in document order."""
        type_ = resource.get("resourceType") if isinstance(resource, dict) else None
        return self._resource(resource, type_ if isinstance(type_, str) else "Resource")

    def _resource(self, value: Any, path: str) -> Iterator[Issue]:
        if not isinstance(value, dict):
            yield _issue("structure", path, f"`{path}` must be a resource, a JSON object, not {_json_type(value)}.")
            return
        if "resourceType" not in value:
            yield _issue("required", path, f"`{path}` has no `resourceType`; a resource names its type there.")
            return
        type_ = value["resourceType"]
        shape = self._shapes.get(type_) if isinstance(type_, str) else None
        if shape is None or not shape.resource:
            sentence = f"`{path}` has the resourceType {_shown(type_)}, which is not a resource type of FHIR R4."
            yield _issue("value", path, sentence)
            return
        yield from self._members(value, type_, path)

    def _members(self, value: Mapping[str, Any], type_: str, path: str) -> Iterator[Issue]:
        """The faults of an object's members, then those of the object itself."""
        shape = self._shapes[type_]
        for key, member in value.items():
            property_, beside = shape.elements.get(key), shape.elements.get(key[1:]) if key[:1] == "_" else None
            if property_ is not None:
                extensible = siblings_allowed(property_, self._primitives)
                sibling = value.get(f"_{key}", _ABSENT) if extensible else _ABSENT
                yield from self._element(property_, member, sibling, path)
            elif beside is not None and siblings_allowed(beside, self._primitives):
                if key[1:] not in value:
                    yield from self._element(beside, _ABSENT, member, path)
            elif key != "resourceType" or not shape.resource:
                yield _unknown(key, shape, path)
        yield from _missing(value, shape, path)
        yield from _crowded(value, shape, path)
        if type_ == "Extension":
            yield from _extension(value, path)

    def _element(self, property_: Property, value: Any, sibling: Any, parent: str) -> Iterator[Issue]:
        """The faults of one element: its value and its `_` sibling, either of which may be absent."""
        element = property_.element
        path = _child(parent, element.name) + (f".ofType({property_.type})" if element.choice else "")
        if not element.repeats:
            yield from self._single(property_, value, sibling, path)
            return
        given = [part for part in (value, sibling) if part is not _ABSENT]
        for part in given:
            if not isinstance(part, list):
                sentence = f"`{path}` repeats, so it must be a JSON array, not {_json_type(part)}."
                yield _issue("structure", path, sentence)
                return
            if not part:
                yield _issue("structure", path, f"`{path}` is an empty array; leave the element out.")
                return
        if len({len(part) for part in given}) > 1:
            sentence = (
                f"`{path}` has {len(value)} values, but `_{element.name}` has {len(sibling)} entries; both arrays "
                "must have the same length, with null where one has nothing."
            )
            yield _issue("structure", path, sentence)
        for index in range(min(map(len, given))):
            one = _ABSENT if value is _ABSENT else value[index]
            beside = _ABSENT if sibling is _ABSENT else sibling[index]
            # In an array, null makes room for what only the other array has.
            if one is None and beside is not None and beside is not _ABSENT:
                one = _ABSENT
            elif beside is None and one is not None and one is not _ABSENT:
                beside = _ABSENT
            yield from self._single(property_, one, beside, f"{path}[{index}]")

    def _single(self, property_: Property, value: Any, sibling: Any, path: str) -> Iterator[Issue]:
        if value is None or sibling is None:
            sentence = (
                f"`{path}` is null; leave out what has no value. Null may only fill a gap in an array of primitives."
            )
            yield _issue("structure", path, sentence)
        elif property_.type in self._primitives:
            if sibling is not _ABSENT:
                yield from self._sibling(value, sibling, path)
            if value is not _ABSENT:
                yield from _primitive(property_, value, path)
        elif property_.type == "Resource":
            if property_.element.name == "contained" and isinstance(value, dict) and "contained" in value:
                sentence = f"`{path}` is a contained resource, so it may not contain resources itself."
                yield _issue("invariant", f"{path}.contained", sentence)
            yield from self._resource(value, path)
        elif not isinstance(value, dict):
            yield _issue("structure", path, _not_an_object(path, property_.type, value))
        elif not value:
            yield _issue("structure", path, f"`{path}` is an empty object; leave the element out.")
        else:
            yield from self._members(value, property_.type, path)
            yield from _coded(property_, value, path)

    def _sibling(self, value: Any, sibling: Any, path: str) -> Iterator[Issue]:
        """The faults of what extends a primitive."""
        if not isinstance(sibling, dict):
            sentence = (
                f"The `_` member of `{path}` must be a JSON object with `id` or `extension`, not {_json_type(sibling)}."
            )
            yield _issue("structure", path, sentence)
            return
        if value is _ABSENT and "extension" not in sibling:
            sentence = f"`{path}` has neither a value nor an extension; leave the element out."
            yield _issue("structure", path, sentence)
        elif not sibling:
            yield _issue("structure", path, f"The `_` member of `{path}` is an empty object; leave it out.")
        yield from self._members(sibling, "Element", path)


def _shape(elements: Mapping[str, Property], resource: bool) -> _Shape:
    keys: dict[Element, list[str]] = {}
    for key, property_ in elements.items():
        if property_.element.minimum:
            keys.setdefault(property_.element, []).append(key)
    return _Shape(
        elements,
        tuple((element, tuple(found)) for element, found in keys.items()),
        tuple((element, tuple(found)) for element, found in choice_keys(elements).items()),
        resource,
    )


def _missing(value: Mapping[str, Any], shape: _Shape, path: str) -> Iterator[Issue]:
    """Required elements that are neither there nor extended."""
    for element, keys in shape.required:
        if not any(key in value or f"_{key}" in value for key in keys):
            wanted = f"one of {_listed(keys, 6)}" if element.choice else f"`{keys[0]}`"
            yield _issue("required", _child(path, element.name), f"`{path}` must have {wanted}.")


def _crowded(value: Mapping[str, Any], shape: _Shape, path: str) -> Iterator[Issue]:
    """Choice elements of which more than one type is there."""
    for element, keys in shape.choices:
        present = [key for key in keys if key in value or f"_{key}" in value]
        if len(present) > 1:
            sentence = f"`{path}` has {_listed(present, 6)}, but `{element.path}` is a choice: keep one of them."
            yield _issue("structure", _child(path, element.name), sentence)


def _extension(value: Mapping[str, Any], path: str) -> Iterator[Issue]:
    """Invariant ext-1: extensions or a value, not both."""
    valued = any(key.startswith(("value", "_value")) for key in value)
    if valued and "extension" in value:
        sentence = f"`{path}` has both a value and nested extensions; an extension has one or the other."
        yield _issue("invariant", path, sentence)
    if not valued and "extension" not in value:
        yield _issue("invariant", path, f"`{path}` must have a value, as in `valueString`, or nested extensions.")


def _unknown(key: str, shape: _Shape, path: str) -> Issue:
    """An element that the type does not have, with what was probably meant."""
    choices = {element.name: keys for element, keys in shape.choices}
    sentence = f"`{path}` has no element {_shown(key)}."
    if key == "fhir_comments":
        sentence = f"`{path}` has `fhir_comments`, which FHIR R4 does not know; leave comments out."
    elif key in choices:
        sentence += f" The key names the type, as in {_listed(choices[key], 3)}."
    elif key.startswith("_") and key[1:] in shape.elements:
        sentence += f" `{key[1:]}` cannot have a `_` member."
    elif near := difflib.get_close_matches(key[:80], shape.elements, 1):
        sentence += f" Did you mean `{near[0]}`?"
    else:
        sentence += f" It may have {_listed(sorted(shape.elements), 40)}."
    return _issue("structure", _child(path, key), sentence)


def _primitive(property_: Property, value: Any, path: str) -> Iterator[Issue]:
    if isinstance(value, list) and not property_.element.repeats:
        sentence = f"`{path}` does not repeat: it must be a single {property_.type}, not an array."
        yield _issue("structure", path, sentence)
    elif found := formats.fault(property_.type, value):
        yield _issue(found.code, path, f"`{path}` is {_shown(value)}; it must be {found.expected}.")
    elif property_.type == "code" and property_.element.codes is not None and value not in property_.element.codes:
        sentence = f"`{path}` is {_shown(value)}; it must be one of {_listed(property_.element.codes, 40)}."
        yield _issue("code-invalid", path, sentence)


def _coded(property_: Property, value: Mapping[str, Any], path: str) -> Iterator[Issue]:
    """A Coding or CodeableConcept outside its required value set; an extension may say why there is no code."""
    codes = property_.element.codes
    if codes is None:
        return
    codings = value.get("coding") if property_.type == "CodeableConcept" else [value]
    if (codings is None and "extension" in value) or (codings is not None and not _objects(codings)):
        return
    if not any(f"{coding.get('system')}|{coding.get('code')}" in codes for coding in codings or ()):
        sentence = f"`{path}` must have a coding among {_listed(codes, 40)}."
        yield _issue("code-invalid", path, sentence)


def _objects(values: Any) -> bool:
    """Whether it is an array of objects; where it is not, that fault has its own issue."""
    return isinstance(values, list) and len(values) > 0 and all(isinstance(value, dict) for value in values)


def _issue(code: str, path: str, sentence: str) -> Issue:
    return Issue("error", code, sentence, (path,))


def _child(path: str, name: str) -> str:
    """The FHIRPath of a member; names that are no FHIRPath identifiers are delimited by backticks."""
    return f"{path}.{name}" if len(name) < 80 and _IDENTIFIER.fullmatch(name) else f"{path}.{_shown(name)}"


def _shown(value: Any) -> str:
    """A value as a sentence quotes it, cut to a readable length."""
    if isinstance(value, dict | list) or value is None:
        return _json_type(value)
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f"`{text[:60]}…`" if len(text) > 60 else f"`{text}`"


def _json_type(value: Any) -> str:
    return _JSON_TYPES.get(type(value), "a number")


def _not_an_object(path: str, type_: str, value: Any) -> str:
    if isinstance(value, list):
        return f"`{path}` does not repeat: it must be a single JSON object of type `{type_}`, not an array."
    return f"`{path}` must be a JSON object of type `{type_}`, not {_json_type(value)}."


def _listed(names: Iterable[str], most: int) -> str:
    shown = [f"`{name}`" for name in names]
    return ", ".join(shown[:most]) + (" …" if len(shown) > most else "")
