"""Every structural fault of a resource, each as one issue with its FHIRPath (https://hl7.org/fhir/R4/json.html).

This walk decides what is valid. It is ten to twenty times slower than the schema of `schema.py`, which accepts nearly
all resources without it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jsonschema_rs

from fhir_server.fhir.definitions import Definitions, Element, Property
from fhir_server.fhir.outcome import Issue
from fhir_server.fhir.resource import name_json_type
from fhir_server.validation import formats
from fhir_server.validation.invariants import Invariant, list_invariants
from fhir_server.validation.schema import allows_sibling, find_choice_keys, group_keys

_ABSENT: Any = object()
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class _Shape:
    """A type's elements by JSON key, and the keys of its required and of its choice elements."""

    elements: Mapping[str, Property]
    required: tuple[tuple[Element, list[str]], ...]
    choices: tuple[tuple[Element, list[str]], ...]
    resource: bool
    invariants: tuple[Invariant, ...]


class BrokenInvariant(Issue):
    """The issue of an object that is right in its structure and breaks an invariant."""


class Diagnosis:
    """Walks over a resource and yields an issue for every structural fault, and for broken `invariants` where asked."""

    def __init__(self, definitions: Definitions, invariants: bool = False) -> None:
        self._primitives = definitions.primitives
        self._compiled: dict[tuple[str, str, int], Any] = {}
        self._shapes = {
            type: _build_shape(
                elements, type in definitions.resource_types, list_invariants(type, elements) if invariants else ()
            )
            for type, elements in definitions.properties.items()
        }

    def find_issues(self, resource: Any, invariants: bool = True) -> Iterator[Issue]:
        """The issues of a resource as parsed from JSON, in document order; without `invariants`, of its structure."""
        return (issue for issue in self._find_issues(resource) if invariants or not isinstance(issue, BrokenInvariant))

    def _find_issues(self, resource: Any) -> Iterator[Issue]:
        type = resource.get("resourceType") if isinstance(resource, dict) else None
        return self._check_resource(resource, type if isinstance(type, str) else "Resource")

    def _check_resource(self, value: Any, path: str) -> Iterator[Issue]:
        if not isinstance(value, dict):
            yield _make_issue(
                "structure", path, f"`{path}` must be a resource, a JSON object, not {name_json_type(value)}."
            )
            return
        if "resourceType" not in value:
            yield _make_issue("required", path, f"`{path}` has no `resourceType`; a resource names its type there.")
            return
        type = value["resourceType"]
        shape = self._shapes.get(type) if isinstance(type, str) else None
        if shape is None or not shape.resource:
            sentence = f"`{path}` has the resourceType {_quote(type)}, which is not a resource type of FHIR R4."
            yield _make_issue("value", path, sentence)
            return
        yield from self._check_members(value, type, path)

    def _check_members(self, value: Mapping[str, Any], type: str, path: str) -> Iterator[Issue]:
        """The issues of an object's members, then those of the object itself."""
        shape = self._shapes[type]
        for key, member in value.items():
            property, beside = shape.elements.get(key), shape.elements.get(key[1:]) if key[:1] == "_" else None
            if property is not None:
                extensible = allows_sibling(property, self._primitives)
                sibling = value.get(f"_{key}", _ABSENT) if extensible else _ABSENT
                yield from self._check_element(property, member, sibling, path)
            elif beside is not None and allows_sibling(beside, self._primitives):
                if key[1:] not in value:
                    yield from self._check_element(beside, _ABSENT, member, path)
            elif key != "resourceType" or not shape.resource:
                yield _explain_unknown(key, shape, path)
        yield from _find_missing(value, shape, path)
        yield from _find_crowded(value, shape, path)
        if type == "Extension":
            yield from _check_extension(value, path)
        for row in shape.invariants:
            if not self._hold(row, shape).is_valid(value):
                yield BrokenInvariant("error", "invariant", f"{row.key}: `{path}`: {row.sentence}.", (path,))

    def _hold(self, row: Invariant, shape: _Shape) -> Any:
        """What tells whether an object keeps an invariant; compiled when it is first needed."""
        key = row.owner, row.key, id(shape)
        if key not in self._compiled:
            self._compiled[key] = jsonschema_rs.Draft4Validator(row.condition(shape.elements))
        return self._compiled[key]

    def _check_element(self, property: Property, value: Any, sibling: Any, parent: str) -> Iterator[Issue]:
        """The issues of one element: its value and its `_` sibling, either of which may be absent."""
        element = property.element
        path = _join_path(parent, element.name) + (f".ofType({property.type})" if element.choice else "")
        if not element.repeats:
            yield from self._check_single(property, value, sibling, path)
            return
        arrays = [part for part in (value, sibling) if part is not _ABSENT]
        for part in arrays:
            if not isinstance(part, list):
                sentence = f"`{path}` repeats, so it must be a JSON array, not {name_json_type(part)}."
                yield _make_issue("structure", path, sentence)
                return
            if not part:
                yield _make_issue("structure", path, f"`{path}` is an empty array; leave the element out.")
                return
        if len({len(part) for part in arrays}) > 1:
            sentence = (
                f"`{path}` has {len(value)} values, but `_{element.name}` has {len(sibling)} entries; both arrays "
                "must have the same length, with null where one has nothing."
            )
            yield _make_issue("structure", path, sentence)
        for index in range(min(map(len, arrays))):
            item = _ABSENT if value is _ABSENT else value[index]
            beside = _ABSENT if sibling is _ABSENT else sibling[index]
            # Null fills the position of an element that only the other array has.
            if item is None and beside is not None and beside is not _ABSENT:
                item = _ABSENT
            elif beside is None and item is not None and item is not _ABSENT:
                beside = _ABSENT
            yield from self._check_single(property, item, beside, f"{path}[{index}]")

    def _check_single(self, property: Property, value: Any, sibling: Any, path: str) -> Iterator[Issue]:
        if value is None or sibling is None:
            sentence = (
                f"`{path}` is null; leave out what has no value. Null may only fill a gap in an array of primitives."
            )
            yield _make_issue("structure", path, sentence)
        elif property.type in self._primitives:
            if sibling is not _ABSENT:
                yield from self._check_sibling(value, sibling, path)
            if value is not _ABSENT:
                yield from _check_primitive(property, value, path)
        elif property.type == "Resource":
            if property.element.name == "contained" and isinstance(value, dict) and "contained" in value:
                sentence = f"dom-2: `{path}` is a contained resource, so it may not contain resources itself."
                yield _make_issue("invariant", f"{path}.contained", sentence)
            yield from self._check_resource(value, path)
        elif not isinstance(value, dict):
            yield _make_issue("structure", path, _explain_not_object(path, property.type, value))
        elif not value:
            yield _make_issue("structure", path, f"ele-1: `{path}` is an empty object; leave the element out.")
        else:
            yield from self._check_members(value, property.type, path)
            yield from _check_coded(property, value, path)

    def _check_sibling(self, value: Any, sibling: Any, path: str) -> Iterator[Issue]:
        """The issues of the `_` member beside a primitive."""
        if not isinstance(sibling, dict):
            kind = name_json_type(sibling)
            sentence = f"The `_` member of `{path}` must be a JSON object with `id` or `extension`, not {kind}."
            yield _make_issue("structure", path, sentence)
            return
        if value is _ABSENT and "extension" not in sibling:
            sentence = f"ele-1: `{path}` has neither a value nor an extension; leave the element out."
            yield _make_issue("structure", path, sentence)
        elif not sibling:
            yield _make_issue("structure", path, f"ele-1: the `_` member of `{path}` is an empty object; leave it out.")
        yield from self._check_members(sibling, "Element", path)


def _build_shape(elements: Mapping[str, Property], resource: bool, invariants: tuple[Invariant, ...]) -> _Shape:
    required = group_keys(elements, lambda element: element.minimum > 0)
    choices = find_choice_keys(elements)
    return _Shape(elements, tuple(required.items()), tuple(choices.items()), resource, invariants)


def _find_missing(value: Mapping[str, Any], shape: _Shape, path: str) -> Iterator[Issue]:
    """Issues of required elements that have neither a value nor extensions."""
    for element, keys in shape.required:
        if not any(key in value or f"_{key}" in value for key in keys):
            expected = f"one of {_join_names(keys, 6)}" if element.choice else f"`{keys[0]}`"
            yield _make_issue("required", _join_path(path, element.name), f"`{path}` must have {expected}.")


def _find_crowded(value: Mapping[str, Any], shape: _Shape, path: str) -> Iterator[Issue]:
    """Issues of choice elements that have values of more than one type."""
    for element, keys in shape.choices:
        present = [key for key in keys if key in value or f"_{key}" in value]
        if len(present) > 1:
            sentence = f"`{path}` has {_join_names(present, 6)}, but `{element.path}` is a choice: keep one of them."
            yield _make_issue("structure", _join_path(path, element.name), sentence)


def _check_extension(value: Mapping[str, Any], path: str) -> Iterator[Issue]:
    """Invariant ext-1: extensions or a value, not both."""
    has_value = any(key.startswith(("value", "_value")) for key in value)
    if has_value and "extension" in value:
        sentence = f"ext-1: `{path}` has both a value and nested extensions; an extension has one or the other."
        yield _make_issue("invariant", path, sentence)
    if not has_value and "extension" not in value:
        sentence = f"ext-1: `{path}` must have a value, as in `valueString`, or nested extensions."
        yield _make_issue("invariant", path, sentence)


def _explain_unknown(key: str, shape: _Shape, path: str) -> Issue:
    """The issue of an element that the type does not have, with what was probably meant."""
    choices = {element.name: keys for element, keys in shape.choices}
    sentence = f"`{path}` has no element {_quote(key)}."
    if key == "fhir_comments":
        sentence = f"`{path}` has `fhir_comments`, which FHIR R4 does not know; leave comments out."
    elif key in choices:
        sentence += f" The key names the type, as in {_join_names(choices[key], 3)}."
    elif key.startswith("_") and key[1:] in shape.elements:
        sentence += f" `{key[1:]}` cannot have a `_` member."
    elif near := difflib.get_close_matches(key[:80], shape.elements, 1):
        sentence += f" Did you mean `{near[0]}`?"
    else:
        sentence += f" It may have {_join_names(sorted(shape.elements), 40)}."
    return _make_issue("structure", _join_path(path, key), sentence)


def _check_primitive(property: Property, value: Any, path: str) -> Iterator[Issue]:
    if isinstance(value, list) and not property.element.repeats:
        sentence = f"`{path}` does not repeat: it must be a single {property.type}, not an array."
        yield _make_issue("structure", path, sentence)
    elif fault := formats.find_fault(property.type, value):
        yield _make_issue(fault.code, path, f"`{path}` is {_quote(value)}; it must be {fault.expected}.")
    elif property.type == "code" and (codes := property.element.codes) is not None and value not in codes:
        sentence = f"`{path}` is {_quote(value)}; it must be one of {_join_names(codes, 40)}."
        yield _make_issue("code-invalid", path, sentence)


def _check_coded(property: Property, value: Mapping[str, Any], path: str) -> Iterator[Issue]:
    """A Coding or CodeableConcept outside its required value set; an extension may say why there is no code."""
    codes = property.element.codes
    if codes is None:
        return
    codings = value.get("coding") if property.type == "CodeableConcept" else [value]
    if (codings is None and "extension" in value) or (codings is not None and not _are_objects(codings)):
        return
    if not any(f"{coding.get('system')}|{coding.get('code')}" in codes for coding in codings or ()):
        sentence = f"`{path}` must have a coding among {_join_names(codes, 40)}."
        yield _make_issue("code-invalid", path, sentence)


def _are_objects(values: Any) -> bool:
    """Whether it is an array of objects, and not empty; anything else has an issue of its own."""
    return isinstance(values, list) and len(values) > 0 and all(isinstance(value, dict) for value in values)


def _make_issue(code: str, path: str, sentence: str) -> Issue:
    return Issue("error", code, sentence, (path,))


def _join_path(path: str, name: str) -> str:
    """The FHIRPath of a member; names that are no FHIRPath identifiers are delimited by backticks."""
    return f"{path}.{name}" if len(name) < 80 and _IDENTIFIER.fullmatch(name) else f"{path}.{_quote(name)}"


def _quote(value: Any) -> str:
    """A value as a sentence quotes it, at most 60 characters."""
    if isinstance(value, dict | list) or value is None:
        return name_json_type(value)
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f"`{text[:60]}…`" if len(text) > 60 else f"`{text}`"


def _explain_not_object(path: str, type: str, value: Any) -> str:
    if isinstance(value, list):
        return f"`{path}` does not repeat: it must be a single JSON object of type `{type}`, not an array."
    return f"`{path}` must be a JSON object of type `{type}`, not {name_json_type(value)}."


def _join_names(names: Iterable[str], limit: int) -> str:
    quoted = [f"`{name}`" for name in names]
    return ", ".join(quoted[:limit]) + (" …" if len(quoted) > limit else "")
