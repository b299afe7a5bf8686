"""Batch files: FHS, BHS, messages, BTS, FTS.

https://www.hl7.eu/HL7v2x/v28/std28/ch02.html, section 2.10.3. A file of messages without batch headers is read as well.
"""

from __future__ import annotations

from typing import NamedTuple

from mappers.hl7v2.er7 import LINE_ENDS, MARKS
from mappers.hl7v2.issues import Issue, Location, refuse, warn


class BatchMessage(NamedTuple):
    """The text of a message, segments ended by CR, and the number of its first line in the file."""

    text: str
    line: int


class Batch(NamedTuple):
    """The messages of a file in their order, and what is wrong with the file."""

    messages: tuple[BatchMessage, ...]
    issues: tuple[Issue, ...]


def split_batch(text: str) -> Batch:
    """Splits a file into its messages. Counts of BTS-1 and FTS-1 that differ are warnings."""
    lines = LINE_ENDS.split(text.lstrip(MARKS))
    messages: list[BatchMessage] = []
    issues: list[Issue] = []
    current: list[str] = []
    first, in_batch, batches, mark = 0, 0, 0, "|"

    def close() -> None:
        if current:
            messages.append(BatchMessage("".join(f"{line}\r" for line in current), first))
            current.clear()

    for number, line in enumerate(lines, 1):
        name = line[:3]
        if name in ("FHS", "BHS", "BTS", "FTS"):
            close()
            mark = line[3:4] or mark
            if name == "BHS":
                in_batch, batches = len(messages), batches + 1
            elif name in ("BTS", "FTS"):
                issues.extend(_check_count(name, line.split(mark), len(messages) - in_batch, batches))
        elif name == "MSH":
            close()
            first = number
            current.append(line)
        elif current:
            if line.strip():
                current.append(line)
        elif line.strip(" \t\x1c"):
            issues.append(refuse("100", f"Line {number} of the file belongs to no message: `{line[:40]}`."))
    close()
    return Batch(tuple(messages), tuple(issues))


def _check_count(name: str, values: list[str], messages: int, batches: int) -> tuple[Issue, ...]:
    told = values[1].strip() if len(values) > 1 else ""
    actual, what = (messages, "messages") if name == "BTS" else (batches, "batches")
    if told.isascii() and told.isdigit() and int(told[:9]) != actual:
        return (warn("102", f"{name}-1 counts {told} {what}; the file holds {actual}.", Location(name, 1, 1)),)
    return ()
