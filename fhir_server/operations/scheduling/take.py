"""What `$hold` and `$book` share: the first candidate that is free is written with its Slots and Provenance."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from fhir_server.fhir.datetimes import format_instant
from fhir_server.fhir.outcome import Conflict, FhirError, Issue, Unprocessable
from fhir_server.fhir.resource import parse
from fhir_server.operations.scheduling.asked import Ask, Candidate, error_of, is_same_visit, list_candidates, name_of
from fhir_server.operations.scheduling.parameters import Parameters
from fhir_server.operations.scheduling.patients import PATIENT_NAMES, create_patient, read_patient
from fhir_server.requests.context import Context
from fhir_server.requests.request import Request, Response
from fhir_server.scheduling.availability import explain_alternatives, list_alternatives
from fhir_server.scheduling.settle import Consequences, Visit, plan_slots, settle, write_resource
from fhir_server.scheduling.site import read_site
from fhir_server.writes.action import Action
from fhir_server.writes.deciding import Decision, Outcome, decide_and_commit
from fhir_server.writes.state import State
from mappers.scheduling.clashes import Refusal, apply_override, note_override
from mappers.scheduling.elements import Resource, code_of, extension_value, members, read_times, target_of
from mappers.scheduling.extensions import HOLD_EXPIRES
from mappers.scheduling.intervals import MINUTE
from mappers.scheduling.life_cycle import check_transition
from mappers.scheduling.occupied import occupies
from mappers.scheduling.slots import check_hold, mark_hold

NAMES = (
    "appointment-reference",
    "appointment-resource",
    *PATIENT_NAMES,
    "practitioner",
    "comment",
    "override",
    "reason",
)
_TAKEN = frozenset(("clash", "buffer", "capacity"))


@dataclass(frozen=True, slots=True)
class Order:
    """What is to become of an Appointment: its status, for a hold until when, and what is set aside by whom and why."""

    status: str
    until: int | None
    kinds: frozenset[str]
    reason: str
    who: str


Answer = str
"""The reference of the Appointment that answers."""


async def take(context: Context, request: Request, asked: Parameters, status: str) -> Response:
    """201 with the Appointment, or 200 where it was taken already. Raises Conflict with the next free times."""
    kinds, reason = asked.override()

    async def decide(state: State) -> Decision[Answer]:
        patient = await read_patient(state, asked)
        ask = Ask(context, request, asked, await read_site(state), context.clock(), patient)
        until = ask.now + context.settings.hold_minutes * MINUTE if status == "pending" else None
        order = Order(status, until, kinds, reason, request.principal.name)
        return await _decide(state, ask, order)

    return await respond(context, request, await decide_and_commit(context, request.caller, decide))


async def respond(context: Context, request: Request, outcome: Outcome[Answer]) -> Response:
    """The Appointment as it is now, written by this request or before."""
    results = {f"{each.type}/{each.id}": each for each in outcome.results}
    done = results.get(outcome.answer)
    if done is None:
        stored = await context.reader(request.caller).read("Appointment", outcome.answer.partition("/")[2])
        assert stored is not None
        return Response(200, stored.raw or b"", stored.version, stored.last_updated)
    location = f"{request.base}/{outcome.answer}/_history/{done.version}"
    return Response(done.status, done.text(), done.version, done.last_updated, location)


async def _decide(state: State, ask: Ask, order: Order) -> Decision[Answer]:
    blind = State(ask.context, ask.request.caller)  # what is hidden from the caller takes its time as well
    candidates = await list_candidates(state, ask)
    refused: list[tuple[Candidate, Sequence[Refusal]]] = []
    for candidate in candidates:
        if candidate.old is not None and _is_done(candidate, order, ask):
            return Decision(name_of(candidate.old))
        result = await try_candidate(blind, ask, order, candidate)
        if isinstance(result, str):
            return Decision(result)
        if isinstance(result, Consequences):
            new = create_patient(ask.patient)
            actions = (
                *new,
                *write_candidate(candidate, result),
                make_provenance(ask, [result.appointment], order.reason),
            )
            return Decision(name_of(result.appointment), actions, tuple(blind.assertions), tuple(blind.locks))
        refused.append((candidate, result))
    raise await build_refusal(ask, refused[0][0].new, refused[0][1])


def write_candidate(candidate: Candidate, result: Consequences) -> tuple[Action, ...]:
    """The write of the Appointment, and those beside it."""
    new = result.appointment
    if candidate.old is None:
        own = Action("PUT", "Appointment", new["id"], id=new["id"], text=parse(orjson.dumps(new)), decided=True)
    else:
        own = write_resource(new, candidate.old)
    return (own, *result.actions)


def _is_done(candidate: Candidate, order: Order, ask: Ask) -> bool:
    """Whether the stored Appointment is already what was asked for. Raises where it may not become it."""
    old = candidate.old or {}
    patient = ask.patient.reference
    if code_of(old) == "pending" and extension_value(old, HOLD_EXPIRES) is not None:
        issue = check_hold(old, patient, ask.now)
        if issue:
            raise error_of(issue)
        return order.status == "pending" and candidate.new == old
    if code_of(old) == order.status and occupies(old, ask.now):
        return _names_patient(old, patient) and (candidate.new == old or is_same_visit(candidate.new, old))
    if order.status == "pending" and code_of(old) not in ("pending", "proposed", "waitlist"):
        raise Conflict(f"`{name_of(old)}` is `{code_of(old)}`; only what is not booked can be held.")
    issue = check_transition(code_of(old), order.status, bool(order.kinds))
    if issue:
        raise error_of(issue)
    return False


def _names_patient(appointment: Resource, patient: str) -> bool:
    """Whether the Appointment is the patient's. Raises Forbidden where it is another's."""
    actors = [target_of(person.get("actor")) for person in members(appointment, "participant")]
    if patient and patient not in actors and any(actor.startswith("Patient/") for actor in actors):
        text = f"This time is taken for another patient than `{patient}`."
        raise error_of(Issue("error", "forbidden", text, ("Appointment.participant",)))
    return True


async def try_candidate(
    state: State, ask: Ask, order: Order, candidate: Candidate
) -> Consequences | str | Sequence[Refusal]:
    """What is written when the time is free, the Appointment that has it for the same visit, or what is in the way."""
    times = read_times(candidate.new)
    if isinstance(times, Issue):  # who waits has no time yet
        raise Unprocessable(issues=[times])
    new = _order(candidate.new, order, ask.asked.text("comment"))
    settled = await settle(state, Visit(new, candidate.old, ask.practice, ask.now, operation=True))
    remaining, aside, _ = apply_override(settled.refusals, order.kinds, order.reason)
    for other in settled.surroundings.appointments:
        taken = code_of(other) == order.status and occupies(other, ask.now)
        if candidate.old is None and taken and is_same_visit(new, other) and await _may_see(ask, other):
            return name_of(other)
    if remaining:
        return remaining
    if aside:
        new = note_override(new, sorted(order.kinds), order.reason, order.who)
        settled = settled._replace(visit=settled.visit._replace(new=new))
    return await plan_slots(state, settled, overbooked=any(each.kind in _TAKEN for each in aside))


async def _may_see(ask: Ask, appointment: Resource) -> bool:
    return await ask.context.reader(ask.request.caller).read("Appointment", appointment["id"]) is not None


def _order(appointment: Resource, order: Order, comment: str) -> Resource:
    """The Appointment with the status that was ordered, those who were asked having accepted."""
    accepted = "accepted" if order.status == "booked" else None
    people = [
        {**person, "status": accepted} if accepted and code_of(person) == "needs-action" else person
        for person in members(appointment, "participant")
    ]
    new = {"resourceType": "Appointment", **appointment, "status": order.status, "participant": people}
    if comment:
        new["comment"] = comment
    if order.until is not None:
        return mark_hold(new, order.until)
    others = [each for each in members(new, "extension") if each.get("url") != HOLD_EXPIRES]
    rest = {name: value for name, value in new.items() if name != "extension"}
    return {**rest, "extension": others} if others else rest


async def build_refusal(ask: Ask, appointment: Resource, refusals: Sequence[Refusal]) -> FhirError:
    """409 with the next free times for what is taken, 422 for what the rules of the calendar do not allow."""
    issues = [refusal.issue for refusal in refusals]
    if not any(refusal.kind in _TAKEN for refusal in refusals):
        return Unprocessable(issues=issues)
    times = await list_alternatives(ask.context, appointment, ask.practice)
    return Conflict(issues=[*issues, explain_alternatives(times)])


def make_provenance(ask: Ask, appointments: Iterable[Resource], reason: str = "") -> Action:
    """Who did what to the Appointments, written with them (https://hl7.org/fhir/R4/provenance.html)."""
    provenance: dict[str, Any] = {
        "resourceType": "Provenance",
        "target": [{"reference": name_of(each)} for each in appointments],
        "recorded": format_instant(ask.now),
        "activity": {"text": ask.asked.operation.removeprefix("$")},
        "agent": [{"who": {"display": ask.request.principal.name}}],
    }
    if reason:
        provenance["reason"] = [{"text": reason}]
    return Action("POST", "Provenance", ask.context.new_id(), text=parse(orjson.dumps(provenance)))
