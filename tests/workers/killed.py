"""Delivers from an SQLite file until it is killed: `python -m tests.workers.killed DATABASE ARRIVALS`.

Each delivery appends its control number to the file of arrivals; a file named `repeats` is a way out that repeats.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import sys
from pathlib import Path

from fhir_server.app import open_server
from fhir_server.settings import Settings
from fhir_server.transports.protocol import DeliveryResult, Endpoint
from fhir_server.workers.delivery import run_deliveries
from fhir_server.workers.running import Team, run_workers
from fhir_server.workers.worker import Worker
from tests.workers.clocks import FastClock
from tests.workers.test_delivery import outbox


class Arrivals:
    """The receiver: a file with a line for each arrival."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.repeats = path.name == "repeats"

    async def deliver(self, endpoint: Endpoint, control_number: str, payload: bytes) -> DeliveryResult:
        await asyncio.sleep(0.01)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{control_number}\n")
            file.flush()
            os.fsync(file.fileno())
        await asyncio.sleep(0.01)
        return DeliveryResult("delivered", b"AA")

    async def find_delivered(self, endpoint: Endpoint, control_number: str) -> bool:
        return control_number in self.path.read_text(encoding="utf-8").split()


async def main(database: str, arrivals: Path) -> None:
    async with open_server(Settings(store=f"sqlite:///{database}"), log=lambda *_, **__: None, create=True) as server:
        clock = FastClock()
        context = dataclasses.replace(server.context, clock=clock)
        step = run_deliveries(outbox(Arrivals(arrivals)))
        team = Team(context, lambda *_, **__: None, sleep=clock.sleep)
        await run_workers(team, [Worker("deliveries", "Delivers.", step)])


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
