"""What tests of workers share: a context on a store, a turn in it, and a store that fails where a test says."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from fhir_server.requests.context import Context
from fhir_server.store.protocol import Clock
from fhir_server.workers.lease import Lease
from fhir_server.workers.worker import Turn
from tests.workers.clocks import Clock as HandClock

Lines = list[tuple[str, str, dict[str, Any]]]


class Killed(BaseException):
    """The process is gone: nothing may catch this but the test."""


class Failing:
    """A store on which the call with the number `at` (and its answer, where `after`) ends the process."""

    def __init__(self, store: Any, at: int, after: bool) -> None:
        self._store = store
        self._left = at
        self._after = after
        self.reached = False

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        if name not in ("transact", "put_value_if", "get_value", "search", "read", "read_changes"):
            return method

        async def call(*given: Any, **named: Any) -> Any:
            self._left -= 1
            if self._left != 0:
                return await method(*given, **named)
            self.reached = True
            if self._after:
                await method(*given, **named)
            raise Killed

        return call


def noting(lines: Lines) -> Callable[..., None]:
    def log(level: str, message: str, **fields: object) -> None:
        lines.append((level, message, fields))

    return log


async def take_turn(
    context: Context, name: str, owner: str, lines: Lines | None = None, clock: Clock | None = None
) -> Turn:
    """A turn that holds the lease, taken over from whoever had it."""
    watch = HandClock()
    lease = Lease(context.unrestricted, name, owner, watch)
    while not await lease.acquire():
        await watch.sleep(5)
    turned = dataclasses.replace(context, clock=clock) if clock else context
    return Turn(turned, lease, noting(lines if lines is not None else []), watch.sleep)
