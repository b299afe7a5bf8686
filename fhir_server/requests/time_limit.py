"""The time limit of a request: it ends a write only before the commit was handed to the store.

A request that is cut short while it waits has stored nothing. From the moment that the store has the commit the limit
is lifted: the answer waits for what came of it, and a resource that was stored is never answered with 408.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar

from fhir_server.fhir.outcome import TimedOut

_limit: ContextVar[asyncio.Timeout | None] = ContextVar("time limit of the request", default=None)


@asynccontextmanager
async def end_after(seconds: float, deadline: float | None = None) -> AsyncIterator[None]:
    """Limit what is inside to `seconds`, or until `deadline` on the loop's clock. Raises TimedOut.

    `seconds` is what the error tells.
    """
    at = asyncio.get_running_loop().time() + seconds if deadline is None else deadline
    try:
        async with asyncio.timeout_at(at) as limit:
            token = _limit.set(limit)
            try:
                yield
            finally:
                _limit.reset(token)
    except TimeoutError:
        raise TimedOut(
            f"The request took longer than {seconds:g} seconds, the limit (setting `request_timeout`), and was given "
            "up: nothing of it was stored, and nothing will be."
        ) from None


def lift() -> float | None:
    """Let what was begun come to its end; the deadline that was in force, None where there was none (any more)."""
    limit = _limit.get()
    if limit is None or limit.expired():
        return None
    deadline = limit.when()
    limit.reschedule(None)
    return deadline
