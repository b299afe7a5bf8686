"""`kill -9` of the process that carries on a job: the other one goes on where it was, and no step is left out."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from fhir_server.app import Knowledge
from fhir_server.requests.request import Caller
from fhir_server.workers.jobs import find_job, start_job
from tests.conftest import serving
from tests.faults.process import ROOT

pytestmark = [pytest.mark.anyio, pytest.mark.external, pytest.mark.long]

KILLS, PATIENCE = 5, 60
JOBS = {"a": 40, "b": 25}
"""Two jobs and their steps."""


@pytest.fixture(params=["sqlite", "mongo"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/fhir.db"
    made: str = request.getfixturevalue("new_mongo_uri")()
    return made


def read_steps(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").split()


async def wait_for_steps(path: Path, wanted: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while len(read_steps(path)) < wanted:
        assert time.monotonic() < deadline, "no job goes on any more"
        await asyncio.sleep(0.005)


async def test_jobs_are_resumed_by_another_process(known: Knowledge, uri: str, tmp_path: Path) -> None:
    steps, roll = tmp_path / "steps", random.Random(15)
    steps.touch()
    async with serving(known, store=uri) as client:
        context = client.server.context
        ids = [
            (await start_job(context, "count", {"name": name, "to": to}, Caller("http://test/fhir"))).id
            for name, to in JOBS.items()
        ]
        command = (sys.executable, "-m", "tests.workers.killed_jobs", uri, str(steps))
        pair = [subprocess.Popen(command, cwd=ROOT), subprocess.Popen(command, cwd=ROOT)]
        try:
            for _ in range(KILLS):
                await wait_for_steps(steps, len(read_steps(steps)) + roll.randrange(1, 4))
                await asyncio.sleep(roll.random() * 0.03)
                pair[0].kill()  # whichever of the two has the lease: by turns it is each of them
                pair[0].wait(20)
                pair = [pair[1], subprocess.Popen(command, cwd=ROOT)]
            deadline = time.monotonic() + PATIENCE
            while {(found := await find_job(context, id)) and found.status for id in ids} != {"complete"}:
                assert time.monotonic() < deadline, read_steps(steps)[-3:]
                await asyncio.sleep(0.1)
        finally:
            for process in pair:
                process.terminate()
                process.wait(20)
        counts = Counter(read_steps(steps))
        assert set(counts) == {f"{name}{step}" for name, to in JOBS.items() for step in range(1, to + 1)}
        assert sum(counts.values()) - len(counts) <= KILLS, "a step was repeated although it was saved"
        ended = [await find_job(context, id) for id in ids]
        assert [job and (job.done, job.steps) for job in ended] == [(to, to) for to in JOBS.values()]
