"""Decide and commit again: what reads, chooses and writes is one function, called anew when its ground has changed.

An operation that books, merges, posts or assembles is one `decide` function. It reads through a `State`, chooses its
actions, and is decided again when an assertion failed, within the time of the request (docs/decisions/0007).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from fhir_server.fhir.outcome import Conflict, FhirError
from fhir_server.requests.context import Context
from fhir_server.requests.request import Caller
from fhir_server.requests.time_limit import lift
from fhir_server.store.operations import Assertion, Transaction
from fhir_server.store.protocol import (
    SEARCH_PARAMETER,
    AssertionFailed,
    Committed,
    LastingConflict,
    RegistryChanged,
    StillReferenced,
    TargetsMissing,
    WriteConflict,
)
from fhir_server.writes.action import Action, WriteResult
from fhir_server.writes.apply_rules import apply_rules
from fhir_server.writes.check_planned import check_new, check_references
from fhir_server.writes.plan import Plan, collect_results, plan
from fhir_server.writes.reference_errors import build_missing_target_error, build_still_referenced_error
from fhir_server.writes.state import State

T = TypeVar("T")

NO_READS = Transaction()

# The share of a request's time limit that is spent on deciding again; the rest is for the answer.
_RETRYING = 0.8
_LONGEST_PAUSE = 0.05


@dataclass(frozen=True, slots=True)
class Decision(Generic[T]):
    """What a decide function chose: its answer, and the actions to commit with it.

    `assertions` and `locks` are added to those of the state that it read. `bundle`: the actions refer to each other by
    their full URLs. `reads`: reads and queries answered from the state after the writes.
    """

    answer: T
    actions: Sequence[Action] = ()
    assertions: Sequence[Assertion] = ()
    locks: Sequence[str] = ()
    bundle: bool = True
    reads: Transaction = NO_READS


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """A committed decision: its answer, the result of each action in their order, and what the store answered."""

    answer: T
    results: Sequence[WriteResult]
    committed: Committed


Decide = Callable[[State], Awaitable[Decision[T]]]


async def decide_and_commit(context: Context, caller: Caller, decide: Decide[T]) -> Outcome[T]:
    """Decide, plan and commit until everything that was relied on holds. Raises Conflict when the time is over.

    A decision without actions commits nothing. Its assertions are not checked then.
    """
    loop = context.time_limits.loop
    deadline = loop.time() + _RETRYING * context.settings.request_timeout
    attempt = 0
    while True:
        draft: Plan | None = None
        try:
            state = State(context, caller, context.reader(caller))
            decision = await decide(state)
            draft = await _plan_current(context, caller, state, decision)
            relies = bool(decision.actions) and bool(state.assertions or decision.assertions)
            if any(write.content is not None for write in draft.writes):
                await context.bases.remember(caller.base)
            committed = await _transact(context, draft.to_transaction(decision.reads), relies)
            return Outcome(decision.answer, _order_results(decision, draft, committed), committed)
        except (AssertionFailed, RegistryChanged, WriteConflict) as error:
            if isinstance(error, RegistryChanged):
                await context.parameters.reload()
            if isinstance(error, LastingConflict) or loop.time() > deadline:
                raise Conflict(
                    "Other writes kept changing what this one depends on; nothing was written. Try again."
                ) from None
            attempt += 1
            await asyncio.sleep(min(_LONGEST_PAUSE, 0.001 * attempt) * random.random())
        except (TargetsMissing, StillReferenced) as error:
            assert draft is not None
            if isinstance(error, TargetsMissing):
                raise await build_missing_target_error(context, draft, error) from None
            raise await build_still_referenced_error(context, draft, error) from None


async def _plan_current(context: Context, caller: Caller, state: State, decision: Decision[T]) -> Plan:
    """The plan. Raises AssertionFailed instead of a refusal where the decision was made on what has changed since."""
    try:
        return await _plan_decision(context, caller, state, decision)
    except FhirError:
        assertions = (*state.assertions, *decision.assertions)
        if assertions:
            await context.unrestricted.transact(Transaction(assertions=assertions))
        raise


async def _plan_decision(context: Context, caller: Caller, state: State, decision: Decision[T]) -> Plan:
    draft = await plan(context, decision.actions, caller, decision.bundle)
    check_new(context, draft)
    await check_references(context, draft)
    await apply_rules(context, draft)
    draft.assertions += [*state.assertions, *decision.assertions]
    draft.locks.update(state.locks, decision.locks)
    return draft


async def _transact(context: Context, transaction: Transaction, relies: bool) -> Committed:
    """Commit. `relies`: the assertions are checked although all actions turned out to change nothing."""
    if not (transaction.writes or transaction.reads or transaction.queries or relies):
        return Committed(())
    committed = await context.unrestricted.transact(transaction)
    lift()
    if any(write.type == SEARCH_PARAMETER for write in transaction.writes):
        await context.parameters.reload_and_mark_empty_types()
    return committed


def _order_results(decision: Decision[T], draft: Plan, committed: Committed) -> Sequence[WriteResult]:
    """The result of each action; of a delete of several matches, that of the first."""
    first: dict[int, WriteResult] = {}
    for (target, _), result in zip(draft.steps, collect_results(draft, committed.written), strict=True):
        first.setdefault(id(target.action), result)
    return [first[id(action)] for action in decision.actions]
