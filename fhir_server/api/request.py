"""From an ASGI scope to a frozen request: path, query, headers, body (https://hl7.org/fhir/R4/http.html#root)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qsl, unquote

from fhir_server.api.decompression import THREAD_FROM, inflate, too_large
from fhir_server.fhir.outcome import Invalid, NotFound

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Pairs = tuple[tuple[str, str], ...]


_HEADERS = "fhir_server.headers"


class ClientGone(Exception):
    """The client closed the connection before its request was complete."""


def read_headers(scope: Scope) -> dict[str, str]:
    """Header values by lower-case name; repeated ones are joined with commas. They are read once per request."""
    known: dict[str, str] | None = scope.get(_HEADERS)
    if known is not None:
        return known
    headers: dict[str, str] = {}
    for name, value in scope["headers"]:
        key, text = name.decode("latin-1"), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    scope[_HEADERS] = headers
    return headers


def split_path(path: str, raw_path: bytes | None) -> tuple[str, ...]:
    """The decoded path segments; an encoded slash stays inside its segment."""
    if raw_path is None or b"%" not in raw_path:
        return tuple(filter(None, path.split("/")))
    return tuple(unquote(part) for part in raw_path.decode("latin-1").split("/") if part)


def strip_root(path: tuple[str, ...], root: str) -> tuple[str, ...]:
    """The segments below the path of the API. NotFound for what only looks like it, as `/fhir%2Fx`."""
    length = root.count("/")
    if "/" + "/".join(path[:length]) != (root or "/"):
        raise NotFound(f"There is nothing at `/{'/'.join(path)}`; the API is below `{root}`.")
    return path[length:]


def parse_query(query: bytes) -> Pairs:
    """The decoded pairs of a query string. Raises Invalid for what is not UTF-8."""
    if not query:
        return ()
    try:
        return tuple(parse_qsl(query.decode("ascii", "strict"), keep_blank_values=True, errors="strict"))
    except (UnicodeDecodeError, ValueError):
        raise Invalid("The query string is not percent-encoded UTF-8 text.", code="structure") from None


async def read_body(
    receive: Receive, headers: dict[str, str], limit: int, grow: Callable[[int], None] = lambda size: None
) -> bytes:
    """The whole body, decompressed. Raises TooLarge beyond `limit` bytes, before and after decompression.

    `grow` is told the size that is expected, and that there is by now.
    """
    length = headers.get("content-length")
    if length is not None and length.isdecimal() and int(length) > limit:
        raise too_large(limit)
    if length is not None and length.isdecimal():
        grow(int(length))
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientGone
    body: bytes = message.get("body", b"")
    if message.get("more_body"):
        body = await _read_rest(receive, body, limit, grow)
    coding = headers.get("content-encoding", "identity").strip().lower()
    if coding != "identity" and body:
        body = await _inflate_body(body, coding, limit)
    if len(body) > limit:
        raise too_large(limit)
    grow(len(body))
    return body


async def _read_rest(receive: Receive, first: bytes, limit: int, grow: Callable[[int], None]) -> bytes:
    parts, size = [first], len(first)
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        part = message.get("body", b"")
        parts.append(part)
        size += len(part)
        if size > limit:
            raise too_large(limit)
        grow(size)
        if not message.get("more_body"):
            return b"".join(parts)


async def _inflate_body(body: bytes, coding: str, limit: int) -> bytes:
    if len(body) < THREAD_FROM:
        return inflate(body, coding, limit)
    return await asyncio.to_thread(inflate, body, coding, limit)
