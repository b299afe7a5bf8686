"""The workers of the message log: one sends what waits to go out, the other removes what its retention has passed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fhir_server.requests.context import Context
from fhir_server.search.escapes import escape
from fhir_server.transports.protocol import DeliveryResult
from fhir_server.workers.delivery_item import Answer, Group, Outbox
from fhir_server.workers.formats import INTERPRETERS
from fhir_server.workers.hl7v2_sends import find_out_section
from fhir_server.workers.message_codes import (
    DELIVERY,
    PARTNER_SYSTEM,
    TASK_SYSTEM,
    UNKNOWN,
    find_parts,
    make_acknowledgement,
    make_part,
    read_identifier,
)
from fhir_server.workers.message_deliveries import is_change, prepare_sending
from fhir_server.workers.message_retention import MOST_REMOVED, remove_expired
from fhir_server.workers.partner_pauses import read_paused
from fhir_server.workers.worker import StepResult, Turn
from fhir_server.writes.pending_writes import Tree


def read_answer(context: Context, task: Tree, result: DeliveryResult) -> Answer:
    """What came back, kept as it came; the interpreter of the format says whether it refuses.

    A change that its partner refuses is sent again some times, and then waits for a person.
    """
    outputs: list[dict[str, Any]] = make_acknowledgement(result.answer)
    formats = [part["valueCode"] for part in find_parts(task, "format")]
    interpreter = INTERPRETERS.get(formats[0]) if formats else None
    reason = result.reason if result.outcome == "refused" else ""
    if not reason and result.answer and interpreter is not None:
        reason = interpreter.read_answer(result.answer)
    out = find_out_section(context.partners.get(read_identifier(task, PARTNER_SYSTEM))) if reason else None
    if out is None or not is_change(task):
        return Answer("rejected" if reason else "completed", reason, outputs)
    tries = next((int(part["valueInteger"]) for part in find_parts(task, "tries")), 0) + 1
    outputs.append(make_part("tries", valueInteger=tries))
    told = f"{reason} (try {tries} of {out.tries})"
    return Answer("requested" if tries < out.tries else "on-hold", told, outputs, seconds=out.retry_seconds)


def list_groups(context: Context) -> Sequence[Group]:
    """A group for each partner, and one for what goes to partners that have no file any more."""
    system = f"{PARTNER_SYSTEM}|"
    names = [system + escape(name) for name in context.partners]
    others = (("group-identifier:not", ",".join(names)),) if names else ()
    own = (Group(name, (("group-identifier", system + escape(name)),)) for name in context.partners)
    return (*own, Group("", others))


OUTBOX = Outbox(
    (("code", f"{TASK_SYSTEM}|{DELIVERY}"),), prepare_sending, read_answer, list_groups, is_change, read_paused
)


async def step_retention(turn: Turn) -> StepResult:
    """One run of retention by the days that the partners' files say; the log names each message that was removed.

    Of senders that no file names, what a person has closed goes after the longest of these.
    """
    await turn.check()
    partners = turn.context.partners.values()
    days = {partner.name: partner.retention_days for partner in partners if partner.retention_days is not None}
    if days:
        days.setdefault(UNKNOWN, max(days.values()))
    removed = await remove_expired(turn.context, turn.caller, days)
    for each in removed:
        turn.log("info", "message removed", item=f"Task/{each.id}", partner=each.partner, state=each.state)
    return StepResult(len(removed) if len(removed) == MOST_REMOVED else 0, f"{len(removed)} removed")
