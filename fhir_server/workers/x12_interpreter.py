"""X12 as a format of the message log: what one transaction set says, and its part of the 999 (005010X231A1)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import islice
from typing import Any, NamedTuple

from fhir_server.fhir.outcome import Issue
from fhir_server.workers.interpreters import Entry, Interpretation, Interpreter, Refusal
from fhir_server.workers.message_codes import UNKNOWN
from fhir_server.workers.message_tasks import IncomingMessage
from fhir_server.workers.posting.intake import interpret_remittance, loops_to_remittance
from fhir_server.workers.x12_acknowledgements import interpret_999, interpret_ta1
from fhir_server.workers.x12_eligibility import interpret_271, loops_to_answers
from fhir_server.workers.x12_statuses import interpret_statuses, loops_to_statuses
from fhir_server.writes.state import State
from mappers.x12.envelope import InterchangeAcknowledgement, TransactionSet, read_interchanges
from mappers.x12.fault import Fault, fault_to_issue, find_errors, place_segment
from mappers.x12.read_acknowledgement import read_999, ta1_to_answer
from mappers.x12.reader import Loops, explain_unread, read_set
from mappers.x12.segment import STANDARD, Segment, render_segment
from mappers.x12.tokenizer import decode_token, read_tokens
from mappers.x12.write_acknowledgement import SetResult, make_result, write_set_answer

MOST_REMARKS = 100
"""Remarks of one set that are kept."""

_NOT_SUPPORTED = "1"
_SEGMENT_ERRORS = "5"


class SetReader(NamedTuple):
    """How sets of one code are taken in.

    `read` is pure and gives what they say; `interpret` makes of that the entries and remarks of the message's
    transaction.
    """

    read: Callable[[Loops, TransactionSet], Any]
    interpret: Callable[[State, Any, IncomingMessage], Awaitable[tuple[Sequence[Entry], Sequence[Issue]]]]


READERS: dict[str, SetReader] = {
    "835": SetReader(loops_to_remittance, interpret_remittance),
    "999": SetReader(lambda loops, received: read_999(loops), interpret_999),
    "271": SetReader(loops_to_answers, interpret_271),
    "277": SetReader(loops_to_statuses, interpret_statuses),
    "TA1": SetReader(lambda loops, received: None, interpret_ta1),
}
"""ST01 → how it is taken in; what is not here is refused with IK502 1."""


class _Reading(NamedTuple):
    """A set as it was read. `reason`: why it is refused, else "". `content`: what its reader has made of it."""

    code: str
    answer: bytes
    issues: tuple[Issue, ...]
    reason: str
    content: Any = None


async def interpret(state: State, message: IncomingMessage) -> Interpretation | Refusal:
    """What a set says, in an envelope of its own; a refusal for a fault of the set or a code that is not taken in."""
    if message.partner == UNKNOWN:
        return Refusal("No partner's file names its sender; add it (docs/partners.md), and have it sent again.", b"")
    read = await state.context.long_work.run(len(message.raw), _read_message, message.raw)
    if read.reason:
        return Refusal(read.reason, read.answer, read.issues)
    entries, issues = await READERS[read.code].interpret(state, read.content, message)
    return Interpretation(entries, read.answer, (*read.issues, *issues))


def _read_message(raw: bytes) -> _Reading:
    events = list(read_interchanges(raw))
    sets = [each for each in events if isinstance(each, TransactionSet)]
    answers = [each for each in events if isinstance(each, InterchangeAcknowledgement)]
    if len(answers) == 1 and not sets:
        return _Reading("TA1", b"", (), "", ta1_to_answer(answers[0].ta1))
    if len(sets) != 1:
        return _Reading("", b"", (), f"The message has {len(sets)} transaction sets; each is kept by itself.")
    (received,) = sets
    loops, reader = read_set(received), READERS.get(received.code)
    faults = explain_set(received) if loops is None else loops.faults
    if loops is not None and reader is None:
        faults = (_explain_code(received),)
    answer, issues, reason = write_answer(received, faults), list_remarks(faults), describe_refusal(faults)
    if loops is None or reader is None or reason:
        return _Reading(received.code, answer, issues, reason)
    return _Reading(received.code, answer, issues, "", reader.read(loops, received))


def explain_set(received: TransactionSet) -> tuple[Fault, ...]:
    """Why a set without loops is refused: it broke a limit, or there is no table for it."""
    return received.faults if received.refused else (*received.faults, explain_unread(received))


def _explain_code(received: TransactionSet) -> Fault:
    taken = ", ".join(READERS)
    sentence = f"Transaction sets {received.code} are not taken in here; those that are: {taken}."
    return Fault(sentence, place_segment(received.st, "", 1), "set", _NOT_SUPPORTED)


def describe_refusal(faults: Iterable[Fault]) -> str:
    """The sentences of the faults for which a set is refused; "" where it is accepted."""
    return " ".join(each.sentence for each in find_errors(faults) if each.level == "set")


def list_remarks(faults: Sequence[Fault]) -> tuple[Issue, ...]:
    """The faults as they are kept with the Task."""
    issues = [fault_to_issue(each) for each in faults[:MOST_REMARKS]]
    if len(faults) > MOST_REMARKS:
        issues.append(Issue("warning", "too-long", f"{len(faults) - MOST_REMARKS} more remarks are left out."))
    return tuple(issues)


def write_answer(received: TransactionSet, faults: Iterable[Fault]) -> bytes:
    """AK2 to IK5 for a set, in the standard separators."""
    return render_answer(write_set_answer(make_result(received, faults)))


def render_answer(segments: Iterable[Segment]) -> bytes:
    """Segments in the standard separators."""
    return "".join(render_segment(each, STANDARD) for each in segments).encode("ascii", "replace")


def refuse_set(message: IncomingMessage, reason: str) -> bytes:
    """AK2 and IK5 for a set that could not be stored. Reads no more than its beginning."""
    tokens = (each for each in islice(read_tokens(message.raw), 5) if each.id == "ST")
    token = next(tokens, None)
    if token is None:
        return b""
    st = decode_token(token)
    result = SetResult(st.at(1), st.at(2), st.at(3), (Fault(reason, level="set", code=_SEGMENT_ERRORS),))
    return render_answer(write_set_answer(result))


X12 = Interpreter(interpret, refuse_set)
"""The row of X12."""
