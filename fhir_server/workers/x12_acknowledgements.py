"""999 and TA1 for what was sent: to the delivery, and to the Tasks of its claims (005010X231A1, X12.5 TA1).

A delivery carries as its control number the ISA13 of its interchange, which GS06 repeats (`x12_partners.allot_number`).
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from functools import partial

import orjson

from fhir_server.fhir.outcome import Conflict, Issue
from fhir_server.requests.criteria import parse_criteria
from fhir_server.search.escapes import escape
from fhir_server.workers.interpreters import Entry
from fhir_server.workers.message_codes import (
    CONTROL_SYSTEM,
    DELIVERY,
    PARTNER_SYSTEM,
    TASK_SYSTEM,
    find_parts,
    make_part,
)
from fhir_server.workers.message_states import MessageState, move_task, read_state
from fhir_server.workers.message_tasks import IncomingMessage
from fhir_server.workers.posting.writes import copy
from fhir_server.workers.x12_claims import ClaimMove, Said, Source, ask_person, find_claims, move_claims, put_entry
from fhir_server.writes.state import State
from mappers.billing.fields import Resource
from mappers.x12.answered_claims import ClaimAnswer, apply_group_answer, apply_interchange_answer
from mappers.x12.fault import fault_to_issue
from mappers.x12.read_acknowledgement import GroupAnswer, InterchangeAnswer, describe_status


async def interpret_999(state: State, group: GroupAnswer, message: IncomingMessage) -> Said:
    """What a 999 says: the delivery is refused where no set of it was accepted, claims are received or rejected."""
    reason = f"The group was {describe_status(group.status)} (999)."
    refused = group.status == "R"
    read = partial(apply_group_answer, group=group)
    return await _answer_delivery(state, message, group.control_number, (refused, reason), read)


async def interpret_ta1(state: State, answer: InterchangeAnswer, message: IncomingMessage) -> Said:
    """What a TA1 says: the delivery and all of its claims are refused, or nothing else happens."""
    reason = f"The interchange was {describe_status(answer.status)} (TA1, code {answer.code})."
    read = partial(apply_interchange_answer, answer=answer)
    return await _answer_delivery(state, message, answer.control_number, (not answer.accepted, reason), read)


async def _answer_delivery(
    state: State,
    message: IncomingMessage,
    number: str,
    told: tuple[bool, str],
    read: Callable[[bytes], list[ClaimAnswer]],
) -> Said:
    refused, reason = told
    delivery = await find_delivery(state, message.partner, number)
    if delivery is None:
        text = f"{reason} Nothing was sent to `{message.partner}` under the control number `{number}`; look for it."
        return Said([ask_person(state, message.id, text)], [Issue("warning", "not-found", text)])
    sent = await read_sent(state, delivery)
    answers = await state.context.long_work.run(len(sent), read, sent)
    claims = await find_claims(state, (each.number for each in answers))
    moves = {each.number: _to_move(each) for each in answers if each.number in claims}
    said = await move_claims(state, claims, moves, Source(f"Task/{message.id}", f"Task/{delivery['id']}"))
    said.entries.insert(0, put_answered(state, delivery, "refused" if refused else "acknowledged", reason, message))
    if not sent:
        said.issues.append(Issue("warning", "not-found", f"The text of `Task/{delivery['id']}` is not kept any more."))
    return said


def _to_move(answer: ClaimAnswer) -> ClaimMove:
    issues = [fault_to_issue(each) for each in answer.faults]
    return ClaimMove("received" if answer.accepted else "rejected", answer.reason, issues)


def put_answered(state: State, delivery: Resource, to: MessageState, reason: str, message: IncomingMessage) -> Entry:
    """The delivery with the message that answers it, in its new state where that may follow."""
    try:
        moved = move_task(delivery, to, state.context.clock(), reason) if read_state(delivery) != to else delivery
    except Conflict:
        moved = delivery  # a person has closed it, or it was answered before
    output = make_part("result", valueReference={"reference": f"Task/{message.id}"})
    return put_entry({**moved, "output": [*moved.get("output", ()), output]})


async def find_delivery(state: State, partner: str, number: str) -> Resource | None:
    """The last delivery to a partner under a control number, with or without zeros before it; None where none was."""
    digits = number.strip().lstrip("0")
    if not digits:
        return None
    values = ",".join(f"{CONTROL_SYSTEM}|{escape(each)}" for each in (digits, f"{digits:0>9}"))
    pairs = (
        ("code", f"{TASK_SYSTEM}|{DELIVERY}"),
        ("group-identifier", f"{PARTNER_SYSTEM}|{escape(partner)}"),
        ("identifier", values),
    )
    found = await state.search("Task", await parse_criteria(state.context, "Task", pairs, state.caller))
    return copy(found[-1].tree) if found else None


async def read_sent(state: State, delivery: Resource) -> bytes:
    """The text of a delivery; b"" where it is not kept any more."""
    for part in find_parts(delivery, "text"):
        stored = await state.context.unrestricted.read("Binary", part["valueReference"]["reference"].partition("/")[2])
        if stored is not None and stored.raw is not None:
            return base64.b64decode(orjson.loads(stored.raw).get("data", ""))
    return b""
