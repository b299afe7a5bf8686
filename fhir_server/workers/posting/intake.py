"""An 835 as it comes in: its draft, or the Task that says why it does not post; and the remittance of a draft again."""

from __future__ import annotations

from typing import Any

import orjson

from fhir_server.fhir.outcome import Issue
from fhir_server.workers.message_tasks import IncomingMessage
from fhir_server.workers.posting.remittances import Taken, take_remittance
from fhir_server.workers.posting.writes import encode
from fhir_server.writes.state import State
from mappers.billing.remittance import Remittance
from mappers.x12.envelope import TransactionSet, read_interchanges
from mappers.x12.neutral_remittance import to_neutral
from mappers.x12.reader import Loops, read_set
from mappers.x12.remittance import read_remittance


def read_sets(raw: bytes) -> list[TransactionSet]:
    """The 835s of a text with its envelope."""
    return [each for each in read_interchanges(raw) if isinstance(each, TransactionSet) and each.code == "835"]


def to_remittance(received: TransactionSet) -> Remittance | None:
    """The remittance of a transaction set; None where it is no 835 that can be read, or broke a limit."""
    loops = None if received.refused else read_set(received)
    return None if loops is None else loops_to_remittance(loops, received)


def loops_to_remittance(loops: Loops, received: TransactionSet) -> Remittance:
    """The remittance of the loops of a transaction set."""
    return to_neutral(read_remittance(loops), received.faults)


async def interpret_remittance(
    state: State, remittance: Remittance, message: IncomingMessage
) -> tuple[list[dict[str, Any]], list[Issue]]:
    """The entries of the transaction of a message, and remarks."""
    taken = await take_remittance(state, remittance, source=f"Task/{message.id}")
    issues = [Issue("warning", "business-rule", each) for each in taken.warnings]
    if taken.posted is not None:
        issues.append(Issue("information", "duplicate", _describe(taken)))
    made = taken.draft or taken.task
    if made is None or (made is taken.task and await state.read("Task", made["id"]) is not None):
        return [], issues
    resource = orjson.loads(encode(made))
    return [{"request": {"method": "PUT", "url": f"{made['resourceType']}/{made['id']}"}, "resource": resource}], issues


def _describe(taken: Taken) -> str:
    posted = taken.posted or {}
    again = "nothing was posted again" if taken.task is None else "a Task asks for a decision"
    return f"This remittance is `PaymentReconciliation/{posted.get('id')}` already; {again}."
