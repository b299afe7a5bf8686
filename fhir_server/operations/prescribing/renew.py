"""`$renew` of a MedicationRequest or of a refill request: a draft that continues it, and answers what was asked."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from fhir_server.fhir.json_tree import decode, encode
from fhir_server.fhir.outcome import Conflict, Invalid, NotFound, Unprocessable
from fhir_server.fhir.resource import parse
from fhir_server.operations.prescribing.changes import TYPE, make_provenance, respond
from fhir_server.operations.prescribing.surroundings import MOST_OTHERS, find_local
from fhir_server.operations.scheduling.parameters import Parameters, read_parameters
from fhir_server.requests.context import Context
from fhir_server.requests.request import Request, Response
from fhir_server.search.entries import SEPARATOR
from fhir_server.search.query import And, Equals
from fhir_server.store.operations import VersionIs
from fhir_server.workers.posting.writes import read_now
from fhir_server.writes.action import Action
from fhir_server.writes.deciding import Decision, decide_and_commit
from fhir_server.writes.state import State
from mappers.billing.fields import Resource
from mappers.prescribing.codes import REFILL_REQUEST, TASK
from mappers.prescribing.life_cycle import RENEWABLE
from mappers.prescribing.refills import find_renewal, is_refill_request
from mappers.prescribing.renewal import OPEN, complete_request, derive_renewal_id, make_renewal
from mappers.scheduling.elements import code_of

MOST_RENEWALS = 100
"""Renewals of one prescription; the next one renews a renewal."""

_PRESCRIBERS = ("Practitioner/", "PractitionerRole/")


async def renew(context: Context, request: Request) -> Response:
    """201 with the new draft; 200 with the one that was there already."""
    asked = read_parameters(context, request, ("requester", "reason"))
    requester = _read_requester(asked)

    async def decide(state: State) -> Decision[str]:
        blind = State(context, request.caller)
        if request.path[0] == "Task":
            named, answer = await _read_task(state, request)
            if answer:
                return Decision(answer)
        else:
            named = request.path[1]
        prior, version = await _read_prior(context, request, named)
        reference = f"{TYPE}/{prior['id']}"
        blind.assertions.append(VersionIs(TYPE, prior["id"], version))
        id, is_new = await _find_draft(blind, reference)
        now, renewal = read_now(context), f"{TYPE}/{id}"
        actions = await _answer_requests(blind, reference, renewal, now)
        if is_new:
            text = parse(encode(make_renewal(prior, id, now, requester)))
            actions = [Action("PUT", TYPE, id, id=id, text=text, decided=True), *actions]
        if actions:
            actions.append(make_provenance(context, request, [renewal], asked.text("reason")))
        return Decision(renewal, actions, tuple(blind.assertions), tuple(blind.locks))

    return await respond(context, request, await decide_and_commit(context, request.caller, decide))


def _read_requester(asked: Parameters) -> Resource | None:
    reference = asked.reference("requester")
    if reference and not reference.startswith(_PRESCRIBERS):
        text = f"`requester` is a Practitioner or PractitionerRole, not `{reference}`."
        raise Invalid(text, code="value", expression=("requester",))
    return {"reference": reference} if reference else None


async def _read_task(state: State, request: Request) -> tuple[str, str]:
    """The id of the prescription that a refill request is about, and the renewal that has answered it, "" without one.

    Raises NotFound, and Unprocessable for a Task that asks for no drug, or was answered otherwise.
    """
    name = f"Task/{request.path[1]}"
    found = await state.read("Task", request.path[1])
    if found is None:
        raise NotFound(f"`{name}` does not exist on this server.")
    task = dict(found.tree)
    asked = find_local(state, task.get("focus"))
    if not is_refill_request(task) or not asked.startswith(f"{TYPE}/"):
        text = f"`{name}` is no refill request: its code is `{REFILL_REQUEST}`, and its focus a {TYPE} of this server."
        raise Unprocessable(text, expression=("Task.code",))
    answer = find_local(state, {"reference": find_renewal(task)})
    if code_of(task) == "completed" and answer.startswith(f"{TYPE}/"):
        return asked.partition("/")[2], answer
    if code_of(task) not in OPEN:
        text = f"`{name}` is `{code_of(task)}`: it was answered. Renew `{asked}` itself, or ask anew."
        raise Unprocessable(text, expression=("Task.status",))
    return asked.partition("/")[2], ""


async def _read_prior(context: Context, request: Request, id: str) -> tuple[Resource, int]:
    """The prescription with its numbers as they are written, and its version. Raises what is in the way."""
    stored = await context.reader(request.caller).read(TYPE, id)
    if stored is None or stored.raw is None:
        raise NotFound(f"`{TYPE}/{id}` does not exist on this server.")
    prior = decode(stored.raw)
    if code_of(prior) not in RENEWABLE:
        allowed = ", ".join(f"`{each}`" for each in sorted(RENEWABLE))
        text = f"`{TYPE}/{prior['id']}` is `{code_of(prior)}`; renewed is what is {allowed}. Write a new prescription."
        raise Unprocessable(text, expression=(f"{TYPE}.status",))
    return prior, stored.version


async def _find_draft(state: State, prior: str) -> tuple[str, bool]:
    """The id of the renewal that is still a draft, or that of the next one and True."""
    for number in range(MOST_RENEWALS):
        id = derive_renewal_id(prior, number)
        found = await state.read(TYPE, id)
        if found is None or code_of(dict(found.tree)) == "draft":
            return id, found is None
    raise Conflict(f"`{prior}` was renewed {MOST_RENEWALS} times. Renew the last of its renewals.")


async def _answer_requests(state: State, prior: str, renewal: str, now: str) -> list[Action]:
    """The open Tasks that ask for more of the prescription are completed, whoever may see them."""
    if "Task" not in state.context.types:
        return []
    code = Equals("code", (f"{REFILL_REQUEST}{SEPARATOR}{TASK}",))
    found = await state.search("Task", And((Equals("focus", (prior,)), code)), most=MOST_OTHERS)
    return [_complete(each.tree, renewal, now) for each in found if code_of(dict(each.tree)) in OPEN]


def _complete(task: Mapping[str, Any], renewal: str, now: str) -> Action:
    patch = partial(complete_request, renewal=renewal, now=now)
    return Action("PATCH", "Task", "", id=task["id"], patch=patch, decided=True)
