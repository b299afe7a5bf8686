"""Posts the remittances that were taken in, the oldest first and one after the other (docs/payments.md)."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import orjson

from fhir_server.fhir.outcome import FhirError
from fhir_server.requests.context import Context
from fhir_server.requests.describe_error import describe_error
from fhir_server.requests.store_errors import store_error_to_fhir_error
from fhir_server.search.entries import SEPARATOR
from fhir_server.search.query import And, Or, Query, Scope, StartsWith
from fhir_server.store.protocol import StoreError, StoreUnavailable, WriteConflict
from fhir_server.workers.lease import LeaseLost
from fhir_server.workers.posting.claims import find_payer
from fhir_server.workers.posting.closings import read_posting_day
from fhir_server.workers.posting.intake import read_sets, to_remittance
from fhir_server.workers.posting.remittances import (
    SLICE,
    activate,
    draft_slice,
    finish_slice,
    finish_without,
    list_details,
    read_settings,
)
from fhir_server.workers.posting.writes import copy, name, put, read_now
from fhir_server.workers.worker import StepResult, Stopping, Turn
from fhir_server.writes.deciding import Decision, decide_and_commit
from fhir_server.writes.state import State
from mappers.billing import codes
from mappers.billing.fields import Resource, find_identifier, find_reference, make_reference, make_task
from mappers.billing.posting import name_response
from mappers.billing.remittance import Remittance

_WAITING = 50


async def step_postings(turn: Turn) -> StepResult:
    """One remittance to its end. What cannot be posted is cancelled with a Task, and stops no other."""
    waiting = await _find_waiting(turn.context)
    if not waiting:
        return StepResult(0, "nothing waits", 0)
    draft = min(waiting, key=lambda each: (each.get("outcome") != "partial", str(each["created"]), each["id"]))
    remittance = await read_source(turn.context, draft)
    if remittance is None:
        reason = "Its text is gone, or is not the remittance that it was made of."
        await _cancel(turn, draft, f"The remittance could not be posted. {reason} Send it again.")
    else:
        await _post(turn, draft, remittance)
    return StepResult(1, draft["id"], len(waiting) - 1)


async def _find_waiting(context: Context) -> list[Resource]:
    """Remittances that wait or are being posted, some of them if there are many."""
    where = Or(tuple(StartsWith("outcome", f"{each}{SEPARATOR}") for each in ("queued", "partial")))
    found: list[Resource] = []
    query: Query | None = Query((Scope("PaymentReconciliation", where),), count=_WAITING)
    while query is not None and len(found) < _WAITING:
        page = await context.unrestricted.search(query)
        trees = (orjson.loads(each.raw or b"{}") for each in page.matches)
        found += [each for each in trees if _waits(each)]
        after = page.next
        query = Query(query.scopes, count=_WAITING, after=after) if after is not None else None
    return found


def _waits(payment: Resource) -> bool:
    state = (payment.get("status"), payment.get("outcome"))
    return bool(find_identifier(payment, codes.REMITTANCE_KEY)) and state in (
        ("draft", "queued"),
        ("active", "partial"),
    )


async def read_source(context: Context, draft: Resource) -> Remittance | None:
    """The remittance that a draft was made of, from the text of its message; None where it is another or gone."""
    task = find_reference(draft.get("request")).removeprefix("Task/")
    stored = await context.unrestricted.read("Binary", task) if task else None
    if stored is None or stored.raw is None:
        return None
    raw = base64.b64decode(orjson.loads(stored.raw).get("data", ""))
    key = find_identifier(draft, codes.REMITTANCE_KEY)
    return await context.long_work.run(len(raw), _find_remittance, raw, key)


def _find_remittance(raw: bytes, key: str) -> Remittance | None:
    remittances = (to_remittance(each) for each in read_sets(raw))
    return next((each for each in remittances if each is not None and each.make_key() == key), None)


async def _post(turn: Turn, draft: Resource, remittance: Remittance) -> None:
    """Draft slice by slice, turn it active by one write, then finish slice by slice."""
    numbers = [
        range(start, min(start + SLICE, len(remittance.claims))) for start in range(0, len(remittance.claims), SLICE)
    ]
    try:
        if draft["status"] == "draft":
            for each in numbers:
                await turn.check()
                await _commit(turn, _drafting(remittance, each, draft))
            await turn.check()
            draft = await _activate(turn, remittance, draft)
    except _PASSING:
        raise
    except Exception as error:
        if _will_pass(error) or draft["status"] != "draft":
            raise
        await _cancel(turn, draft, f"The remittance could not be posted: {_describe(turn, draft, error)}")
        return
    for each in numbers:
        await turn.check()
        await _finish(turn, draft, [name_response(remittance, number) for number in each])
    await _commit(turn, _completing(draft))


async def _finish(turn: Turn, active: Resource, ids: list[str]) -> None:
    """What follows from some ClaimResponses; where that cannot be made, one by one, and a Task for those that stop it.

    The remittance counts already, so that nothing of it may stop the others for ever.
    """
    try:
        await _commit(turn, _finishing(active, ids))
    except _PASSING:
        raise
    except Exception as error:
        if _will_pass(error):
            raise
        if len(ids) > 1:
            for id in ids:
                await turn.check()
                await _finish(turn, active, [id])
            return
        reason = _describe(turn, active, error)
        await _commit(turn, lambda state: finish_without(state, active, ids[0], reason))


_PASSING = (LeaseLost, Stopping, StoreUnavailable, WriteConflict)


def _will_pass(error: Exception) -> bool:
    """Whether the same may succeed later: another write was faster, or the store was not there."""
    return isinstance(error, FhirError) and (error.status in (408, 409, 412, 429) or error.status >= 500)


def _describe(turn: Turn, payment: Resource, error: Exception) -> str:
    """The sentence of an error; one that nobody foresaw is told by the log."""
    if isinstance(error, StoreError):
        error = store_error_to_fhir_error(error)
    if isinstance(error, FhirError):
        return str(error.issues[0].diagnostics)
    turn.log("error", "posting failed", payment=payment["id"], error=describe_error(error))
    return f"A fault of ours; the log has it under `{payment['id']}`."


Decide = Callable[[State], Awaitable[Decision[Any]]]


async def _commit(turn: Turn, decide: Decide) -> Any:
    return (await decide_and_commit(turn.context, turn.caller, decide)).answer


def _drafting(remittance: Remittance, numbers: range, draft: Resource) -> Decide:
    async def decide(state: State) -> Decision[list[Resource]]:
        _, payer_id = await find_payer(state, remittance)
        return await draft_slice(state, remittance, numbers, await read_settings(state, draft, payer_id))

    return decide


async def _activate(turn: Turn, remittance: Remittance, draft: Resource) -> Resource:
    """The moment of posting: one write, after which ledger and reports count all of the remittance."""
    details: list[Resource] = []
    # what is read of a ClaimResponse is dropped before the next ones come: there may be thousands
    for start in range(0, len(remittance.claims), SLICE):
        numbers = range(start, min(start + SLICE, len(remittance.claims)))
        responses = await _read(turn.context, [f"ClaimResponse/{name_response(remittance, n)}" for n in numbers])
        details += list_details(remittance, numbers, responses)

    async def decide(state: State) -> Decision[Resource]:
        current = await state.read("PaymentReconciliation", draft["id"])
        if current is None or current.tree.get("status") != "draft":
            return Decision(dict(current.tree) if current is not None else draft)
        day = str(await read_posting_day(state))
        active = activate(remittance, dict(current.tree), details, day)
        return Decision(active, (put(active),))

    found: Resource = await _commit(turn, decide)
    return found


async def _read(context: Context, references: list[str]) -> list[Resource]:
    stored = await context.unrestricted.read_many(references)
    return [orjson.loads(each.raw) for each in stored.values() if each.raw is not None]


def _finishing(active: Resource, ids: list[str]) -> Decide:
    async def decide(state: State) -> Decision[int]:
        return await finish_slice(state, active, ids)

    return decide


def _completing(active: Resource) -> Decide:
    async def decide(state: State) -> Decision[None]:
        current = await state.read("PaymentReconciliation", active["id"])
        if current is None or current.tree.get("outcome") != "partial":
            return Decision(None)
        return Decision(None, (put({**copy(current.tree), "outcome": "complete"}),))

    return decide


async def _cancel(turn: Turn, draft: Resource, text: str) -> None:
    """The draft and its ClaimResponses as cancelled, and a Task that says why; slices of ClaimResponses come first."""
    key = find_identifier(draft, codes.REMITTANCE_KEY)
    while responses := await _find_drafts(turn.context, key):
        await turn.check()
        await _commit(turn, _writing([{**copy(each), "status": "cancelled"} for each in responses]))
    task = name(make_task("remittance", f"{key}:cancelled", make_reference(draft), read_now(turn.context), text))
    cancelled = {**copy(draft), "status": "cancelled", "outcome": "error", "disposition": text}
    await _commit(turn, _writing([cancelled, task]))


async def _find_drafts(context: Context, key: str) -> list[Resource]:
    where = And((StartsWith("identifier", f"{key}:"), StartsWith("status", f"draft{SEPARATOR}")))
    page = await context.unrestricted.search(Query((Scope("ClaimResponse", where),), count=SLICE))
    return [orjson.loads(each.raw or b"{}") for each in page.matches]


def _writing(resources: Iterable[Resource]) -> Decide:
    async def decide(state: State) -> Decision[None]:
        return Decision(None, tuple(put(each) for each in resources))

    return decide
