"""Tidies holds that have expired: their time is free already, what is left of them is cancelled and deleted.

A hold stops to take its time at the instant at which it expires; nothing depends on when this worker comes.
"""

from __future__ import annotations

from collections.abc import Iterable

import orjson

from fhir_server.fhir.outcome import FhirError
from fhir_server.search.entries import SEPARATOR
from fhir_server.search.query import Query, Scope, StartsWith
from fhir_server.workers.worker import StepResult, Turn
from fhir_server.writes.action import Action
from fhir_server.writes.commit import commit
from mappers.scheduling.elements import Resource, code_of, hold_expired
from mappers.scheduling.waitlist import task_of_offer

_AT_ONCE = 200


def select_expired(appointments: Iterable[Resource], now: int) -> list[Resource]:
    """The pending Appointments whose hold is over; offers to the waitlist have a worker of their own."""
    return [
        each
        for each in appointments
        if code_of(each) == "pending" and hold_expired(each, now) and not task_of_offer(each)
    ]


def release(tree: Resource) -> Resource:
    """The Appointment of a hold that nobody took; its Slots follow by the rule of booking."""
    return {**tree, "status": "cancelled", "cancelationReason": {"text": "The hold expired."}}


async def tidy_holds(turn: Turn) -> StepResult:
    """Cancel holds that have expired, each as it was read; one that was booked meanwhile is left alone."""
    context, done = turn.context, 0
    query: Query | None = _query_pending(None)
    while query is not None:
        page = await context.unrestricted.search(query)
        trees = {match.id: (match, orjson.loads(match.raw or b"{}")) for match in page.matches}
        for expired in select_expired((tree for _, tree in trees.values()), context.clock()):
            await turn.check()
            match, _ = trees[expired["id"]]
            action = Action("PATCH", "Appointment", "", id=match.id, patch=release, if_match=match.version)
            try:
                await commit(context, action, turn.caller)
                done += 1
            except FhirError as error:
                turn.log("warning", "An expired hold was left as it is.", appointment=match.id, status=error.status)
        query = _query_pending(page.next) if page.next is not None else None
    return StepResult(0, str(done))


def _query_pending(after: tuple[int | float | str | None, ...] | None) -> Query:
    where = StartsWith("status", f"pending{SEPARATOR}")
    return Query((Scope("Appointment", where),), count=_AT_ONCE, after=after)
