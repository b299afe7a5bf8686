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
_VERSION = "/_history/"


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
    relative = below(text, base) if base else text
    type, slash, id = relative.partition("/")
    if not slash or type not in types:
        return None
    if _VERSION in id:
        id = id.partition(_VERSION)[0]
    return f"{type}/{id}" if _is_id(id) else None


def literal_references(resource: dict[str, Any], base: str, types: Collection[str]) -> tuple[str, ...]:
    """Every `Type/id` that a literal reference anywhere in the resource names, distinct and sorted.

    Left out: version-specific, foreign and `urn:` references and `#fragments`; those of contained resources count.
    The entries of a Bundle are not looked at: they are resources of their own, resolved within that bundle.
    """
    if resource.get("resourceType") == "Bundle":
        resource = {key: value for key, value in resource.items() if key != "entry"}
    # A key is the only JSON string that a colon follows, so that a search in the compact text finds exactly the
    # members named `reference`, at a quarter of the cost of walking the tree.
    found = _pattern(base)(orjson.dumps(resource).decode())
    return tuple(sorted({f"{type}/{id}" for type, id in found if type in types})) if found else ()


_is_id = re.compile(_ID, re.ASCII).fullmatch


@lru_cache(maxsize=64)
def _pattern(base: str) -> Any:
    prefix = f"(?:{re.escape(base)}/)?" if base else ""
    return re.compile(rf'"reference":"{prefix}([A-Za-z]+)/({_ID})"', re.ASCII).findall
