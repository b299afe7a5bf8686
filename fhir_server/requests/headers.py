"""Request headers of the RESTful API as values: entity tags, HTTP dates (https://hl7.org/fhir/R4/http.html#versioning)."""

from __future__ import annotations

import re
from datetime import UTC
from email.utils import parsedate_to_datetime

from fhir_server.fhir.outcome import Invalid
from fhir_server.requests.request import Request

_ETAG = re.compile(r'(?:W/)?"([A-Za-z0-9\-.]{1,64})"|([0-9]{1,18})')


ANY_VERSION = -2
"""What `If-Match: *` names: whatever version is current."""


def parse_if_match(request: Request) -> int | None:
    """The version that `If-Match` names, ANY_VERSION for `*`, None without the header.

    Raises Invalid for a malformed entity tag.
    """
    text = request.headers.get("if-match")
    if text is None:
        return None
    if text.strip() == "*":
        return ANY_VERSION
    versions = _parse_entity_tags(text, "If-Match")
    if len(versions) != 1:
        raise Invalid(f'`If-Match: {text}` has to name one version, such as `W/"3"`.', code="value")
    return versions[0]


def parse_if_none_match(request: Request) -> tuple[int, ...] | None:
    """The versions that `If-None-Match` names: () for `*`, None without the header."""
    text = request.headers.get("if-none-match")
    if text is None:
        return None
    return () if text.strip() == "*" else _parse_entity_tags(text, "If-None-Match")


def _parse_entity_tags(text: str, header: str) -> tuple[int, ...]:
    versions = []
    for part in text.split(","):
        match = _ETAG.fullmatch(part.strip())
        if match is None:
            raise Invalid(
                f'`{header}: {text}` is not an entity tag; write the version as in the `ETag` of a read: `W/"3"`.',
                code="value",
            )
        version = match[1] or match[2]
        # another server's tag may be any text: well-formed, and never one of our versions
        versions.append(int(version) if version.isdecimal() else -1)
    return tuple(versions)


def parse_if_modified_since(request: Request) -> int | None:
    """The time that `If-Modified-Since` names in µs since 1970; None without the header."""
    text = request.headers.get("if-modified-since")
    if text is None:
        return None
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        raise Invalid(
            f"`If-Modified-Since: {text}` is not an HTTP date such as `Mon, 23 Nov 2026 08:00:00 GMT`.", code="value"
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp() * 1_000_000)


def is_not_modified(request: Request, version: int, last_updated: int) -> bool:
    """Whether a conditional read finds nothing newer (If-None-Match decides where both headers are there)."""
    versions = parse_if_none_match(request)
    if versions is not None:
        return versions == () or version in versions
    since = parse_if_modified_since(request)
    # HTTP dates have whole seconds
    return since is not None and last_updated // 1_000_000 <= since // 1_000_000
