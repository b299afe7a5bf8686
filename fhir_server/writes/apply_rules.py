"""Asks the rules of `writes/rules.py` about each write of a plan, and about the writes that they add."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import orjson

from fhir_server.fhir.outcome import FhirError, TooCostly, Unprocessable
from fhir_server.requests.context import Context
from fhir_server.store.protocol import Stored
from fhir_server.writes.action import Action
from fhir_server.writes.pending_writes import PendingWrites
from fhir_server.writes.plan import Plan, index_late, plan_target
from fhir_server.writes.resolve_targets import Target
from fhir_server.writes.resolve_texts import apply_patch
from fhir_server.writes.rules import MOST_FURTHER_ACTIONS, Change, Ruling, Verb, build_refusal
from fhir_server.writes.set_elements import set_elements
from fhir_server.writes.state import State


async def apply_rules(context: Context, draft: Plan) -> None:
    """Ask the rule about every write of the plan whose type has one. Raises the first refusal."""
    if draft.pending is None:
        return
    found = dict(draft.found)
    number, planned = 0, len(draft.steps)
    while number < len(draft.steps):
        target, step = draft.steps[number]
        asked = target.action.type in context.rules and number not in draft.allowed
        if asked and isinstance(step, int) and _is_asked(target):
            try:
                ruling = await ask_rule(context, draft, target, found.get(target.reference))
                if ruling.elements:
                    current = found.get(target.reference)
                    size = _size_of(draft, step)
                    await context.long_work.run(size, set_elements, context, draft, number, ruling.elements, current)
                elif draft.late:
                    await context.long_work.run(_size_of(draft, step), index_late, context, draft, number)
                if ruling.actions:
                    found.update(await _add_actions(context, draft, ruling.actions))
            except FhirError as error:
                raise (error.relocate(target.action.where) if target.action.where else error) from None
            if ruling.issues:
                draft.issues[number] = ruling.issues
            if len(draft.steps) - planned > MOST_FURTHER_ACTIONS:
                raise TooCostly(f"The rules of this write lead to more than {MOST_FURTHER_ACTIONS} further writes.")
        number += 1


def _size_of(draft: Plan, position: int) -> int:
    content = draft.writes[position].content
    return 0 if content is None else len(content.head) + len(content.tail)


def _is_asked(target: Target) -> bool:
    return not target.found and not target.action.decided


async def ask_rule(context: Context, draft: Plan, target: Target, current: Stored | None) -> Ruling:
    """What the rule of a type says of one write; what it read and locked goes into the plan. Raises its refusal."""
    pending = draft.pending or PendingWrites()
    state = State(context, draft.caller, pending=pending)
    tree = None
    if current is not None and current.raw is not None:
        tree = await context.long_work.run(len(current.raw), orjson.loads, current.raw)
    verb: Verb = "purge" if target.action.purge else target.action.method
    change = Change(verb, target.action.type, target.id, tree, pending.get(target.reference))
    ruling: Ruling = await context.rules[target.action.type](state, change)
    if ruling.issues and (refusal := build_refusal(ruling.issues)) is not None:
        raise refusal
    draft.assertions += [*state.assertions, *ruling.assertions]
    draft.locks.update(state.locks, ruling.locks)
    return ruling


async def _add_actions(context: Context, draft: Plan, actions: Sequence[Action]) -> Mapping[str, Stored]:
    """Plan what a rule adds; the current versions of what it writes."""
    targets = [Target(each, each.id or each.fresh, create=each.method == "POST") for each in actions]
    stored = [target.reference for target in targets if not target.create]
    found = await context.unrestricted.read_many(stored, deletions=True) if stored else {}
    for target in targets:
        if draft.pending is not None and target.reference in draft.pending:
            raise Unprocessable(
                f"This write changes `{target.reference}` as well, which another entry of the transaction writes; "
                "leave that entry out."
            )
        current = found.get(target.reference)
        texts = (target.action.text, current)
        size = sum(len(each.raw or b"") for each in texts if each is not None)
        await context.long_work.run(size, _plan_addition, context, draft, target, current)
    return found


def _plan_addition(context: Context, draft: Plan, target: Target, current: Stored | None) -> None:
    text = target.action.text if target.action.patch is None else apply_patch(target.action, target, current)
    plan_target(context, draft, target, text, current, draft.caller)
