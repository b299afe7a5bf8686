"""Claims that a partner has not answered in time: a Task for each 837P asks a person to look (docs/x12.md).

A claim that is `sent` waits for the 999, one that is `received` for the 277CA; how long is the partner's `answer_days`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import orjson

from fhir_server.fhir.datetimes import DAY, parse_interval
from fhir_server.requests.context import Context
from fhir_server.search.entries import SEPARATOR
from fhir_server.search.query import And, Bound, DateRange, Equals
from fhir_server.security.access import Reader
from fhir_server.workers.message_codes import CONTROL_SYSTEM, PARTNER_SYSTEM, read_identifier
from fhir_server.workers.posting.reading import find_each
from fhir_server.workers.posting.writes import name, put, read_now
from fhir_server.workers.worker import StepResult, Turn
from fhir_server.writes.deciding import Decision, decide_and_commit
from fhir_server.writes.state import State
from mappers.billing import codes
from mappers.billing.claim_states import CODE, list_outputs, read_state
from mappers.billing.fields import Resource, find_reference, make_task

AWAITED = {"sent": "999", "received": "277CA"}
"""State of a claim → the answer that takes it on."""

_SHOWN = 20
"""Claims that a sentence names."""


class _Unanswered(NamedTuple):
    """The 837P (`Task/id` of its delivery), its partner and control number, and the state that its claims stay in."""

    delivery: str
    partner: str
    number: str
    state: str


async def step_unanswered(turn: Turn) -> StepResult:
    """One look at all claims that wait for a 999 or 277CA."""
    await turn.check()
    partners = turn.context.partners.values()
    days = {each.name: each.x12.answer_days for each in partners if each.x12 and each.x12.answer_days}
    asked = 0
    for late, claims in (await _list_late(turn.context, days) if days else {}).items():
        await turn.check()
        asked += await _ask(turn, late, claims)
    return StepResult(0, f"{asked} asked")


async def _list_late(context: Context, days: Mapping[str, int]) -> dict[_Unanswered, list[str]]:
    """The claims that have waited longer than their partner may take, by what they went out in."""
    reader, now = Reader(context.unrestricted, None), context.clock()
    states = tuple(f"{each}{SEPARATOR}{codes.CLAIM_STATE}" for each in AWAITED)
    before = DateRange("modified", (Bound("high", "lt", now - min(days.values()) * DAY),))
    of_claims = Equals("code", (f"{CODE}{SEPARATOR}{codes.TASK}",))
    late: dict[_Unanswered, list[str]] = {}
    sent: dict[str, Resource] = {}
    async for task in find_each(reader, "Task", And((of_claims, Equals("business-status", states), before))):
        delivery = next(reversed(list_outputs(task, "transmission")), "")
        if delivery not in sent:
            stored = await reader.read("Task", delivery.partition("/")[2]) if delivery else None
            sent[delivery] = {} if stored is None or stored.raw is None else orjson.loads(stored.raw)
        partner = read_identifier(sent[delivery], PARTNER_SYSTEM)
        if partner in days and parse_interval(task["lastModified"])[1] < now - days[partner] * DAY:
            number = read_identifier(sent[delivery], CONTROL_SYSTEM)
            key = _Unanswered(delivery, partner, number, str(read_state(task)))
            late.setdefault(key, []).append(find_reference(task.get("focus")))
    return late


async def _ask(turn: Turn, late: _Unanswered, claims: Sequence[str]) -> int:
    """Store the Task that asks, unless there was one. How many Tasks are new."""
    named = ", ".join(f"`{each}`" for each in claims[:_SHOWN])
    more = f" and {len(claims) - _SHOWN} more" if len(claims) > _SHOWN else ""
    text = (
        f"`{late.partner}` has sent no {AWAITED[late.state]} for the 837P {late.number} in time: {named}{more}. "
        "Ask the partner; what never arrived is sent again with `resubmit` and frequency 1."
    )

    async def decide(state: State) -> Decision[int]:
        key = f"unanswered:{late.delivery}:{late.state}"
        task = name(make_task("claim-status", key, "", read_now(state.context), text))
        if await state.read("Task", task["id"]) is not None:
            return Decision(0)
        return Decision(1, (put(task),))

    return (await decide_and_commit(turn.context, turn.caller, decide)).answer
