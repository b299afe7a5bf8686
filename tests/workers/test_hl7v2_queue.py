"""What is queued reaches a partner that fails by plan: in order, none lost, repeated only where no answer came."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from fhir_server.app import Knowledge
from fhir_server.fhir.outcome import Conflict
from fhir_server.requests.request import Caller
from fhir_server.workers import hl7v2_sending
from fhir_server.workers.formats import INTERPRETERS
from fhir_server.workers.message_codes import find_parts
from fhir_server.workers.message_log import close, is_replayable, replay
from fhir_server.workers.message_states import read_state
from fhir_server.workers.partner_pauses import pause, resume
from fhir_server.workers.table import WORKERS
from fhir_server.workers.worker import Turn
from tests.conftest import Client, serving
from tests.workers.hl7v2_messages import choose_store
from tests.workers.stub_partner import Plan, Stub, stub_partner, write_partner
from tests.workers.teams import take_turn
from tests.workers.test_hl7v2_sending import deliveries, person, put, queue

pytestmark = pytest.mark.anyio

CALLER = Caller("http://test/fhir")
PATIENCE = 90
"""Seconds in which all has to be delivered, waits after failures among them."""

Open = Callable[..., Awaitable[Client]]


@pytest.fixture(params=["memory", "sqlite", "mongo"])
async def opened(request: pytest.FixtureRequest, known: Knowledge, tmp_path: Path) -> AsyncIterator[Open]:
    """Opens a server whose partners are at these ports."""
    contexts: list[Any] = []

    async def open_with(**ports: int) -> Client:
        for name, port in ports.items():
            write_partner(tmp_path, name, port)
        contexts.append(serving(known, store=choose_store(request, tmp_path), profiles=str(tmp_path)))
        client: Client = await contexts[-1].__aenter__()
        return client

    yield open_with
    for each in contexts:
        await each.__aexit__(None, None, None)


async def change(client: Client, patients: int, rounds: int) -> dict[str, list[str]]:
    """Write each patient so often; the family names that each is sent with, by number."""
    for number in range(rounds):
        for each in range(patients):
            await put(client, person(f"p{each}", f"V{number}"))
    return {f"N-p{each}": [f"V{number}" for number in range(rounds)] for each in range(patients)}


async def deliver(turn: Turn, until: Callable[[], Awaitable[bool]]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not await until():
        assert time.monotonic() < deadline, "not all was delivered"
        await WORKERS["deliveries"].step(turn)
        await asyncio.sleep(0.02)


def all_in(client: Client, state: str, partner: str = "") -> Callable[[], Awaitable[bool]]:
    async def ask() -> bool:
        return {read_state(task) for task in await deliveries(client, partner)} == {state}

    return ask


async def settle(client: Client, partner: str = "") -> Turn:
    """Deliver until all is acknowledged."""
    await queue(client)
    turn = await take_turn(client.server.context, "deliveries", "a")
    await deliver(turn, all_in(client, "acknowledged", partner))
    return turn


def plan_once(action: str, at: int = 2) -> Plan:
    return lambda number: action if number == at else "AA"


@pytest.mark.parametrize("action", ["AA", "AE", "AR", "CE", "CR", "wrong", "garbage", "late", "close", "half"])
async def test_each_patients_messages_arrive_in_order_whatever_the_partner_does(opened: Open, action: str) -> None:
    stub = Stub(plan_once(action))
    async with stub_partner(stub) as port:
        client = await opened(north=port)
        expected = await change(client, 2, 2)
        await settle(client)
        stub.check(expected)
        assert len(stub.arrivals) == 4 + (action not in ("AA", "half"))


async def test_a_connection_that_is_closed_at_once_loses_nothing(opened: Open) -> None:
    stub = Stub(connections=lambda number: "unread" if number == 1 else "")
    async with stub_partner(stub) as port:
        client = await opened(north=port)
        expected = await change(client, 2, 2)
        await settle(client)
        stub.check(expected)


async def test_a_late_answer_is_never_taken_for_that_of_the_next_message(opened: Open) -> None:
    """Trap V3: the first is sent again on a new connection, and the second is not acknowledged by its answer."""
    stub = Stub(plan_once("late", 1))
    async with stub_partner(stub) as port:
        client = await opened(north=port)
        await change(client, 2, 1)
        await settle(client)
        assert [each.patient for each in stub.arrivals] == ["N-p0", "N-p1", "N-p0"]
        assert stub.opened == 2
        assert stub.arrivals[0].number == stub.arrivals[2].number


async def test_a_refused_message_is_parked_after_its_tries_and_holds_back_its_patient_alone(opened: Open) -> None:
    """Trap V18; the sentence is the partner's own."""
    stub = Stub()
    stub.plan = lambda number: "AE" if number in (1, 4, 5) else "AA"
    async with stub_partner(stub) as port:
        client = await opened(north=port)
        await change(client, 2, 2)
        await queue(client)
        turn = await take_turn(client.server.context, "deliveries", "a")

        async def parked() -> bool:
            return [read_state(task) for task in await deliveries(client)].count("parked") == 1

        await deliver(turn, parked)
        await WORKERS["deliveries"].step(turn)
        tasks = await deliveries(client)
        assert [read_state(task) for task in tasks] == ["parked", "acknowledged", "waiting", "acknowledged"]
        assert "The receiver answered AE: No bed is free." in tasks[0]["statusReason"]["text"]
        assert [part["valueInteger"] for part in find_parts(tasks[0], "tries")] == [3]
        assert len(find_parts(tasks[0], "acknowledgement")) == 1
        assert len({each.number for each in stub.arrivals if each.action == "AE"}) == 1
        assert [each.patient for each in stub.arrivals if each.action == "AA"] == ["N-p1", "N-p1"]


async def test_a_partner_that_is_not_there_holds_up_nobody_else(opened: Open) -> None:
    """Trap V18: A is down, B gets all at once; A later gets all in order, none twice."""
    dead, alive = Stub(), Stub()
    async with stub_partner(dead) as port:
        pass  # nobody listens there now
    async with stub_partner(alive) as other:
        client = await opened(dead=port, alive=other)
        expected = await change(client, 3, 4)
        turn = await settle(client, "alive")
        alive.check(expected)
        assert {read_state(task) for task in await deliveries(client, "dead")} == {"waiting"}
        server = await asyncio.start_server(dead.serve, "127.0.0.1", port)
        turn = await take_turn(client.server.context, "deliveries", "after a restart")
        await deliver(turn, all_in(client, "acknowledged"))
        dead.check(expected)
        assert len(dead.arrivals) == len(alive.arrivals) == 12
        server.close()


async def test_a_partner_that_is_silent_does_not_hold_up_what_is_made_meanwhile(opened: Open) -> None:
    """Its attempt lasts as long as it waits; the step looks at the others again in the meantime."""
    silent, alive = Stub(lambda number: "late"), Stub()
    async with stub_partner(silent) as port, stub_partner(alive) as other:
        client = await opened(silent=port, alive=other)
        await put(client, person("ada"))
        await queue(client)
        turn = await take_turn(client.server.context, "deliveries", "a")
        await WORKERS["deliveries"].step(turn)
        await put(client, person("bob"))
        await queue(client)
        await WORKERS["deliveries"].step(turn)
        assert len(alive.arrivals) == 2
        task = (await deliveries(client, "silent"))[0]
        assert read_state(task) == "sent-unanswered"
        assert "gave no acknowledgement within 0.2" in task["statusReason"]["text"]


async def test_a_paused_partner_is_sent_nothing_until_it_is_resumed(opened: Open) -> None:
    stub, other = Stub(), Stub()
    async with stub_partner(stub) as port, stub_partner(other) as second:
        client = await opened(north=port, south=second)
        context = client.server.context
        stub.plan = lambda number: "AA"
        await pause(context, "north")
        expected = await change(client, 1, 2)
        turn = await settle(client, "south")
        assert stub.arrivals == []
        assert await resume(context, "north") and not await resume(context, "north")
        await deliver(turn, all_in(client, "acknowledged"))
        stub.check(expected)


@pytest.mark.parametrize("seed", [1, 2])
async def test_many_changes_and_a_partner_that_fails_at_random(opened: Open, seed: int) -> None:
    roll = random.Random(seed)
    actions = ["AA"] * 12 + ["AE", "AR", "wrong", "garbage", "late", "close", "half"]
    stub = Stub(lambda number: "AA" if number > 60 else roll.choice(actions))
    async with stub_partner(stub) as port:
        client = await opened(north=port)
        path = Path(client.server.context.settings.profiles) / "partners" / "north.toml"
        assert "tries" not in path.read_text(encoding="utf-8")
        expected = await change(client, 5, 5)
        await settle(client)
        stub.check(expected)


@pytest.fixture
async def north(known: Knowledge, tmp_path: Path) -> AsyncIterator[tuple[Client, Stub]]:
    """A server in memory with a partner that answers as the stub is told to."""
    stub = Stub()
    async with stub_partner(stub) as port:
        write_partner(tmp_path, "north", port)
        async with serving(known, store="memory://", profiles=str(tmp_path)) as client:
            yield client, stub


async def test_what_was_acknowledged_is_sent_once_more_only_when_that_is_meant(north: tuple[Client, Stub]) -> None:
    client, stub = north
    await put(client, person())
    turn = await settle(client)
    (task,) = await deliveries(client)
    context = client.server.context
    with pytest.raises(Conflict, match="--again"):
        await replay(context, CALLER, task, INTERPRETERS)
    assert not is_replayable(task, False) and is_replayable(task, True)
    await replay(context, CALLER, task, INTERPRETERS, again=True)
    await deliver(turn, all_in(client, "acknowledged"))
    assert len(stub.arrivals) == 2 and stub.arrivals[0] == stub.arrivals[1]


async def test_a_message_that_could_not_be_written_is_written_when_it_is_replayed(
    north: tuple[Client, Stub], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, stub = north

    def fail(*given: Any) -> None:
        raise KeyError("a fault of ours")

    with monkeypatch.context() as patched:
        patched.setattr(hl7v2_sending, "write_event", fail)
        await put(client, person())
        await queue(client)
    (task,) = await deliveries(client)
    assert read_state(task) == "parked" and "by a fault of this server (`KeyError`)" in task["statusReason"]["text"]
    await replay(client.server.context, CALLER, task, INTERPRETERS)
    await settle(client)
    assert [(each.number, each.family) for each in stub.arrivals] == [(task["identifier"][1]["value"], "Adler")]


async def test_a_person_who_closes_what_is_parked_lets_the_next_of_the_patient_go(north: tuple[Client, Stub]) -> None:
    client, stub = north
    stub.plan = lambda number: "AR" if number <= 3 else "AA"
    await change(client, 1, 2)
    await queue(client)
    turn = await take_turn(client.server.context, "deliveries", "a")
    for _ in range(5):
        await WORKERS["deliveries"].step(turn)
    first, second = await deliveries(client)
    assert (read_state(first), read_state(second)) == ("parked", "waiting")
    await close(client.server.context, CALLER, first["id"], "Entered there by hand.")
    await WORKERS["deliveries"].step(turn)
    assert [each.family for each in stub.arrivals] == ["V0", "V0", "V0", "V1"]
