"""`Claim/$scrub`: what is wrong with a claim, on FHIR paths and X12 loops; a stored one becomes ready or held."""

from __future__ import annotations

from collections.abc import Sequence

from fhir_server.fhir.outcome import Unprocessable
from fhir_server.operations.billing.claim_body import read_body
from fhir_server.operations.billing.surroundings import Shelf
from fhir_server.operations.parameters import refuse_parameters
from fhir_server.requests.context import Context
from fhir_server.requests.request import Request, Response
from fhir_server.workers.claim_tasks import ClaimWithTask, move, read_claim
from fhir_server.workers.posting.writes import encode, put
from fhir_server.writes.action import Action
from fhir_server.writes.deciding import Decision, decide_and_commit
from fhir_server.writes.state import State
from mappers.billing.claim_numbers import number_claim
from mappers.billing.claim_states import ENDED, STATES, ClaimState
from mappers.billing.fields import Resource
from mappers.billing.scrub import findings_to_outcome, has_errors, scrub_view
from mappers.billing.scrub_rule import Finding

_LONGEST_LIST = 5


async def scrub(context: Context, request: Request) -> Response:
    """200 with an OperationOutcome; an issue for each finding, errors first."""
    refuse_parameters(request)
    sent = await read_body(context, request) if len(request.path) == 2 else None

    async def decide(state: State) -> Decision[Sequence[Finding]]:
        if sent is not None:
            return Decision(await judge(Shelf(state), sent))
        found = await read_claim(state, f"Claim/{request.path[1]}")
        if found.claim.get("status") in ENDED:
            text = f"`Claim/{request.path[1]}` is `{found.claim['status']}`; there is nothing to send."
            raise Unprocessable(text, expression=("Claim.status",))
        findings = await judge(Shelf(state), found.claim)
        return Decision(findings, settle(state, found, findings))

    outcome = await decide_and_commit(context, request.caller, decide)
    return Response(200, encode(findings_to_outcome(outcome.answer)))


async def judge(shelf: Shelf, claim: Resource) -> Sequence[Finding]:
    """The findings of a claim as it would go out: with the numbers that `$transmit` gives it."""
    return scrub_view(await shelf.view(number_claim(claim)))


def settle(state: State, found: ClaimWithTask, findings: Sequence[Finding]) -> tuple[Action, ...]:
    """The claim's Task as `ready` or `held`; a claim that is not edited any more keeps its state."""
    if not STATES[found.state].editable:
        return ()
    to: ClaimState = "held" if has_errors(findings) else "ready"
    reason = name_errors(findings)
    if found.state == to and found.task.get("statusReason", {}).get("text", "") == reason:
        return ()
    return (put(move(state, found.task, to, reason)),)


def name_errors(findings: Sequence[Finding]) -> str:
    """The errors by their rules, for the Task of a held claim; "" without any."""
    rules = list(dict.fromkeys(each.rule for each in findings if each.severity == "error"))
    more = f" and {len(rules) - _LONGEST_LIST} more" if len(rules) > _LONGEST_LIST else ""
    return f"Rules broken: {', '.join(rules[:_LONGEST_LIST])}{more}. `$scrub` says how to mend it." if rules else ""
