"""The jobs that wait for the writing connection, and who waits for them.

One timer of the event loop serves all of them, as each waits equally long: a timer for each would cost a small write a
part of what its rows do.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from fhir_server.store.operations import Transaction
from fhir_server.store.protocol import StoreUnavailable
from fhir_server.store.sqlite.commit import Draft
from fhir_server.store.sqlite.process_lock import WAIT_SECONDS
from fhir_server.store.sqlite.schema import convert_error
from fhir_server.store.uninterrupted import outcome_of

Work = Callable[[sqlite3.Connection], Any]
"""What runs inside a database transaction of its own."""

Outcome = Any
"""A result, or the exception to raise."""

_EARLY = 0.001
"""Seconds by which the timer of an event loop may come too early."""


@dataclass(slots=True, eq=False)
class Job:
    """A transaction or other work, and who waits for it. Whoever acquires `claim` settles the job: writer or clock.

    `deadline`: on the clock of the event loop. `drafts`: those of the writes of a transaction, once they are made.
    `outcomes`: the one, for a waiter whose future was cancelled when it came.
    """

    task: Transaction | Work
    future: asyncio.Future[Any]
    deadline: float
    claim: threading.Lock = field(default_factory=threading.Lock)
    drafts: Sequence[Draft] | None = None
    outcomes: tuple[Outcome, ...] = ()

    def complete(self, outcome: Outcome) -> None:
        """On the loop: tell the outcome to who waits for it."""
        self.outcomes = (outcome,)
        if self.future.done():
            return
        if isinstance(outcome, BaseException):
            self.future.set_exception(convert_error(outcome) if isinstance(outcome, sqlite3.Error) else outcome)
        else:
            self.future.set_result(outcome)


class WaitingJobs:
    """The jobs in the order of their arrival. The event loop adds them, the writing thread may take them."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._jobs: deque[Job] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def __bool__(self) -> bool:
        return bool(self._jobs)

    def add(self, task: Transaction | Work) -> Job:
        """A new job at the end."""
        job = Job(task, self._loop.create_future(), self._loop.time() + WAIT_SECONDS)
        self._jobs.append(job)
        return job

    def list_unclaimed(self) -> list[Job]:
        """Those that have not expired."""
        return [job for job in tuple(self._jobs) if not job.claim.locked()]

    def claim(self, jobs: Sequence[Job]) -> None:
        """Claim all that wait: those of `list_unclaimed`."""
        for job in jobs:
            job.claim.acquire()
        self._jobs.clear()

    def claim_first(self, most_writes: int) -> list[Job]:
        """Claim the first ones, as many as one commit should hold; work that is no transaction goes alone."""
        jobs: list[Job] = []
        writes = 0
        with suppress(IndexError):
            while writes < most_writes:
                job = self._jobs.popleft()
                if job.claim.acquire(False):
                    jobs.append(job)
                    writes += len(job.task.writes) if isinstance(job.task, Transaction) else most_writes
        return jobs

    async def wait_for(self, job: Job) -> Any:
        """What the job gives or raises; StoreUnavailable when its turn did not come in time.

        When the caller is cancelled before the turn of the job came, it is never run; after that the caller waits.
        """
        if self._timer is None and not job.claim.locked():
            self._timer = self._loop.call_at(job.deadline, self._expire_late)
        try:
            return await job.future
        except asyncio.CancelledError:
            # Given up before its turn came: written later, it would surprise whoever looked meanwhile.
            if job.claim.acquire(False):
                raise
        # Its turn has come, and only the database knows by now what comes of it.
        if job.future.cancelled():
            job.future = self._loop.create_future()
            if job.outcomes:
                job.complete(*job.outcomes)
        return await outcome_of(job.future)

    def _expire_late(self) -> None:
        """Give up what has waited too long, and wait for the next one."""
        self._timer = None
        late = self._loop.time() + _EARLY
        for job in self.list_unclaimed():
            if job.deadline > late:
                self._timer = self._loop.call_at(job.deadline, self._expire_late)
                break
            if job.claim.acquire(False):
                job.complete(
                    StoreUnavailable(
                        f"The database has been locked by another process for {WAIT_SECONDS:g} seconds; nothing was "
                        "written. Try again."
                    )
                )
