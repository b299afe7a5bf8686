"""How tests of cost measure: processor time, two sizes in turns, and once more before a machine's noise is a fault.

What costs the square of its number is beyond its bound each time; what another process did to a cache or a core in
one moment is not.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.conftest import Client

JSON = {"content-type": "application/fhir+json"}
REPEATS = 3
"""How often a comparison, or a request, is measured before it counts as too slow."""
LONG_WAIT: dict[str, Any] = {"request_timeout": 3600.0}
"""Settings of a server whose processor time is measured: by the clock a request may take long beside other work."""
SHARE = 0.25 / 0.8
"""What the event loop may be kept for: 250 ms where counting to ten million takes 0.8 s."""

Measure = Callable[[int], Awaitable[float]]
"""Seconds of processor time of one try; its argument counts the tries, so that none finds what the one before left."""


def measure_call(work: Callable[[], object]) -> float:
    """The processor time of this process (s) for one call."""
    began = time.process_time()
    work()
    return time.process_time() - began


@contextmanager
def leave_garbage() -> Iterator[None]:
    """Without it a full collection falls into the larger of two sizes, not into the smaller."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def check_ratio(smaller: Measure, larger: Measure, bound: float, tries: int = 4) -> None:
    """The larger costs at most `bound` times the smaller: the best of tries in turns, in one of three comparisons."""
    seen: list[tuple[float, float]] = []
    for repeat in range(REPEATS):
        turns = []
        for number in range(repeat * tries, (repeat + 1) * tries):
            with leave_garbage():
                turns.append((await smaller(number), await larger(number)))
        seen.append((min(turn[0] for turn in turns), min(turn[1] for turn in turns)))
        if seen[-1][1] <= bound * seen[-1][0]:
            return
    raise AssertionError(f"more than {bound} times as much in each comparison (s of the smaller, the larger): {seen}")


async def check_ratio_of_calls(
    smaller: Callable[[], object], larger: Callable[[], object], bound: float, tries: int = 4
) -> None:
    """The same of two functions, all of whose time counts."""

    async def measure_smaller(number: int) -> float:
        return measure_call(smaller)

    async def measure_larger(number: int) -> float:
        return measure_call(larger)

    await check_ratio(measure_smaller, measure_larger, bound, tries)


async def measure_bundle(client: Client, body: dict[str, Any]) -> float:
    """The processor time of this process (s) for a bundle that creates all of its entries."""
    content = httpx.Request("POST", "http://x", json=body).content
    began = time.process_time()
    answer = await client.post("/", content=content, headers=JSON)
    spent = time.process_time() - began
    assert answer.status_code == 200, answer.text[:500]
    assert all(entry["response"]["status"] == "201 Created" for entry in answer.json()["entry"])
    return spent


def read_wait() -> float:
    """How long this thread could have run and got no core (s): none where the system does not tell."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    except OSError:
        return 0.0


class Standstill:
    """How long the event loop had no turn inside of `with`: `longest` in seconds of processor time.

    All that its own thread used counts, and what other threads of this process used, unless that was while the loop
    waited for a core and not for them: on a machine that does much else they would be blamed for it.
    """

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
        own, all_threads, wait = time.thread_time(), time.process_time(), read_wait()
        while True:
            await asyncio.sleep(0.001)
            now = time.thread_time(), time.process_time(), read_wait()
            used, waited = now[0] - own, now[2] - wait
            self.longest = max(self.longest, used + max(0.0, now[1] - all_threads - used - waited))
            own, all_threads, wait = now


async def check_loop_turns(send: Callable[[int], Awaitable[httpx.Response]]) -> httpx.Response:
    """The answer to a request that keeps the event loop no longer than it may, in one of three tries.

    `send` gets the number of the try: one that is repeated must find nothing that the one before left.
    """
    seen: list[tuple[float, float]] = []
    for number in range(REPEATS):
        allowed = SHARE * 10 * measure_call(count_to_a_million)
        async with Standstill() as loop:
            answer = await send(number)
        if loop.longest <= allowed:
            return answer
        seen.append((loop.longest, allowed))
    raise AssertionError(f"the loop has no turn for too long, each time (s, what is allowed): {seen}")


def count_to_a_million() -> None:
    exec("count = 0\nwhile count < 1_000_000:\n count += 1", {})
