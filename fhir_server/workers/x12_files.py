"""Files of X12 out of a partner's folder: each set goes to the log by itself, TA1 and 999 go back (docs/x12.md)."""

from __future__ import annotations

from collections.abc import Iterator

from fhir_server.fhir.outcome import TooLarge
from fhir_server.workers.files import FileAnswer, FileArrival, FileFormat, FileResult
from fhir_server.workers.x12_answers import answer_interchange
from fhir_server.workers.x12_intake import EDI_X12, Source, TakenInterchange, read_file, take_interchange
from mappers.x12.fault import fault_to_issue, find_errors

LARGEST_FILE = 64 * 1024 * 1024
"""Bytes of a file."""

MOST_PARTS = 10_000
"""Interchanges, groups and transaction sets of a file, together."""

_MARKS = b"\xef\xbb\xbf \t\r\n"


def begins(head: bytes) -> bool:
    """Whether a file begins with an interchange."""
    return head.lstrip(_MARKS).startswith(b"ISA")


async def take(arrival: FileArrival) -> FileResult:
    """Store the sets one by one. Raises TooLarge, TooCostly or Invalid before one is stored.

    The partner is whose folder it is: ISA05 and ISA06 may be those of another party that it passes on.
    """
    raw = bytearray()
    for piece in arrival.pieces:
        raw += piece
        if len(raw) > LARGEST_FILE:
            raise TooLarge(f"The file has more than {LARGEST_FILE:,} bytes; send it in parts.")
    text = bytes(raw)
    del raw
    found = await read_file(arrival.context, text, MOST_PARTS)
    source = Source(arrival.context, arrival.caller.base, arrival.partner.name, arrival.check)
    section = arrival.partner.x12
    accepted, refused, answers, task = 0, [fault_to_issue(each).diagnostics for each in found.outside], [], ""
    for interchange in found.interchanges:
        taken = await take_interchange(source, text, interchange)
        accepted += sum(each.state != "refused" for each in taken.list_received())
        refused += describe_faults(taken)
        task = task or next((each.id for each in taken.list_received()), "")
        answer = await answer_interchange(arrival.context, taken, section.answers if section is not None else ())
        if answer is not None:
            answers.append(FileAnswer(answer.control_number, answer.text, EDI_X12))
    return FileResult(accepted, refused, answers, task)


def describe_faults(taken: TakenInterchange) -> Iterator[str]:
    """A sentence for each fault of the envelope, and for each set that was refused for its own."""
    faults = [*find_errors(taken.faults), *(e for group in taken.groups for e in find_errors(group.group.end.faults))]
    yield from (fault_to_issue(each).diagnostics for each in faults)
    for received in taken.list_received():
        if received.state == "refused":
            yield f"Task/{received.id}: {received.reason}"


FILES = FileFormat(begins, take)
"""The row of X12."""
