"""Files of HL7 v2 messages out of a partner's folder: each message goes to the log by itself (docs/workers.md)."""

from __future__ import annotations

from fhir_server.fhir.outcome import TooLarge
from fhir_server.workers.files import FileArrival, FileFormat, FileResult
from fhir_server.workers.hl7v2_intake import split_messages, take_message
from mappers.hl7v2.er7 import HEADERS

LARGEST_FILE = 64 * 1024 * 1024
"""Bytes of a file of messages."""

_MARKS = b"\xef\xbb\xbf\x0b \t\r\n"


def begins(head: bytes) -> bool:
    """Whether a file begins with a header segment."""
    return head.lstrip(_MARKS)[:3].decode("latin-1") in HEADERS


async def take(arrival: FileArrival) -> FileResult:
    """Store the messages one by one; what is refused stops no other. Raises TooLarge before one is stored."""
    raw = bytearray()
    for piece in arrival.pieces:
        raw += piece
        if len(raw) > LARGEST_FILE:
            raise TooLarge(f"The file has more than {LARGEST_FILE:,} bytes; send it in parts.")
    accepted, refused, task = 0, [], ""
    messages = await arrival.context.long_work.run(len(raw), split_messages, bytes(raw))
    for number, message in enumerate(messages, 1):
        await arrival.check()
        received = await take_message(arrival.context, arrival.caller.base, message, arrival.partner.name)
        task = task or received.id
        if received.state == "refused":
            refused.append(f"Message {number} (Task/{received.id}): {received.reason}")
        else:
            accepted += 1
    return FileResult(accepted, refused, (), task)


FILES = FileFormat(begins, take)
