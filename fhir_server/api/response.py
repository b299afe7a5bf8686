"""From an interaction's response to ASGI messages: ETag, Last-Modified, Location, indentation, compression."""

from __future__ import annotations

import asyncio
import gzip
import time
from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
import orjson

from fhir_server.fhir.outcome import FhirError, build_operation_outcome
from fhir_server.requests.request import Response

Send = Callable[[dict[str, Any]], Awaitable[None]]

COMPRESS_FROM = 1024
_COMPRESS_IN_THREAD_FROM = _INDENT_IN_THREAD_FROM = 256 * 1024
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


_NOSNIFF = b"x-content-type-options", b"nosniff"
_VARY = b"vary", b"accept, accept-encoding"
_NO_STORE = b"cache-control", b"no-store"
"""What is answered may be of a patient: no browser and no proxy keeps it, unless the answer says otherwise."""


class Style(NamedTuple):
    """The form of the answer that the client asked for."""

    content_type: str
    pretty: bool = False
    gzip: bool = False
    head: bool = False


def format_http_date(micros: int) -> bytes:
    """`Mon, 23 Nov 2026 08:00:00 GMT` (RFC 9110)."""
    return _format_http_date(micros // 1_000_000)


@lru_cache(maxsize=4096)
def _format_http_date(seconds: int) -> bytes:
    at = time.gmtime(seconds)
    return (
        f"{_DAYS[at.tm_wday]}, {at.tm_mday:02d} {_MONTHS[at.tm_mon - 1]} {at.tm_year:04d} "
        f"{at.tm_hour:02d}:{at.tm_min:02d}:{at.tm_sec:02d} GMT"
    ).encode()


def error_to_response(error: FhirError) -> Response:
    """The response for an error: its OperationOutcome."""
    return Response(error.status, orjson.dumps(build_operation_outcome(error.issues)), headers=error.headers)


async def send(response: Response, style: Style, request_id: str, send: Send) -> int:
    """Send the response; returns the number of body bytes."""
    body = response.body
    headers = [(b"x-request-id", request_id.encode("latin-1")), _NOSNIFF]
    if response.version is not None:
        headers.append((b"etag", b'W/"%d"' % response.version))
    if response.last_updated is not None:
        headers.append((b"last-modified", format_http_date(response.last_updated)))
    if response.location is not None:
        headers.append((b"location", response.location.encode("latin-1", "replace")))
    if response.headers:
        headers += [(name.lower().encode(), value.encode("latin-1", "replace")) for name, value in response.headers]
    if not response.headers or not any(name == "Cache-Control" for name, _ in response.headers):
        headers.append(_NO_STORE)
    if body:
        kind = response.content_type or f"{style.content_type}; charset=utf-8"
        headers.append((b"content-type", kind.encode("latin-1", "replace")))
        if style.pretty and response.content_type is None:
            body = indent(body) if len(body) < _INDENT_IN_THREAD_FROM else await asyncio.to_thread(indent, body)
        if style.gzip and len(body) >= COMPRESS_FROM:
            headers.append((b"content-encoding", b"gzip"))
            body = await _compress(body)
        headers.append(_VARY)
    if response.status not in (204, 304):
        headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    body = b"" if style.head else body
    await send({"type": "http.response.body", "body": body})
    return len(body)


async def _compress(body: bytes) -> bytes:
    if len(body) < _COMPRESS_IN_THREAD_FROM:
        return gzip.compress(body, 5, mtime=0)
    return await asyncio.to_thread(gzip.compress, body, 5, mtime=0)


def indent(body: bytes) -> bytes:
    """The JSON indented, numbers as they were written."""
    return msgspec.json.format(body, indent=2)
