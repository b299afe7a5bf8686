"""Renewals: the draft that continues a prescription, and the refill requests that it answers.

https://hl7.org/fhir/R4/medicationrequest-definitions.html#MedicationRequest.priorPrescription
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mappers.billing.fields import Resource, derive_id, make_concept
from mappers.prescribing.codes import RENEWAL, TASK

OPEN = frozenset(("draft", "requested", "received", "accepted", "ready", "in-progress", "on-hold"))
"""Statuses of a Task that nobody has answered yet."""

_OF_THE_PRIOR = frozenset(
    (
        "authoredOn",
        "detectedIssue",
        "encounter",
        "eventHistory",
        "groupIdentifier",
        "identifier",
        "priorPrescription",
        "recorder",
        "reportedBoolean",
        "reportedReference",
        "statusReason",
        "text",
    )
)
"""Elements that tell of the prescription that is renewed and not of the next one."""


def derive_renewal_id(prior: str, number: int) -> str:
    """The id of the n-th renewal of a prescription, by `MedicationRequest/id`: the same request makes it once."""
    return derive_id("renewal", prior, str(number))


def make_renewal(prior: Resource, id: str, now: str, requester: Resource | None = None) -> Resource:
    """A draft of the same drug, dose and amount that names the prescription that it renews.

    `prior`: a lossless tree (`fhir.json_tree`), whose numbers stay as they are written. `now`: an instant.
    """
    # a name with an underscore holds the extensions of the element of that name
    rest = {key: value for key, value in prior.items() if key.removeprefix("_") not in _OF_THE_PRIOR}
    meta = {key: value for key, value in prior.get("meta", {}).items() if key in ("profile", "security")}
    dispense = {key: value for key, value in rest.get("dispenseRequest", {}).items() if key not in _OF_FIRST_FILL}
    renewal: Resource = {
        **{key: value for key, value in rest.items() if key not in ("_status", "dispenseRequest", "meta")},
        "id": id,
        "status": "draft",
        "authoredOn": now,
        "priorPrescription": {"reference": f"MedicationRequest/{prior['id']}"},
        **({"meta": meta} if meta else {}),
        **({"dispenseRequest": dispense} if dispense else {}),
        **({"requester": requester} if requester else {}),
    }
    return _drop_unused(renewal)


_OF_FIRST_FILL = frozenset(("initialFill", "validityPeriod"))


def complete_request(task: Resource, renewal: str, now: str) -> Resource:
    """The Task of a refill request that is answered by a renewal, by `MedicationRequest/id`."""
    output = {"type": make_concept(TASK, RENEWAL), "valueReference": {"reference": renewal}}
    return {**task, "status": "completed", "lastModified": now, "output": [*task.get("output", ()), output]}


def _drop_unused(resource: Resource) -> Resource:
    """Without the contained resources that nothing refers to any more (invariant dom-3)."""
    contained = {each["id"]: each for each in resource.pop("contained", ()) if "id" in each}
    names = {id: set(_list_local(each)) for id, each in contained.items()}
    # what refers to the resource that contains it is used by that
    waiting = [*_list_local(resource), *(id for id, found in names.items() if "" in found)]
    used: set[str] = set()
    while waiting:
        id = waiting.pop()
        if id in contained and id not in used:
            used.add(id)
            waiting += names[id]
    kept = [each for id, each in contained.items() if id in used]
    return {**resource, **({"contained": kept} if kept else {})}


def _list_local(tree: Any) -> Iterator[str]:
    """`x` for each text `#x` in a tree."""
    if isinstance(tree, str):
        if tree.startswith("#"):
            yield tree[1:]
    elif isinstance(tree, dict | list):
        for each in tree.values() if isinstance(tree, dict) else tree:
            yield from _list_local(each)
