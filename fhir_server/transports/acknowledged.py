"""Which message an acknowledgement of HL7 v2 is for: MSA-2, read from its octets.

https://www.hl7.eu/HL7v2x/v251/std251/ch02.html (2.15.8): MSA-2 is the MSH-10 of the message that is acknowledged.
"""

from __future__ import annotations

import re

_LINE_END = re.compile(rb"[\r\n]+")


def find_acknowledged(answer: bytes) -> str | None:
    """MSA-2; None where the answer is no acknowledgement, "" where it names no message."""
    lines = _LINE_END.split(answer.lstrip(b"\r\n \xef\xbb\xbf"))
    if not lines[0].startswith(b"MSH") or len(lines[0]) < 5:
        return None
    separator = lines[0][3:4]
    for line in lines[1:]:
        fields = line.split(separator)
        if fields[0] == b"MSA":
            return fields[2].decode("utf-8", "replace").strip() if len(fields) > 2 else ""
    return None


def describe_mismatch(answer: bytes, control_number: str) -> str:
    """Why an answer does not acknowledge the message with a control number; "" where it does."""
    number = find_acknowledged(answer)
    if number == control_number:
        return ""
    if number is None:
        return f"What came back is no acknowledgement: {answer[:60]!r}."
    return f"The acknowledgement is for the message `{number[:40]}` (MSA-2), not for `{control_number}`."
