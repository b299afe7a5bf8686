"""The life of a claim at every door: its Task exists from the day it is made, and what was sent is not edited.

Asked about every write of Claim and Task. Claims that are not ours (`is_ours`) pass untouched.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fhir_server.fhir.outcome import Issue
from fhir_server.operations.billing.library_rule import library_rule
from fhir_server.search.entries import SEPARATOR
from fhir_server.search.query import Equals
from fhir_server.workers.posting.reading import name_if_seen
from fhir_server.workers.posting.writes import copy, put, read_now
from fhir_server.writes.rules import ALLOWED, Change, RuleForSome, Rules, Ruling
from fhir_server.writes.state import State
from mappers.billing import codes
from mappers.billing.claim_states import (
    ENDED,
    STATES,
    ClaimState,
    find_number,
    find_refusal,
    is_claim_task,
    is_ours,
    make_claim_task,
    make_task_id,
    move_task,
    name_next,
    read_state,
)
from mappers.billing.fields import Resource, find_reference

Tree = Mapping[str, Any]

_OF_STORE = frozenset({"meta", "text"})
_FOLLOWS_MERGE = frozenset({"patient"})
_KEPT_BY_TASK = ("identifier", "code", "focus")


async def claim_rule(state: State, change: Change) -> Ruling:
    """Make the Task of a new claim, move it with an edit or a deletion, refuse these once the claim is sent."""
    if not (is_ours(change.current) or is_ours(change.new)):
        return ALLOWED
    reference = f"Claim/{change.id}"
    found = await state.read("Task", make_task_id(reference))
    task = None if found is None else copy(found.tree)
    if change.new is None:
        return _judge_deletion(state, change.current or {}, task)
    if change.current is None:
        issues = await _find_double(state, change.new, reference)
        return Ruling(issues) if issues or (found is not None and found.version == 0) else _make(state, change.new)
    differing = _list_differing(change.current, change.new)
    if not differing:
        return ALLOWED
    if task is not None and not STATES[read_state(task) or "draft"].editable:
        return _refuse(task, "edited")
    issues = await _check_number(state, change, reference)
    if issues:
        return Ruling(issues)
    return _make(state, change.new) if task is None else _follow(state, change.new, task)


def _make(state: State, claim: Tree) -> Ruling:
    return Ruling(actions=(put(make_claim_task(dict(claim), read_now(state.context))),))


def _follow(state: State, claim: Tree, task: Resource) -> Ruling:
    """An edit takes back the judgement; a cancellation closes."""
    to: ClaimState = "closed" if claim.get("status") in ENDED else "draft"
    return Ruling(actions=(put(move_task(task, to, read_now(state.context))),)) if to != read_state(task) else ALLOWED


def _judge_deletion(state: State, claim: Tree, task: Resource | None) -> Ruling:
    if task is None:
        return ALLOWED
    before = read_state(task) or "draft"
    if not STATES[before].editable and before != "closed":
        return _refuse(task, "deleted")
    number = find_number(claim)
    focus = {"identifier": {"system": codes.PATIENT_CONTROL_NUMBER, "value": number}} if number else {}
    closed = move_task(task, "closed", read_now(state.context), "The Claim was deleted.")
    return Ruling(actions=(put({**closed, "focus": {**focus, "display": "a Claim that was deleted"}}),))


def _list_differing(old: Tree, new: Tree) -> set[str]:
    ignored = _OF_STORE | _FOLLOWS_MERGE
    return {name for name in {*old, *new} - ignored if old.get(name) != new.get(name)}


def _refuse(task: Resource, verb: str) -> Ruling:
    state = read_state(task) or "draft"
    text = f"`{find_reference(task.get('focus'))}` is in the state `{state}` and is not {verb}; " + name_next(
        STATES[state].next
    )
    if state != "split":
        text += " A corrected claim is a new Claim with `related` (`prior`), sent by `$transmit` with frequency 7."
    return Ruling((Issue("error", "business-rule", text, ("Claim",)),))


async def _check_number(state: State, change: Change, reference: str) -> tuple[Issue, ...]:
    """A patient control number that was given stays."""
    old, new = find_number(change.current or {}), find_number(change.new or {})
    if old == new:
        return ()
    if old:
        text = f"The patient control number of `{reference}` is `{old}` for ever. Leave its identifier as it is."
        return (Issue("error", "business-rule", text, ("Claim.identifier",)),)
    return await _find_double(state, change.new or {}, reference)


async def _find_double(state: State, claim: Tree, reference: str) -> tuple[Issue, ...]:
    """Another claim with the same patient control number, by which remittances find a claim."""
    number = find_number(claim)
    if not number:
        return ()
    state.lock((f"patient-control-number {number}",))
    term = f"{number}{SEPARATOR}{codes.PATIENT_CONTROL_NUMBER}"
    others = [f"Claim/{each.tree['id']}" for each in await state.search("Claim", Equals("identifier", (term,)))]
    others = [each for each in others if each != reference]
    if not others:
        return ()
    by = await name_if_seen(state, others[0])
    text = (
        f"{by[0].upper()}{by[1:]} has the patient control number `{number}` already. Give this claim another, or none."
    )
    return (Issue("error", "duplicate", text, ("Claim.identifier",)),)


async def claim_task_rule(state: State, change: Change) -> Ruling:
    """The Task of a claim changes its state by the table, and is deleted only after the claim."""
    if not (is_claim_task(change.current) or is_claim_task(change.new)):
        return ALLOWED
    old, new = dict(change.current or {}), dict(change.new or {})
    claim = find_reference((old or new).get("focus"))
    if change.new is None:
        gone = not claim or await state.read("Claim", claim.partition("/")[2]) is None
        text = f"The Task of `{claim}` goes with its claim. Delete the Claim, which closes the Task."
        return ALLOWED if gone else Ruling((Issue("error", "business-rule", text, ("Task",)),))
    if change.current is None:
        text = "The Task of a claim is made with the Claim. Store the Claim, and leave the Task to the server."
        made = change.id == make_task_id(claim) and read_state(new) is not None
        return ALLOWED if made else Ruling((Issue("error", "business-rule", text, ("Task.code",)),))
    issues, to = _find_faults(old, new), read_state(new)
    return Ruling(issues) if issues or to is None else Ruling(elements={"status": STATES[to].status})


def _find_faults(old: Resource, new: Resource) -> tuple[Issue, ...]:
    for name in _KEPT_BY_TASK:
        if old.get(name) != new.get(name):
            text = f"`{name}` of the Task of a claim stays as it is; another claim has another Task."
            return (Issue("error", "business-rule", text, (f"Task.{name}",)),)
    before, to = read_state(old), read_state(new)
    if before == to:
        return ()
    if to is None:
        states = ", ".join(f"`{each}`" for each in STATES)
        text = f"`businessStatus` of the Task of a claim needs one of the states {states} of `{codes.CLAIM_STATE}`."
        return (Issue("error", "value", text, ("Task.businessStatus",)),)
    refusal = find_refusal(old, to, by_hand=True)
    return (refusal,) if refusal is not None else ()


CLAIM_RULES: Rules = {"Claim": RuleForSome(claim_rule, is_ours), "Library": library_rule, "Task": claim_task_rule}
