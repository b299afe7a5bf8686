"""Offers times that became free to those who wait: one patient at a time, in the order of docs/scheduling.md.

The history of Appointments tells what became free, whatever the door; how far it was read is kept as `waitlist`. An
offer that expires or is declined goes back on the waitlist, and its time is free again and found in the same way.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from hashlib import sha256
from typing import NamedTuple

import orjson

from fhir_server.fhir.json_tree import decode
from fhir_server.fhir.outcome import FhirError, Issue
from fhir_server.fhir.resource import parse
from fhir_server.scheduling.availability import list_calendars, read_unseen
from fhir_server.scheduling.settle import Visit, find, plan_slots, settle, write_resource
from fhir_server.scheduling.site import read_site
from fhir_server.scheduling.surroundings import read_surroundings
from fhir_server.search.entries import SEPARATOR
from fhir_server.search.query import And, Equals, Query, Scope, StartsWith
from fhir_server.store.protocol import HistoryQuery, Stored
from fhir_server.workers.worker import StepResult, Turn
from fhir_server.writes.action import Action
from fhir_server.writes.deciding import Decision, decide_and_commit
from fhir_server.writes.state import State
from mappers.scheduling.calendars import Practice
from mappers.scheduling.elements import Resource, code_of, extension_value, list_types, reference_of, target_of
from mappers.scheduling.extensions import SCHEDULE_OWNER
from mappers.scheduling.free_times import FreeTime
from mappers.scheduling.intervals import MINUTE, Interval
from mappers.scheduling.waitlist import (
    OFFER,
    OFFERED_TIME,
    TASK_SYSTEM,
    judge_offer,
    list_freed,
    make_offer,
    name_time,
    offer_task,
    rank_candidates,
    read_offer,
    restore_waiting,
    task_of_offer,
    time_of,
)

MOST_WAITING = 5000
"""Appointments on the waitlist that are looked at for one time."""

_POSITION = "waitlist"
_AT_ONCE = 200
_OPEN = And((Equals("code", (f"{OFFER}{SEPARATOR}{TASK_SYSTEM}",)), StartsWith("status", f"requested{SEPARATOR}")))


class _Change(NamedTuple):
    """A version of an Appointment that took time, and what came after it (None: a deletion)."""

    key: str
    old: Resource
    new: Resource | None


async def offer_freed_times(turn: Turn) -> StepResult:
    """Close the offers that are over, then offer what became free since the last step."""
    closed = await _close_offers(turn)
    text = await turn.context.unrestricted.get_value(_POSITION)
    since = int(text) if text else None
    horizon, versions = await _read_history(turn, since)
    offered = 0
    if versions and turn.context.settings.offer_minutes and turn.context.settings.booking != "off":
        offered = await _offer_all(turn, versions)
    # a position that is never moved would be read from again and again
    if since is None or versions or horizon - since > MINUTE:
        await turn.check()
        await turn.context.unrestricted.put_value_if(_POSITION, str(horizon).encode(), text)
    return StepResult(closed + offered, f"{offered} offered, {closed} over" if closed + offered else "")


async def _read_history(turn: Turn, since: int | None) -> tuple[int, list[Stored]]:
    """(from when to read the next time, versions after the first of each Appointment, oldest first)."""
    store = turn.context.unrestricted
    if since is None:  # what became free before this worker was there is not offered
        return (await store.history(HistoryQuery(("Appointment",), count=1))).horizon, []
    page = await store.history(HistoryQuery(("Appointment",), since=since, count=_AT_ONCE))
    horizon, found = page.horizon, [*page.versions]
    while page.next is not None:
        page = await store.history(HistoryQuery(("Appointment",), since=since, count=_AT_ONCE, before=page.next))
        found += page.versions
    return horizon, [each for each in reversed(found) if each.version > 1]


async def _offer_all(turn: Turn, versions: list[Stored]) -> int:
    waiting = await _read_waiting(turn)
    offered = 0
    for stored in versions if waiting else ():
        before = await turn.context.unrestricted.vread("Appointment", stored.id, stored.version - 1)
        if before is None or before.raw is None:
            continue
        new = orjson.loads(stored.raw) if stored.raw is not None else None
        change = _Change(f"{stored.reference}/_history/{stored.version}", orjson.loads(before.raw), new)
        await turn.check()
        try:
            offered += await _offer(turn, change, waiting)
        except FhirError as error:
            turn.log("warning", "a time that became free was not offered", change=change.key, status=error.status)
    return offered


async def _read_waiting(turn: Turn) -> list[Resource]:
    """The Appointments on the waitlist; some of them where there are too many."""
    where = StartsWith("status", f"waitlist{SEPARATOR}")
    found: list[Resource] = []
    query: Query | None = Query((Scope("Appointment", where),), count=_AT_ONCE)
    while query is not None and len(found) < MOST_WAITING:
        page = await turn.context.unrestricted.search(query)
        found += [orjson.loads(each.raw or b"{}") for each in page.matches]
        query = Query(query.scopes, count=_AT_ONCE, after=page.next) if page.next is not None else None
    if query is not None:
        turn.log("warning", "some of the waitlist are not asked: it is too long", most=MOST_WAITING)
    return found


async def _offer(turn: Turn, change: _Change, waiting: list[Resource]) -> int:
    """1 when the time was offered to somebody. Of one change there is one offer, however often this is called."""
    id = sha256(change.key.encode()).hexdigest()[:32]

    async def decide(_: State) -> Decision[int]:
        state = State(turn.context, turn.caller)
        practice = await read_site(state)
        time = await _find_time(state, change, practice)
        if time is None or time.start <= turn.context.clock() or await state.read("Task", id) is not None:
            return Decision(0)
        tasks = await find(state, {"Task": Equals("identifier", (f"{name_time(time)}{SEPARATOR}{OFFERED_TIME}",))})
        asked = {target_of(task.get("focus")) for task in tasks}

        actors = [each.actor for each in time.calendars]
        around = await read_surroundings(
            partial(read_unseen, turn.context), actors, Interval(time.start, time.end), practice, turn.context.clock()
        )
        for candidate in rank_candidates(waiting, time, around.occupied, practice, asked):
            decision = await _try(turn, candidate["id"], time, practice, f"Task/{id}")
            if decision is not None:
                return replace(decision, assertions=(*decision.assertions, *state.assertions))
        return Decision(0)

    return (await decide_and_commit(turn.context, turn.caller, decide)).answer


async def _find_time(state: State, change: _Change, practice: Practice) -> FreeTime | None:
    """What became free on Schedules of our own; None where nothing did."""
    schedules = [
        each
        for each in list_freed(change.old, change.new, practice)
        if extension_value(each, SCHEDULE_OWNER) is None  # a partner's system says who comes when there
    ]
    calendars, _ = list_calendars(state.context, schedules, list_types(change.old), practice)
    task = task_of_offer(change.old)
    stored = await state.read("Task", task.partition("/")[2]) if task else None
    whole = read_offer(dict(stored.tree))[0] if stored is not None else None
    time = time_of(change.old, tuple(calendars), whole)
    return None if isinstance(time, Issue) or not calendars else time


async def _try(turn: Turn, id: str, time: FreeTime, practice: Practice, task: str) -> Decision[int] | None:
    """The offer to one who waits; None where the patient or another rule is in the way."""
    context, now = turn.context, turn.context.clock()
    state = State(context, turn.caller)
    current = await state.read("Appointment", id)
    if current is None or code_of(dict(current.tree)) != "waitlist":
        return None
    old = dict(current.tree)
    until = min(now + context.settings.offer_minutes * MINUTE, time.start)
    new = make_offer(old, time, until, practice, task)
    settled = await settle(state, Visit(new, old, practice, now, operation=True))
    if any(each.kind != "grid" for each in settled.refusals):  # what was booked off the grid is offered so
        return None
    appointment, actions = await plan_slots(state, settled)
    told = {**offer_task(new, time, current.version, now, until), "id": task.partition("/")[2]}
    put = Action("PUT", "Task", told["id"], id=told["id"], text=parse(orjson.dumps(told)))
    writes = (write_resource(appointment, old), *actions, put)
    return Decision(1, writes, tuple(state.assertions), tuple(state.locks))


async def _close_offers(turn: Turn) -> int:
    """How many offers are over: taken, declined, expired or changed by somebody."""
    closed = 0
    for task in await read_unseen(turn.context, {"Task": _OPEN}):
        await turn.check()
        try:
            closed += await _close(turn, task["id"])
        except FhirError as error:
            turn.log("warning", "an offer was left as it is", task=task["id"], status=error.status)
    return closed


async def _close(turn: Turn, id: str) -> int:
    async def decide(_: State) -> Decision[int]:
        state = State(turn.context, turn.caller)
        stored = await state.read("Task", id)
        task = dict(stored.tree) if stored is not None else {}
        focus = target_of(task.get("focus")).partition("/")[2]
        offered = await state.read("Appointment", focus) if focus else None
        appointment = dict(offered.tree) if offered is not None else None
        status, reason = judge_offer(task, appointment, turn.context.clock())
        if stored is None or status == "requested" or code_of(task) != "requested":
            return Decision(0)
        told = {**task, "status": status, "statusReason": {"text": reason}}
        actions = [write_resource(told, task)]
        if appointment is not None and task_of_offer(appointment) == reference_of(task):
            actions.append(await _give_back(turn, task, appointment))
        return Decision(1, actions, tuple(state.assertions), tuple(state.locks))

    return (await decide_and_commit(turn.context, turn.caller, decide)).answer


async def _give_back(turn: Turn, task: Resource, appointment: Resource) -> Action:
    """The change of an offer into what it was on the waitlist; its Slots follow by the rule of booking."""
    version = read_offer(task)[1]
    stored = await turn.context.unrestricted.vread("Appointment", appointment["id"], version) if version else None
    before = decode(stored.raw) if stored is not None and stored.raw is not None else None

    def patch(tree: Resource) -> Resource:
        return restore_waiting(tree, before)

    return Action("PATCH", "Appointment", "", id=appointment["id"], patch=patch)
