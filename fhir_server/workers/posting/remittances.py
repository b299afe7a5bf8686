"""A remittance from its draft to its end: some claims at a time, posted by one write, each step safe to repeat.

`PaymentReconciliation.outcome` says where it is: `queued` while its ClaimResponses are drafted; `partial` from the
write that turns it active, which is the moment of posting, until all that follows is made; then `complete`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from fhir_server.search.query import Equals, Ids
from fhir_server.workers.posting.claims import find_payer, identify, read_posting_state
from fhir_server.workers.posting.closings import read_posting_day
from fhir_server.workers.posting.follow import Pending, follow_claims, write_new
from fhir_server.workers.posting.settling import settle_claims
from fhir_server.workers.posting.writes import copy, name, put, read_now
from fhir_server.writes.action import Action
from fhir_server.writes.deciding import Decision
from fhir_server.writes.state import State
from mappers.billing import codes
from mappers.billing.fields import Resource, find_extension, find_identifier, find_reference, make_reference, make_task
from mappers.billing.posting import (
    PostingSettings,
    make_claim_detail,
    make_provider_details,
    make_reconciliation,
    name_response,
    post_claims,
)
from mappers.billing.remittance import Remittance, check_balance

SLICE = 50
"""Claims of one transaction: what is decided about them keeps requests waiting for some tens of milliseconds."""


class Taken(NamedTuple):
    """What is stored when a remittance comes: its draft, or a Task that says why it does not post, or nothing."""

    draft: Resource | None = None
    task: Resource | None = None
    posted: Resource | None = None
    """The PaymentReconciliation by which it was taken before."""
    warnings: Sequence[str] = ()


async def take_remittance(state: State, remittance: Remittance, source: str = "", posted_by: str = "") -> Taken:
    """Whether a remittance posts. `source`: the reference of the Task of its message; `posted_by`: who typed it."""
    created = read_now(state.context)
    key, balance = remittance.make_key(), check_balance(remittance)
    state.lock((f"remittance {remittance.make_trace_key()}",))
    terms = (identify(codes.TRACE_KEY, remittance.make_trace_key()),)
    known = [dict(each.tree) for each in await state.search("PaymentReconciliation", Equals("identifier", terms))]
    known = [each for each in known if each.get("status") in ("draft", "active")]
    if known:
        return _compare(remittance, known[0], created, posted_by)
    if balance.transaction:
        return Taken(task=name(make_task("remittance", key, "", created, " ".join(balance.transaction))))
    payer, payer_id = await find_payer(state, remittance)
    settings = PostingSettings(created, str(await read_posting_day(state)), payer, payer_id, posted_by)
    return Taken(draft=make_draft(remittance, settings, source), warnings=balance.warnings)


def make_draft(remittance: Remittance, settings: PostingSettings, source: str = "") -> Resource:
    """The PaymentReconciliation of which nothing counts yet."""
    draft = make_reconciliation(remittance, [], settings)
    draft["extension"] = [each for each in draft["extension"] if each["url"] != codes.POSTING_DATE]
    draft |= {"outcome": "queued", **({"request": {"reference": source}} if source else {})}
    del draft["detail"]
    return draft


def _compare(remittance: Remittance, known: Resource, created: str, posted_by: str) -> Taken:
    """Nothing for the same remittance; a Task for another one with the same trace number, or one typed before."""
    reference, by = make_reference(known), str(find_extension(known, codes.POSTED_BY) or "")
    same = find_extension(known, codes.DIGEST) == remittance.digest
    if same and bool(by) == bool(posted_by):
        return Taken(posted=known)
    if by and not posted_by:
        text = f"The remittance `{remittance.trace}` was already posted by hand, by {by}: see `{reference}`."
    else:
        text = f"The trace number `{remittance.trace}` was posted before with other content: see `{reference}`."
    text = f"{text} Nothing was posted. Compare the two; ask the payer which one holds."
    task = make_task("remittance", f"{known['id']}:{remittance.digest}", reference, created, text)
    return Taken(task=name(task), posted=known)


async def read_settings(state: State, draft: Resource, payer_id: str) -> PostingSettings:
    """The settings by which the claims of a draft are posted."""
    payer = find_reference(draft.get("paymentIssuer"))
    by = str(find_extension(draft, codes.POSTED_BY) or "")
    return PostingSettings(str(draft["created"]), str(await read_posting_day(state)), payer, payer_id, by)


async def draft_slice(
    state: State, remittance: Remittance, numbers: range, settings: PostingSettings
) -> Decision[list[Resource]]:
    """The ClaimResponses, as drafts, and Tasks of the CLPs of these places; nothing where they are there already."""
    ids = tuple(sorted(name_response(remittance, number) for number in numbers))
    stored = await state.search("ClaimResponse", Ids(ids))
    if stored:
        return Decision([dict(each.tree) for each in stored])
    known = await read_posting_state(state, remittance, numbers)
    entries = post_claims(remittance, numbers, known, settings)
    responses = [each.response for each in entries if each.response is not None]
    tasks = [name(task) for each in entries for task in each.tasks]
    return Decision(responses, (*map(put, responses), *await write_new(state, tasks)))


def list_details(remittance: Remittance, numbers: Iterable[int], responses: Iterable[Resource]) -> list[Resource]:
    """The details of the CLPs of these places, with those of their ClaimResponses that there are."""
    by_id = {each["id"]: each for each in responses}
    return [make_claim_detail(remittance, n, by_id.get(name_response(remittance, n))) for n in numbers]


def activate(remittance: Remittance, draft: Resource, details: Iterable[Resource], posting_day: str) -> Resource:
    """The PaymentReconciliation as it posts. `details`: those of all its CLPs."""
    extensions = [*draft.get("extension", ()), {"url": codes.POSTING_DATE, "valueDate": posting_day}]
    active = {**copy(draft), "extension": extensions, "status": "active", "outcome": "partial"}
    told = [*details, *make_provider_details(remittance)]
    return {**active, "detail": told} if told else active


async def finish_slice(state: State, active: Resource, ids: Sequence[str]) -> Decision[int]:
    """The ClaimResponses of these ids as active, and what follows from them; nothing where it was done."""
    stored = await state.search("ClaimResponse", Ids(tuple(sorted(ids))))
    drafts = [dict(each.tree) for each in stored if each.tree.get("status") == "draft"]
    if not drafts:
        return Decision(0)
    day = str(find_extension(active, codes.POSTING_DATE))
    responses = [turn_active(each, day) for each in drafts]
    claim_ids = sorted({find_reference(each["request"]).removeprefix("Claim/") for each in responses})
    claims = [dict(each.tree) for each in await state.search("Claim", Ids(tuple(claim_ids)))]
    pending = Pending(responses, posted_key=find_identifier(active, codes.REMITTANCE_KEY))
    further = await follow_claims(state, claims, pending)
    moved = await settle_claims(state, claims, pending)
    return Decision(len(responses), (*map(put, responses), *further, *moved))


async def finish_without(state: State, active: Resource, id: str, reason: str) -> Decision[int]:
    """A ClaimResponse as active, with a Task that says why nothing follows from it."""
    found = await state.read("ClaimResponse", id)
    if found is None or found.tree.get("status") != "draft":
        return Decision(0)
    response = turn_active(dict(found.tree), str(find_extension(active, codes.POSTING_DATE)))
    text = f"What follows from this adjudication was not made: {reason} Make the Invoice, the next claim or the appeal."
    key = f"{find_identifier(response, codes.RESPONSE_KEY)}:not-followed"
    focus = find_reference(response.get("request"))
    task = name(make_task("posting-review", key, focus, read_now(state.context), text))
    return Decision(1, (put(response), *await write_new(state, [task])))


def turn_active(draft: Resource, day: str) -> Resource:
    """A ClaimResponse that counts from a day."""
    rest = [each for each in draft.get("extension", ()) if each.get("url") != codes.POSTING_DATE]
    return {**copy(draft), "status": "active", "extension": [{"url": codes.POSTING_DATE, "valueDate": day}, *rest]}


async def post_at_once(state: State, remittance: Remittance, posted_by: str) -> Decision[Taken]:
    """A remittance that a person typed, posted in one transaction with all that follows."""
    taken = await take_remittance(state, remittance, posted_by=posted_by)
    if taken.draft is None:
        return Decision(taken, [] if taken.task is None else await write_new(state, [taken.task]))
    posted = await post_draft(state, remittance, taken.draft)
    return Decision(taken._replace(draft=posted.active), (put(posted.active), *posted.further))


class PostedAtOnce(NamedTuple):
    """A remittance as it posts in one transaction: as active, the number of ClaimResponses, Tasks, all other writes."""

    active: Resource
    responses: int
    tasks: Sequence[Resource]
    further: Sequence[Action]


async def post_draft(state: State, remittance: Remittance, draft: Resource) -> PostedAtOnce:
    """What a draft and its claims become, with all that follows."""
    _, payer_id = await find_payer(state, remittance)
    settings = await read_settings(state, draft, payer_id)
    drafted = await draft_slice(state, remittance, range(len(remittance.claims)), settings)
    day = str(await read_posting_day(state))
    # as they would come back from the store: amounts are numbers
    responses = [dict(each.text.tree) for each in drafted.actions if each.type == "ClaimResponse" and each.text]
    details = list_details(remittance, range(len(remittance.claims)), responses)
    active = {**activate(remittance, draft, details, day), "outcome": "complete"}
    responses = [turn_active(each, day) for each in responses]
    ids = sorted({find_reference(each["request"]).removeprefix("Claim/") for each in responses})
    claims = [dict(each.tree) for each in await state.search("Claim", Ids(tuple(ids)))] if ids else []
    pending = Pending(responses, posted_key=remittance.make_key())
    further = await follow_claims(state, claims, pending) if responses else []
    others: list[Action] = [each for each in drafted.actions if each.type != "ClaimResponse"]
    moved = await settle_claims(state, claims, pending) if responses else []
    tasks = [dict(each.text.tree) for each in others if each.type == "Task" and each.text]
    return PostedAtOnce(active, len(responses), tasks, [*map(put, responses), *others, *further, *moved])
