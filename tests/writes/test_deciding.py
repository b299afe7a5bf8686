"""Decisions under load: overlapping bookings of unequal times, at capacity 1 and 3, in one process and in several."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from fhir_server.app import Knowledge
from fhir_server.fhir.outcome import Conflict, FhirError, TooCostly
from fhir_server.fhir.resource import parse
from fhir_server.requests.context import Context
from fhir_server.requests.request import Caller
from fhir_server.search.query import EVERYTHING, Query, Scope
from fhir_server.store.operations import Transaction, VersionIs
from fhir_server.store.protocol import Committed, LastingConflict
from fhir_server.writes.action import Action
from fhir_server.writes.commit import commit_bundle
from fhir_server.writes.deciding import Decision, decide_and_commit
from fhir_server.writes.state import State
from tests.conftest import serving
from tests.writes.booking import appointment, book, count_overlaps

pytestmark = pytest.mark.anyio

CALLER = Caller("http://test/fhir")
TIMES = [
    (f"2026-03-02T09:{minute:02}:00+00:00", f"2026-03-02T{9 + (minute + 30) // 60:02}:{(minute + 30) % 60:02}:00+00:00")
    for minute in (0, 5, 10, 15)
]
"""Half hours that overlap without being equal."""


@pytest.fixture(params=["memory", "sqlite", "mongodb"])
async def contexts(known: Knowledge, request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[list[Context]]:
    """Two servers on one store; in memory, one server twice."""
    settings: dict[str, Any] = {"references": "allow", "request_timeout": 120.0}
    async with AsyncExitStack() as stack:
        if request.param == "memory":
            client = await stack.enter_async_context(serving(known, store="memory://", **settings))
            yield [client.server.context] * 2
            return
        uri = f"sqlite:///{tmp_path}/b.db" if request.param == "sqlite" else request.getfixturevalue("new_mongo_uri")()
        clients = [await stack.enter_async_context(serving(known, store=uri, **settings)) for _ in range(2)]
        yield [client.server.context for client in clients]


async def stored_appointments(context: Context) -> list[dict[str, Any]]:
    page = await context.unrestricted.search(Query((Scope("Appointment", EVERYTHING),), count=1000))
    return [orjson.loads(match.raw or b"") for match in page.matches]


async def outcomes(attempts: Sequence[Any]) -> tuple[int, int]:
    """How many went through, and how many were refused with a conflict."""
    results = await asyncio.gather(*attempts, return_exceptions=True)
    strange = [each for each in results if isinstance(each, BaseException) and not isinstance(each, Conflict)]
    assert strange == []
    return sum(not isinstance(each, BaseException) for each in results), sum(
        isinstance(each, Conflict) for each in results
    )


@pytest.mark.parametrize("capacity", [1, 3])
async def test_overlapping_bookings_give_exactly_the_capacity(contexts: list[Context], capacity: int) -> None:
    """Every two of the times overlap, so that exactly `capacity` of all attempts may succeed."""
    attempts = [
        decide_and_commit(contexts[number % 2], CALLER, book(appointment(*TIMES[number % 4]), capacity))
        for number in range(60)
    ]
    booked, refused = await outcomes(attempts)
    assert (booked, refused) == (capacity, 60 - capacity)
    assert count_overlaps(await stored_appointments(contexts[0])) == capacity


async def test_of_decisions_that_take_an_id_for_new_one_makes_it_and_the_others_look(contexts: list[Context]) -> None:
    """`Action.is_new`: each of eight believes at first that nothing has the id, half of them after it is stored."""
    tries: list[int] = []

    def make(number: int) -> Any:
        attempts = 0

        async def decide(state: State) -> Decision[int]:
            nonlocal attempts
            attempts += 1
            tries.append(number)
            known = None if attempts == 1 else await state.read("Basic", "counter")
            if known is not None:
                return Decision(int(known.tree["code"]["text"]))
            return Decision(number, [put_counter(number)._replace(is_new=attempts == 1)])

        return decide

    deciding = [decide_and_commit(contexts[number % 2], CALLER, make(number)) for number in range(4)]
    first = {each.answer for each in await asyncio.gather(*deciding)}
    later = [await decide_and_commit(contexts[number % 2], CALLER, make(number)) for number in range(4, 8)]
    assert len(first) == 1 and {each.answer for each in later} == first
    assert [tries.count(number) for number in range(4, 8)] == [2, 2, 2, 2]
    stored = await contexts[0].unrestricted.read("Basic", "counter")
    assert stored is not None and stored.version == 1


async def test_a_decision_is_made_anew_when_its_ground_has_changed(contexts: list[Context]) -> None:
    """Counters in a Basic: each of 40 increments reads, adds one and writes; none is lost."""
    await commit_bundle(contexts[0], [put_counter(0)], CALLER, Decision(None).reads)

    async def increment(state: State) -> Decision[int]:
        resource = await state.read("Basic", "counter")
        assert resource is not None
        count = int(resource.tree["code"]["text"]) + 1
        return Decision(count, (put_counter(count),))

    done = await asyncio.gather(*(decide_and_commit(contexts[n % 2], CALLER, increment) for n in range(40)))
    assert sorted(outcome.answer for outcome in done) == list(range(1, 41))


def put_counter(count: int) -> Action:
    tree = {"resourceType": "Basic", "id": "counter", "code": {"text": str(count)}}
    return Action("PUT", "Basic", "counter", id="counter", text=parse(orjson.dumps(tree)))


async def test_what_the_store_gave_up_is_not_decided_again(
    contexts: list[Context], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It tried for 20 s by itself; a second time would end as a 408 of the request."""
    decided = 0

    async def refuse(transaction: Transaction) -> Committed:
        raise LastingConflict("Other transactions kept changing the same resources; nothing was written.")

    async def decide(state: State) -> Decision[None]:
        nonlocal decided
        decided += 1
        return Decision(None, (put_counter(1),))

    monkeypatch.setattr(contexts[0].unrestricted, "transact", refuse)
    with pytest.raises(Conflict, match=r"nothing was written\. Try again"):
        await decide_and_commit(contexts[0], CALLER, decide)
    assert decided == 1


async def test_results_come_in_the_order_of_the_actions(contexts: list[Context]) -> None:
    """Two actions without a place in a bundle give two results, whatever order they are planned in."""
    tree = {"resourceType": "Basic", "code": {"text": "x"}}
    actions = [
        Action("POST", "Basic", "one", criteria=(("_id", "nobody"),), text=parse(orjson.dumps(tree))),
        Action("PUT", "Basic", "two", id="two", text=parse(orjson.dumps({**tree, "id": "two"}))),
        Action("POST", "Basic", "three", text=parse(orjson.dumps(tree))),
    ]
    outcome = await commit_bundle(contexts[0], actions, CALLER, Decision(None).reads)
    assert [result.id for result in outcome.results] == ["one", "two", "three"]


async def test_an_absent_resource_is_asserted_too(contexts: list[Context]) -> None:
    """Of many that create what they found absent, one does; the others see it."""

    async def create_once(state: State) -> Decision[bool]:
        if await state.read("Basic", "single") is not None:
            return Decision(False)
        tree = {"resourceType": "Basic", "id": "single", "code": {"text": "x"}}
        return Decision(True, (Action("PUT", "Basic", "single", id="single", text=parse(orjson.dumps(tree))),))

    done = await asyncio.gather(*(decide_and_commit(contexts[n % 2], CALLER, create_once) for n in range(20)))
    assert sum(outcome.answer for outcome in done) == 1


async def test_a_search_of_a_decision_is_bounded(contexts: list[Context]) -> None:
    trees = [{"resourceType": "Basic", "id": f"b{n}", "code": {"text": "x"}} for n in range(4)]
    actions = [Action("PUT", "Basic", t["id"], id=t["id"], text=parse(orjson.dumps(t))) for t in trees]  # type: ignore[arg-type]
    await commit_bundle(contexts[0], actions, CALLER, Decision(None).reads)

    async def read(most: int) -> int:
        async def decide(state: State) -> Decision[int]:
            return Decision(len(await state.search("Basic", EVERYTHING, most=most)))

        return (await decide_and_commit(contexts[0], CALLER, decide)).answer

    assert await read(4) == 4
    with pytest.raises(TooCostly, match="More than 3 resources of type `Basic`"):
        await read(3)


async def test_a_decision_that_never_holds_ends_in_time(contexts: list[Context]) -> None:
    """Each attempt asserts a version that is not there: 409 within the time limit, and nothing is written."""
    hurried = replace(contexts[0], settings=contexts[0].settings.model_copy(update={"request_timeout": 1.0}))

    async def decide(state: State) -> Decision[None]:
        return Decision(None, (put_counter(1),), assertions=(VersionIs("Basic", "nobody", 7),))

    with pytest.raises(FhirError, match="Other writes kept changing"):
        await decide_and_commit(hurried, CALLER, decide)
    assert await contexts[0].unrestricted.read("Basic", "counter") is None


SCRIPT = """
import asyncio, sys
from tests.writes.test_deciding import book_from_a_process
asyncio.run(book_from_a_process(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
"""


async def book_from_a_process(uri: str, capacity: int, attempts: int) -> None:
    """What each process of the test below does; prints how many of its attempts went through."""
    async with serving(None, store=uri, references="allow", request_timeout=120.0) as client:
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        context = client.server.context
        booked, _ = await outcomes(
            [decide_and_commit(context, CALLER, book(appointment(*TIMES[n % 4]), capacity)) for n in range(attempts)]
        )
        print(booked, flush=True)


@pytest.mark.external
@pytest.mark.parametrize("capacity", [1, 3])
async def test_two_processes_share_the_capacity(tmp_path: Path, capacity: int) -> None:
    """200 overlapping bookings from two processes on one SQLite file: exactly `capacity`."""
    uri = f"sqlite:///{tmp_path}/two.db"
    async with serving(None, store=uri):
        pass
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", SCRIPT, uri, str(capacity), "100", cwd=root, env=environment,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )
        for _ in range(2)
    ]  # fmt: skip
    for process in processes:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
    answers = await asyncio.gather(*(process.communicate(b"go\n") for process in processes))
    assert sum(int(output) for output, _ in answers) == capacity
    async with serving(None, store=uri) as client:
        assert count_overlaps(await stored_appointments(client.server.context)) == capacity
