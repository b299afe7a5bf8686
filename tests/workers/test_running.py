"""Workers run where their lease is, survive every error, and end cleanly; `serve` and `work` run them."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from typer.testing import CliRunner

from fhir_server.__main__ import cli
from fhir_server.app import Knowledge
from fhir_server.requests.context import Context
from fhir_server.store.protocol import Store, StoreUnavailable
from fhir_server.workers import running as module
from fhir_server.workers.lease import SILENCE
from fhir_server.workers.running import Team, run_workers
from fhir_server.workers.table import WORKERS
from fhir_server.workers.worker import StepResult, Turn, Worker
from tests.conftest import Client, serving
from tests.faults.process import ROOT, serving_process
from tests.workers.clocks import Clock, FastClock
from tests.workers.teams import Lines, noting

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["memory", "sqlite", "mongo"])
async def client(request: pytest.FixtureRequest, known: Knowledge, tmp_path: Path) -> AsyncIterator[Client]:
    uri = {"memory": "memory://", "sqlite": f"sqlite:///{tmp_path}/fhir.db"}.get(request.param)
    async with serving(known, store=uri or request.getfixturevalue("new_mongo_uri")()) as client:
        yield client


def team(context: Context, owner: str, clock: Clock, lines: Lines | None = None) -> Team:
    log = noting(lines if lines is not None else Lines())
    return Team(dataclasses.replace(context, clock=clock), log, owner, clock.sleep)


async def end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def until(condition: object, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it did not come about"
        await asyncio.sleep(0.01)


async def test_two_processes_one_lease(client: Client) -> None:
    """While both run, only one works; when it ends, the other goes on, and says who has it."""
    steps: Counter[str] = Counter()

    async def step(turn: Turn) -> StepResult:
        steps[turn.lease.owner] += 1
        return StepResult(0, f"step {steps[turn.lease.owner]}", 7)

    clock, worker = FastClock(), Worker("w", "Counts.", step)
    first, second = (team(client.server.context, owner, clock) for owner in ("first", "second"))
    tasks = [asyncio.create_task(run_workers(first, [worker]))]
    await until(lambda: steps["first"] > 3)
    tasks.append(asyncio.create_task(run_workers(second, [worker])))
    before = steps["first"]
    await until(lambda: steps["first"] > before + 30 and second.standings["w"].report)
    assert steps["second"] == 0
    assert (second.standings["w"].holder, second.standings["w"].here) == ("first", False)
    assert second.standings["w"].report["lag"] == 7
    await end(tasks[0])
    await until(lambda: steps["second"] > 3)
    assert (second.standings["w"].holder, second.standings["w"].here) == ("second", True)
    assert not first.standings["w"].here
    await end(tasks[1])


async def test_no_error_ends_a_worker_and_pauses_grow(client: Client) -> None:
    clock, lines, starts = Clock(), Lines(), []

    async def step(turn: Turn) -> StepResult:
        starts.append(clock.now)
        if len(starts) < 6:
            raise StoreUnavailable("The disk is full.") if len(starts) % 2 else KeyError("secret content")
        return StepResult(1, "5", 0)

    running = team(client.server.context, "a", clock, lines)
    task = asyncio.create_task(run_workers(running, [Worker("w", "Fails.", step)]))
    await until(lambda: running.standings.get("w") and running.standings["w"].report.get("position") == "5")
    pauses = [later - before for before, later in itertools.pairwise(starts[:6])]
    # 1, 2, 4, 8 and 16 seconds, beside the time that the hand clock spends on signs of life
    assert pauses == sorted(pauses) and pauses[-1] - pauses[0] == 15_000_000
    failed = [(level, fields["error"]["type"]) for level, message, fields in lines if message == "worker step failed"]
    assert failed[:2] == [("warning", "StoreUnavailable"), ("error", "KeyError")]
    assert "secret" not in str(lines)
    await end(task)


async def test_a_step_that_lost_its_lease_is_ended(client: Client) -> None:
    """Somebody else has it: the step is cancelled at the next sign of life."""
    ended: list[bool] = []
    clock, lines = Clock(), Lines()

    async def step(turn: Turn) -> StepResult:
        store = turn.context.unrestricted
        before = await store.get_value("lease/w") or b""
        if not ended:
            stolen = json.loads(before) | {"owner": "thief", "fence": 9}
            assert await store.put_value_if("lease/w", json.dumps(stolen).encode(), before)
        try:
            await asyncio.sleep(30)
        finally:
            ended.append(True)
        return StepResult()

    task = asyncio.create_task(
        run_workers(team(client.server.context, "a", clock, lines), [Worker("w", "Waits.", step)])
    )
    await until(lambda: [message for _, message, _ in lines if message == "worker lost its lease"])
    assert ended == [True]
    await end(task)


async def test_at_the_end_the_item_is_finished_and_the_lease_given_back(client: Client) -> None:
    begun, finished = asyncio.Event(), []

    async def step(turn: Turn) -> StepResult:
        for item in range(3):
            await turn.check()
            begun.set()
            await asyncio.sleep(0.05)
            finished.append(item)
        return StepResult()

    running = Team(client.server.context, noting(Lines()), "a")
    task = asyncio.create_task(run_workers(running, [Worker("w", "Takes its time.", step)]))
    await begun.wait()
    await end(task)
    assert finished == [0]
    value = json.loads(await client.server.context.unrestricted.get_value("lease/w") or b"")
    assert value["owner"] == ""


async def test_an_item_that_never_ends_is_cut_off(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GRACE", 0.1)
    begun = asyncio.Event()

    async def step(turn: Turn) -> StepResult:
        begun.set()
        await asyncio.sleep(3600)
        return StepResult()

    task = asyncio.create_task(run_workers(Team(client.server.context, noting(Lines())), [Worker("w", "Hangs.", step)]))
    await begun.wait()
    await asyncio.wait_for(end(task), 5)


def work(database: Path, *names: str) -> subprocess.Popen[str]:
    command = (sys.executable, "-m", "fhir_server", "work", *names, "--store", f"sqlite:///{database}")
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)


def lease_owner(base: str) -> dict[str, object]:
    told: dict[str, object] = httpx.get(base.removesuffix("/fhir") + "/readyz").json()["workers"]
    return told


@pytest.mark.external
async def test_serve_and_work_are_two_processes_with_one_lease(tmp_path: Path) -> None:
    database = tmp_path / "fhir.db"
    with serving_process(database) as server:
        held = lease_owner(server.base)["jobs"]
        assert held["here"] is True  # type: ignore[index]
        await until(lambda: all("step" in each for each in lease_owner(server.base).values() if each["here"]))  # type: ignore[operator, index]
        told = lease_owner(server.base)
        assert set(told) == set(WORKERS)
        first_step = {name: each["step"] for name, each in told.items() if each["here"]}  # type: ignore[index]
        assert (told["jobs"]["position"], told["jobs"]["lag"]) == ("0 running", 0)  # type: ignore[index]
        assert told["deliveries"]["position"] == "0 delivered, 0 open"  # type: ignore[index]
        await until(lambda: lease_owner(server.base)["jobs"]["step"] > first_step["jobs"])  # type: ignore[index]
        other = work(database, "jobs")
        first = await asyncio.to_thread(other.stderr.readline)  # type: ignore[union-attr]
        assert json.loads(first)["workers"] == ["jobs"]
        await asyncio.sleep(1)
        assert other.poll() is None
        other.send_signal(signal.SIGTERM)
        _, log = other.communicate(timeout=20)
        assert other.returncode == 0 and "worker begins" not in log, log
        server.terminate()
        server.popen.wait(20)
    after = work(database)
    assert after.stderr is not None
    lines = [json.loads(await asyncio.to_thread(after.stderr.readline)) for _ in range(2)]
    line = lines[1]
    assert (line["message"], line["worker"]) == ("worker begins", "jobs"), "the lease was given back"
    after.send_signal(signal.SIGINT)
    after.communicate(timeout=20)
    assert after.returncode == 0


@pytest.mark.external
async def test_serve_without_workers_has_none(tmp_path: Path) -> None:
    with serving_process(tmp_path / "fhir.db", workers="off") as server:
        assert lease_owner(server.base) == {}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["none", "--store", "memory://"], "`none` is no worker; workers are `jobs`"),
        (["--store", "memory://"], "lives in one process"),
        (["--store", "sqlite:///nowhere/fhir.db"], "nowhere/fhir.db"),
    ],
)
def test_what_work_cannot_do_is_told(arguments: list[str], told: str) -> None:
    result = CliRunner().invoke(cli, ["work", *arguments])
    assert result.exit_code == 1 and told in result.output


def test_the_table_is_whole() -> None:
    assert {name: worker.documentation[-1] for name, worker in WORKERS.items()} == dict.fromkeys(WORKERS, ".")
    assert SILENCE == 60_000_000


class Waiting:
    """A store whose values are written slowly, and whoever is cancelled meanwhile is answered all the same."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def put_value_if(self, key: str, value: bytes, before: bytes | None, expires: int | None = None) -> bool:
        async def write() -> bool:
            await asyncio.sleep(0.05)
            return await self._store.put_value_if(key, value, before, expires)

        written = asyncio.ensure_future(write())
        with suppress(asyncio.CancelledError):
            await asyncio.shield(written)
        return await written


async def test_a_stop_that_a_write_swallows_still_ends_the_worker(client: Client) -> None:
    """A store waits for a commit that has begun, whatever cancels it; the worker ends at its next step."""
    context = client.server.context

    async def step(turn: Turn) -> StepResult:
        await turn.lease.renew()
        return StepResult(1, "1", 0)

    for pause in (0.01, 0.06, 0.11, 0.16):
        slow = dataclasses.replace(context, unrestricted=cast(Store, Waiting(context.unrestricted)))
        task = asyncio.create_task(run_workers(team(slow, "a", Clock()), [Worker("w", "Writes.", step)]))
        await asyncio.sleep(pause)
        task.cancel()
        done, _ = await asyncio.wait({task}, timeout=5)
        assert task in done
