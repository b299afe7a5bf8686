"""Jobs are started by a request, carried on by whichever process, told of, cancelled, and forgotten in their turn."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from fhir_server.app import Knowledge
from fhir_server.fhir.outcome import Conflict, Unprocessable
from fhir_server.operations.core.job import build_progress
from fhir_server.requests.request import Caller
from fhir_server.security.policy import Principal
from fhir_server.workers.jobs import SLOTS, Job, complete_job, find_job, list_jobs, run_jobs, start_job
from fhir_server.workers.table import JOBS
from fhir_server.workers.worker import Turn
from tests.conftest import Client, serving
from tests.workers.teams import Failing, Killed, Lines, take_turn

pytestmark = pytest.mark.anyio

CALLER = Caller("http://test/fhir")


async def count(turn: Turn, job: Job) -> Job:
    """Counts to `to`, one a step."""
    reached = (job.position or 0) + 1
    counted = replace(job, position=reached, done=reached, total=job.input["to"])
    return (
        complete_job(counted, {"resourceType": "Basic", "id": str(reached)}) if reached == job.input["to"] else counted
    )


@pytest.fixture(params=["memory", "sqlite", "mongo"])
async def client(
    request: pytest.FixtureRequest, known: Knowledge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Client]:
    monkeypatch.setitem(JOBS, "count", count)
    uri = {"memory": "memory://", "sqlite": f"sqlite:///{tmp_path}/fhir.db"}.get(request.param)
    async with serving(known, store=uri or request.getfixturevalue("new_mongo_uri")()) as client:
        yield client


async def turn_of(client: Client, owner: str = "a", lines: Lines | None = None) -> Turn:
    return await take_turn(client.server.context, "jobs", owner, lines)


async def test_a_job_from_its_start_to_its_result(client: Client) -> None:
    job = await start_job(client.server.context, "count", {"to": 3}, CALLER)
    started = build_progress(job)
    assert started.status == 202
    location = dict(started.headers)["Content-Location"]
    turn, step = await turn_of(client), run_jobs(JOBS)
    await step(turn)
    running = await client.get(location)
    assert (running.status_code, running.headers["x-progress"]) == (202, "1 of 3 are done.")
    assert running.headers["content-location"] == location
    while (await step(turn)).done:
        pass
    ended = await client.get(location)
    assert (ended.status_code, ended.json()) == (200, {"resourceType": "Basic", "id": "3"})
    listed = (await client.get("$job")).json()["parameter"]
    assert [part["valueString"] for part in listed[0]["part"] if part["name"] == "id"] == [job.id]


async def test_a_job_is_cancelled(client: Client) -> None:
    job = await start_job(client.server.context, "count", {"to": 3}, CALLER)
    turn, step = await turn_of(client), run_jobs(JOBS)
    await step(turn)
    assert (await client.delete(f"$job?id={job.id}")).status_code == 202
    assert (await client.get(f"$job?id={job.id}")).status_code == 404
    assert (await client.delete(f"$job?id={job.id}")).status_code == 404
    assert (await step(turn)).done == 0
    left = await find_job(client.server.context, job.id)
    assert left is not None and (left.status, left.done) == ("cancelled", 1)


async def test_a_job_that_is_cancelled_during_its_step_stays_so(client: Client) -> None:
    job = await start_job(client.server.context, "count", {"to": 1}, CALLER)

    async def cancelled(turn: Turn, job: Job) -> Job:
        await client.delete(f"$job?id={job.id}")
        return await count(turn, job)

    await run_jobs({"count": cancelled})(await turn_of(client))
    assert (await client.get(f"$job?id={job.id}")).status_code == 404


async def test_what_a_job_cannot_do_is_its_answer(client: Client) -> None:
    async def refuse(turn: Turn, job: Job) -> Job:
        raise Unprocessable("There is nothing to count.")

    async def fail(turn: Turn, job: Job) -> Job:
        raise KeyError("secret content")

    lines = Lines()
    for step, status, told in ((refuse, 422, "There is nothing to count."), (fail, 500, "a fault of ours")):
        job = await start_job(client.server.context, "count", {"to": 1}, CALLER)
        await run_jobs({"count": step})(await turn_of(client, "a", lines))
        answer = await client.get(f"$job?id={job.id}")
        assert answer.status_code == status and told in answer.json()["issue"][0]["diagnostics"]
    assert [fields["job"] for _, message, fields in lines if message == "job failed"] == [job.id]
    assert "secret" not in str(lines)


async def test_another_principal_sees_nothing_of_it(client: Client) -> None:
    job = await start_job(client.server.context, "count", {"to": 1}, Caller("http://test/fhir", Principal("other")))
    assert (await client.get(f"$job?id={job.id}")).status_code == 404
    assert (await client.delete(f"$job?id={job.id}")).status_code == 404
    assert (await client.get("$job")).json() == {"resourceType": "Parameters"}


@pytest.mark.parametrize("id", ["", "x", "count", "count.", "count.0.none", "../x", "count.99.x", "lease.jobs"])
async def test_ids_that_no_job_has(known: Knowledge, id: str) -> None:
    async with serving(known, store="memory://") as client:
        assert (await client.fhir("GET", f"$job?id={id}")).status_code == (404 if id else 200)
        assert (await client.fhir("DELETE", f"$job?id={id}")).status_code == (404 if id else 400)


async def test_the_history_is_bounded_and_running_jobs_stay(client: Client) -> None:
    context = client.server.context
    first = await start_job(context, "count", {"to": 10**9}, CALLER)
    turn = await turn_of(client)
    for _ in range(SLOTS):
        ended = await start_job(context, "count", {"to": 1}, CALLER)
        await run_jobs(JOBS)(turn)
    assert len(await list_jobs(context, "count")) == SLOTS
    assert await find_job(context, first.id) is not None and await find_job(context, ended.id) is not None
    for _ in range(SLOTS - 1):
        await start_job(context, "count", {"to": 10**9}, CALLER)
    with pytest.raises(Conflict, match="are running"):
        await start_job(context, "count", {"to": 1}, CALLER)


@pytest.mark.parametrize("after", [False, True])
async def test_a_job_is_resumed_after_a_death_at_any_call(known: Knowledge, after: bool) -> None:
    """Each step counts once: what was saved is not done again, what was not is."""
    at, reached = 1, True
    while reached:
        async with serving(known, store="memory://") as client:
            context = client.server.context
            job = await start_job(context, "count", {"to": 3}, CALLER)
            failing = Failing(context.unrestricted, at, after)
            step = run_jobs({"count": count})
            try:
                turn = await take_turn(dataclasses.replace(context, unrestricted=failing), "jobs", "a")
                while (await step(turn)).done:
                    pass
            except Killed:
                turn = await turn_of(client, "b")
                while (await step(turn)).done:
                    pass
            found = await find_job(context, job.id)
            assert found is not None and (found.status, found.done) == ("complete", 3)
            assert found.steps == 3
            reached, at = failing.reached, at + 1
    assert at > 40
