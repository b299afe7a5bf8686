"""A streaming tokenizer: chunks of a file in, raw segments with their places out, in constant memory (X12.5, X12.6)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from mappers.x12.segment import Delimiters, Segment

Source = bytes | str | Iterable[bytes] | Iterable[str]

SEGMENT_BYTES = 100_000
"""A longer piece without a terminator is no segment of the transactions read here."""

_BLANK = b" \t\r\n\x00\x1a\xef\xbb\xbf"
_BREAKS = b"\r\n"
_HEADER_BYTES = 400
_SLICE = 1 << 16


class Token(NamedTuple):
    """A segment as it stands in the file (`raw`, with line breaks before it and its terminator), its id and its text.

    `fault` is a sentence where this is no whole segment: then `raw` is empty or what was left.
    """

    raw: bytes
    id: str
    body: bytes
    offset: int
    number: int
    delimiters: Delimiters
    fault: str = ""


@dataclass(slots=True)
class _Window:
    """What has been received and not yet handed out; `offset` is the place of its first byte in the file."""

    chunks: Iterator[bytes]
    buffer: bytes = b""
    offset: int = 0

    def fill(self) -> bool:
        """Whether another chunk came."""
        chunk = next(self.chunks, None)
        if chunk is None:
            return False
        self.buffer += chunk
        return True

    def drop(self, size: int) -> None:
        self.buffer = self.buffer[size:]
        self.offset += size


def read_tokens(source: Source) -> Iterator[Token]:
    """The raw segments of a file, of all its interchanges; what is between them and no segment comes as a fault."""
    window = _Window(_iterate_chunks(source))
    number = 0
    while True:
        start = window.offset
        delimiters, skipped = _find_header(window)
        if skipped:
            sentence = f"{skipped} bytes that belong to no interchange were skipped; an interchange begins with `ISA`."
            yield Token(b"", "", b"", start, number, Delimiters(), sentence)
        if delimiters is None:
            return
        for token in _read_interchange(window, delimiters, number):
            number = token.number
            yield token


def decode_token(token: Token, ordinal: int = 0) -> Segment:
    """The token as a segment."""
    place = (token.number, ordinal, token.offset)
    return Segment(_split(token.body, token.delimiters.element), *place, token.delimiters)


def _split(body: bytes, separator: str) -> tuple[str, ...]:
    """The elements: UTF-8 where it is that, else Latin-1, so that any byte can be read."""
    try:
        return tuple(body.decode().split(separator))
    except UnicodeDecodeError:
        return tuple(body.decode("latin-1").split(separator))


def read_segments(source: Source) -> Iterator[Segment]:
    """All segments of a file; what is no segment is left out (`read_tokens` tells it)."""
    return (decode_token(token) for token in read_tokens(source) if not token.fault)


def split_set(raw: bytes, delimiters: Delimiters, number: int, offset: int) -> Iterator[Segment]:
    """The segments of a raw transaction set whose first segment has this number and byte offset in its file."""
    ordinal = 1
    for piece in raw.split(delimiters.terminator.encode("latin-1")):
        body = piece.lstrip(_BREAKS)
        if body:
            place = offset + len(piece) - len(body)
            yield Segment(_split(body, delimiters.element), number, ordinal, place, delimiters)
            number, ordinal = number + 1, ordinal + 1
        offset += len(piece) + 1


def _iterate_chunks(source: Source) -> Iterator[bytes]:
    for chunk in (source,) if isinstance(source, bytes | str) else source:
        raw = chunk.encode() if isinstance(chunk, str) else chunk
        # In slices, so that cutting the front off stays cheap
        yield from (raw[at : at + _SLICE] for at in range(0, len(raw), _SLICE))


def _find_header(window: _Window) -> tuple[Delimiters | None, int]:
    """Go to the next ISA that can be read; with the number of bytes passed over that are not blank."""
    window.drop(len(window.buffer) - len(window.buffer.lstrip(_BLANK)))
    skipped = at = 0
    while True:
        place = window.buffer.find(b"ISA", at)
        if place < 0 or len(window.buffer) < place + _HEADER_BYTES:
            lost = max(0, len(window.buffer) - 2) if place < 0 else place
            skipped += len(window.buffer[:lost].strip(_BLANK))
            window.drop(lost)
            at = 0
            if window.fill():
                continue
            if place < 0:
                return None, skipped + len(window.buffer.strip(_BLANK))
            place = 0
        delimiters = parse_delimiters(window.buffer[place : place + _HEADER_BYTES])
        if delimiters is not None:
            skipped += len(window.buffer[:place].strip(_BLANK))
            window.drop(place)
            return delimiters, skipped
        at = place + 3


def parse_delimiters(header: bytes) -> Delimiters | None:
    """The delimiters that an ISA segment announces; None where the bytes are no ISA segment.

    ISA11 separates repetitions only from version 00402 on and only when it is not a letter or digit.
    """
    text = header.decode("latin-1")
    element = text[3:4]
    parts = text.split(element, 16) if element and not element.isalnum() else []
    if len(parts) < 17 or len(parts[16]) < 2:
        return None
    component, terminator = parts[16][0], parts[16][1]
    if terminator.isalnum() or component.isalnum() or len({element, component, terminator}) < 3:
        return None
    repetition = parts[11] if len(parts[11]) == 1 and parts[12] >= "00402" and _is_separator(parts[11]) else ""
    if repetition in (element, component, terminator):
        repetition = ""
    rest = parts[16][2:]
    newline = rest[: len(rest) - len(rest.lstrip("\r\n"))]
    return Delimiters(element, component, repetition, terminator, newline)


def _is_separator(text: str) -> bool:
    return not text.isalnum() and not text.isspace()


def _read_interchange(window: _Window, delimiters: Delimiters, number: int) -> Iterator[Token]:
    """The tokens from ISA to IEA, or to the next ISA where there is no IEA, or to the end of the file."""
    terminator = delimiters.terminator.encode("latin-1")
    element = delimiters.element.encode("latin-1")
    empty = re.compile(b"[" + re.escape(terminator) + _BREAKS + b"]*")
    first, position = number, 0
    while True:
        end = window.buffer.find(terminator, position)
        if end < 0:
            window.drop(position)
            position = 0
            if len(window.buffer) <= SEGMENT_BYTES and window.fill():
                continue
            if rest := _take_rest(window, number + 1, delimiters):
                yield rest
            return
        raw = window.buffer[position : end + 1]
        body = raw[:-1].lstrip(_BREAKS)
        place = end - len(body)
        position = end + 1
        if not body:
            # a run of terminators in one step, however long it is
            if found := empty.match(window.buffer, position):
                position = found.end()
            continue
        if number > first and body.startswith(b"ISA" + element):
            window.drop(place)
            return
        number += 1
        segment_id = body.partition(element)[0].decode("latin-1")
        yield Token(raw, segment_id, body, window.offset + place, number, delimiters)
        if segment_id == "IEA":
            window.drop(position)
            return


def _take_rest(window: _Window, number: int, delimiters: Delimiters) -> Token | None:
    """What stands after the last terminator, as a token with a fault; None where it is blank."""
    rest = window.buffer.strip(_BLANK)
    if not rest:
        window.drop(len(window.buffer))
        return None
    offset = window.offset
    if len(window.buffer) > SEGMENT_BYTES:
        window.drop(SEGMENT_BYTES)
        sentence = f"No segment terminator follows within {SEGMENT_BYTES} bytes; the interchange is not read further."
        return Token(b"", "", b"", offset, number, delimiters, sentence)
    window.drop(len(window.buffer))
    beginning = rest[:20].decode("latin-1")
    return Token(
        rest,
        "",
        rest,
        offset,
        number,
        delimiters,
        f"The file ends inside segment `{beginning}`: no terminator follows.",
    )
