"""Runs workers in a process: each as soon as this process has its lease, until the process ends or loses it.

No error ends a worker: after one of the store, or one that the step did not see coming, it pauses, longer each time.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from fhir_server.fhir.datetimes import format_instant
from fhir_server.requests.context import Context
from fhir_server.requests.describe_error import describe_error
from fhir_server.settings import Settings
from fhir_server.store.protocol import StoreError
from fhir_server.workers.lease import HEARTBEAT, LOOK, Lease, LeaseLost
from fhir_server.workers.worker import Log, Sleep, Standing, StepResult, Stopping, Turn, Worker

GRACE = 10.0
"""Seconds that a worker has at the end of its process to finish the item that it is at."""

LONGEST_PAUSE = 60.0
"""Seconds of the longest pause after errors."""


@dataclass(frozen=True, slots=True)
class Team:
    """The workers of one process. `owner` names it in leases; `standings`: by name, how far each worker is."""

    context: Context
    log: Log
    owner: str = field(default_factory=lambda: f"{os.getpid()}-{secrets.token_hex(4)}")
    sleep: Sleep = asyncio.sleep
    standings: dict[str, Standing] = field(default_factory=dict)


def select_workers(settings: Settings, table: Iterable[Worker]) -> tuple[Worker, ...]:
    """The rows that the settings switch on."""
    return tuple(worker for worker in table if not worker.setting or getattr(settings, worker.setting))


async def run_workers(team: Team, workers: Iterable[Worker]) -> None:
    """Run them until this is cancelled; each then finishes its item and gives its lease back."""
    tasks = [asyncio.create_task(_carry_on(team, worker), name=worker.name) for worker in workers]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _raise_if_cancelled() -> None:
    """Raise a cancellation that a write swallowed: a store waits for a commit that has begun, and then answers."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def _carry_on(team: Team, worker: Worker) -> None:
    """Wait for the lease, work until it is lost, and wait again."""
    standing = team.standings.setdefault(worker.name, Standing())
    pause = LOOK
    while True:
        _raise_if_cancelled()
        lease = Lease(team.context.unrestricted, worker.name, team.owner, team.context.clock)
        try:
            await _wait_for(team, lease, standing)
            pause = LOOK
            await _work(team, worker, Turn(team.context, lease, team.log, team.sleep), standing)
        except LeaseLost as error:
            team.log("warning", "worker lost its lease", worker=worker.name, reason=str(error))
        except StoreError as error:
            team.log("warning", "worker cannot reach the store", worker=worker.name, error=type(error).__name__)
            await team.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        finally:
            standing.here = False


async def _wait_for(team: Team, lease: Lease, standing: Standing) -> None:
    while not await lease.acquire():
        _raise_if_cancelled()
        if lease.seen is not None:
            standing.holder, standing.report = lease.seen.owner, lease.seen.report
        await team.sleep(LOOK)
    standing.holder, standing.here = lease.owner, True
    standing.report = lease.seen.report if lease.seen else {}


async def _work(team: Team, worker: Worker, turn: Turn, standing: Standing) -> None:
    """Step after step, until the lease is lost or the process ends."""
    team.log("info", "worker begins", worker=worker.name, owner=team.owner)
    failures = 0
    try:
        while True:
            _raise_if_cancelled()
            try:
                result = await _run_step(worker, turn)
            except (LeaseLost, Stopping):
                raise
            except Exception as error:
                failures += 1
                severity = "warning" if isinstance(error, StoreError) else "error"
                team.log(severity, "worker step failed", worker=worker.name, error=describe_error(error))
                standing.report = {**standing.report, "error": type(error).__name__, "failures": failures}
                await _pause(turn, min(LONGEST_PAUSE, 0.5 * 2 ** min(failures, 10)), standing)
                continue
            failures = 0
            _tell(team, worker, standing, result)
            await _pause(turn, 0 if result.done else worker.seconds, standing)
    finally:
        with suppress(StoreError, TimeoutError):
            async with asyncio.timeout(GRACE):
                await turn.lease.release()


def _tell(team: Team, worker: Worker, standing: Standing, result: StepResult) -> None:
    moment = format_instant(team.context.clock() // 1000 * 1000)
    standing.report = {"position": result.position, "lag": result.lag, "step": moment}
    if result.done:
        team.log("info", "worker step", worker=worker.name, **result._asdict())


async def _pause(turn: Turn, seconds: float, standing: Standing) -> None:
    """Sleep with the lease kept; what the store cannot take now is tried again by the next step."""
    while True:
        with suppress(StoreError):
            await turn.lease.check()
        _raise_if_cancelled()
        await turn.sleep(min(seconds, HEARTBEAT / 2))
        seconds -= HEARTBEAT / 2
        if seconds <= 0:
            break
    with suppress(StoreError):
        if turn.lease.seen is not None and turn.lease.seen.report.get("position") != standing.report.get("position"):
            await turn.lease.renew(standing.report)


async def _run_step(worker: Worker, turn: Turn) -> StepResult:
    """One step, with signs of life beside it. Ends it when the lease is lost; gives it GRACE when the process ends."""
    step = asyncio.ensure_future(worker.step(turn))
    beat = asyncio.create_task(_keep_lease(turn))
    try:
        await asyncio.wait({step, beat}, return_when=asyncio.FIRST_COMPLETED)
        if not step.done():
            beat.result()
        return await step
    except asyncio.CancelledError:
        turn.stopping = True
        await asyncio.wait({step}, timeout=GRACE)
        raise
    finally:
        step.cancel()
        beat.cancel()
        await asyncio.gather(step, beat, return_exceptions=True)


async def _keep_lease(turn: Turn) -> None:
    while True:
        await turn.sleep(HEARTBEAT)
        with suppress(StoreError):
            await turn.lease.renew()
        _raise_if_cancelled()


async def work_off(context: Context, worker: Worker) -> None:
    """The steps of one worker until nothing waits, in this process, which holds it meanwhile."""

    async def sleep(seconds: float) -> None:
        await asyncio.sleep(0)

    lease = Lease(context.unrestricted, worker.name, "alone", context.clock)
    if await lease.acquire():
        turn = Turn(context, lease, lambda *_, **__: None, sleep)
        while (await worker.step(turn)).done:
            pass
        await lease.release()
