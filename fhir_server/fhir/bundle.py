"""Bundles put together from stored bytes, never by serialising resources again (https://hl7.org/fhir/R4/bundle.html)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import orjson


def write_bundle(head: dict[str, Any], links: Iterable[tuple[str, str]], entries: Sequence[bytes]) -> bytes:
    """A Bundle: `head` holds id, type, meta and total, `links` are (relation, url), `entries` are JSON texts."""
    members = {"resourceType": "Bundle", **head}
    link = [{"relation": relation, "url": url} for relation, url in links]
    if link:
        members["link"] = link
    text = orjson.dumps(members)
    if not entries:
        return text
    return b'%b,"entry":[%b]}' % (text[:-1], b",".join(entries))


def write_search_entry(base: str, reference: str, raw: bytes, mode: str, score: float | None = None) -> bytes:
    """One entry of a searchset; `reference` is `Type/id`, `mode` is match or include."""
    return b'{"fullUrl":"%b/%b","resource":%b,"search":{"mode":"%b"%b}}' % (
        base.encode(),
        reference.encode(),
        raw,
        mode.encode(),
        b"" if score is None else b',"score":%b' % orjson.dumps(score),
    )


def write_outcome_entry(id: str, outcome: dict[str, Any]) -> bytes:
    """The searchset entry of an OperationOutcome about the search itself. `id`: a new UUID."""
    return orjson.dumps({"fullUrl": f"urn:uuid:{id}", "resource": outcome, "search": {"mode": "outcome"}})


def write_history_entry(full_url: str, request: dict[str, str], response: dict[str, str], raw: bytes | None) -> bytes:
    """One version in a history Bundle; a deletion has no resource."""
    tail = orjson.dumps({"request": request, "response": response})
    resource = b"" if raw is None else b',"resource":' + raw
    return b'{"fullUrl":"%b"%b,%b' % (full_url.encode(), resource, tail[1:])


def write_minimal_response_entry(status: str, location: str, version: int, last_updated: str) -> bytes:
    """One entry of a transaction-response whose resource is not returned (`Prefer: return=minimal`)."""
    return b'{"response":{"status":"%b","location":%b,"etag":"W/\\"%d\\"","lastModified":"%b"}}' % (
        status.encode(),
        orjson.dumps(location),
        version,
        last_updated.encode(),
    )


def write_response_entry(response: dict[str, Any], raw: bytes) -> bytes:
    """One entry of a batch-response or transaction-response."""
    resource = b'"resource":' + raw + b"," if raw else b""
    return b'{%b"response":%b}' % (resource, orjson.dumps(response))
