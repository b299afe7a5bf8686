"""Bodies with a content coding, inflated in time and memory linear in the body (RFC 1952, RFC 1950)."""

from __future__ import annotations

import zlib

from fhir_server.fhir.outcome import Invalid, TooCostly, TooLarge, UnsupportedMediaType

MOST_MEMBERS = 10_000
"""Members of one gzip body: programs that compress in parallel make one for every 64 KiB or more."""

THREAD_FROM = 4096
"""Bytes of a compressed body from which a thread inflates it: these can become a thousand times as many."""

_WINDOWS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
# What lies behind the end of a member is copied when the end is met: a short piece first, longer ones inside a member.
_FIRST_PIECE = 512
_LARGEST_PIECE = 256 * 1024


def too_large(limit: int) -> TooLarge:
    """The error for a body beyond the limit, as it came or inflated."""
    return TooLarge(f"The body is larger than {limit} bytes, the limit (setting `max_body`); send it in parts.")


def check_coding(coding: str) -> None:
    """Refuse a content coding that is not read."""
    if coding not in _WINDOWS:
        raise UnsupportedMediaType(f"`Content-Encoding: {coding}` is not possible; send gzip, or no encoding.")


def inflate(body: bytes, coding: str, limit: int) -> bytes:
    """The text of a compressed body of one or more members.

    Raises TooLarge beyond `limit` bytes, TooCostly beyond MOST_MEMBERS and Invalid for what is no such data.
    """
    check_coding(coding)
    parts: list[bytes] = []
    at = size = members = 0
    while at < len(body):
        members += 1
        if members > MOST_MEMBERS:
            raise TooCostly(
                f"The {coding} data of the body has more than {MOST_MEMBERS} members; compress the body as a whole."
            )
        at, size = _inflate_member(body, at, coding, parts, (size, limit))
    return b"".join(parts)


def _inflate_member(body: bytes, at: int, coding: str, parts: list[bytes], bounds: tuple[int, int]) -> tuple[int, int]:
    """Add the text of the member that begins at `at` to the parts; where the next one begins, and the size so far."""
    size, limit = bounds
    inflater, view, piece = zlib.decompressobj(_WINDOWS[coding]), memoryview(body), _FIRST_PIECE
    while not inflater.eof:
        if at >= len(body):
            raise Invalid(f"The {coding} data of the body ends too early.", code="structure")
        fed = view[at : at + piece]
        try:
            part = inflater.decompress(fed, limit + 1 - size)
        except zlib.error:
            raise Invalid(
                f"The body is not valid {coding} data, as its Content-Encoding says.", code="structure"
            ) from None
        parts.append(part)
        size += len(part)
        if size > limit:
            raise too_large(limit)
        at += len(fed) - len(inflater.unused_data)
        piece = min(2 * piece, _LARGEST_PIECE)
    return at, size
