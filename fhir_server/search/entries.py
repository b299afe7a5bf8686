"""Index entries: what a resource is found by, in a form that every store keeps and no store interprets further.

Encodings (one place, so that index and query cannot differ); `SEPARATOR` sorts below every character FHIR allows:

| value | term |
|---|---|
| string | normalised text, SEPARATOR, text as written |
| token (Coding, Identifier, code, boolean, ContactPoint …) | code, SEPARATOR, system ("" without one) |
| reference | `Type/id` when local (version dropped), else the absolute URL; canonical: url, SEPARATOR, version |
| uri | the text as written |
| composite of terms | each component's search form, joined by COMPOSITE |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

SEPARATOR = "\x1f"
COMPOSITE = "\x1e"
CONTAINED = "_contained"
"""The pseudo-parameter whose terms are the types of the resources that a resource contains."""

# Ends of open intervals, µs; outside every FHIR date and inside 64 bits.
OPEN_LOW = -(2**62)
OPEN_HIGH = 2**62

DateEntry = tuple[int, int]
"""A closed interval [low, high] in µs since 1970-01-01T00:00Z."""

NumberEntry = tuple[str, float, float, str]
"""(key, low, high, unit): key "" unless composite; unit is `system SEPARATOR code SEPARATOR unit text`, or ""."""


TextParameter = Literal["_text", "_content"]
"""The parameters that are answered by words in their order."""


@dataclass(frozen=True, slots=True)
class Entries:
    """All index entries of one resource, by search parameter code; values are distinct and sorted.

    `references` holds every literal reference to a local resource (`Type/id`, version-specific ones and contained ones
    left out), whether or not a search parameter covers it: referential integrity is decided by it. Tasks of the message
    log are the exception (`held_references.py`).
    `strings` holds the codes (present or not) whose terms are strings, which `:contains` is asked of: a store may index
    the trigrams of their normalised text. It says how terms are kept, not what they are.
    `texts` holds words in their order, joined by single blanks: letters and digits, normalised (`words.extract_texts`).
    """

    terms: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    dates: Mapping[str, tuple[DateEntry, ...]] = field(default_factory=dict)
    numbers: Mapping[str, tuple[NumberEntry, ...]] = field(default_factory=dict)
    references: tuple[str, ...] = ()
    strings: frozenset[str] = field(default=frozenset(), compare=False)
    texts: Mapping[TextParameter, str] = field(default_factory=dict)


NO_ENTRIES = Entries()

URL, VERSION = "url", "version"
"""The parameters by which a resource is named in canonicals."""


def list_canonicals(terms: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """The terms of canonicals that name a resource with these terms: its absolute URL, alone and with its version."""
    urls = [url for url in terms.get(URL, ()) if ":" in url]
    versions = ("", *[version.partition(SEPARATOR)[0] for version in terms.get(VERSION, ())])
    return tuple([f"{url}{SEPARATOR}{version}" for url in urls for version in versions])


def compute_successor(prefix: str) -> str | None:
    """The least text above every text with this prefix, by code point; None if there is none."""
    stripped = prefix.rstrip("\U0010ffff")
    if not stripped:
        return None
    last = ord(stripped[-1]) + 1
    # Surrogates are not text.
    return stripped[:-1] + chr(0xE000 if 0xD800 <= last <= 0xDFFF else last)
