"""277CA and 277: to the Tasks of claims, and a ClaimResponse for each (005010X214, 005010X212)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from fhir_server.fhir.outcome import Issue
from fhir_server.workers.message_tasks import IncomingMessage, derive_id
from fhir_server.workers.posting.writes import read_now
from fhir_server.workers.x12_acknowledgements import find_delivery, read_sent
from fhir_server.workers.x12_claims import ClaimMove, Said, Source, ask_person, find_claims, move_claims, put_entry
from fhir_server.writes.state import State
from mappers.billing.claim_states import ClaimState
from mappers.billing.fields import Resource, make_reference
from mappers.x12.answered_claims import list_claims_of_batch
from mappers.x12.claim_status import (
    ClaimStatus,
    StatusContext,
    describe_status,
    read_statuses,
    status_to_claim_response,
)
from mappers.x12.envelope import TransactionSet
from mappers.x12.reader import Loops

ACKNOWLEDGEMENT = "005010X214"
_INTERCHANGE = 9
"""The digits of BHT03 that are the ISA13 of the claims' interchange; those of the set follow."""

_STATES: dict[str, ClaimState] = {
    "accepted": "accepted", "pending": "accepted", "split": "accepted", "rejected": "rejected",
}  # fmt: skip
_REFUSED_BY_ACKNOWLEDGEMENT = ("not-found", "error")
_FOR_A_PERSON = ("split", "requested", "not-found", "error", "unknown")


class Statuses(NamedTuple):
    """The statuses of a 277; `acknowledges`: a 277CA. `payer`: the name of who says so."""

    acknowledges: bool
    payer: str
    statuses: tuple[ClaimStatus, ...]


def loops_to_statuses(loops: Loops, received: TransactionSet) -> Statuses:
    """All that a 277CA or 277 says."""
    payer = loops.root.loop("2000A").loop("2100A").segment("NM1").at(3)
    return Statuses(loops.table.version == ACKNOWLEDGEMENT, payer, read_statuses(loops))


async def interpret_statuses(state: State, told: Statuses, message: IncomingMessage) -> Said:
    """The claims that a message speaks of, moved and answered; what finds no claim is a Task."""
    chosen = choose_statuses(told.statuses)
    claims = await find_claims(state, chosen)
    moves = {number: _to_move(each, told) for number, each in chosen.items() if number in claims}
    delivery = await _find_batch(state, told, message)
    batch = await _read_batch(state, told, delivery)
    claims |= await find_claims(state, (each for each in batch if each not in claims))
    moves |= {number: each for number, each in batch.items() if number in claims and number not in moves}
    source = Source(f"Task/{message.id}", f"Task/{delivery['id']}" if delivery is not None else "")
    said = await move_claims(state, claims, moves, source)
    for number, status in chosen.items():
        _answer_claim(state, said, status, claims.get(number), (told, message))
    for status in told.statuses:
        if status.rejected_by == status.level and not moves and not chosen:
            text = f"Claims of the {status.level} `{status.trace}` that are not named: {describe_status(status)}"
            said.entries.append(ask_person(state, f"{message.id}:{status.level}:{status.trace}", text))
    return said


def choose_statuses(statuses: Iterable[ClaimStatus]) -> dict[str, ClaimStatus]:
    """By patient control number the status of the claim that decides: one that refuses it, else the first."""
    chosen: dict[str, ClaimStatus] = {}
    for each in statuses:
        number = each.control_number.strip().upper()
        if each.level == "claim" and (number not in chosen or _refuses(each) > _refuses(chosen[number])):
            chosen[number] = each
    return chosen


def _refuses(status: ClaimStatus) -> bool:
    return status.outcome == "rejected"


def _to_move(status: ClaimStatus, told: Statuses) -> ClaimMove:
    reason = describe_status(status)
    if told.acknowledges and status.outcome in _REFUSED_BY_ACKNOWLEDGEMENT:
        return ClaimMove("rejected", reason, (_to_issue(status),))
    to = _STATES.get(status.outcome)
    return ClaimMove(to, reason, (_to_issue(status),) if to == "rejected" else ())


def _to_issue(status: ClaimStatus) -> Issue:
    return Issue("error", "business-rule", describe_status(status), ("2200D/STC",))


async def _find_batch(state: State, told: Statuses, message: IncomingMessage) -> Resource | None:
    """The delivery that a 277CA is about: TRN02 of its batch is BHT03 of what was sent."""
    trace = next((each.trace for each in told.statuses if each.level == "batch"), "")
    return await find_delivery(state, message.partner, trace[:_INTERCHANGE]) if told.acknowledges else None


async def _read_batch(state: State, told: Statuses, delivery: Resource | None) -> dict[str, ClaimMove]:
    """The claims of a batch that was refused as a whole, as they move."""
    refused = next((each for each in told.statuses if each.level == "batch" and each.rejected_by == "batch"), None)
    if refused is None or delivery is None:
        return {}
    sent = await read_sent(state, delivery)
    numbers = await state.context.long_work.run(len(sent), list_claims_of_batch, sent, refused.trace)
    return {each: ClaimMove("rejected", describe_status(refused), (_to_issue(refused),)) for each in numbers}


def _answer_claim(
    state: State, said: Said, status: ClaimStatus, claim: Resource | None, source: tuple[Statuses, IncomingMessage]
) -> None:
    """The ClaimResponse of a claim, and a Task where a person has to look."""
    told, message = source
    number = status.control_number.strip()
    key = f"{message.id}:{number or status.payer_number or status.trace}"
    if claim is None:
        who = f"{status.name}, {status.given}".strip(", ")
        text = f"No claim has the patient control number `{number}` ({who}): {describe_status(status)}"
        said.entries.append(ask_person(state, key, text))
        said.issues.append(Issue("warning", "not-found", text))
        return
    context = StatusContext(make_reference(claim), claim["patient"].get("reference", ""), "", read_now(state.context))
    response = status_to_claim_response(status, context)
    insurer = claim.get("insurer") or {"display": told.payer or message.partner}
    id = derive_id("ClaimResponse", message.id, number)
    said.entries.append(put_entry({**response, "id": id, "patient": claim["patient"], "insurer": insurer}))
    if status.outcome in _FOR_A_PERSON and not (told.acknowledges and status.outcome in _REFUSED_BY_ACKNOWLEDGEMENT):
        said.entries.append(ask_person(state, key, describe_status(status), make_reference(claim)))
