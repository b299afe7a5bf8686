"""Refill requests: Tasks by which somebody asks for more of a drug, and what may become of them.

https://hl7.org/fhir/R4/task.html#statemachine
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fhir_server.fhir.outcome import Issue
from mappers.billing.fields import Resource, find_code, find_reference, make_reference
from mappers.prescribing.codes import REFILL_REQUEST, RENEWAL, TASK
from mappers.scheduling.elements import code_of, members

_UNDER_WAY = ("received", "accepted", "ready", "in-progress", "on-hold")
_ANSWERS = ("completed", "rejected", "cancelled", "failed", "entered-in-error")

# docs/prescribing.md shows this table; a test compares the two.
REFILL_TRANSITIONS: Mapping[str, tuple[str, ...]] = {
    "draft": ("requested", "cancelled", "entered-in-error"),
    "requested": (*_UNDER_WAY, *_ANSWERS),
    **{status: (*(each for each in _UNDER_WAY if each != status), *_ANSWERS) for status in _UNDER_WAY},
    **{status: ("entered-in-error",) for status in _ANSWERS if status != "entered-in-error"},
    "entered-in-error": (),
}


def is_refill_request(task: Mapping[str, object] | None) -> bool:
    """Whether a Task asks for more of a drug."""
    return task is not None and find_code(task.get("code"), TASK) == REFILL_REQUEST


def find_renewal(task: Resource) -> str:
    """The reference of the prescription that answers a refill request, as it is written; "" without one."""
    outputs = (each for each in members(task, "output") if find_code(each.get("type"), TASK) == RENEWAL)
    return next((find_reference(each.get("valueReference")) for each in outputs), "")


def check_refill(
    old: Resource | None, new: Resource, prescription: Resource | None, renewal: Resource | None
) -> Iterator[Issue]:
    """What is wrong with a refill request as it is to be stored.

    `prescription`, `renewal`: the MedicationRequests of this server that its `focus` and its output refer to. All have
    references to this server alone, as `Type/id`.
    """
    status = code_of(new)
    if not is_refill_request(new):
        yield _refuse("A refill request stays one. Cancel it, and write another Task.", "code")
    if old is not None and is_refill_request(old):
        if status != code_of(old) and status not in REFILL_TRANSITIONS.get(code_of(old), ()):
            following = ", ".join(f"`{each}`" for each in REFILL_TRANSITIONS.get(code_of(old), ())) or "none"
            text = f"A refill request that is `{code_of(old)}` cannot become `{status}`; allowed: {following}."
            yield _refuse(text, "status")
        if find_reference(old.get("focus")) != find_reference(new.get("focus")):
            yield _refuse(
                "A refill request stays about its prescription. Ask for another one by a Task of its own.", "focus"
            )
    if prescription is None:
        yield _refuse("A refill request is about a MedicationRequest of this server. Name one in `focus`.", "focus")
        return
    if "for" in new and find_reference(new["for"]) != find_reference(prescription.get("subject")):
        yield _refuse("The prescription in `focus` is another patient's than the one in `for`.", "for")
    if status == "completed":
        yield from _check_answer(new, prescription, renewal)
    if status == "rejected" and not new.get("statusReason"):
        yield _refuse("Say in `statusReason` why more of the drug is refused.", "statusReason")


def _check_answer(task: Resource, prescription: Resource, renewal: Resource | None) -> Iterator[Issue]:
    """A request that is completed names the prescription that renews the one that it is about."""
    if renewal is None:
        text = f"A refill request is completed by `$renew`, or names the new MedicationRequest as output `{RENEWAL}`."
        yield _refuse(text, "output")
    elif find_reference(renewal.get("priorPrescription")) != (prior := make_reference(prescription)):
        text = f"`{find_renewal(task)}` does not name `{prior}` as `priorPrescription`."
        yield _refuse(text, "output")


def _refuse(text: str, element: str) -> Issue:
    return Issue("error", "business-rule", text, (f"Task.{element}",))
