"""Deliveries go out by their worker, through the states of the table, to where the partner's file says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fhir_server.app import Knowledge
from fhir_server.fhir.datetimes import DAY
from fhir_server.requests.request import Caller
from fhir_server.transports.protocol import DeliveryResult
from fhir_server.workers import message_outbox
from fhir_server.workers.message_codes import read_acknowledgement
from fhir_server.workers.message_deliveries import Delivery, make_delivery
from fhir_server.workers.message_states import read_state
from fhir_server.workers.messages import receive
from fhir_server.workers.table import WORKERS
from fhir_server.workers.worker import StepResult
from fhir_server.writes.deciding import Decision, decide_and_commit
from fhir_server.writes.state import State
from tests.conftest import Client, serving
from tests.workers.plain_messages import PLAIN, message
from tests.workers.teams import Failing, Killed, Lines, take_turn

pytestmark = pytest.mark.anyio

CALLER = Caller("http://test/fhir")


@pytest.fixture(params=["memory", "sqlite", "mongo"])
async def client(request: pytest.FixtureRequest, known: Knowledge, tmp_path: Path) -> AsyncIterator[Client]:
    """A server with the partner `lab`, whose messages go into a folder and are kept for 30 days."""
    uri = {"memory": "memory://", "sqlite": f"sqlite:///{tmp_path}/fhir.db"}.get(request.param)
    (tmp_path / "partners").mkdir()
    (tmp_path / "out").mkdir()
    file = f'name = "lab"\nformats = ["hl7v2"]\nretention_days = 30\n[transports.folder]\nout = "{tmp_path}/out"\n'
    (tmp_path / "partners" / "lab.toml").write_text(file)
    uri = uri or request.getfixturevalue("new_mongo_uri")()
    async with serving(known, store=uri, profiles=str(tmp_path)) as client:
        await client.put("Patient/1", json={"resourceType": "Patient", "id": "1"})
        yield client


async def add(client: Client, number: int, transport: str = "folder") -> None:
    delivery = Delivery("lab", "plain", transport, "Patient/1", number, str(number), b"text", "text/plain", "Patient/1")

    async def decide(state: State) -> Decision[None]:
        return Decision(None, await make_delivery(state, delivery))

    await decide_and_commit(client.server.context, CALLER, decide)


async def work(client: Client, name: str, owner: str = "a", **replaced: Any) -> tuple[StepResult, Lines]:
    lines: Lines = []
    context = replace(client.server.context, **replaced)
    return await WORKERS[name].step(await take_turn(context, name, owner, lines)), lines


async def tasks(client: Client) -> list[dict[str, Any]]:
    bundle = (await client.fhir("GET", "Task?_sort=_id&_count=100")).json()
    return [entry["resource"] for entry in bundle["entry"]]


async def test_a_delivery_goes_through_the_states_of_the_table(client: Client, tmp_path: Path) -> None:
    await add(client, 1)
    await work(client, "deliveries")
    (task,) = await tasks(client)
    history = (await client.fhir("GET", f"Task/{task['id']}/_history")).json()["entry"]
    states = [read_state(entry["resource"]) for entry in reversed(history)]
    assert states == ["waiting", "claimed", "sent-unanswered", "acknowledged"]
    assert [entry["resource"]["status"] for entry in reversed(history)][-1] == "completed"
    assert (tmp_path / "out" / "1.txt").read_bytes() == b"text"


async def test_deliveries_go_out_in_the_order_in_which_they_were_made(client: Client, tmp_path: Path) -> None:
    for number in range(1, 6):
        await add(client, number)
    await work(client, "deliveries")
    numbers = [task["identifier"][1]["value"] for task in await tasks(client)]
    assert numbers == ["1", "2", "3", "4", "5"]
    history = (await client.fhir("GET", "Task/_history?_count=100")).json()["entry"]
    versions = [entry["resource"] for entry in reversed(history)]
    sent = [task["identifier"][1]["value"] for task in versions if read_state(task) == "acknowledged"]
    assert sent == numbers
    assert sorted(path.stem for path in (tmp_path / "out").iterdir()) == numbers


async def test_a_delivery_without_its_transport_is_parked(client: Client) -> None:
    await add(client, 1, "pigeon")
    await work(client, "deliveries")
    (task,) = await tasks(client)
    assert (task["status"], read_state(task)) == ("on-hold", "parked")


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_a_death_at_any_call_of_the_store_loses_no_delivery_and_writes_no_file_twice(
    client: Client, tmp_path: Path, after: bool
) -> None:
    """A folder repeats nothing: what may have been sent is found in it, or parked for a person."""
    await add(client, 0)
    await work(client, "deliveries")
    out = tmp_path / "out"
    for number in range(1, 40):
        await add(client, number)
        failing = Failing(client.server.context.unrestricted, number, after)
        with suppress(Killed):
            await work(client, "deliveries", "a", unrestricted=failing)
        before = {path.name: path.stat().st_ino for path in out.iterdir()}
        await work(client, "deliveries", "b")
        task = (await tasks(client))[number]
        there = (out / f"{number}.txt").exists()
        assert (read_state(task), there) in (("acknowledged", True), ("parked", False))
        assert all((out / name).stat().st_ino == inode for name, inode in before.items())
        if not failing.reached:
            return
    raise AssertionError("a delivery makes more than 40 calls")


def test_an_answer_that_refuses_is_kept_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    reads = PLAIN._replace(read_answer=lambda answer: "The lab says no." if answer == b"AE" else "")
    monkeypatch.setattr(message_outbox, "INTERPRETERS", {"plain": reads})
    task = {"input": [{"type": {"coding": [{"code": "format"}]}, "valueCode": "plain"}]}
    read, context = message_outbox.read_answer, SimpleNamespace(partners={})
    refused = read(context, task, DeliveryResult("delivered", b"AE"))  # type: ignore[arg-type]
    assert (refused.status, refused.reason) == ("rejected", "The lab says no.")
    assert read_acknowledgement({"output": refused.outputs}) == b"AE"
    accepted = read(context, task, DeliveryResult("delivered", b"AA"))  # type: ignore[arg-type]
    assert (accepted.status, accepted.reason) == ("completed", "")
    unread = read(context, task, DeliveryResult("refused", b"", "The file is there."))  # type: ignore[arg-type]
    assert (unread.status, unread.reason, unread.outputs) == ("rejected", "The file is there.", [])


async def test_retention_is_a_worker_that_tells_what_it_removed(client: Client) -> None:
    context = client.server.context
    taken = await receive(context, CALLER, message("patient 1 Keller"), PLAIN)
    refused = await receive(context, CALLER, message("refuse this", "2"), PLAIN)
    later = context.clock() + 40 * DAY
    result, lines = await work(client, "retention", clock=lambda: later)
    assert result.position == "1 removed"
    assert [fields["item"] for _, text, fields in lines if text == "message removed"] == [f"Task/{taken.id}"]
    assert [task["id"] for task in await tasks(client)] == [refused.id]
