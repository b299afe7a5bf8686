"""What the message log stores of one message: Task, Binary and Provenance (https://hl7.org/fhir/R4/task.html)."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from fhir_server.fhir.datetimes import format_instant
from fhir_server.fhir.outcome import Issue, build_operation_outcome
from fhir_server.fhir.resource import Text
from fhir_server.workers.message_codes import (
    CONTROL_SYSTEM,
    INTAKE,
    LONGEST_NUMBER,
    MESSAGE_SYSTEM,
    PARTNER_SYSTEM,
    clean_text,
    code_task,
    make_acknowledgement,
    make_part,
)
from fhir_server.workers.message_states import STATES, MessageState, code_state
from fhir_server.writes.action import Action

LARGEST_MESSAGE = 10 * 1024 * 1024
"""Bytes of a text that are kept: as base64 in a Binary it has to fit a document of 16 MB."""

_ID_DIGITS = 32
"""Hexadecimal digits of a SHA-256 that make an id: 128 bits."""

BEGINNING = 256
"""Bytes that are kept of a text that is too large."""


@dataclass(frozen=True, slots=True)
class IncomingMessage:
    """One HL7 v2 message as it came, or one X12 transaction set in an envelope of its own.

    `control_number`: what names it to its sender, unique together with the partner (X12: of interchange, group and
    set). `refuse_reused`: the partner never gives a number twice, so that the same number with another text is refused.
    `received`: when it came (µs), for acknowledgements that tell a time. `hash`: the SHA-256 of its text, as
    hexadecimal digits, where that is not all of `raw` (X12: from ST to SE).
    """

    partner: str
    format: str
    control_number: str
    raw: bytes
    content_type: str
    refuse_reused: bool = False
    received: int = 0
    hash: str = ""

    number: str = field(init=False)
    """The control number as the log keeps it."""
    id: str = field(init=False)
    """The id of its Task, Binary and Provenance: the same for the same partner, control number and text."""

    def __post_init__(self) -> None:
        number, digest = clean_text(self.control_number, LONGEST_NUMBER), self.hash or hash_text(self.raw)
        object.__setattr__(self, "number", number)
        object.__setattr__(self, "hash", digest)
        object.__setattr__(self, "id", derive_id(self.partner, number, digest))


def hash_text(text: bytes) -> str:
    """The SHA-256 of a text, as hexadecimal digits."""
    return hashlib.sha256(text).hexdigest()


def derive_id(*parts: str | int) -> str:
    """The id that these parts always have: the beginning of a SHA-256."""
    return hashlib.sha256(orjson.dumps(parts)).hexdigest()[:_ID_DIGITS]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a message fared: its state, the acknowledgement, the issues, and what was made (references, deletions)."""

    state: MessageState
    acknowledgement: bytes
    reason: str = ""
    issues: Sequence[Issue] = ()
    made: Sequence[str] = ()
    deletions: Sequence[str] = ()
    patient: str = ""


def name_message(partner: str, number: str, digest: str) -> str:
    """The value of the identifier of a message's Task; without a hash, how those of one control number begin."""
    return f"{partner}/{number}/{digest}"


def make_binary(id: str, content_type: str, raw: bytes) -> Action:
    """The Binary that holds the raw bytes."""
    data = {"data": base64.b64encode(raw).decode()} if raw else {}
    return put({"resourceType": "Binary", "id": id, "contentType": content_type, **data})


def make_issues(issues: Sequence[Issue]) -> dict[str, Any]:
    """The OperationOutcome that a Task contains; {} without issues."""
    remarks = [replace(each, diagnostics=clean_text(each.diagnostics)) for each in issues]
    return {**build_operation_outcome(remarks), "id": "issues"} if remarks else {}


def make_intake_task(message: IncomingMessage, outcome: Outcome, received: str, now: int, keeps_text: bool) -> Action:
    """The Task of a message. `received`: when it first came; `now` (µs): when it was last tried."""
    remarks = make_issues(outcome.issues)
    issues = {"contained": [remarks]} if remarks else {}
    outputs = [
        *(make_part("result", valueReference={"reference": each}) for each in outcome.made),
        *(make_part("deletion", valueString=clean_text(each)) for each in outcome.deletions),
        *make_acknowledgement(outcome.acknowledgement),
        *([make_part("issues", valueReference={"reference": "#issues"})] if issues else ()),
    ]
    beginning = base64.b64encode(message.raw[:BEGINNING]).decode()
    text = (
        make_part("text", valueReference={"reference": f"Binary/{message.id}"})
        if keeps_text
        else make_part("beginning", valueBase64Binary=beginning)
    )
    number = [{"system": CONTROL_SYSTEM, "value": message.number}] if message.number else []
    key = name_message(message.partner, message.number, message.hash)
    return put(
        {
            "resourceType": "Task",
            "id": message.id,
            **issues,
            "identifier": [{"system": MESSAGE_SYSTEM, "value": key}, *number],
            "groupIdentifier": {"system": PARTNER_SYSTEM, "value": message.partner},
            "status": STATES[outcome.state].status,
            **({"statusReason": {"text": clean_text(outcome.reason)}} if outcome.reason else {}),
            "businessStatus": code_state(outcome.state),
            "intent": "order",
            "code": code_task(INTAKE),
            **({"for": {"reference": outcome.patient}} if outcome.patient else {}),
            "authoredOn": received,
            "lastModified": format_instant(now),
            "input": [text, make_part("format", valueCode=message.format)],
            **({"output": outputs} if outputs else {}),
        }
    )


def make_provenance(message: IncomingMessage, outcome: Outcome, now: int) -> Action:
    """The Provenance of what a message made; of its Task where it made nothing."""
    partner = {"identifier": {"system": PARTNER_SYSTEM, "value": message.partner}, "display": message.partner}
    targets = outcome.made or (f"Task/{message.id}",)
    return put(
        {
            "resourceType": "Provenance",
            "id": message.id,
            "target": [{"reference": each} for each in targets],
            "recorded": format_instant(now),
            "agent": [{"who": partner}],
            "entity": [{"role": "source", "what": {"reference": f"Binary/{message.id}"}}],
        }
    )


def put(resource: dict[str, Any]) -> Action:
    """The update that stores a resource under its own id."""
    id: str = resource["id"]
    return Action("PUT", resource["resourceType"], id, id=id, text=Text(orjson.dumps(resource), resource))
