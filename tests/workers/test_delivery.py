"""No delivery is lost, whenever its process dies; only what went unanswered is repeated, under the same number."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fhir_server.app import Knowledge
from fhir_server.requests.context import Context
from fhir_server.transports.protocol import DeliveryResult, Endpoint, Transport
from fhir_server.workers.delivery import run_deliveries
from fhir_server.workers.delivery_item import Answer, Outbox, Outgoing
from fhir_server.workers.lease import LeaseLost
from fhir_server.workers.worker import StepResult
from fhir_server.writes.pending_writes import Tree
from tests.conftest import Client, serving
from tests.workers.teams import Failing, Killed, Lines, take_turn

pytestmark = pytest.mark.anyio

CODE = "urn:example:codes|message-delivery"


class Receiver:
    """A partner: counts what arrives, in order. `outcomes`: what it does with the next ones instead of answering."""

    def __init__(self, repeats: bool) -> None:
        self.repeats = repeats
        self.arrived: list[str] = []
        self.outcomes: list[DeliveryResult | BaseException] = []

    async def deliver(self, endpoint: Endpoint, control_number: str, payload: bytes) -> DeliveryResult:
        assert payload == f"for {control_number}".encode()
        outcome = self.outcomes.pop(0) if self.outcomes else DeliveryResult("delivered", b"AA")
        if not isinstance(outcome, DeliveryResult) or outcome.outcome in ("delivered", "unanswered"):
            self.arrived.append(control_number)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    async def find_delivered(self, endpoint: Endpoint, control_number: str) -> bool:
        return control_number in self.arrived


def outbox(receiver: Transport) -> Outbox:
    async def prepare(context: Context, task: Tree) -> Outgoing:
        number = task["identifier"][0]["value"]
        if number == "broken":
            raise KeyError(number)
        return Outgoing(receiver, {}, number, f"for {number}".encode())

    def read_answer(context: Context, task: Tree, result: DeliveryResult) -> Answer:
        output = {"type": {"text": "acknowledgement"}, "valueString": result.answer.decode() or "none"}
        if result.outcome == "refused":
            return Answer("rejected", result.reason)
        return Answer("completed", outputs=[output])

    return Outbox((("code", CODE),), prepare, read_answer)


@pytest.fixture(params=["memory", "sqlite", "mongo"])
async def client(request: pytest.FixtureRequest, known: Knowledge, tmp_path: Path) -> AsyncIterator[Client]:
    uri = {"memory": "memory://", "sqlite": f"sqlite:///{tmp_path}/fhir.db"}.get(request.param)
    async with serving(known, store=uri or request.getfixturevalue("new_mongo_uri")()) as client:
        yield client


def delivery(number: str, partner: str = "lab", status: str = "requested") -> dict[str, Any]:
    system, _, code = CODE.partition("|")
    return {
        "resourceType": "Task",
        "id": number,
        "identifier": [{"system": "urn:example:numbers", "value": number}],
        "status": status,
        "intent": "order",
        "code": {"coding": [{"system": system, "code": code}]},
        "owner": {"reference": f"Organization/{partner}"},
        "for": {"identifier": {"value": "1"}, "reference": "Patient/1"},
    }


async def put(client: Client, *tasks: dict[str, Any]) -> None:
    for partner in ("lab", "payer"):
        await client.put(f"Organization/{partner}", json={"resourceType": "Organization", "id": partner, "name": "x"})
    await client.put("Patient/1", json={"resourceType": "Patient", "id": "1"})
    for task in tasks:
        written = await client.put(f"Task/{task['id']}", json=task)
        assert written.status_code == 201, written.text


async def status(client: Client, number: str) -> str:
    return str((await client.get(f"Task/{number}")).json()["status"])


async def deliver(
    client: Client, receiver: Receiver, owner: str, lines: Lines | None = None, store: object = None
) -> StepResult:
    context = client.server.context
    if store is not None:
        context = dataclasses.replace(context, unrestricted=store)  # type: ignore[arg-type]
    return await run_deliveries(outbox(receiver))(await take_turn(context, "deliveries", owner, lines))


async def test_a_delivery_goes_through_its_states(client: Client) -> None:
    receiver = Receiver(repeats=True)
    await put(client, delivery("n1"))
    assert (await deliver(client, receiver, "a")).done == 1
    assert receiver.arrived == ["n1"]
    history = (await client.get("Task/n1/_history")).json()["entry"]
    states = [entry["resource"]["status"] for entry in reversed(history)]
    assert states == ["requested", "accepted", "in-progress", "completed"]
    assert history[0]["resource"]["output"][0]["valueString"] == "AA"
    assert (await deliver(client, receiver, "a")).done == 0
    assert receiver.arrived == ["n1"]


async def test_an_error_in_one_item_parks_it_and_the_next_goes_out(client: Client) -> None:
    receiver, lines = Receiver(repeats=True), Lines()
    await put(client, delivery("broken"), delivery("n2"))
    await deliver(client, receiver, "a", lines)
    assert [await status(client, number) for number in ("broken", "n2")] == ["on-hold", "completed"]
    assert [(level, message, fields["item"]) for level, message, fields in lines] == [
        ("error", "item parked", "Task/broken")
    ]


async def test_what_is_refused_is_rejected_with_the_reason(client: Client) -> None:
    receiver = Receiver(repeats=True)
    receiver.outcomes = [DeliveryResult("refused", reason="The partner is closed.")]
    await put(client, delivery("n1"))
    await deliver(client, receiver, "a")
    task = (await client.get("Task/n1")).json()
    assert (task["status"], task["statusReason"]) == ("rejected", {"text": "The partner is closed."})


async def test_what_was_not_sent_waits_and_those_behind_it_keep_their_order(client: Client) -> None:
    receiver = Receiver(repeats=True)
    receiver.outcomes = [DeliveryResult("unsent", reason="Nobody listens.")]
    await put(client, delivery("n1"), delivery("n2"))
    result = await deliver(client, receiver, "a")
    assert (result.done, result.lag, receiver.arrived) == (0, 2, [])
    assert [await status(client, number) for number in ("n1", "n2")] == ["requested", "requested"]
    await deliver(client, receiver, "a")
    assert receiver.arrived == ["n1", "n2"]


async def test_one_partner_does_not_wait_for_another(client: Client) -> None:
    receiver = Receiver(repeats=True)
    deliver_one = receiver.deliver

    async def deliver_to(endpoint: Endpoint, control_number: str, payload: bytes) -> DeliveryResult:
        if control_number == "n1":
            return DeliveryResult("unsent", reason="Nobody listens.")
        return await deliver_one(endpoint, control_number, payload)

    receiver.deliver = deliver_to  # type: ignore[method-assign]
    await put(client, delivery("n1", "lab"), delivery("n2", "payer"), delivery("n3", "lab"))
    await deliver(client, receiver, "a")
    assert receiver.arrived == ["n2"]


@pytest.mark.parametrize("repeats", [True, False])
async def test_what_went_unanswered_is_decided_by_the_transport(client: Client, repeats: bool) -> None:
    receiver = Receiver(repeats)
    receiver.outcomes = [DeliveryResult("unanswered", reason="No answer came.")]
    await put(client, delivery("n1"))
    await deliver(client, receiver, "a")
    assert await status(client, "n1") == "in-progress"
    await deliver(client, receiver, "a")
    assert await status(client, "n1") == "completed"
    assert receiver.arrived == ["n1", "n1"] if repeats else ["n1"]


async def test_what_is_not_found_and_may_not_be_repeated_waits_for_a_person(client: Client) -> None:
    receiver = Receiver(repeats=False)
    await put(client, delivery("n1", status="in-progress"))
    await deliver(client, receiver, "a")
    task = (await client.get("Task/n1")).json()
    assert (task["status"], receiver.arrived) == ("on-hold", [])
    assert "Look for it at the partner" in task["statusReason"]["text"]


async def test_who_lost_the_lease_sends_nothing(client: Client) -> None:
    receiver, step = Receiver(repeats=True), None
    await put(client, delivery("n1"))
    context = client.server.context
    old = await take_turn(context, "deliveries", "old")
    await take_turn(context, "deliveries", "new")
    step = run_deliveries(outbox(receiver))
    await old.sleep(60)
    with pytest.raises(LeaseLost):
        await step(old)
    assert (receiver.arrived, await status(client, "n1")) == ([], "requested")


async def test_a_claim_of_a_process_that_was_overtaken_is_not_marked_by_it(client: Client) -> None:
    """It was stopped between its claim and its mark: the version that it claimed is not the current one any more."""
    receiver = Receiver(repeats=True)
    await put(client, delivery("n1"))
    context = client.server.context

    class Overtaken(Receiver):
        async def deliver(self, *given: Any) -> DeliveryResult:
            raise AssertionError("sent by the one that was overtaken")

    turn = await take_turn(context, "deliveries", "old")
    check, first = turn.lease.check, [True, True]

    async def check_late() -> None:
        await check()
        if len(first) == 1:
            await deliver(client, receiver, "new")
        first[-1:] = []

    turn.lease.check = check_late  # type: ignore[method-assign]
    await run_deliveries(outbox(Overtaken(repeats=True)))(turn)
    assert (receiver.arrived, await status(client, "n1")) == (["n1"], "completed")


NUMBERS = ("n1", "n2", "n3")


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("repeats", [True, False], ids=["repeats", "once"])
async def test_killed_at_any_call_of_the_store_nothing_is_lost(known: Knowledge, repeats: bool, after: bool) -> None:
    """At each call in turn, before and after it reached the store; then another process takes over."""
    at = reached = 1
    while reached:
        async with serving(known, store="memory://") as client:
            receiver = Receiver(repeats)
            await put(client, *(delivery(number) for number in NUMBERS))
            failing = Failing(client.server.context.unrestricted, at, after)
            try:
                await deliver(client, receiver, "a", store=failing)
            except Killed:
                await deliver(client, receiver, "b")
            await check_nothing_is_lost(client, receiver, kills=1)
            reached = failing.reached
            at += 1
    assert at > 20


async def check_nothing_is_lost(client: Client, receiver: Receiver, kills: int) -> None:
    counts = Counter(receiver.arrived)
    for number in NUMBERS:
        ended = await status(client, number)
        history = (await client.get(f"Task/{number}/_history")).json()["entry"]
        sent = sum(entry["resource"]["status"] == "in-progress" for entry in history)
        assert counts[number] <= sent, "each sending is counted by a version"
        if receiver.repeats:
            assert ended == "completed" and counts[number] >= 1
        else:
            assert (ended, counts[number]) in (("completed", 1), ("on-hold", 0))
    assert sum(counts.values()) - len(counts) <= kills, "no more repeats than kills"
    assert [*dict.fromkeys(receiver.arrived)] == sorted(counts)
