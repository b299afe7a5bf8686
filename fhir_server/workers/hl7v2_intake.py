"""Bytes that came from a sender of HL7 v2, given to the message log under the partner that their header names."""

from __future__ import annotations

import re

from fhir_server.requests.context import Context
from fhir_server.requests.request import Caller
from fhir_server.security.policy import Principal
from fhir_server.workers.hl7v2_interpreter import HL7V2, HL7V2_ORIGINAL
from fhir_server.workers.hl7v2_partners import FORMAT, choose_partner, read_section
from fhir_server.workers.message_codes import UNKNOWN
from fhir_server.workers.message_tasks import IncomingMessage
from fhir_server.workers.messages import Received, receive
from mappers.hl7v2.batch import split_batch
from mappers.hl7v2.character_sets import decode_message
from mappers.hl7v2.er7 import HEADERS, Segment, parse_message

ER7 = "x-application/hl7-v2+er7"
"""The media type of HL7 v2 over HTTP: https://hapifhir.github.io/hapi-hl7v2/hapi-hl7overhttp/specification.html"""

_LONGEST_HEADER = 4096
_LINE_END = re.compile(rb"[\r\n]")
_NEXT_MESSAGE = re.compile(rb"(?<=\r)(?=MSH)")


async def take_message(context: Context, base: str, raw: bytes, partner: str = "") -> Received:
    """Store one message, or its refusal; `partner` where it is known by the way that the message came.

    Raises StoreError where nothing can be written: the sender must then get no acknowledgement.
    """
    header = read_header(raw)
    name = partner or choose_partner(context.partners, header) or UNKNOWN
    known = context.partners.get(name)
    refuse_reused = known is not None and known.duplicate_control_numbers == "refuse"
    message = IncomingMessage(name, FORMAT, header.text(10), raw, ER7, refuse_reused, received=context.clock())
    original = known is not None and read_section(known).acknowledgements == "original"
    interpreter = HL7V2_ORIGINAL if original else HL7V2
    return await receive(context, Caller(base, Principal(f"partner {name}")), message, interpreter)


def read_header(raw: bytes) -> Segment:
    """The MSH of a message, read without the rest; one without fields where there is none."""
    line = _LINE_END.split(raw[:_LONGEST_HEADER].lstrip(b"\r\n\x0b\xef\xbb\xbf"), maxsplit=1)[0]
    message = parse_message(decode_message(line).text or line.decode("latin-1")).message
    return message.header if message is not None else Segment("MSH", ())


def split_messages(raw: bytes) -> list[bytes]:
    """The messages of a file, with batch headers or without; what begins with no header is one message, as it is."""
    if raw.count(b"MSH") <= 1 and not any(raw.lstrip().startswith(name.encode()) for name in HEADERS - {"MSH"}):
        return [raw]
    # octets as characters of the same number, so that each message is decoded by its own MSH-18
    batch = split_batch(raw.decode("latin-1"))
    return [each.text.encode("latin-1") for each in batch.messages] or [raw]


def split_answers(acknowledgement: bytes) -> list[bytes]:
    """The acknowledgements of one message, in the order in which they are sent; none, one or two."""
    return [each for each in _NEXT_MESSAGE.split(acknowledgement) if each]
