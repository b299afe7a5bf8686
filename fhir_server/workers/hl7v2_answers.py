"""Answers to what a partner asked for a prescription, such as a refill: when one goes out, and what it says.

A request is a Task that came from the partner. It is answered once: by the change that completes or rejects it; where
a refill was completed with a renewal that is still a draft, by the change that makes the draft active or withdraws it,
since a draft approves nothing yet (docs/prescribing.md).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import orjson

from fhir_server.fhir.references import find_local_target
from fhir_server.requests.context import Context
from fhir_server.requests.criteria import parse_criteria
from fhir_server.requests.request import Caller
from fhir_server.search.query import Query, Scope
from fhir_server.store.protocol import Stored
from fhir_server.workers.hl7v2_origins import find_senders
from fhir_server.workers.hl7v2_told import read_at
from mappers.hl7v2.outbound.order_controls import ASKED, REFILL_ANSWERS, read_answer
from mappers.prescribing.codes import REFILL_REQUEST, TASK
from mappers.prescribing.refills import find_renewal

MOST_REQUESTS = 100
"""Requests that one renewal answers, of which the first of a partner counts."""

_MARKS = tuple(code.encode() for code in ASKED)

Resource = dict[str, Any]


class Answer(NamedTuple):
    """ORC-1, and the resource that the message is about."""

    control: str
    focus: Resource


def may_answer(version: Stored) -> bool:
    """Whether a Task may be one that a partner asked by; told from its text, since most Tasks are messages."""
    return version.raw is not None and any(mark in version.raw for mark in _MARKS)


async def find_task_answer(
    context: Context, caller: Caller, partner: str, version: Stored, before: Stored | None
) -> Answer | None:
    """How a Task answers a partner by its change to this version; None where it answers nothing, or another one."""
    task: Resource = orjson.loads(version.raw or b"{}")
    control = read_answer(task)
    if not control or _read_status(before) == task["status"]:
        return None
    if partner not in await find_senders(context, caller, version.reference):
        return None
    renewal = _find_target(context, caller, find_renewal(task)) if control == "AF" else ""
    if renewal:
        type, _, id = renewal.partition("/")
        status = _read_status(await read_at(context, type, id, version.last_updated))
        control = REFILL_ANSWERS.get(status, "DF" if status == "stopped" else "")
    return Answer(control, task) if control else None


async def find_renewal_answer(
    context: Context, caller: Caller, partner: str, version: Stored, before: Stored | None
) -> Answer | None:
    """How a prescription that leaves `draft` answers a partner's request for a refill, which names it as renewal."""
    renewal: Resource = orjson.loads(version.raw or b"{}")
    control = REFILL_ANSWERS.get(str(renewal.get("status", "")), "")
    if not control or _read_status(before) != "draft":
        return None
    pairs = (("output", version.reference), ("code", f"{TASK}|{REFILL_REQUEST}"))
    where = await parse_criteria(context, "Task", pairs, caller)
    found = await context.unrestricted.search(Query((Scope("Task", where),), count=MOST_REQUESTS))
    for each in found.matches:
        earlier = await read_at(context, "Task", each.id, version.last_updated - 1)
        if _read_status(earlier) != "completed" or partner not in await find_senders(context, caller, each.reference):
            continue
        if control == "AF":
            return Answer(control, renewal)
        task: Resource = orjson.loads(each.raw or b"{}")
        reason = renewal.get("statusReason") or task.get("statusReason")
        return Answer(control, {**task, **({"statusReason": reason} if reason else {})})
    return None


def _read_status(version: Stored | None) -> str:
    tree: Resource = orjson.loads(version.raw) if version is not None and version.raw is not None else {}
    return str(tree.get("status", ""))


def _find_target(context: Context, caller: Caller, reference: str) -> str:
    target = find_local_target(reference, context.bases.include(caller.base), context.types) or ""
    return target if target.startswith("MedicationRequest/") else ""
