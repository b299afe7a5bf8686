"""A clock that tests move by hand, and a sleep that moves it."""

from __future__ import annotations

import asyncio
import time


class Clock:
    """µs since 1970; `sleep` lets the time pass at once."""

    def __init__(self, now: int = 1_000_000_000_000_000) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now

    async def sleep(self, seconds: float) -> None:
        """Let so many seconds pass, and the other tasks run."""
        self.now += int(seconds * 1_000_000)
        await asyncio.sleep(0)


class FastClock(Clock):
    """Real time, thirty times as fast: for stores whose writes take real time."""

    SPEED = 30

    def __call__(self) -> int:
        return self.now + time.monotonic_ns() // 1000 * self.SPEED

    async def sleep(self, seconds: float) -> None:
        """Sleep a thirtieth."""
        await asyncio.sleep(seconds / self.SPEED)
