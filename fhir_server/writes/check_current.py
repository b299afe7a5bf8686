"""What a principal may change: asked of what is stored, before a write is planned.

The plan asserts the versions that were looked at, so that nothing changes in between.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Iterable, Mapping, Sequence

from fhir_server.fhir.outcome import FhirError, Forbidden
from fhir_server.requests.context import Context
from fhir_server.requests.long_work import THREAD_FROM
from fhir_server.requests.request import Caller
from fhir_server.search.query import EVERYTHING, NOTHING
from fhir_server.security.check import compile_check
from fhir_server.security.policy import Permission
from fhir_server.store.protocol import Stored
from fhir_server.writes.action import Action
from fhir_server.writes.resolve_targets import Target

_PERMISSIONS: Mapping[str, Permission] = {"PUT": "u", "PATCH": "u", "DELETE": "d"}


def check_criteria(context: Context, actions: Sequence[Action], caller: Caller) -> None:
    """Raise Forbidden where criteria search what the principal may not search."""
    if not context.policy.restricts(caller.principal) or caller.principal.operation:
        return
    for action in actions:
        if action.criteria is not None:
            try:
                context.policy.authorise(caller.principal, "search-type", action.type, None)
            except FhirError as error:
                raise error.relocate(action.where) if action.where else error from None


async def check_current(
    context: Context, targets: Iterable[Target], current: Mapping[str, Stored], caller: Caller
) -> None:
    """Raise Forbidden, in the same words whatever is there, for a change of what is hidden or may not be changed."""
    if not context.policy.restricts(caller.principal):
        return
    index = functools.partial(context.index.make_some_entries, base=caller.base)
    reader = context.reader(caller)
    waited_for = 0
    for target in targets:
        stored, permission = current.get(target.reference), _PERMISSIONS.get(target.action.method)
        if target.found or permission is None or stored is None or stored.raw is None:
            continue
        clause = context.policy.write_restriction(caller.principal, target.action.type, permission)
        if not await context.long_work.run(len(stored.raw), compile_check(clause).allows, stored, index):
            raise make_refusal(target)
        if _must_be_seen(context, target.action, caller) and not await reader.shows(stored):
            raise make_refusal(target)
        waited_for += len(stored.raw)
        if waited_for >= THREAD_FROM:
            await asyncio.sleep(0)
            waited_for = 0


def _must_be_seen(context: Context, action: Action, caller: Caller) -> bool:
    """Whether only what the principal sees may be changed: not what an operation writes beside what it is called for.

    Who may read nothing of the type may still overwrite and delete by id; a patch answers with what was there.
    """
    if context.policy.criteria_restriction(caller.principal, action.type) == EVERYTHING:
        return False
    return action.method == "PATCH" or context.policy.restriction(caller.principal, action.type) != NOTHING


def make_refusal(target: Target) -> FhirError:
    """The error for a write that the principal may not do; it tells nothing of what is there."""
    action = target.action
    verb = {"DELETE": "deleted", "POST": "created"}.get(action.method, "changed")
    named = action.type if action.method == "POST" else target.reference
    error = Forbidden(f"The token does not allow `{named}` to be {verb} like this.")
    return error.relocate(action.where) if action.where else error
