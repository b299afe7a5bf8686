"""The interface for audit events: the dispatcher reports each interaction once it is answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple, Protocol

PAUSE = 1.0
"""Seconds after which events that nobody waits for are written."""


class Event(NamedTuple):
    """One answered interaction; never a resource's content. `query`: the names of its parameters, never their values.

    `client`, `user`, `patient`: those of the token, "" where it names none. `purpose`, `reason`: of break-glass.
    """

    principal: str
    interaction: str
    type: str | None
    id: str | None
    status: int
    request_id: str
    query: tuple[str, ...] = ()
    client: str = ""
    user: str = ""
    patient: str = ""
    purpose: str = ""
    reason: str = ""


class Audit(Protocol):
    """Where audit events go."""

    def __call__(self, event: Event) -> None:
        """Take the event; must not block."""
        ...

    async def settle(self) -> None:
        """Return once every event that was taken is durable. Raises OSError where it cannot be made so."""
        ...


@asynccontextmanager
async def run_beside(work: Coroutine[object, object, None]) -> AsyncIterator[None]:
    """Let what writes the events now and then run while the body does; it is cancelled at the end."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
