"""Two worker processes on one file: no race between them makes two of one (https://hl7.org/fhir/R4/http.html#ccreate).

Connections are shared out evenly, and the end of a worker, or of the process that accepts, leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import pytest

from tests.corpora.corpus import JSON
from tests.faults.process import Process, serving_process, workers

pytestmark = pytest.mark.anyio

PARALLEL = 64
SYSTEM = "urn:example:workers"


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with serving_process(tmp_path_factory.mktemp("workers") / "fhir.db", "--workers", "2") as process:
        yield process


def answered_by(answer: httpx.Response) -> str:
    """Which process answered: request ids of the server begin with it."""
    return answer.headers["x-request-id"][:8]


async def both_answer(client: httpx.AsyncClient) -> None:
    """Open connections, as many to each worker, as soon as both have started."""
    seen: set[str] = set()
    for _ in range(100):
        fresh = {"Connection": "close"}
        answers = await asyncio.gather(*(client.get("/Patient/none", headers=fresh) for _ in range(4)))
        seen |= set(map(answered_by, answers))
        if len(seen) == 2:
            return
        await asyncio.sleep(0.1)  # the second one may still be starting
    raise AssertionError(f"only {seen} answered")


@asynccontextmanager
async def connections(process: Process, number: int) -> AsyncIterator[list[tuple[httpx.AsyncClient, str]]]:
    """Kept connections, opened one after the other, each with the process that answers it."""
    async with AsyncExitStack() as stack:
        found = []
        for _ in range(number):
            client = await stack.enter_async_context(process.client())
            found.append((client, answered_by(await client.get("/Patient/none"))))
        yield found


async def test_connections_are_shared_out_evenly(process: Process) -> None:
    async with process.client() as client:
        await both_answer(client)
    async with connections(process, 6) as opened:
        shares = Counter(worker for _, worker in opened)
        assert sorted(shares.values()) == [3, 3]
        left = next(iter(shares))
        for client, worker in opened:
            if worker == left:
                await client.aclose()
        for _ in range(100):  # that they were closed is told a moment later
            async with connections(process, 2) as more:
                if {worker for _, worker in more} == {left}:
                    return
            await asyncio.sleep(0.05)
        raise AssertionError("the worker without connections did not get the next two")


async def test_a_worker_that_is_killed_is_replaced(tmp_path: Path) -> None:
    with serving_process(tmp_path / "fhir.db", "--workers", "2") as process:
        async with process.client() as client:
            await both_answer(client)
            first = workers(process)
            os.kill(first[0], signal.SIGKILL)
            for _ in range(200):
                if len(workers(process)) == 3:
                    break
                await asyncio.sleep(0.05)
            answer = await client.put("/Patient/p", json={"resourceType": "Patient", "id": "p"}, headers=JSON)
            assert answer.status_code == 201
            await both_answer(client)
        assert len(workers(process)) == 3
        assert f"Worker {first[0]} ended with status -9; another one is started." in process.log.read_text()


async def test_workers_end_with_the_process_that_accepts(tmp_path: Path) -> None:
    with serving_process(tmp_path / "fhir.db", "--workers", "2") as process:
        async with process.client() as client:
            await both_answer(client)
        started = workers(process)
        assert len(started) == 2
        process.kill()
        for _ in range(200):
            if not any(Path(f"/proc/{each}").exists() for each in started):
                return
            await asyncio.sleep(0.05)
        raise AssertionError("a worker went on alone")


@pytest.mark.parametrize("criteria", ["identifier={}", "identifier={}&active=true"])
async def test_equal_conditional_creates_make_one(process: Process, criteria: str) -> None:
    value = f"{SYSTEM}|{len(criteria)}"
    patient = {
        "resourceType": "Patient",
        "active": True,
        "identifier": [{"system": SYSTEM, "value": str(len(criteria))}],
    }
    headers = {**JSON, "If-None-Exist": criteria.format(value)}
    async with process.client() as client:
        await both_answer(client)
        answers = await asyncio.gather(
            *(client.post("/Patient", json=patient, headers=headers) for _ in range(PARALLEL))
        )
        # 201 for the one that is made, 200 and its location for all others
        assert Counter(answer.status_code for answer in answers) == {201: 1, 200: PARALLEL - 1}
        assert len({answer.headers["location"] for answer in answers}) == 1
        found = (await client.get("/Patient", params={"identifier": value}, headers=JSON)).json()
        assert found["total"] == 1


async def test_equal_transactions_with_a_condition_make_one(process: Process) -> None:
    patient = {"resourceType": "Patient", "identifier": [{"system": SYSTEM, "value": "in-bundle"}]}
    url = "urn:uuid:6b1f7c7e-6c5d-4f5e-9c57-1a4f5f0d2c11"
    reading = {"resourceType": "Observation", "status": "final", "code": {"text": "x"}, "subject": {"reference": url}}
    once = {"method": "POST", "url": "Patient", "ifNoneExist": f"identifier={SYSTEM}|in-bundle"}
    entries = [
        {"fullUrl": url, "resource": patient, "request": once},
        {"resource": reading, "request": {"method": "POST", "url": "Observation"}},
    ]
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
    async with process.client() as client:
        answers = await asyncio.gather(*(client.post("/", json=bundle, headers=JSON) for _ in range(16)))
        assert {answer.status_code for answer in answers} == {200}
        made = [answer.json()["entry"][0]["response"] for answer in answers]
        assert Counter(response["status"][:3] for response in made) == {"201": 1, "200": 15}
        assert len({response["location"] for response in made}) == 1
        id = made[0]["location"].split("/Patient/")[1].split("/")[0]
        assert (await client.get("/Observation", params={"patient": id}, headers=JSON)).json()["total"] == 16


async def test_updates_that_saw_the_same_version_make_one(process: Process) -> None:
    async with process.client() as client:
        await both_answer(client)
        first = {"resourceType": "Patient", "id": "contested"}
        assert (await client.put("/Patient/contested", json=first, headers=JSON)).status_code == 201
        headers = {**JSON, "If-Match": 'W/"1"'}
        bodies = [{**first, "name": [{"family": f"writer-{number}"}]} for number in range(PARALLEL)]
        answers = await asyncio.gather(
            *(client.put("/Patient/contested", json=body, headers=headers) for body in bodies)
        )
        assert Counter(answer.status_code for answer in answers) == {200: 1, 412: PARALLEL - 1}
        history = (await client.get("/Patient/contested/_history", headers=JSON)).json()
        assert [entry["resource"]["meta"]["versionId"] for entry in history["entry"]] == ["2", "1"]
        winner = next(answer for answer in answers if answer.status_code == 200)
        assert history["entry"][0]["resource"]["name"] == winner.json()["name"]


async def test_updates_without_a_condition_all_count(process: Process) -> None:
    async with process.client() as client:
        bodies = [{"resourceType": "Patient", "id": "busy", "name": [{"family": f"w{number}"}]} for number in range(32)]
        answers = await asyncio.gather(*(client.put("/Patient/busy", json=body, headers=JSON) for body in bodies))
        assert Counter(answer.status_code for answer in answers) == {201: 1, 200: 31}
        etags = {answer.headers["etag"] for answer in answers}
        assert etags == {f'W/"{version}"' for version in range(1, 33)}


async def test_a_write_is_seen_by_the_other_worker_at_once(process: Process) -> None:
    """Read and search over other connections right after the answer: some of them end at the other process."""
    async with process.client() as writing:
        for number in range(10):
            patient = {"resourceType": "Patient", "id": f"seen-{number}", "active": True}
            assert (await writing.put(f"/Patient/seen-{number}", json=patient, headers=JSON)).status_code == 201
            async with process.client() as reading:
                answers = await asyncio.gather(
                    *(reading.get(f"/Patient/seen-{number}", headers=JSON) for _ in range(4)),
                    *(reading.get(f"/Patient?_id=seen-{number}&active=true", headers=JSON) for _ in range(4)),
                )
            assert {answer.status_code for answer in answers} == {200}
            assert {answer.json()["total"] for answer in answers[4:]} == {1}
