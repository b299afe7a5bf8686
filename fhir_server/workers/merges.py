"""Moves the references of a merged resource to its survivor, some at a time, until none is left (docs/messages/adt.md).

The Task of the merge says how far it is, so that any process goes on where another one has stopped.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from fhir_server.fhir.json_tree import decode
from fhir_server.fhir.outcome import FhirError
from fhir_server.requests.merges import OPEN, forget_merges, list_open_merges
from fhir_server.workers.hl7v2_reading import find_referrers
from fhir_server.workers.worker import StepResult, Turn
from fhir_server.writes.action import Action
from fhir_server.writes.deciding import Decision, decide_and_commit
from fhir_server.writes.state import State
from mappers.hl7v2.merges import repoint

SLICE = 200
"""Resources that one transaction repoints."""

MOVED = "references moved"
"""The output of the Task that counts the resources which the worker has repointed."""

Resource = dict[str, Any]


async def step_merges(turn: Turn) -> StepResult:
    """One slice of each merge that is under way."""
    tasks = await list_open_merges(turn.context)
    moved = 0
    for task in tasks:
        await turn.check()
        try:
            moved += await _move_slice(turn, task["id"])
        except FhirError as error:
            turn.log("error", "references are not moved", task=task["id"], reason=str(error))
    if not tasks:
        await forget_merges(turn.context)
    return StepResult(moved, f"{len(tasks)} merges", len(tasks))


async def _move_slice(turn: Turn, id: str) -> int:
    """The resources repointed; 1 where there was none left, and the Task is completed."""

    async def decide(state: State) -> Decision[int]:
        stored = await state.read("Task", id)
        if stored is None or stored.tree.get("status") not in OPEN:
            return Decision(0)
        task = dict(stored.tree)
        prior, survivor = task["focus"]["reference"], task["for"]["reference"]
        kept = {prior, survivor, f"Task/{id}"}  # what says that they were merged goes on saying so
        found = await find_referrers(state, prior, SLICE + len(kept))
        names = [name for each in found if (name := f"{each['resourceType']}/{each['id']}") not in kept][:SLICE]
        actions = [_repoint(name, prior, survivor) for name in names]
        return Decision(max(len(names), 1), (*actions, _follow(id, task, len(names))))

    return (await decide_and_commit(turn.context, turn.caller, decide)).answer


def _repoint(name: str, prior: str, survivor: str) -> Action:
    """The write of one resource. No rule is asked: whose it is changes, and nothing that a rule has agreed to."""
    type, _, id = name.partition("/")
    return Action("PATCH", type, id, id=id, patch=lambda tree: repoint(tree, prior, survivor), decided=True)


def _follow(id: str, task: Mapping[str, Any], moved: int) -> Action:
    """The Task after a slice; one that moved nothing was the last."""
    before = next((each["valueInteger"] for each in task.get("output", ()) if each["type"].get("text") == MOVED), 0)
    output = [{"type": {"text": MOVED}, "valueInteger": int(before) + moved}]
    changed = {"status": "in-progress" if moved else "completed", "output": output}

    def patch(tree: Resource) -> Resource:
        return {**tree, **decode(orjson.dumps(changed))}

    return Action("PATCH", "Task", id, id=id, patch=patch, decided=True)
