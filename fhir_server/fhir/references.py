"""Reference texts: what they point to (https://hl7.org/fhir/R4/references.html#literal)."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import orjson

Kind = Literal["local", "foreign", "contained", "urn", "logical"]

BaseUrls = str | tuple[str, ...]
"""This server's URL, or several by which it is known; "" or () when none is."""

_ID = r"[A-Za-z0-9\-.]{1,64}"
_match_tail = re.compile(rf"([A-Za-z]+)/({_ID})(?:/_history/({_ID}))?", re.ASCII).fullmatch
_find_foreign_tail = re.compile(rf"/([A-Za-z]+)/({_ID})(?:/_history/({_ID}))?$", re.ASCII).search
_match_scheme = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:", re.ASCII).match


@dataclass(frozen=True, slots=True)
class Reference:
    """A parsed reference.

    `local`: a resource of this server, `type` and `id` known. `foreign`: an absolute URL elsewhere, with `type` and
    `id` when it ends in them. `contained`: `#id`. `urn`: a `urn:uuid:` or `urn:oid:`. `logical`: nothing that leads to
    a resource (an unknown type, a bare id, a conditional reference); for these only `text` is set.
    """

    kind: Kind
    text: str
    type: str | None = None
    id: str | None = None
    version: str | None = None


def parse(text: str, base: BaseUrls, types: Collection[str]) -> Reference:
    """Parse a reference; `types` are the resource types that this server knows."""
    if text.startswith("#"):
        return Reference("contained", text, id=text[1:])
    if text.startswith("urn:"):
        return Reference("urn", text)
    relative = strip_base(text, base)
    if tail := _match_tail(relative):
        type, id, version = tail.groups()
        return Reference("local", text, type, id, version) if type in types else Reference("logical", text)
    if not _match_scheme(text):
        return Reference("logical", text)
    if (tail := _find_foreign_tail(text)) and tail[1] in types:
        return Reference("foreign", text, *tail.groups())
    return Reference("foreign", text)


def list_bases(base: BaseUrls) -> tuple[str, ...]:
    """Each of the base URLs."""
    return base if isinstance(base, tuple) else (base,) if base else ()


def strip_base(text: str, base: BaseUrls) -> str:
    """The part of an absolute URL below this server's, else the text itself."""
    for each in list_bases(base):
        if text.startswith(each) and text[len(each) : len(each) + 1] == "/":
            return text[len(each) + 1 :]
    return text


def find_local_target(text: str, base: BaseUrls, types: Collection[str]) -> str | None:
    """`Type/id` of a local reference, its version dropped; None for every other kind."""
    type, _, id = text.partition("/")
    if type in types and _is_id(id):  # nearly all references
        return text
    tail = _match_tail(strip_base(text, base))
    return f"{tail[1]}/{tail[2]}" if tail and tail[1] in types else None


def find_literal_references(resource: dict[str, Any], base: BaseUrls, types: Collection[str]) -> tuple[str, ...]:
    """Every `Type/id` that a literal reference anywhere in the resource names, distinct and sorted.

    Version-specific, foreign and `urn:` references and `#fragments` are skipped; those of contained resources count.
    The entries of a Bundle are skipped: they are resources of their own, resolved within that bundle. A uri element
    that R4 also names `reference` (Expression, DetectedIssue) counts when it reads `Type/id`.
    """
    if resource.get("resourceType") == "Bundle":
        resource = {key: value for key, value in resource.items() if key != "entry"}
    # A key is the only JSON string before a colon, so a search of the compact text finds exactly the members named
    # `reference`, at a quarter of the cost of walking the tree.
    texts = _compile_pattern(base)(orjson.dumps(resource).decode())
    return tuple(sorted(text for text in set(texts) if text.partition("/")[0] in types)) if texts else ()


def find_versioned_references(resource: dict[str, Any], base: BaseUrls, types: Collection[str]) -> dict[str, int]:
    """`Type/id` → the version that the first version-specific reference to it names; versions are whole numbers."""
    versions: dict[str, int] = {}
    for text, version in _compile_pattern(base, r"/_history/([0-9]{1,18})")(orjson.dumps(resource).decode()):
        if text.partition("/")[0] in types:
            versions.setdefault(text, int(version))
    return versions


_is_id = re.compile(_ID, re.ASCII).fullmatch


@lru_cache(maxsize=64)
def _compile_pattern(base: BaseUrls, tail: str = "") -> Any:
    names = "|".join(map(re.escape, list_bases(base)))
    prefix = f"(?:(?:{names})/)?" if names else ""
    return re.compile(rf'"reference":"{prefix}([A-Za-z]+/{_ID}){tail}"', re.ASCII).findall
