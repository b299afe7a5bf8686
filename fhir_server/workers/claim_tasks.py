"""The Task of a claim, read and moved inside a decision: by operations, and by acknowledgements (docs/billing.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fhir_server.fhir.outcome import Conflict, NotFound
from fhir_server.search.entries import SEPARATOR
from fhir_server.search.query import Equals, Ids
from fhir_server.workers.message_codes import clean_text
from fhir_server.workers.posting.writes import copy, put, read_now
from fhir_server.writes.action import Action
from fhir_server.writes.state import State
from mappers.billing import codes
from mappers.billing.claim_states import (
    ClaimState,
    find_refusal,
    has_passed,
    is_ours,
    make_claim_task,
    make_task_id,
    move_task,
    read_state,
)
from mappers.billing.fields import Resource


class ClaimWithTask(NamedTuple):
    """A Claim as stored, and its Task: a new draft one where the Claim had none."""

    claim: Resource
    task: Resource

    @property
    def state(self) -> ClaimState:
        return read_state(self.task) or "draft"


async def move_claim(
    state: State, claim: str, to: ClaimState, reason: str = "", outputs: Sequence[dict[str, Any]] = ()
) -> tuple[Action, ...]:
    """The write that moves the Task of a claim (`Claim/id`, or its patient control number) to another state.

    () where the claim is in that state or beyond it, as when a 999 is read after the 277CA. `outputs` join
    `Task.output`. Raises NotFound where there is no such claim, Conflict with the states that are allowed next.
    """
    found = await read_claim(state, claim if claim.startswith("Claim/") else await find_claim(state, claim))
    if has_passed(found.task, to):
        return ()
    return (put(move(state, found.task, to, reason, outputs)),)


async def move_tasks(state: State, targets: Mapping[str, tuple[Resource, ClaimState]]) -> list[Action]:
    """The writes that move the Tasks of claims of ours, where they may. `targets`: by `Claim/id`, claim and state."""
    own = {make_task_id(name): target for name, target in targets.items() if is_ours(target[0])}
    found = await state.search("Task", Ids(tuple(sorted(own)))) if own else []
    tasks = {str(each.tree["id"]): copy(each.tree) for each in found}
    now, moved = read_now(state.context), []
    for id, (claim, to) in own.items():
        task = tasks.get(id) or make_claim_task(claim, now)
        if read_state(task) != to and find_refusal(task, to) is None:
            moved.append(put(move_task(task, to, now)))
    return moved


def move(
    state: State, task: Resource, to: ClaimState, reason: str = "", outputs: Sequence[dict[str, Any]] = ()
) -> Resource:
    """The Task of a claim in another state. Raises Conflict with the states that are allowed next."""
    refusal = find_refusal(task, to) if read_state(task) != to else None
    if refusal is not None:
        raise Conflict(issues=(refusal,))
    moved = move_task(task, to, read_now(state.context), clean_text(reason))
    return {**moved, "output": [*moved.get("output", ()), *map(_loosen, outputs)]} if outputs else moved


def _loosen(output: dict[str, Any]) -> dict[str, Any]:
    """An output that names a Task of the message log does so by a URL.

    Retention removes that Task before the claim ends; a reference to what is gone would keep the claim from moving on.
    """
    reference = output.get("valueReference", {}).get("reference", "")
    return {"type": output["type"], "valueUrl": reference} if reference.startswith("Task/") else output


async def find_claim(state: State, number: str) -> str:
    """`Claim/id` of the claim with a patient control number, as X12 echoes it. Raises NotFound."""
    wanted = number.strip().upper()
    term = f"{wanted}{SEPARATOR}{codes.PATIENT_CONTROL_NUMBER}"
    found = await state.search("Claim", Equals("identifier", (term,))) if wanted else []
    if len(found) != 1:
        raise NotFound(f"No claim has the patient control number `{clean_text(number, 50)}`.")
    return f"Claim/{found[0].tree['id']}"


async def read_claim(state: State, reference: str) -> ClaimWithTask:
    """A Claim with its Task. Raises NotFound."""
    found = await state.read("Claim", reference.partition("/")[2])
    if found is None:
        raise NotFound(f"There is no `{reference}` on this server.")
    claim = copy(found.tree)
    task = await state.read("Task", make_task_id(reference))
    return ClaimWithTask(claim, make_claim_task(claim, read_now(state.context)) if task is None else copy(task.tree))
