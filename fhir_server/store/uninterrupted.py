"""Awaiting what must come to its end: a commit that was handed to a database."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def finish(work: Coroutine[Any, Any, T]) -> T:
    """What the work gives or raises. Who waits for it can be cancelled without effect: the outcome must be told."""
    task = asyncio.get_running_loop().create_task(work)
    return await outcome_of(task)


async def outcome_of(future: asyncio.Future[T]) -> T:
    """What a future gives or raises, whoever is cancelled meanwhile."""
    while not future.done():
        try:
            await asyncio.shield(future)
        except asyncio.CancelledError:
            continue
        except Exception:
            break
    return future.result()
