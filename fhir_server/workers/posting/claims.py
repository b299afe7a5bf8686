"""The claims that a slice of a remittance is about, what was posted for them before, and the payer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import orjson

from fhir_server.fhir.outcome import Conflict
from fhir_server.search.entries import SEPARATOR
from fhir_server.search.query import Clause, Equals, Ids, Query, Scope, StartsWith
from fhir_server.workers.posting.follow import is_of, order_of
from fhir_server.writes.state import State
from mappers.billing import codes
from mappers.billing.fields import Resource, find_identifier, find_reference, make_reference
from mappers.billing.matching import ClaimIndex, index_claims
from mappers.billing.posting import PostingState
from mappers.billing.remittance import ClaimPayment, Remittance

_CANDIDATES = 10
_SHORTEST_PREFIX = 6


def identify(system: str, value: str) -> str:
    """The search term of an identifier."""
    return f"{value}{SEPARATOR}{system}"


async def read_posting_state(state: State, remittance: Remittance, numbers: Iterable[int]) -> PostingState:
    """What posting has to know of the CLPs of these places.

    Raises Conflict where another remittance is being posted for one of the claims.
    """
    payments = [remittance.claims[number] for number in numbers]
    found = await _read_claims(state, payments)
    responses = await _read_responses(state, found)
    state.lock(f"money {each}" for each in found)
    answers: dict[str, list[Resource]] = {}
    for each in sorted(responses, key=order_of):
        _refuse_other(each, remittance.make_key())
        answers.setdefault(find_reference(each.get("request")), []).append(each)
    index = index_claims(found.values(), [*responses, *await _read_by_payer_number(state, payments, found)], {})
    return PostingState(await _add_candidates(state, payments, index), answers)


def _refuse_other(response: Resource, key: str) -> None:
    if response.get("status") == "draft" and not is_of(response, key):
        claim = find_reference(response.get("request"))
        raise Conflict(f"A remittance with `{claim}` is being posted at this moment. Try again in a minute.")


async def _read_claims(state: State, payments: Sequence[ClaimPayment]) -> dict[str, Resource]:
    """The claims with our control numbers, or those that payers have answered under the numbers that they give."""
    numbers = sorted({each.control_number.strip().upper() for each in payments} - {""})
    terms = tuple(identify(codes.PATIENT_CONTROL_NUMBER, each) for each in numbers)
    found = [dict(each.tree) for each in await state.search("Claim", Equals("identifier", terms))] if terms else []
    return {make_reference(each): each for each in found}


async def _read_responses(state: State, claims: Iterable[str]) -> list[Resource]:
    """What posting has made for these claims: those in force, and the drafts of a remittance that is being posted."""
    references = tuple(sorted(claims))
    if not references:
        return []
    found = [dict(each.tree) for each in await state.search("ClaimResponse", Equals("request", references))]
    return [
        each
        for each in found
        if each.get("status") in ("active", "draft") and find_identifier(each, codes.RESPONSE_KEY)
    ]


async def _read_by_payer_number(
    state: State, payments: Sequence[ClaimPayment], found: dict[str, Resource]
) -> list[Resource]:
    """ClaimResponses with the payer's numbers of the claims that our numbers do not find; their claims join `found`."""
    known = {find_identifier(each, codes.PATIENT_CONTROL_NUMBER) for each in found.values()}
    missing = [each for each in payments if each.control_number.strip().upper() not in known]
    numbers = sorted({each.payer_number for each in missing} - {""})
    if not numbers:
        return []
    terms = tuple(identify(codes.PAYER_CONTROL_NUMBER, each) for each in numbers)
    responses = [dict(each.tree) for each in await state.search("ClaimResponse", Equals("identifier", terms))]
    responses = [each for each in responses if find_identifier(each, codes.RESPONSE_KEY)]
    ids = {find_reference(each.get("request")).removeprefix("Claim/") for each in responses}
    if ids:
        more = await state.search("Claim", Ids(tuple(sorted(ids))))
        found |= {f"Claim/{each.tree['id']}": dict(each.tree) for each in more}
    return responses


async def _add_candidates(state: State, payments: Sequence[ClaimPayment], index: ClaimIndex) -> ClaimIndex:
    """Claims for a person to choose from: an echoed beginning of a number, or member, day and charge."""
    more: list[Resource] = []
    coverages: dict[str, Resource] = {}
    for each in payments:
        number = each.control_number.strip().upper()
        if number in index.by_number or each.payer_number in index.by_payer_number:
            continue
        if len(number) >= _SHORTEST_PREFIX:
            more += await _look_up(state, "Claim", StartsWith("identifier", number))
        if each.member_id:
            where = StartsWith("subscriber-id", f"{each.member_id}{SEPARATOR}")
            found = {make_reference(c): c for c in await _look_up(state, "Coverage", where)}
            coverages |= found
            if found:
                more += await _look_up(state, "Claim", Equals("coverage", tuple(found)))
    if not more:
        return index
    extra = index_claims(more, (), coverages)
    by_number = {**extra.by_number, **index.by_number}
    return ClaimIndex(by_number, index.by_payer_number, extra.by_service, sorted(by_number))


async def _look_up(state: State, type: str, where: Clause) -> list[Resource]:
    """A few resources for advice, which no decision rests on."""
    page = await state.context.unrestricted.search(Query((Scope(type, where),), count=_CANDIDATES))
    return [orjson.loads(each.raw or b"{}") for each in page.matches]


async def find_payer(state: State, remittance: Remittance) -> tuple[str, str]:
    """(reference, payer id) of the Organization that has the remittance's payer number; empty where none has it.

    TRN03 is the payer's tax number with a 1 before it; a typed EOB may have the payer id there.
    """
    number = remittance.payer_number
    wanted = [each for each in (number, number[1:] if len(number) == 10 else "") if each]
    systems = (codes.PAYER_ID, *codes.EIN)
    terms = tuple(identify(system, value) for value in wanted for system in systems)
    found = await state.search("Organization", Equals("identifier", terms)) if terms else []
    if len(found) != 1:
        return "", ""
    payer = dict(found[0].tree)
    return make_reference(payer), find_identifier(payer, codes.PAYER_ID)
