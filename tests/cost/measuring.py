"""What a transaction of new resources costs, for tests that compare two sizes in one run."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx

from tests.conftest import Client

JSON = {"content-type": "application/fhir+json"}


async def measure_bundles(client: Client, *bundles: dict[str, Any]) -> float:
    """The least CPU time of this process (s) for one of the bundles, each of which creates all of its entries."""
    best = float("inf")
    for body in bundles:
        content = httpx.Request("POST", "http://x", json=body).content
        began = time.process_time()
        answer = await client.post("/", content=content, headers=JSON)
        best = min(best, time.process_time() - began)
        assert answer.status_code == 200, answer.text[:500]
        assert all(entry["response"]["status"] == "201 Created" for entry in answer.json()["entry"])
    return best


class Standstill:
    """How long the event loop had no turn inside of `with`: `longest` in seconds of this process's CPU time."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Standstill:
        self._task = asyncio.create_task(self._watch())
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *error: object) -> None:
        assert self._task is not None
        await asyncio.sleep(0.01)
        self._task.cancel()

    async def _watch(self) -> None:
        before = time.process_time()
        while True:
            await asyncio.sleep(0.001)
            now = time.process_time()
            self.longest, before = max(self.longest, now - before), now


async def measure_standstill(
    client: Client, method: str, url: str, body: bytes, headers: dict[str, str]
) -> tuple[float, httpx.Response]:
    """The longest time without a turn of the loop (s of CPU) while a request is answered; the answer."""
    async with Standstill() as loop:
        answer = await client.request(method, url, content=body, headers=headers)
    return loop.longest, answer
