"""A thread for what would keep the event loop from other requests: parsing, checking and indexing large texts.

One thread, in the order of arrival: two would take the interpreter from the loop twice as long. What a request has
begun when its time is over goes on to its end, which is why all of it is linear in the size of the text.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar


class Sized(Protocol):
    """What has a text, such as a stored resource."""

    @property
    def raw(self) -> bytes | None:
        """The text; None for a deletion."""
        ...


R = TypeVar("R", bound=Sized)
T = TypeVar("T")

THREAD_FROM = 64 * 1024
"""Bytes of text from which work on it goes to the thread: below it the change of threads would cost more."""


class LongWork:
    """The thread of one server; it is started when it is first needed."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="long-work")

    async def run(self, size: int, function: Callable[..., T], *arguments: Any) -> T:
        """What the function gives or raises, on the thread where `size` bytes are much."""
        if size < THREAD_FROM:
            return function(*arguments)
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)

    async def run_each(self, function: Callable[[R], T], resources: Iterable[R]) -> list[T]:
        """What the function gives for each of the resources: for large ones on the thread, with turns for others."""
        results: list[T] = []
        waited_for = 0
        for resource in resources:
            size = len(resource.raw or b"")
            results.append(await self.run(size, function, resource))
            waited_for += size if size < THREAD_FROM else 0
            if waited_for >= THREAD_FROM:
                await asyncio.sleep(0)
                waited_for = 0
        return results

    def close(self) -> None:
        """Begin nothing more."""
        self._pool.shutdown(wait=False, cancel_futures=True)
