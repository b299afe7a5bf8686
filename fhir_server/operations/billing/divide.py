"""A claim taken apart by the rules in force: what becomes of it, and the writes that make it so in one transaction."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

from fhir_server.fhir.outcome import Conflict, Issue, Unprocessable
from fhir_server.operations.billing.surroundings import Shelf
from fhir_server.requests.context import Context
from fhir_server.workers.claim_tasks import ClaimWithTask, move
from fhir_server.workers.message_codes import clean_text
from fhir_server.workers.posting.writes import find_zone, name, put, read_now
from fhir_server.writes.action import Action
from fhir_server.writes.state import State
from mappers.billing.claim_numbers import number_claim
from mappers.billing.claim_states import (
    ENDED,
    STATES,
    Output,
    find_number,
    find_refusal,
    make_claim_task,
    make_output,
    move_task,
)
from mappers.billing.fields import Resource, make_reference
from mappers.billing.split import Split, explain_split, split_claim


class Parts(NamedTuple):
    """What becomes of a claim: children to be sent and held, Invoices, a sentence for each line, what else to say.

    `changed`: False where the claim stays whole, as its only child or held.
    """

    children: tuple[Resource, ...]
    held: tuple[Resource, ...]
    invoices: tuple[Resource, ...]
    explanation: tuple[str, ...]
    issues: tuple[Issue, ...]
    changed: bool

    @property
    def reason(self) -> str:
        """Why the claim itself is held, where it is."""
        return " ".join(each.diagnostics for each in self.issues) or " ".join(self.explanation[:1])

    def find_reason(self, child: Resource) -> str:
        """The sentence of the first line of a child."""
        number = find_number(child)
        return next((each for each in self.explanation if number in each), "")


def check_open(found: ClaimWithTask) -> None:
    """Raises Conflict or Unprocessable for a claim that is neither split nor sent any more."""
    if found.state == "split" or STATES[found.state].editable:
        if found.state != "split" and found.claim.get("status") in ENDED:
            text = f"`{make_reference(found.claim)}` is `{found.claim['status']}`; it is neither split nor sent."
            raise Unprocessable(text, expression=("Claim.status",))
        return
    refusal = find_refusal(found.task, "split")
    assert refusal is not None
    raise Conflict(issues=(refusal,))


async def divide(shelf: Shelf, claim: Resource) -> Parts:
    """What the rules in force make of a claim; without rules that can be read it is held."""
    numbered = number_claim(claim)
    rules, fault = await shelf.find_rules(claim)
    if rules is None:
        return Parts((), (numbered,), (), (), (Issue("error", "conflict", fault, ("Claim",)),), changed=False)
    made = split_claim(await shelf.view(numbered), rules, _read_local_now(shelf.state.context))
    explanation = tuple(clean_text(each) for each in explain_split(made))
    return Parts(*_name_all(made), explanation, made.issues, not made.unchanged)


def _name_all(made: Split) -> tuple[tuple[Resource, ...], tuple[Resource, ...], tuple[Resource, ...]]:
    return tuple(map(name, made.children)), tuple(map(name, made.held)), tuple(map(name, made.invoices))


def write_parts(state: State, found: ClaimWithTask, parts: Parts) -> Iterator[Action]:
    """The writes that cancel the source and make its children with their Tasks, and its Invoices."""
    yield put({**found.claim, "status": "cancelled"})
    yield put(move(state, found.task, "split", outputs=list(_list_outputs(parts))))
    now = read_now(state.context)
    for child in (*parts.children, *parts.held):
        task = make_claim_task(child, now)
        yield put(child)
        yield put(move_task(task, "held", now, parts.find_reason(child)) if child in parts.held else task)
    for invoice in parts.invoices:
        yield put(invoice)


def _list_outputs(parts: Parts) -> Iterator[Resource]:
    kinds: tuple[tuple[Output, tuple[Resource, ...]], ...] = (
        ("child", parts.children),
        ("held", parts.held),
        ("invoice", parts.invoices),
    )
    for kind, resources in kinds:
        for each in resources:
            yield make_output(kind, valueReference={"reference": make_reference(each)})
    for sentence in parts.explanation:
        yield make_output("explanation", valueString=sentence)


def _read_local_now(context: Context) -> str:
    """The clock in the practice's zone, whose day is the day of posting."""
    moment = datetime.fromtimestamp(context.clock() / 1_000_000, find_zone(context))
    return moment.isoformat(timespec="milliseconds")
