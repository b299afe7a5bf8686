"""What waits to go to each partner, and how far the feed is read from which it is made (docs/mappers/hl7v2-out.md)."""

from __future__ import annotations

from typing import NamedTuple

from fhir_server.requests.context import Context
from fhir_server.requests.criteria import parse_criteria
from fhir_server.requests.request import Caller
from fhir_server.search.escapes import escape
from fhir_server.search.query import Query, Scope
from fhir_server.workers.feed import read_lag
from fhir_server.workers.hl7v2_sending import FEED
from fhir_server.workers.message_codes import DELIVERY, PARTNER_SYSTEM, STATE_SYSTEM, TASK_SYSTEM
from fhir_server.workers.message_states import MessageState
from fhir_server.workers.partner_pauses import read_pauses

COUNTED: tuple[MessageState, ...] = ("waiting", "claimed", "sent-unanswered", "refused", "parked")
"""The states that are counted: all that is not done with."""


class QueueRow(NamedTuple):
    """A partner, since when it is paused (""), and how many deliveries to it are in each state."""

    partner: str
    paused: str
    counts: dict[MessageState, int]


async def read_queue(context: Context, caller: Caller) -> list[QueueRow]:
    """A row for each partner."""
    pauses = await read_pauses(context)
    rows = []
    for name in context.partners:
        counts = {state: await _count(context, caller, name, state) for state in COUNTED}
        rows.append(QueueRow(name, pauses.get(name, ""), counts))
    return rows


async def _count(context: Context, caller: Caller, partner: str, state: MessageState) -> int:
    pairs = (
        ("code", f"{TASK_SYSTEM}|{DELIVERY}"),
        ("group-identifier", f"{PARTNER_SYSTEM}|{escape(partner)}"),
        ("business-status", f"{STATE_SYSTEM}|{state}"),
    )
    where = await parse_criteria(context, "Task", pairs, caller)
    reader = context.reader(caller)
    return await reader.count(Query((Scope("Task", reader.restrict_clause("Task", where)),)))


async def read_feed_lag(context: Context) -> int | None:
    """Seconds that the queue is behind what is written; None where that is not known."""
    return await read_lag(context.unrestricted, FEED, context.clock)
