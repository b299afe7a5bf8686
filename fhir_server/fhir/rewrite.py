"""References inside the resources of a bundle, rewritten in the text (https://hl7.org/fhir/R4/bundle.html#references).

Rewritten are `Reference.reference`, every element of type url, uri, oid or uuid, and `href`/`src` in narrative; a
canonical never is. All bytes around a rewritten value stay as they were.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from fhir_server.fhir.definitions import Definitions
from fhir_server.fhir.json_tree import decode, encode
from fhir_server.fhir.resource import Text

Lookup = Callable[[str], str | None]
"""A reference text → its replacement, or None to leave it as it is."""

_REFERENCE = re.compile(rb'("reference"\s*:\s*")([^"\\]*)"')
_DIV = re.compile(rb'"div"\s*:\s*"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
# XML allows white space around the equals sign; JSON has it as it is or as an escape.
_LINK = re.compile(rb"((?:href|src)(?:\s|\\[nrt])*=(?:\s|\\[nrt])*(?:\\\"|'))([^\"'\\]*)")
_ESCAPED_REFERENCE = re.compile(rb'"reference"\s*:\s*"[^"\\]*\\')
_URL_TYPES = frozenset({"url", "uri", "oid", "uuid"})


def rewrite_references(text: Text, lookup: Lookup, prefixes: tuple[bytes, ...], definitions: Definitions) -> Text:
    """The resource with every reference that `lookup` knows replaced; `prefixes` are what these begin with."""
    if b"\\" in text.raw and _has_escapes(text.raw):
        return _rewrite_tree(text.raw, lookup, definitions)
    raw = _REFERENCE.sub(lambda match: _replace_reference(match, lookup), text.raw)
    rewritten = text if raw == text.raw else Text(raw)
    if any(prefix in raw for prefix in prefixes):
        raw = _rewrite_urls(rewritten, lookup, definitions)
    return rewritten if raw == rewritten.raw else Text(raw)


def _has_escapes(raw: bytes) -> bool:
    """Whether a reference may be written with escapes, so that its bytes are not its text."""
    return b"\\/" in raw or b"\\u00" in raw or _ESCAPED_REFERENCE.search(raw) is not None


def _replace_reference(match: re.Match[bytes], lookup: Lookup) -> bytes:
    new = lookup(match[2].decode(errors="replace"))
    return match[0] if new is None else match[1] + new.encode() + b'"'


def _rewrite_urls(text: Text, lookup: Lookup, definitions: Definitions) -> bytes:
    """Replace the n-th occurrence of a quoted text where the n-th such string of the tree has a URL type."""
    raw, tree = text.raw, text.tree
    occurrences = [
        (value, type in _URL_TYPES)
        for _, value, type in iterate_strings(tree, text.type, definitions)
        if lookup(value) is not None
    ]
    if any(rewritable for _, rewritable in occurrences):
        following = iter(occurrences)
        pattern = b"|".join(re.escape(value.encode()) for value in sorted({value for value, _ in occurrences}))
        raw = re.sub(b'"(' + pattern + b')"', lambda match: _replace_url(match, next(following), lookup), raw)
    return _DIV.sub(lambda div: _LINK.sub(lambda match: _replace_link(match, lookup), div[0]), raw)


def _replace_link(match: re.Match[bytes], lookup: Lookup) -> bytes:
    new = lookup(match[2].decode())
    return match[0] if new is None else match[1] + new.encode()


def _replace_url(match: re.Match[bytes], occurrence: tuple[str, bool], lookup: Lookup) -> bytes:
    value, rewritable = occurrence
    return b'"' + lookup(value).encode() + b'"' if rewritable else match[0]  # type: ignore[union-attr]


def _rewrite_tree(raw: bytes, lookup: Lookup, definitions: Definitions) -> Text:
    """For texts with escapes, whose bytes cannot be compared: rewrite the lossless tree, if anything changes."""
    tree = decode(raw)
    has_changed = False
    for holder, value, type in [*iterate_strings(tree, Text(raw).type, definitions)]:
        container, key = holder
        new = lookup(value) if type in _URL_TYPES or type == "Reference.reference" else None
        if type == "xhtml":
            new = re.sub(
                r"((?:href|src)\s*=\s*[\"'])([^\"']*)", lambda match: match[1] + (lookup(match[2]) or match[2]), value
            )
        if new is not None and new != value:
            container[key] = new
            has_changed = True
    return Text(encode(tree) if has_changed else raw)


def iterate_strings(tree: Any, type: str, definitions: Definitions) -> Iterator[tuple[tuple[Any, Any], str, str]]:
    """Every string of a resource in document order: ((container, key), text, FHIR type).

    `Reference.reference` has the type "Reference.reference"; an element without a definition has "".
    """
    properties: Mapping[str, Any] = definitions.properties.get(type, {})
    for key, value in tree.items():
        definition = properties.get(key)
        name = definition.type if definition else ""
        if type == "Reference" and key == "reference":
            name = "Reference.reference"
        values = value if isinstance(value, list) else (value,)
        container = value if isinstance(value, list) else tree
        for position, item in enumerate(values):
            if isinstance(item, str):
                yield (container, position if container is value else key), item, name
            elif isinstance(item, dict):
                if not definition and key.startswith("_"):
                    name = "Element"
                yield from iterate_strings(item, _resource_type(item) if name == "Resource" else name, definitions)


def _resource_type(tree: dict[str, Any]) -> str:
    type = tree.get("resourceType")
    return type if isinstance(type, str) else ""


def find_reference_paths(tree: Any, path: str, is_wanted: Callable[[str], bool]) -> Iterator[tuple[str, str]]:
    """(FHIRPath, text) of each `Reference.reference` that `is_wanted`."""
    for key, value in tree.items():
        if key == "reference" and isinstance(value, str):
            if is_wanted(value):
                yield f"{path}.reference", value
        elif isinstance(value, dict):
            yield from find_reference_paths(value, f"{path}.{key}", is_wanted)
        elif isinstance(value, list):
            for position, item in enumerate(value):
                if isinstance(item, dict):
                    yield from find_reference_paths(item, f"{path}.{key}[{position}]", is_wanted)
