"""The states of a claim in one table: the `businessStatus` of its Task, and where each may go (docs/billing.md).

https://hl7.org/fhir/R4/task.html#statemachine leaves the business states to the site. The id of a claim's Task follows
from the claim's, so that a claim has one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, get_args

from fhir_server.fhir.datetimes import find_later
from fhir_server.fhir.outcome import Issue
from mappers.billing import codes
from mappers.billing.fields import (
    Resource,
    derive_id,
    find_code,
    find_identifier,
    find_reference,
    make_concept,
    make_reference,
    make_task,
)

ClaimState = Literal[
    "draft", "ready", "held", "split", "sent", "received", "accepted", "rejected", "adjudicated", "closed"
]

CODE = "claim"
Output = Literal["child", "held", "invoice", "explanation", "transmission"]
"""An output of a claim's Task: a child that goes out or waits, an Invoice, a sentence for a line, a delivery."""
ENDED = ("cancelled", "entered-in-error")
SET_BY_OPERATIONS: tuple[ClaimState, ...] = ("ready", "split", "sent")
"""States that no person sets: a claim gets into them by `$scrub`, `$split` and `$transmit` alone."""


class StateRow(NamedTuple):
    """One state: its Task.status, what it means, the states it may change to, whether the Claim may be edited.

    `passed`: states that an acknowledgement may tell late, when the claim is beyond them: they change nothing.
    """

    status: str
    meaning: str
    next: tuple[ClaimState, ...]
    editable: bool = False
    passed: tuple[ClaimState, ...] = ()


STATES: Mapping[ClaimState, StateRow] = {
    "draft": StateRow(
        "requested",
        "made or edited, and not judged since",
        ("ready", "held", "split", "sent", "adjudicated", "closed"),
        editable=True,
    ),
    "ready": StateRow(
        "ready",
        "scrubbed without an error",
        ("draft", "held", "split", "sent", "adjudicated", "closed"),
        editable=True,
    ),
    "held": StateRow(
        "on-hold",
        "waits for a person: an error, or a rule that holds it",
        ("draft", "ready", "split", "sent", "adjudicated", "closed"),
        editable=True,
    ),
    "split": StateRow("completed", "its children go out instead of it; the Claim is cancelled", ()),
    "sent": StateRow(
        "in-progress",
        "in an 837P that has gone, or waits, to go out",
        ("received", "accepted", "rejected", "adjudicated", "closed"),
    ),
    "received": StateRow(
        "in-progress",
        "the 999 took the transaction set",
        ("sent", "accepted", "rejected", "adjudicated", "closed"),
    ),
    "accepted": StateRow(
        "in-progress",
        "a 277CA took the claim for adjudication",
        ("sent", "rejected", "adjudicated", "closed"),
        passed=("received",),
    ),
    "rejected": StateRow(
        "rejected",
        "the 999 or a 277CA refused it: mend it and send it again",
        ("draft", "ready", "held", "split", "sent", "accepted", "adjudicated", "closed"),
        editable=True,
        passed=("received",),
    ),
    "adjudicated": StateRow(
        "in-progress",
        "a payer's decision is posted",
        ("sent", "closed"),
        passed=("received", "accepted"),
    ),
    "closed": StateRow(
        "completed",
        "nothing more is to be done: its balance is zero, it was cancelled, or a person says so",
        ("adjudicated",),
        passed=("received", "accepted", "rejected"),
    ),
}
"""Every state. A claim that was sent elsewhere, such as on paper, may be adjudicated whatever its state here."""


def is_ours(claim: Mapping[str, Any] | None) -> bool:
    """Whether a claim has a life here: a draft, or one with a patient control number of ours, to be paid for.

    Histories that are loaded from elsewhere have neither, and get no Task.
    """
    if claim is None or claim.get("use") != "claim":
        return False
    return claim.get("status") == "draft" or bool(find_number(claim))


def find_number(claim: Mapping[str, Any]) -> str:
    """The patient control number (CLM01), "" where none is given yet."""
    return find_identifier(dict(claim), codes.PATIENT_CONTROL_NUMBER)


def make_task_id(claim: str) -> str:
    """The id of the Task of a claim, by `Claim/id`."""
    return derive_id("Task", CODE, claim)


def make_claim_task(claim: Resource, created: str) -> Resource:
    """The Task of a stored Claim in its first state: `draft`, or `closed` where the Claim has ended already."""
    reference = make_reference(claim)
    task = make_task(CODE, claim["id"], reference, created, "Claim from its making to its closing.")
    patient = find_reference(claim.get("patient"))
    state: ClaimState = "closed" if claim.get("status") in ENDED else "draft"
    return {
        **task,
        "id": make_task_id(reference),
        **_describe(state, created),
        **({"for": {"reference": patient}} if patient.startswith("Patient/") else {}),
    }


def is_claim_task(task: Mapping[str, Any] | None) -> bool:
    """Whether a Task carries the state of a claim."""
    return task is not None and find_code(task.get("code"), codes.TASK) == CODE


def read_state(task: Mapping[str, Any] | None) -> ClaimState | None:
    """The state that the Task of a claim carries; None for what is no state of the table."""
    found = find_code((task or {}).get("businessStatus"), codes.CLAIM_STATE)
    return next((each for each in get_args(ClaimState) if each == found), None)


def move_task(task: Mapping[str, Any], to: ClaimState, now: str, reason: str = "") -> Resource:
    """The Task in another state with its reason; without what the store has set.

    A clock that was set back moves no Task to before it was made.
    """
    kept = {key: value for key, value in task.items() if key not in ("meta", "statusReason")}
    moment = find_later(now, str(task.get("authoredOn", "")))
    return {**kept, **_describe(to, moment), **({"statusReason": {"text": reason}} if reason else {})}


def has_passed(task: Mapping[str, Any], to: ClaimState) -> bool:
    """Whether an acknowledgement of a state comes too late to change anything: it is that state, or beyond it."""
    before = read_state(task)
    return before == to or (before is not None and to in STATES[before].passed)


def make_output(kind: Output, **value: object) -> Resource:
    """An output of a claim's Task; `value` is its one `value[x]`."""
    return {"type": make_concept(codes.CLAIM_OUTPUT, kind), **value}


def list_outputs(task: Mapping[str, Any], kind: Output) -> list[str]:
    """The references, URLs or texts of one kind among the outputs, in their order."""
    found = (each for each in task.get("output", ()) if find_code(each.get("type"), codes.CLAIM_OUTPUT) == kind)
    values = ((each.get("valueReference"), each.get("valueUrl") or each.get("valueString", "")) for each in found)
    return [find_reference(reference) or str(text) for reference, text in values]


def find_refusal(task: Mapping[str, Any], to: ClaimState, by_hand: bool = False) -> Issue | None:
    """Why a claim cannot change to a state, with the states that are allowed next; None where it can.

    `by_hand`: somebody writes the Task itself.
    """
    before = read_state(task)
    allowed = [each for each in (STATES[before].next if before else ()) if not by_hand or each not in SET_BY_OPERATIONS]
    if to in allowed:
        return None
    claim = find_reference(task.get("focus")) or "the claim"
    text = f"`{claim}` is in the state `{before or 'unknown'}` and cannot become `{to}`; {name_next(allowed)}"
    if by_hand and to in SET_BY_OPERATIONS:
        text += " `ready`, `split` and `sent` come from `$scrub`, `$split` and `$transmit`."
    return Issue("error", "conflict", text, ("Task.businessStatus",))


def name_next(states: tuple[ClaimState, ...] | list[ClaimState]) -> str:
    """The states that are allowed next, as the end of a sentence."""
    names = ", ".join(f"`{each}`" for each in states)
    return f"from there it can become {names}." if names else "from there it cannot change any more."


def _describe(state: ClaimState, now: str) -> Resource:
    status = STATES[state].status
    return {"status": status, "businessStatus": make_concept(codes.CLAIM_STATE, state), "lastModified": now}
