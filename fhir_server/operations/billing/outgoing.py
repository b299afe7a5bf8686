"""What `$transmit` makes of each claim before anything is written: split, numbered, charged, scrubbed, addressed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from fhir_server.fhir.outcome import FhirError, Issue
from fhir_server.operations.billing.divide import divide, write_parts
from fhir_server.operations.billing.scrub import name_errors
from fhir_server.operations.billing.surroundings import Shelf
from fhir_server.partners import Partner
from fhir_server.search.query import Equals
from fhir_server.workers.claim_tasks import ClaimWithTask, move, read_claim
from fhir_server.workers.posting.writes import put, read_now
from fhir_server.workers.x12_partners import choose_partner, get_section
from fhir_server.writes.action import Action
from fhir_server.writes.state import State
from mappers.billing import codes
from mappers.billing.assembly import mark_charges
from mappers.billing.claim_numbers import number_claim, set_frequency
from mappers.billing.claim_states import (
    ENDED,
    STATES,
    find_refusal,
    list_outputs,
    make_claim_task,
    read_state,
)
from mappers.billing.claim_view import ClaimView
from mappers.billing.fields import Resource, find_identifier, find_reference, make_reference
from mappers.billing.scrub import findings_to_outcome, has_errors, scrub_view
from mappers.x12.partner import ClaimSource


class Asked(NamedTuple):
    """What the request says beside the claims: the partner ("": by the payer), `resubmit`, the frequency code."""

    partner: str = ""
    resubmit: bool = False
    frequency: str = "1"


@dataclass(slots=True)
class Case:
    """How one claim fares: its state, the Task of its transmission, findings and refusals as issues.

    `source`: the claim that it was split from.
    """

    claim: str
    state: str = ""
    source: str = ""
    transmission: str = ""
    issues: list[dict[str, Any]] = field(default_factory=list)


class Outgoing(NamedTuple):
    """A claim that may go out: as it will be stored, with its Task, the charges that it lacked, and its partner."""

    case: Case
    claim: Resource
    task: Resource
    charges: Sequence[Resource]
    source: ClaimSource
    partner: Partner


@dataclass(slots=True)
class Batch:
    """The claims of one decision, and the writes that it has come to; of one resource the last one counts."""

    state: State
    asked: Asked
    shelf: Shelf
    cases: list[Case] = field(default_factory=list)
    outgoing: list[Outgoing] = field(default_factory=list)
    writes: dict[str, Action] = field(default_factory=dict)

    def write(self, actions: Iterable[Action]) -> None:
        """Add writes."""
        self.writes |= {f"{each.type}/{each.id}": each for each in actions}

    def add_case(self, claim: str, state: str, *issues: Issue, source: str = "") -> Case:
        """A claim to be told of in the answer."""
        case = Case(claim, state, source, issues=[each.to_json() for each in issues])
        self.cases.append(case)
        return case

    def hold(self, case: Case, task: Resource, reason: str) -> None:
        """Leave a claim to a person. One that has gone out before keeps its state."""
        before = read_state(task) or "draft"
        case.state = before
        if not STATES[before].editable:
            return
        case.state = "held"
        if before != "held" or task.get("statusReason", {}).get("text", "") != reason:
            self.write([put(move(self.state, task, "held", reason))])


async def prepare(batch: Batch, reference: str) -> None:
    """Add a claim, or what it splits into, to what goes out; a claim that does not is told of in the answer."""
    try:
        found = await read_claim(batch.state, reference)
    except FhirError as error:
        batch.add_case(reference, "", *error.issues)
        return
    if found.state == "split":
        await _tell_children(batch, reference, found.task)
    elif not STATES[found.state].editable:
        await _tell_or_repeat(batch, reference, found.claim, found.task)
    elif found.claim.get("status") in ENDED:
        text = f"`{reference}` is `{found.claim['status']}`; it is not sent."
        batch.add_case(reference, found.state, Issue("error", "business-rule", text, ("Claim.status",)))
    else:
        await _divide(batch, reference, found)


async def _divide(batch: Batch, reference: str, found: ClaimWithTask) -> None:
    try:
        parts = await divide(batch.shelf, found.claim)
    except FhirError as error:
        batch.add_case(reference, found.state, *error.issues)
        return
    if not parts.changed:
        case = batch.add_case(reference, found.state)
        if parts.held:
            case.issues = [each.to_json() for each in parts.issues] or [_explain_hold(parts.reason)]
            batch.hold(case, found.task, parts.reason)
        else:
            await _add_outgoing(batch, case, parts.children[0], found.task)
        return
    batch.add_case(reference, "split", *parts.issues)
    batch.write(write_parts(batch.state, found, parts))
    for child in parts.held:
        held = batch.add_case(make_reference(child), "held", source=reference)
        held.issues = [_explain_hold(parts.find_reason(child))]
    for child in parts.children:
        case = batch.add_case(make_reference(child), "draft", source=reference)
        await _add_outgoing(batch, case, child, make_claim_task(child, read_now(batch.state.context)))


def _explain_hold(reason: str) -> dict[str, Any]:
    return Issue("information", "business-rule", reason or "A rule holds the claim.", ("Claim",)).to_json()


async def _tell_children(batch: Batch, reference: str, task: Resource) -> None:
    """A claim that is split already is never sent; its children are told of as they stand."""
    batch.add_case(reference, "split")
    for child in (*list_outputs(task, "child"), *list_outputs(task, "held")):
        found = await read_claim(batch.state, child)
        case = batch.add_case(child, found.state, source=reference)
        case.transmission = _find_transmission(found.task)


async def _tell_or_repeat(batch: Batch, reference: str, claim: Resource, task: Resource) -> None:
    """What has gone out answers its transmission; with `resubmit` it goes out once more."""
    before = read_state(task) or "draft"
    case = batch.add_case(reference, before)
    case.transmission = _find_transmission(task)
    refusal = find_refusal(task, "sent") if before != "sent" else None
    if not batch.asked.resubmit:
        if not case.transmission and refusal is not None:
            case.issues = [refusal.to_json()]
    elif refusal is not None:
        case.issues = [refusal.to_json()]
    else:
        await _add_outgoing(batch, case, number_claim(claim), task)


def _find_transmission(task: Resource) -> str:
    return next(reversed(list_outputs(task, "transmission")), "")


async def _add_outgoing(batch: Batch, case: Case, claim: Resource, task: Resource) -> None:
    """Scrub a claim as it would go out, and find its partner; held where there is an error."""
    frequency = batch.asked.frequency
    try:
        original = await _find_original(batch.state, claim) if frequency != "1" else ""
        claim, charges = await _charge(batch, set_frequency(claim, frequency, original))
        view = await batch.shelf.view(claim)
        findings = scrub_view(view)
        case.issues = findings_to_outcome(findings)["issue"] if findings else []
        if has_errors(findings):
            batch.hold(case, task, name_errors(findings))
            return
        partner = _find_partner(batch, view)
    except FhirError as error:
        case.issues += [each.to_json() for each in error.issues]
        batch.hold(case, task, str(error))
        return
    source = ClaimSource(claim, {**view.resources, make_reference(claim): claim}, frequency)
    batch.outgoing.append(Outgoing(case, {**claim, "status": "active"}, task, charges, source, partner))


def _find_partner(batch: Batch, view: ClaimView) -> Partner:
    """Who takes the claim. Raises Unprocessable where nobody does, or has no folder for it."""
    partners = batch.state.context.partners
    if batch.asked.partner:
        partner = partners[batch.asked.partner]
        get_section(partner)
        return partner
    return choose_partner(partners, view.focal.payer_id if view.focal else "")


async def _charge(batch: Batch, claim: Resource) -> tuple[Resource, list[Resource]]:
    """The claim with a ChargeItem for each line, and those that it lacked: a claim written by others has none."""
    named = {find_reference(each) for item in claim.get("item", ()) for each in _list_charges(item)}
    stored = [await batch.shelf.read(each) for each in sorted(named) if each.startswith("ChargeItem/")]
    charges = {make_reference(each): each for each in stored if each is not None}
    return mark_charges(claim, charges)


def _list_charges(item: Resource) -> list[Any]:
    return [each.get("valueReference") for each in item.get("extension", ()) if each.get("url") == codes.CHARGE_ITEM]


async def _find_original(state: State, claim: Resource) -> str:
    """The payer's number of the claim that is replaced or voided: this one, or the one that it is related to."""
    related = [find_reference(each.get("claim")) for each in claim.get("related", ())]
    references = tuple(dict.fromkeys([make_reference(claim), *filter(None, related)]))
    for reference in references:
        answers = await state.search("ClaimResponse", Equals("request", (reference,)))
        numbers = [find_identifier(dict(each.tree), codes.PAYER_CONTROL_NUMBER) for each in answers]
        if any(numbers):
            return next(each for each in reversed(numbers) if each)
    return ""
