"""Retention of the message log: what was acknowledged or closed long ago is removed; nothing else ever is.

What waits, is parked or was refused stays until a person has closed it, however old it is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import orjson

from fhir_server.fhir.datetimes import DAY, parse_interval
from fhir_server.requests.context import Context
from fhir_server.requests.parse_search import parse_search
from fhir_server.requests.request import Caller
from fhir_server.search.result_parameters import Options
from fhir_server.store.operations import Transaction
from fhir_server.workers.message_codes import (
    CONTROL_SYSTEM,
    PARTNER_SYSTEM,
    STATE_SYSTEM,
    TASK_SYSTEM,
    read_identifier,
)
from fhir_server.workers.message_states import STATES, MessageState, move_task, read_state
from fhir_server.workers.message_tasks import put
from fhir_server.writes.deciding import Decision, decide_and_commit
from fhir_server.writes.state import State

MOST_REMOVED = 10_000
"""Messages that one run removes at most; the next run goes on."""

_AT_ONCE = 200

Task = Mapping[str, Any]


class Removed(NamedTuple):
    """A message that retention removed: its Task's id, by what it is known, its last state and when that began."""

    id: str
    partner: str
    number: str
    state: MessageState
    modified: str


def select_removable(tasks: Iterable[Task], days: Mapping[str, int], now: int) -> list[Task]:
    """The Tasks that retention removes at a time (µs). `days` by partner; of a partner that is not in it, none."""
    return [task for task in tasks if _is_removable(task, days, now)]


def _is_removable(task: Task, days: Mapping[str, int], now: int) -> bool:
    state, partner = read_state(task), read_identifier(task, PARTNER_SYSTEM)
    if state is None or not STATES[state].removable:
        return False
    if state == "expired":  # its removal had begun
        return True
    return partner in days and parse_interval(task["lastModified"])[1] < now - days[partner] * DAY


async def remove_expired(
    context: Context, caller: Caller, days: Mapping[str, int], most: int = MOST_REMOVED
) -> list[Removed]:
    """Remove what `select_removable` selects, at most so many, with texts and histories, and tell what that was.

    Each Task is marked `expired` first by a write that asserts its version; then its Binary and itself are removed. A
    run that was cut short is finished by the next one. Provenance stays: it tells where a resource came from.
    """
    removed: list[Removed] = []
    async for tasks in _find_candidates(context, caller):
        for task in select_removable(tasks, days, context.clock()):
            if len(removed) == most:
                return removed
            last = await _mark(context, caller, task["id"], days)
            if last is None:
                continue
            await context.unrestricted.transact(Transaction(purged=(f"Binary/{task['id']}", f"Task/{task['id']}")))
            removed.append(last)
    return removed


async def _find_candidates(context: Context, caller: Caller) -> AsyncIterator[list[Task]]:
    """The Tasks in states that retention may remove, a page at a time."""
    states = ",".join(f"{STATE_SYSTEM}|{state}" for state, row in STATES.items() if row.removable)
    pairs = (("code", f"{TASK_SYSTEM}|"), ("business-status", states))
    options = Options(lenient=False, default_count=_AT_ONCE, max_count=_AT_ONCE)
    query = (await parse_search(context, ("Task",), pairs, caller, options)).query
    after = None
    while True:
        page = await context.unrestricted.search(replace(query, after=after))
        yield [orjson.loads(match.raw or b"{}") for match in page.matches]
        after = page.next
        if after is None:
            return


async def _mark(context: Context, caller: Caller, id: str, days: Mapping[str, int]) -> Removed | None:
    """Mark the Task as expired; what it was before. None where it has changed, so that it stays."""

    async def decide(state: State) -> Decision[Removed | None]:
        log = State(context, caller)
        found = await log.read("Task", id)
        if found is None or not _is_removable(found.tree, days, context.clock()):
            return Decision(None)
        task = {key: value for key, value in found.tree.items() if key != "meta"}
        before = read_state(task)
        assert before is not None
        partner, number = read_identifier(task, PARTNER_SYSTEM), read_identifier(task, CONTROL_SYSTEM)
        last = Removed(id, partner, number, before, task["lastModified"])
        if before == "expired":
            return Decision(last)
        # what it led to, such as the message that answered it, may have been removed before it; its issues go with it
        task.pop("output", None)
        task.pop("contained", None)
        return Decision(last, (put(move_task(task, "expired", context.clock())),), log.assertions)

    return (await decide_and_commit(context, caller, decide)).answer
