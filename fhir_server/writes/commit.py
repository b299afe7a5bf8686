"""Commit actions that are chosen already: the case of `writes/deciding.py` with nothing to decide."""

from __future__ import annotations

from collections.abc import Sequence

from fhir_server.requests.context import Context
from fhir_server.requests.request import Caller
from fhir_server.store.operations import Transaction
from fhir_server.writes.action import Action, WriteResult
from fhir_server.writes.deciding import Decision, Outcome, decide_and_commit
from fhir_server.writes.state import State


async def commit(context: Context, action: Action, caller: Caller) -> WriteResult:
    """Carry out one action of a request of its own."""
    return (await _commit(context, caller, Decision(None, (action,), bundle=False))).results[0]


async def commit_bundle(
    context: Context, actions: Sequence[Action], caller: Caller, reads: Transaction
) -> Outcome[None]:
    """Carry out the actions of a transaction bundle as one transaction.

    `reads` carries the reads and queries of the bundle, answered from the state after its writes.
    """
    return await _commit(context, caller, Decision(None, actions, reads=reads))


async def _commit(context: Context, caller: Caller, decision: Decision[None]) -> Outcome[None]:
    async def decide(state: State) -> Decision[None]:
        return decision

    return await decide_and_commit(context, caller, decide)
