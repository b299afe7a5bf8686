"""271 in: matched by TRN02 to what was asked, to a CoverageEligibilityResponse for each person (005010X279A1)."""

from __future__ import annotations

from typing import NamedTuple

from fhir_server.fhir.outcome import Issue
from fhir_server.workers.message_tasks import IncomingMessage, derive_id
from fhir_server.workers.posting.writes import copy, read_now
from fhir_server.workers.x12_acknowledgements import find_delivery, put_answered
from fhir_server.workers.x12_claims import Said, ask_person, put_entry
from fhir_server.writes.state import State
from mappers.billing.fields import Resource, find_reference, make_reference
from mappers.x12.eb_to_insurance import EligibilityContext, answer_to_response
from mappers.x12.eligibility import EligibilityAnswer, list_changes, read_271
from mappers.x12.envelope import TransactionSet
from mappers.x12.reader import Loops

CODE = "eligibility"
"""The code of the Tasks that ask a person to look."""

_TYPE = "CoverageEligibilityRequest"


class Answers(NamedTuple):
    """A 271: an answer for each person, and BHT03, which repeats that of the 270."""

    reference: str
    answers: tuple[EligibilityAnswer, ...]


def loops_to_answers(loops: Loops, received: TransactionSet) -> Answers:
    """All that a 271 says."""
    return Answers(loops.root.segment("BHT").at(3), read_271(loops))


async def interpret_271(state: State, told: Answers, message: IncomingMessage) -> Said:
    """A response for each person, the delivery that asked as answered; what was not asked here is a Task."""
    said = Said([], [])
    answered: set[str] = set()
    for place, answer in enumerate(told.answers):
        delivery, request = await _find_request(state, answer, told.reference, message)
        if delivery is None or request is None:
            _tell_stranger(state, said, answer, f"{message.id}:{place}")
            continue
        if delivery["id"] not in answered:
            answered.add(delivery["id"])
            said.entries.append(put_answered(state, delivery, "acknowledged", "", message))
        await _respond(state, said, answer, request, derive_id("CoverageEligibilityResponse", message.id, place))
    return said


async def _find_request(
    state: State, answer: EligibilityAnswer, reference: str, message: IncomingMessage
) -> tuple[Resource | None, Resource | None]:
    """The delivery that asked, and its request: by TRN02, or BHT03 where the payer refuses before it names anybody."""
    for number in answer.traces or (reference,):
        delivery = await find_delivery(state, message.partner, number)
        focus = find_reference((delivery or {}).get("focus")).split("/")
        if delivery is not None and focus[0] == _TYPE:
            found = await state.read(_TYPE, focus[1])
            return delivery, copy(found.tree) if found is not None else None
    return None, None


def _tell_stranger(state: State, said: Said, answer: EligibilityAnswer, key: str) -> None:
    traces = ", ".join(f"`{each}`" for each in answer.traces) or "none"
    who = f"{answer.person.given} {answer.person.name}".strip() or "nobody"
    text = f"An answer on eligibility is to no question of ours (trace numbers: {traces}); it is about {who}."
    said.entries.append(ask_person(state, key, text, code=CODE))
    said.issues.append(Issue("warning", "not-found", text))


async def _respond(state: State, said: Said, answer: EligibilityAnswer, request: Resource, id: str) -> None:
    insurances = request.get("insurance", ())
    focal = next((each for each in insurances if each.get("focal")), insurances[0] if insurances else {})
    coverage = find_reference(focal.get("coverage"))
    context = EligibilityContext(
        make_reference(request),
        find_reference(request.get("patient")),
        find_reference(request.get("insurer")),
        coverage,
        read_now(state.context),
    )
    said.entries.append(put_entry({**answer_to_response(answer, context), "id": id}))
    stored = await state.read("Coverage", coverage.partition("/")[2]) if coverage.startswith("Coverage/") else None
    changes = list_changes(answer, str(stored.tree.get("subscriberId", "")) if stored is not None else "")
    if changes:
        said.entries.append(ask_person(state, id, " ".join(changes), coverage or make_reference(request), CODE))
