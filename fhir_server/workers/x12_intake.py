"""Files of X12 on their way into the message log: interchange by interchange, one message for each transaction set.

An interchange or group whose envelope is broken is refused as a whole: its sets are kept, each with the reason, and
taken when they come again. One bad set stops no other.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from fhir_server.fhir.outcome import Invalid, TooCostly
from fhir_server.requests.context import Context
from fhir_server.requests.request import Caller
from fhir_server.security.policy import Principal
from fhir_server.workers.interpreters import Interpretation, Interpreter, Refusal, map_alone
from fhir_server.workers.message_codes import UNKNOWN, clean_text
from fhir_server.workers.message_tasks import IncomingMessage, hash_text
from fhir_server.workers.messages import Received, receive
from fhir_server.workers.x12_interpreter import (
    X12,
    describe_refusal,
    list_remarks,
    refuse_set,
    write_answer,
)
from fhir_server.workers.x12_partners import FORMAT, find_sender
from mappers.x12.envelope import TransactionSet
from mappers.x12.fault import Fault, find_errors
from mappers.x12.received import (
    SEGMENTS,
    ReceivedFile,
    ReceivedGroup,
    ReceivedInterchange,
    collect_interchanges,
    cut_set,
    wrap_answer,
    wrap_set,
)
from mappers.x12.segment import Segment

EDI_X12 = "application/EDI-X12"
"""The media type of X12 (RFC 1767)."""

MOST_PARTS = 500
"""Interchanges, groups and transaction sets of one request, together."""

_BEGINNING = 40


class TakenSet(NamedTuple):
    """A set, and what came of it."""

    set: TransactionSet
    received: Received


class TakenGroup(NamedTuple):
    """A group, and what came of its sets in their order."""

    group: ReceivedGroup
    sets: tuple[TakenSet, ...]


class TakenInterchange(NamedTuple):
    """An interchange, whose it is ("": nobody's), and what came of it; with an error in `faults` all is refused.

    `answers`: what came of its TA1 segments.
    """

    interchange: ReceivedInterchange
    partner: str
    faults: tuple[Fault, ...]
    groups: tuple[TakenGroup, ...]
    answers: tuple[Received, ...] = ()

    @property
    def refused(self) -> bool:
        """Whether none of its sets is taken."""
        return bool(find_errors(self.faults))

    def list_received(self) -> list[Received]:
        """What came of its sets, then of its TA1 segments."""
        return [*(each.received for group in self.groups for each in group.sets), *self.answers]


class Source(NamedTuple):
    """Where a file comes from: `partner` where that is known by the way; `check` is awaited before each set."""

    context: Context
    base: str
    partner: str = ""
    check: Callable[[], Awaitable[None]] | None = None


async def read_file(context: Context, text: bytes, most: int = MOST_PARTS) -> ReceivedFile:
    """The interchanges of a file. Raises Invalid where there are none, TooCostly where there are too many parts."""
    found = await context.long_work.run(len(text), collect_interchanges, text, most)
    if not found.complete:
        sentence = f"The file has more than {most} interchanges, groups and transaction sets, or {SEGMENTS:,} segments"
        raise TooCostly(f"{sentence}; send it in parts.")
    if not found.interchanges:
        sentence = "There is no interchange; one begins with an ISA segment of 106 characters. The text begins"
        raise Invalid(f"{sentence} `{clean_text(text[:_BEGINNING].decode('latin-1'))}`.", code="structure")
    return found


async def take_interchange(source: Source, text: bytes, interchange: ReceivedInterchange) -> TakenInterchange:
    """Store the sets of an interchange one by one; `text` is the file that it is in.

    Raises StoreError where nothing can be written: the sender must then get no acknowledgement.
    """
    partner, fault = find_sender(source.context.partners, interchange.isa, source.partner)
    faults = (*interchange.end.faults, *((fault,) if fault is not None else ()))
    name = partner.name if partner is not None else UNKNOWN
    groups = []
    for group in interchange.groups:
        broken = find_errors(faults) or find_errors(group.end.faults)
        sets = [TakenSet(each, await _take_set(source, text, name, each, broken)) for each in group.sets]
        groups.append(TakenGroup(group, tuple(sets)))
    answers = [await _take_ta1(source, name, interchange, each, find_errors(faults)) for each in interchange.answers]
    owner = partner.name if partner is not None else ""
    return TakenInterchange(interchange, owner, faults, tuple(groups), tuple(answers))


async def _take_set(
    source: Source, text: bytes, partner: str, received: TransactionSet, broken: tuple[Fault, ...]
) -> Received:
    raw = cut_set(text, received) if received.refused else received.raw
    kept = _Kept(name_set(received), wrap_set(received, raw), hash_text(raw))
    interpreter = _refuse_broken(broken) if broken else _refuse_faulty(received) if received.faults else X12
    return await _take(source, partner, kept, interpreter)


async def _take_ta1(
    source: Source, partner: str, interchange: ReceivedInterchange, ta1: Segment, broken: tuple[Fault, ...]
) -> Received:
    number = f"{interchange.end.interchange.control_number}/TA1/{ta1.at(1)}"
    kept = _Kept(number, wrap_answer(interchange, ta1), hash_text("*".join(ta1.elements).encode()))
    return await _take(source, partner, kept, _refuse_broken(broken) if broken else X12)


class _Kept(NamedTuple):
    """What names and identifies a message, and its text."""

    number: str
    raw: bytes
    hash: str


async def _take(source: Source, partner: str, kept: _Kept, interpreter: Interpreter) -> Received:
    if source.check is not None:
        await source.check()
    context = source.context
    known = context.partners.get(partner)
    refuse_reused = known is not None and known.duplicate_control_numbers == "refuse"
    message = IncomingMessage(
        partner, FORMAT, kept.number, kept.raw, EDI_X12, refuse_reused, received=context.clock(), hash=kept.hash
    )
    return await receive(context, Caller(source.base, Principal(f"partner {partner}")), message, interpreter)


def name_set(received: TransactionSet) -> str:
    """The control numbers of interchange, group and set, which name a set to its sender."""
    numbers = (received.interchange.control_number, received.group.control_number, received.control_number)
    return "/".join(numbers)


def _refuse_broken(faults: tuple[Fault, ...]) -> Interpreter:
    """For a set of an interchange or group that is refused as a whole: no part of a 999 is about it."""
    reason = f"Its envelope was refused: {' '.join(each.sentence for each in faults)}"

    def refuse(message: IncomingMessage) -> Interpretation | Refusal:
        return Refusal(reason, b"", list_remarks(faults))

    return Interpreter(map_alone(refuse), lambda message, reason: b"")


def _refuse_faulty(received: TransactionSet) -> Interpreter:
    """For a set whose own envelope has faults, which its text alone may not show (a number that stands twice)."""
    reason = describe_refusal(received.faults)

    def refuse(message: IncomingMessage) -> Interpretation | Refusal:
        return Refusal(reason, write_answer(received, received.faults), list_remarks(received.faults))

    return Interpreter(map_alone(refuse), refuse_set) if reason else X12
