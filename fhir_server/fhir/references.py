"""Reference texts: what they point to (https://hl7.org/fhir/R4/references.html#literal)."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import orjson

Kind = Literal["local", "foreign", "contained", "urn", "logical"]

_ID = r"[A-Za-z0-9\-.]{1,64}"
_TAIL = re.compile(rf"([A-Za-z]+)/({_ID})(?:/_history/({_ID}))?", re.ASCII).fullmatch
_FOREIGN_TAIL = re.compile(rf"/([A-Za-z]+)/({_ID})(?:/_history/({_ID}))?$", re.ASCII).search
_ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:", re.ASCII).match


@dataclass(frozen=True, slots=True)
class Reference:
    """A reference text, taken apart.

    `local`: a resource of this server, `type` and `id` known. `foreign`: an absolute URL elsewhere, with `type` and
    `id` when it ends in them. `contained`: `#id`. `urn`: a `urn:uuid:` or `urn:oid:`. `logical`: nothing that leads to
    a resource (an unknown type, a bare id, a conditional reference); for these only `text` is set.
    """

    kind: Kind
    text: str
    type: str | None = None
    id: str | None = None
    version: str | None = None


def parse(text: str, base: str, types: Collection[str]) -> Reference:
    """Takes a reference apart; `base` is this server's URL ("" when unknown), `types` the resource types it knows."""
    if text.startswith("#"):
        return Reference("contained", text, id=text[1:])
    if text.startswith("urn:"):
        return Reference("urn", text)
    relative = below(text, base)
    if tail := _TAIL(relative):
        type, id, version = tail.groups()
        return Reference("local", text, type, id, version) if type in types else Reference("logical", text)
    if not _ABSOLUTE(text):
        return Reference("logical", text)
    if (found := _FOREIGN_TAIL(text)) and found[1] in types:
        return Reference("foreign", text, *found.groups())
    return Reference("foreign", text)


def below(text: str, base: str) -> str:
    """The part of an absolute URL below `base`, else the text itself."""
    if base and text.startswith(base) and text[len(base) : len(base) + 1] == "/":
        return text[len(base) + 1 :]
    return text


def local(text: str, base: str, types: Collection[str]) -> str | None:
    """`Type/id` of a local reference, its version dropped; None for every other kind."""
    type, _, id = text.partition("/")
    if type in types and _is_id(id):  # nearly all
        return text
    tail = _TAIL(below(text, base))
    return f"{tail[1]}/{tail[2]}" if tail and tail[1] in types else None


def literal_references(resource: dict[str, Any], base: str, types: Collection[str]) -> tuple[str, ...]:
    """Every `Type/id` that a literal reference anywhere in the resource names, distinct and sorted.

    Left out: version-specific, foreign and `urn:` references and `#fragments`; those of contained resources count.
    The entries of a Bundle are not looked at: they are resources of their own, resolved within that bundle. A uri
    element that R4 names `reference` too (Expression, DetectedIssue) counts when it reads `Type/id`.
    """
    if resource.get("resourceType") == "Bundle":
        resource = {key: value for key, value in resource.items() if key != "entry"}
    # A key is the only JSON string that a colon follows, so that a search in the compact text finds exactly the
    # members named `reference`, at a quarter of the cost of walking the tree.
    found = _pattern(base)(orjson.dumps(resource).decode())
    return tuple(sorted(text for text in set(found) if text.partition("/")[0] in types)) if found else ()


def versioned_references(resource: dict[str, Any], base: str, types: Collection[str]) -> dict[str, int]:
    """The version that a literal reference names, by `Type/id`: the first one of each, of versions as here, numbers."""
    found: dict[str, int] = {}
    for text, version in _pattern(base, r"/_history/([0-9]{1,18})")(orjson.dumps(resource).decode()):
        if text.partition("/")[0] in types:
            found.setdefault(text, int(version))
    return found


_is_id = re.compile(_ID, re.ASCII).fullmatch


@lru_cache(maxsize=64)
def _pattern(base: str, tail: str = "") -> Any:
    prefix = f"(?:{re.escape(base)}/)?" if base else ""
    return re.compile(rf'"reference":"{prefix}([A-Za-z]+/{_ID}){tail}"', re.ASCII).findall
