"""What follows from adjudications that were posted: Invoices, claims to the next payer, Tasks, each exactly once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import NamedTuple

from fhir_server.search.query import Clause, Equals, Ids
from fhir_server.workers.posting.closings import read_posting_day
from fhir_server.workers.posting.writes import name, put, read_now
from fhir_server.writes.action import Action
from fhir_server.writes.state import State
from mappers.billing import codes
from mappers.billing.fields import (
    ZERO,
    Resource,
    find_code,
    find_extension,
    find_identifier,
    find_reference,
    make_reference,
    sum_amounts,
    to_amount,
)
from mappers.billing.follow_up import FollowUp, FollowUpSettings, Posted, follow_posting

_ENDED = ("cancelled", "entered-in-error")


class Pending(NamedTuple):
    """What the same transaction writes: ClaimResponses that become active, payments by hand.

    `posted_key`: that of the remittance whose ClaimResponses count although they are drafts, as it is active.
    """

    responses: Sequence[Resource] = ()
    payments: Sequence[Resource] = ()
    posted_key: str = ""


NOTHING_PENDING = Pending()


async def follow_claim(state: State, reference: str, pending: Pending = NOTHING_PENDING) -> list[Action]:
    """What follows for one claim, where a payer has answered it."""
    found = await state.read("Claim", reference.partition("/")[2])
    return [] if found is None else await follow_claims(state, [dict(found.tree)], pending)


async def follow_claims(state: State, claims: Sequence[Resource], pending: Pending = NOTHING_PENDING) -> list[Action]:
    """The writes that follow from the adjudications of these claims as they stand with what is pending."""
    responses = await read_answers(state, claims, pending)
    claims = [each for each in claims if responses.get(make_reference(each))]
    if not claims:
        return []
    invoices = await read_invoices(state, claims)
    paid = await read_desk_payments(state, claims, pending.payments)
    settings = FollowUpSettings(read_now(state.context), str(await read_posting_day(state)))
    made: list[Resource] = []
    for claim in claims:
        reference = make_reference(claim)
        account = Posted(claim, responses[reference], invoices.get(reference, ()), paid.get(reference, ZERO))
        made += _list_made(follow_posting(account, settings))
    return await write_new(state, made)


def _list_made(found: FollowUp) -> list[Resource]:
    """The resources of a follow-up with their ids. The Task of a claim's state is made by the rule of claims."""
    return [name(each) for each in (*found.tasks, found.claim, found.invoice) if each is not None]


async def write_new(state: State, made: Iterable[Resource]) -> list[Action]:
    """The writes of what is not stored yet: each has an id that follows from what it is about."""
    fresh = {make_reference(each): each for each in made}
    for type in sorted({each.partition("/")[0] for each in fresh}):
        ids = tuple(sorted(each.partition("/")[2] for each in fresh if each.startswith(f"{type}/")))
        for found in await state.search(type, Ids(ids)):
            del fresh[f"{type}/{found.tree['id']}"]
    return [put(each, decided=each["resourceType"] != "Claim") for each in fresh.values()]


async def read_answers(state: State, claims: Sequence[Resource], pending: Pending) -> dict[str, list[Resource]]:
    """By claim, its ClaimResponses that were posted here, oldest first, with those that become active now."""
    references = tuple(sorted(make_reference(each) for each in claims))
    found = {
        str(each.tree["id"]): dict(each.tree)
        for each in await state.search("ClaimResponse", Equals("request", references))
        if each.tree.get("status") == "active" or is_of(dict(each.tree), pending.posted_key)
    }
    found |= {each["id"]: each for each in pending.responses}
    answers: dict[str, list[Resource]] = {}
    for each in sorted(found.values(), key=order_of):
        if find_identifier(each, codes.RESPONSE_KEY):
            answers.setdefault(find_reference(each.get("request")), []).append(each)
    return answers


def is_of(response: Resource, key: str) -> bool:
    """Whether a ClaimResponse is of the remittance with this key."""
    return bool(key) and find_identifier(response, codes.RESPONSE_KEY).rpartition(":")[0] == key


def order_of(response: Resource) -> tuple[str, str, int]:
    """The order of posting: when the remittance was taken in, its key, the place of the claim in it."""
    key, _, number = find_identifier(response, codes.RESPONSE_KEY).rpartition(":")
    return str(response.get("created", "")), key, int(number) if number.isdigit() else 0


async def read_invoices(state: State, claims: Sequence[Resource]) -> dict[str, list[Resource]]:
    """By claim, its Invoices in force that posting made."""
    patients = tuple(sorted({find_reference(each.get("patient")) for each in claims}))
    found: dict[str, list[Resource]] = {}
    for each in await state.search("Invoice", Equals("subject", patients)):
        claim = find_reference(find_extension(dict(each.tree), codes.CLAIM_REFERENCE))
        if claim and each.tree.get("status") in ("issued", "balanced"):
            found.setdefault(claim, []).append(dict(each.tree))
    return found


async def read_desk_payments(
    state: State, claims: Sequence[Resource], pending: Sequence[Resource] = ()
) -> dict[str, Decimal]:
    """By claim, what the patient has paid on it, or on its visit where it is the visit's first claim."""
    patients = tuple(sorted({find_reference(each.get("patient")) for each in claims}))
    stored = await state.search("PaymentReconciliation", Equals("patient", patients))
    paid: dict[str, Decimal] = {}
    for payment in (*(dict(each.tree) for each in stored), *pending):
        for detail in payment.get("detail", ()) if payment.get("status") == "active" else ():
            if find_code(detail.get("type"), codes.PAYMENT_TYPE) == "payment":
                on = find_reference(detail.get("request"))
                paid[on] = paid.get(on, ZERO) + to_amount(detail.get("amount"))
    visits = sorted(each for each in paid if each.startswith(("Encounter/", "Appointment/")))
    sums = {make_reference(each): paid.get(make_reference(each), ZERO) for each in claims}
    if visits:
        firsts = await find_first_claims(state, visits)
        for claim in claims:
            own = [visit for visit, first in firsts.items() if share_charges(claim, first)]
            sums[make_reference(claim)] += sum_amounts(paid[each] for each in own)
    return sums


async def find_first_claims(state: State, visits: Sequence[str]) -> dict[str, Resource]:
    """By Encounter or Appointment, the first claim in force that bills it: that one gets the money of the visit."""
    encounters = {each: each for each in visits if each.startswith("Encounter/")}
    appointments = tuple(each for each in visits if each.startswith("Appointment/"))
    if appointments:
        for found in await state.search("Encounter", Equals("appointment", appointments)):
            reference = f"Encounter/{found.tree['id']}"
            for each in found.tree.get("appointment", ()):
                encounters[find_reference(each)] = reference
    if not encounters:
        return {}
    bills: Clause = Equals("encounter", tuple(sorted(set(encounters.values()))))
    claims = [dict(each.tree) for each in await state.search("Claim", bills)]
    claims = [each for each in claims if each.get("status") not in _ENDED]
    claims.sort(key=lambda each: (str(each.get("created", "")), make_reference(each)))
    firsts = {
        visit: next((each for each in claims if encounter in list_encounters(each)), None)
        for visit, encounter in encounters.items()
    }
    return {visit: claim for visit, claim in firsts.items() if claim is not None}


def list_encounters(claim: Resource) -> set[str]:
    """The Encounters that the lines of a claim name."""
    return {find_reference(each) for item in claim.get("item", ()) for each in item.get("encounter", ())}


def share_charges(claim: Resource, other: Resource) -> bool:
    """Whether two claims are the same, or bill a charge in common (to one payer after the other)."""
    if make_reference(claim) == make_reference(other):
        return True
    return bool(list_charges(claim) & list_charges(other))


def list_charges(claim: Resource) -> set[str]:
    """The charges that the lines of a claim bill."""
    found = (find_reference(find_extension(item, codes.CHARGE_ITEM)) for item in claim.get("item", ()))
    return {each for each in found if each}
