"""Posts from a store, 4 claims at a time: `python -m tests.workers.killed_postings URI COMMITS`.

It kills itself with SIGKILL as soon as so many transactions are committed (0: never), and ends when nothing waits.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from dataclasses import replace
from typing import Any

from fhir_server.app import Seams, open_server
from fhir_server.settings import Settings
from fhir_server.workers import postings
from fhir_server.workers.running import Team, run_workers
from fhir_server.workers.worker import StepResult, Turn, Worker
from tests.workers.clocks import FastClock

MARCH = 1_772_409_600_000_000
"""2026-03-02 in µs."""


async def main(uri: str, commits: int) -> None:
    clock, left = FastClock(MARCH), commits
    seams = replace(Seams(), clock=clock)
    settings = Settings(store=uri)
    async with open_server(settings, log=lambda *_, **__: None, seams=seams) as server:
        store = server.context.unrestricted
        transact = store.transact

        async def transact_and_die(transaction: Any) -> Any:
            nonlocal left
            committed = await transact(transaction)
            left -= bool(transaction.writes)
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return committed

        async def step(turn: Turn) -> StepResult:
            result = await postings.step_postings(turn)
            if not result.done:
                os._exit(0)
            return result

        store.transact = transact_and_die  # type: ignore[method-assign]
        team = Team(server.context, lambda *_, **__: None, sleep=clock.sleep)
        await run_workers(team, [Worker("postings", "Posts.", step)])


if __name__ == "__main__":
    postings.SLICE = 4  # type: ignore[attr-defined]
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
