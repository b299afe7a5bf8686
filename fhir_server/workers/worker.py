"""What a worker is: a row of the table of workers, and what each of its steps works with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from fhir_server.requests.context import Context
from fhir_server.requests.request import Caller
from fhir_server.security.policy import Principal
from fhir_server.workers.lease import Lease

Log = Callable[..., None]
"""(level, message, **fields) → None; fields never hold a resource's content."""

Sleep = Callable[[float], Awaitable[object]]


class Stopping(Exception):
    """The process ends: the worker stops between two items."""


class StepResult(NamedTuple):
    """What one step did: items done (with any, the next step follows at once), where it is, how much waits.

    `position` is shown by `/readyz` and the log: a token, an id or a count, never content.
    """

    done: int = 0
    position: str = ""
    lag: int | None = None


@dataclass(slots=True)
class Turn:
    """What a step works with while this process holds the worker's lease."""

    context: Context
    lease: Lease
    log: Log
    sleep: Sleep
    stopping: bool = False

    async def check(self) -> None:
        """Return if the next item may be begun. Raises LeaseLost, or Stopping when the process ends."""
        if self.stopping:
            raise Stopping
        await self.lease.check()

    @property
    def caller(self) -> Caller:
        """On whose behalf the worker reads and writes."""
        return Caller(self.context.settings.base_url, Principal(f"worker {self.lease.name}"))

    @property
    def claim(self) -> str:
        """What marks the items that this holder of the lease has claimed, and no other holder before or after."""
        fence = self.lease.seen.fence if self.lease.seen else 0
        return f"{self.lease.owner}, fence {fence}"


Step = Callable[[Turn], Awaitable[StepResult]]


@dataclass(frozen=True, slots=True)
class Worker:
    """One worker: its name, what it does, and one step of it, which is safe to repeat.

    `seconds`: the pause after a step that did nothing. `setting`: the setting that switches it on, where it has one.
    """

    name: str
    documentation: str
    step: Step
    seconds: float = 1.0
    setting: str = ""


@dataclass(slots=True)
class Standing:
    """How far one worker is, as this process knows it."""

    holder: str = ""
    here: bool = False
    report: dict[str, object] = field(default_factory=dict)
