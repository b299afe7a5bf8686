"""Resources as MongoDB documents: the current one in its type's collection, every version in `history`.

    current   _id, version, updated (µs), order, live, method, raw, terms, loose, dates, numbers, sort, texts; a
              deletion: to method
    history   _id `Type/id 0000000007`, type, updated, order, method, transaction, and raw or packed (raw by zlib); a
              deletion has neither

`terms` holds `parameter=value` texts, `parameter~abc` for the trigrams of strings (`trigrams.py`), `=Type/id` for every
literal reference that no parameter holds (`referring.py`, `loose` too) and `_content=word` for every word of a text, so
that one multikey index answers them all
(https://www.mongodb.com/docs/manual/core/indexes/index-types/index-multikey/). `sort`: see `sortkeys.py`. The blank
before the version sorts below every character of an id: the ids of `history` are in the order of reference, then
version.
"""

from __future__ import annotations

import zlib
from typing import Any

from bson import Int64, ObjectId, encode

from fhir_server.search.entries import Entries
from fhir_server.store.mongo import referring, trigrams
from fhir_server.store.mongo.indexes import Document
from fhir_server.store.mongo.sortkeys import FIELD, build_fields
from fhir_server.store.operations import Write
from fhir_server.store.protocol import Stored, TooLargeForStore

_DIGITS = 10
LAST_VERSION = 10**_DIGITS - 1

LARGEST_DOCUMENT = 16 * 1024 * 1024
"""Bytes of the largest document that MongoDB takes."""

# Below this size no entries make a document too large; above it the document is measured exactly.
_SMALL_TEXT = 4 * 1024 * 1024
_FEW_ENTRIES = 20_000

_FASTEST = 1
_MOST_PACKED = 64 * 1024
"""Bytes: about a millisecond. What is larger holds attachments as a rule, which zlib hardly makes smaller."""

PROJECTION = {"version": 1, "updated": 1, "method": 1, "raw": 1, "live": 1}
"""The projection of a current document that `parse_current` needs."""


def build_version_id(reference: str, version: int) -> str:
    """The `_id` of a version in `history`."""
    return f"{reference} {version:0{_DIGITS}}"


def match_versions(reference: str) -> Document:
    """The filter of all versions of a resource: a range of `_id`."""
    return {"_id": {"$gte": f"{reference} ", "$lt": f"{reference}!"}}


def parse_current(type: str, document: Document) -> Stored:
    """A current document."""
    updated, method, raw = document["updated"], document["method"], document.get("raw")
    return Stored(type, document["_id"], document["version"], updated, method, raw)


def parse_version(document: Document) -> Stored:
    """A document of `history`."""
    reference, _, version = document["_id"].rpartition(" ")
    type, _, id = reference.partition("/")
    packed = document.get("packed")
    raw = zlib.decompress(packed) if packed else document.get("raw")
    return Stored(type, id, int(version), document["updated"], document["method"], raw)


def build_entry_fields(type: str, entries: Entries) -> Document:
    """The fields that a resource is found by; empty ones are left out."""
    terms = [f"{parameter}={value}" for parameter, values in entries.terms.items() for value in values]
    terms += referring.build_terms(type, entries)
    if entries.strings:
        terms += trigrams.build_terms(entries)
    for parameter, text in entries.texts.items():
        terms += [f"{parameter}={word}" for word in dict.fromkeys(text.split())]
    dates = [
        {"p": parameter, "l": Int64(low), "h": Int64(high)}
        for parameter, values in entries.dates.items()
        for low, high in values
    ]
    numbers = [
        {"p": parameter, "k": key, "l": low, "h": high, "u": unit}
        for parameter, values in entries.numbers.items()
        for key, low, high, unit in values
    ]
    found: dict[str, Any] = {"terms": terms, "dates": dates, "numbers": numbers, FIELD: build_fields(type, entries)}
    found[referring.LOOSE] = referring.list_loose(type, entries)
    if entries.texts:
        found["texts"] = dict(entries.texts)
    return {name: values for name, values in found.items() if values}


def build_documents(stored: Stored, order: int, transaction: ObjectId, write: Write) -> tuple[Document, Document]:
    """The current document and the one for `history` of a new version. Raises TooLargeForStore."""
    common: Document = {"updated": Int64(stored.last_updated), "order": Int64(order), "method": stored.method}
    live = stored.raw is not None
    current: Document = {"_id": stored.id, "version": stored.version, **common, "live": live}
    version: Document = {"_id": build_version_id(stored.reference, stored.version), "type": stored.type, **common}
    version["transaction"] = transaction
    if stored.raw is not None:
        current["raw"] = stored.raw
        version.update(_pack(stored.raw))
        current.update(build_entry_fields(stored.type, write.entries))
        _check_size(current, stored)
    return current, version


def _pack(raw: bytes) -> Document:
    """The text of a version, which is read far less often than it is written, copied, logged and kept in the cache."""
    if len(raw) <= _MOST_PACKED:
        packed = zlib.compress(raw, _FASTEST)
        if len(packed) < len(raw):
            return {"packed": packed}
    return {"raw": raw}


def _check_size(document: Document, stored: Stored) -> None:
    entries = sum(len(document.get(name, ())) for name in ("terms", "dates", "numbers"))
    if len(stored.raw or b"") < _SMALL_TEXT and entries < _FEW_ENTRIES:
        return
    size = len(encode(document))
    if size > LARGEST_DOCUMENT:
        raise TooLargeForStore(
            f"`{stored.reference}` takes {size:,} bytes with its index entries, more than the {LARGEST_DOCUMENT:,} "
            "that the database takes in one document; nothing was written. Send it in parts, or keep its data "
            "elsewhere."
        )
