"""What turns a message into resources: one interpreter for each format (docs/adding/a-mapper.md)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from fhir_server.fhir.outcome import Issue
from fhir_server.workers.message_tasks import IncomingMessage
from fhir_server.writes.state import State

Entry = Mapping[str, Any]
"""A Bundle entry: `request` (method, url, ifNoneExist …), `resource`, and `fullUrl` where others refer to it."""


@dataclass(frozen=True, slots=True)
class Interpretation:
    """What a message says: the entries of its transaction, remarks, and the acknowledgement once they are stored.

    `patient`: the reference or full URL of the patient it is about; left out, that of the first Patient entry.
    """

    entries: Sequence[Entry]
    acknowledgement: bytes
    issues: Sequence[Issue] = ()
    patient: str = ""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a message is not taken, as a full sentence, and the acknowledgement that says so."""

    reason: str
    acknowledgement: bytes
    issues: Sequence[Issue] = ()


def accept_answer(answer: bytes) -> str:
    """The `read_answer` of a format whose answers never refuse."""
    return ""


class Interpreter(NamedTuple):
    """The row of a format.

    `interpret` may read through the State, asks a pure mapper, and is asked again when what it read has changed.
    `refuse` writes the acknowledgement for a message that could not be stored, with the reason. `read_answer` reads
    what came back for a delivery: the reason where it refuses, "" where it accepts. `refuse_reused` is `refuse` for a
    control number that came before with another text, where the format has a code for that.
    """

    interpret: Callable[[State, IncomingMessage], Awaitable[Interpretation | Refusal]]
    refuse: Callable[[IncomingMessage, str], bytes]
    read_answer: Callable[[bytes], str] = accept_answer
    refuse_reused: Callable[[IncomingMessage, str], bytes] | None = None


def map_alone(mapper: Callable[[IncomingMessage], Interpretation | Refusal]) -> Callable[..., Any]:
    """The `interpret` of a mapper that needs to read nothing."""

    async def interpret(state: State, message: IncomingMessage) -> Interpretation | Refusal:
        return mapper(message)

    return interpret
