"""`MedicationRequest/id/$activate`: the checks are made, and a draft becomes active (docs/prescribing.md)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import orjson

from fhir_server.fhir.outcome import Invalid, Issue, Unprocessable, build_operation_outcome
from fhir_server.operations.prescribing.changes import change, make_provenance, read_named, respond
from fhir_server.operations.prescribing.surroundings import read_prescription
from fhir_server.operations.scheduling.parameters import Parameters, read_parameters
from fhir_server.requests.context import Context
from fhir_server.requests.request import Request, Response
from fhir_server.workers.posting.writes import read_now
from fhir_server.writes.action import Action
from fhir_server.writes.deciding import Decision, Outcome, decide_and_commit
from fhir_server.writes.state import State
from mappers.billing.fields import Resource, make_reference
from mappers.prescribing.checks import (
    OVERRIDES,
    Finding,
    Prescription,
    apply_override,
    check_prescription,
    findings_to_outcome,
)
from mappers.prescribing.life_cycle import check_transition
from mappers.scheduling.elements import code_of


class Answer(NamedTuple):
    """The prescription's reference, what the checks have found, and whether that keeps it from being active.

    `findings` None: it is active already, and nothing was checked.
    """

    reference: str
    findings: Sequence[Finding] | None = None
    refused: bool = False


async def activate(context: Context, request: Request) -> Response:
    """200 with the MedicationRequest and what the checks found; 422 with the findings where one of them is an error."""
    asked = read_parameters(context, request, ("override", "reason", "dry-run"))
    overrides, trial = _read_override(asked), asked.flag("dry-run")

    async def decide(state: State) -> Decision[Answer]:
        prescription = await read_named(state, request)
        reference = make_reference(prescription)
        if code_of(prescription) == "active" and not trial:
            return Decision(Answer(reference))
        issue = check_transition(code_of(prescription), "active")
        if issue:
            raise Unprocessable(issues=[issue])
        blind = State(context, request.caller)  # what is hidden from the caller counts as well
        around = await read_prescription(blind, prescription)
        found = check_prescription(around)
        findings, refused = apply_override(found, overrides)
        answer = Answer(reference, findings, refused)
        if refused or trial:
            return Decision(answer)
        aside = [kind for kind in overrides if any(each.check == kind and each.is_error for each in found)]
        actions = _list_actions(blind, around, request, aside, asked.text("reason"))
        return Decision(answer, actions, tuple(blind.assertions), tuple(blind.locks))

    outcome = await decide_and_commit(context, request.caller, decide)
    found = _describe(outcome.answer.findings)
    if outcome.answer.refused or trial:
        return Response(422 if outcome.answer.refused and not trial else 200, orjson.dumps(found))
    return await _respond(context, request, outcome, found)


def _describe(findings: Sequence[Finding] | None) -> Resource:
    """The findings as an OperationOutcome."""
    if findings is not None:
        return findings_to_outcome(findings)
    return build_operation_outcome(
        [Issue("information", "informational", "The prescription is active already; nothing was checked.")]
    )


def _read_override(asked: Parameters) -> Sequence[str]:
    """The checks to set aside, in order. Raises Invalid for one that cannot be, or without a reason."""
    kinds = sorted(set(map(str, asked.values.get("override", []))))
    issues = [
        Issue("error", "value", f"`{kind}` cannot be overridden; there are {', '.join(OVERRIDES)}.", ("override",))
        for kind in kinds
        if kind not in OVERRIDES
    ]
    if kinds and not asked.text("reason").strip():
        issues.append(Issue("error", "required", "An override needs a reason; say why in `reason`.", ("reason",)))
    if issues:
        raise Invalid(issues=issues)
    return kinds


def _list_actions(
    state: State, around: Prescription, request: Request, aside: Sequence[str], reason: str
) -> tuple[Action, ...]:
    """The prescription is active; the one that it renews is completed by it."""
    now, reference = read_now(state.context), make_reference(around.request)
    elements = {"status": "active", **({} if "authoredOn" in around.request else {"authoredOn": now})}
    prior = _find_renewed(around)
    actions = [change(reference, elements), *([change(prior, {"status": "completed"})] if prior else [])]
    provenance = make_provenance(state.context, request, [reference, *([prior] if prior else [])], reason, aside)
    return (*actions, provenance)


def _find_renewed(around: Prescription) -> str:
    """The prescription of the same drug that this one renews, where it is still in force."""
    same = [make_reference(each.request) for each in around.others if each.medicine.codes & around.medicine.codes]
    return around.prior if around.prior in same else ""


async def _respond(context: Context, request: Request, outcome: Outcome[Answer], found: Resource) -> Response:
    one = await respond(context, request, Outcome(outcome.answer.reference, outcome.results, outcome.committed))
    parts = [{"name": "return", "resource": orjson.Fragment(one.body)}, {"name": "outcome", "resource": found}]
    return Response(200, orjson.dumps({"resourceType": "Parameters", "parameter": parts}))
