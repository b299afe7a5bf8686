"""Queues and sends until it is killed: `python -m tests.workers.killed_sender DATABASE PROFILES`."""

from __future__ import annotations

import asyncio
import dataclasses
import sys

from fhir_server.app import Seams, open_server
from fhir_server.settings import Settings
from fhir_server.workers.running import Team, run_workers
from fhir_server.workers.table import WORKERS
from tests.workers.clocks import FastClock


async def main(database: str, profiles: str) -> None:
    """The workers `sending` and `deliveries`, by a clock that runs fast, so that a lease is soon taken over."""
    settings = Settings(store=f"sqlite:///{database}", profiles=profiles)
    async with open_server(settings, log=lambda *_, **__: None, seams=Seams(definitions=None)) as server:
        clock = FastClock()
        context = dataclasses.replace(server.context, clock=clock)
        team = Team(context, lambda *_, **__: None, sleep=clock.sleep)
        await run_workers(team, (WORKERS["sending"], WORKERS["deliveries"]))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
