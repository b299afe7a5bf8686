"""Carries on the jobs of a store until it is killed: `python -m tests.workers.killed_jobs URI STEPS`.

A job of the kind `count` appends the number of each step to the file STEPS before the step is saved.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import sys
from dataclasses import replace
from pathlib import Path

from fhir_server.app import open_server
from fhir_server.settings import Settings
from fhir_server.workers.jobs import Job, JobStep, complete_job, run_jobs
from fhir_server.workers.running import Team, run_workers
from fhir_server.workers.worker import Turn, Worker
from tests.workers.clocks import FastClock


def write_steps(path: Path) -> JobStep:
    """The step of a job that counts to `to` and tells the file so."""

    async def count(turn: Turn, job: Job) -> Job:
        reached = (job.position or 0) + 1
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{job.input['name']}{reached}\n")
            file.flush()
            os.fsync(file.fileno())
        await asyncio.sleep(0.01)
        counted = replace(job, position=reached, done=reached, total=job.input["to"])
        ended = {"resourceType": "Basic", "id": str(reached)}
        return complete_job(counted, ended) if reached == job.input["to"] else counted

    return count


async def main(uri: str, path: Path) -> None:
    async with open_server(Settings(store=uri), log=lambda *_, **__: None) as server:
        clock = FastClock()
        context = dataclasses.replace(server.context, clock=clock)
        team = Team(context, lambda *_, **__: None, sleep=clock.sleep)
        await run_workers(team, [Worker("jobs", "Counts.", run_jobs({"count": write_steps(path)}))])


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
