"""Bundles put together from stored bytes, never by serialising resources again (https://hl7.org/fhir/R4/bundle.html)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import orjson


def bundle(head: dict[str, Any], links: Iterable[tuple[str, str]], entries: Sequence[bytes]) -> bytes:
    """A Bundle: `head` holds id, type, meta and total; `links` are (relation, url)."""
    members = {"resourceType": "Bundle", **head}
    linked = [{"relation": relation, "url": url} for relation, url in links]
    if linked:
        members["link"] = linked
    text = orjson.dumps(members)
    if not entries:
        return text
    return b'%b,"entry":[%b]}' % (text[:-1], b",".join(entries))


def search_entry(base: str, reference: str, raw: bytes, mode: str, score: float | None = None) -> bytes:
    """One entry of a searchset; `reference` is `Type/id`, `mode` is match or include."""
    return b'{"fullUrl":"%b/%b","resource":%b,"search":{"mode":"%b"%b}}' % (
        base.encode(),
        reference.encode(),
        raw,
        mode.encode(),
        b"" if score is None else b',"score":%b' % orjson.dumps(score),
    )


def outcome_entry(outcome: dict[str, Any]) -> bytes:
    """A searchset entry with what the server has to say about the search."""
    return orjson.dumps({"resource": outcome, "search": {"mode": "outcome"}})


def history_entry(full_url: str, request: dict[str, str], response: dict[str, str], raw: bytes | None) -> bytes:
    """One version in a history Bundle; a deletion has no resource."""
    about = orjson.dumps({"request": request, "response": response})
    resource = b"" if raw is None else b',"resource":' + raw
    return b'{"fullUrl":"%b"%b,%b' % (full_url.encode(), resource, about[1:])


def written_entry(status: str, location: str, version: int, last_updated: str) -> bytes:
    """One entry of a transaction-response for a write whose resource is not sent back."""
    return b'{"response":{"status":"%b","location":%b,"etag":"W/\\"%d\\"","lastModified":"%b"}}' % (
        status.encode(),
        orjson.dumps(location),
        version,
        last_updated.encode(),
    )


def response_entry(response: dict[str, Any], raw: bytes) -> bytes:
    """One entry of a batch-response or transaction-response."""
    resource = b'"resource":' + raw + b"," if raw else b""
    return b'{%b"response":%b}' % (resource, orjson.dumps(response))
