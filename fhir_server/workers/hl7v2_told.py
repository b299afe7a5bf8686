"""What a partner was told of a resource before a version: the newest one that was sent to it, or came from it."""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from fhir_server.requests.context import Context
from fhir_server.requests.criteria import parse_criteria
from fhir_server.requests.request import Caller
from fhir_server.search.escapes import escape
from fhir_server.search.query import Query, Scope
from fhir_server.store.protocol import Stored
from fhir_server.workers.hl7v2_origins import find_senders
from fhir_server.workers.message_codes import MESSAGE_SYSTEM, find_parts, read_identifier
from fhir_server.workers.message_deliveries import Delivery

LOOK = 50
"""Earlier versions that are looked for at once."""

LOOKS = 20
"""Looks for one change: of a resource with more than 1,000 versions the older ones are not looked for."""


async def find_told(
    context: Context, caller: Caller, partner: str, version: Stored, pending: Sequence[Delivery]
) -> Stored | None:
    """The newest earlier version that a partner was sent or sent itself; None where it knows of none.

    `pending`: deliveries that are about to be written. A version whose message a person closed, or that could not be
    written, was not told.
    """
    own = [each for each in pending if (each.partner, each.resource) == (partner, version.reference)]
    sent = max((each.version for each in own if each.payload and each.version < version.version), default=0)
    sent = sent or await _find_sent(context, caller, partner, version)
    senders = await find_senders(context, caller, version.reference)
    number = await _find_brought(context, version, sent, senders.get(partner, set())) or sent
    return await context.unrestricted.vread(version.type, version.id, number) if number else None


async def _find_sent(context: Context, caller: Caller, partner: str, version: Stored) -> int:
    """The number of the newest earlier version that a delivery tells of; 0 without one."""
    newest = version.version - 1
    for _ in range(LOOKS):
        numbers = range(newest, max(0, newest - LOOK), -1)
        if not numbers:
            return 0
        keys = {f"{partner}/{version.reference}/{number}": number for number in numbers}
        value = ",".join(f"{MESSAGE_SYSTEM}|{escape(key)}" for key in keys)
        where = await parse_criteria(context, "Task", (("identifier", value),), caller)
        found = await context.unrestricted.search(Query((Scope("Task", where),), count=LOOK))
        tasks = [orjson.loads(each.raw) for each in found.matches if each.raw]
        told = [task for task in tasks if task["status"] != "cancelled" and find_parts(task, "text")]
        if told:
            return max(keys[read_identifier(task, MESSAGE_SYSTEM)] for task in told)
        newest -= LOOK
    return 0


async def _find_brought(context: Context, version: Stored, sent: int, times: set[int]) -> int:
    """The number of the newest version after `sent` that has one of these times, those of a partner's messages."""
    if not times:
        return 0
    for number in range(version.version - 1, max(sent, version.version - 1 - LOOK), -1):
        stored = await context.unrestricted.vread(version.type, version.id, number)
        if stored is not None and stored.last_updated in times:
            return number
    return 0


async def read_at(context: Context, type: str, id: str, moment: int) -> Stored | None:
    """The version of a resource that was current at a time (µs); None before the first, or behind very many."""
    current = await context.unrestricted.read(type, id)
    for _ in range(LOOK):
        if current is None or current.last_updated <= moment:
            return current
        current = await context.unrestricted.vread(type, id, current.version - 1) if current.version > 1 else None
    return None
