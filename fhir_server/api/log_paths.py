"""Paths as a log shows them: ids as hashes, since an id of a client's making may name a person.

The same id has the same hash in every line and process of a store, so that lines that belong together can be found.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection

from fhir_server.fhir.short_cache import cache_short

_PLAIN = re.compile(r"[$_][A-Za-z\-]{1,40}|metadata")
_VERSION = re.compile(r"[0-9]{1,18}")
_MOST_SEGMENTS, _LONGEST = 8, 200


def make_path_writer(root: str, types: Collection[str], key: bytes) -> Callable[[str], str]:
    """Path → what a log says of it: `/fhir/Patient/~8f3c0a91b2d4/_history/3`. `root`: where the API is."""

    @cache_short(4096)
    def write_path(path: str) -> str:
        if path == root:
            return path
        inside = path.startswith(f"{root}/")
        segments = path[len(root) + 1 if inside else 1 :].split("/", _MOST_SEGMENTS)
        known = [
            _is_known(segment, segments[position - 1] if position else "", types)
            for position, segment in enumerate(segments)
        ]
        shown = [segment if plain else hide(segment) for segment, plain in zip(segments, known, strict=True)]
        return "/".join([root if inside else "", *shown])

    def hide(segment: str) -> str:
        return f"~{hashlib.blake2b(segment.encode(errors='replace'), digest_size=6, key=key).hexdigest()}"

    return write_path


def shorten_path(path: str) -> str:
    """The path as it came, where the setting `log_ids` is on."""
    return path[:_LONGEST]


def _is_known(segment: str, before: str, types: Collection[str]) -> bool:
    """Whether a segment says what was asked, and not of whom."""
    if not segment or _PLAIN.fullmatch(segment):
        return True
    if before == "_history":
        return _VERSION.fullmatch(segment) is not None
    return segment in types and before not in types  # an id may read like a type
