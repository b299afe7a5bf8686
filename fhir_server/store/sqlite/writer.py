"""The one thread that writes: a queue, group commit, and turns with other processes (https://www.sqlite.org/isolation.html).

Everything that waits when the thread becomes free is written in one database transaction with one fsync. Processes
that share the file take turns by a lock file: SQLite's own busy waiting lets the unlucky starve.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import queue
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fhir_server.store.operations import Transaction
from fhir_server.store.protocol import (
    AssertionFailed,
    Clock,
    Committed,
    ReadFailed,
    RegistryChanged,
    StillReferenced,
    StoreUnavailable,
    TargetsMissing,
)
from fhir_server.store.sqlite.checkpoint import Checkpoints
from fhir_server.store.sqlite.commit import Draft, Group, draft
from fhir_server.store.sqlite.names import Names
from fhir_server.store.sqlite.plan import Sizes
from fhir_server.store.sqlite.schema import store_error
from fhir_server.store.sqlite.search import Search

WAIT_SECONDS = 30.0
"""How long a write waits for its turn."""

_TURNSTILE_PAUSE = 0.01
_MOST_WRITES = 2000
_CLEAN_REFUSALS = (AssertionFailed, RegistryChanged, TargetsMissing, StillReferenced, ReadFailed)

Work = Callable[[sqlite3.Connection], Any]
"""What runs inside a database transaction of its own."""


@dataclass(slots=True, eq=False)
class Job:
    """A transaction or other work, and who waits for it. Whoever acquires `claim` settles the job: writer or clock."""

    task: Transaction | Work
    future: asyncio.Future[Any]
    claim: threading.Lock = field(default_factory=threading.Lock)


Outcome = Any
"""A result, or the exception to raise."""


class Writer:
    """Owns the writing connection. `submit` is called on the event loop, everything else runs on the thread."""

    def __init__(
        self, connection: sqlite3.Connection, path: Path, names: Names, clock: Clock, checkpoints: Checkpoints | None
    ) -> None:
        self._connection = connection
        self._names = names
        self._clock = clock
        self._checkpoints = checkpoints
        self._search = Search(connection, names, Sizes())
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._closed = False
        self._turnstile = open_turnstile(path)
        self._thread = threading.Thread(target=self._run, name="sqlite-writer", daemon=True)
        self._thread.start()

    async def submit(self, task: Transaction | Work) -> Any:
        """Run a task in a database transaction, durable on return. Raises what the task raises, or StoreUnavailable."""
        if self._closed:
            raise StoreUnavailable("The database is closed; nothing was written.")
        job = Job(task, self._loop.create_future())
        limit = self._loop.call_later(WAIT_SECONDS, _expire, job)
        self._queue.put(job)
        try:
            return await job.future
        finally:
            limit.cancel()

    async def close(self) -> None:
        """Finish what is queued and stop the thread."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)
        await self._loop.run_in_executor(None, self._thread.join)
        if self._checkpoints is not None:
            await self._loop.run_in_executor(None, self._checkpoints.stop)
        if self._turnstile is not None:
            os.close(self._turnstile)
            self._turnstile = None

    def _run(self) -> None:
        running = True
        while running:
            jobs = [self._queue.get()]
            outcomes: list[tuple[Job, Outcome]] = []
            try:
                with self._turn():
                    running = self._gather(jobs)
                    if self._checkpoints is not None:
                        self._checkpoints.finish_if_due(self._connection)
                    outcomes = self._settle([job for job in jobs if job is not None and job.claim.acquire(False)])
            except BaseException as error:
                settled = {job for job, _ in outcomes}
                outcomes += [(job, error) for job in jobs if job is not None and job not in settled]
            self._deliver(outcomes)

    def _gather(self, jobs: list[Job | None]) -> bool:
        """Add what waits by now; False when the end of the queue was among it."""
        writes = 0
        with suppress(queue.Empty):
            while writes < _MOST_WRITES and jobs[-1] is not None:
                task = jobs[-1].task
                writes += len(task.writes) if isinstance(task, Transaction) else _MOST_WRITES
                jobs.append(self._queue.get_nowait())
        return jobs[-1] is not None

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if self._turnstile is None:
            yield
            return
        fcntl.flock(self._turnstile, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._turnstile, fcntl.LOCK_UN)

    def _deliver(self, outcomes: Sequence[tuple[Job, Outcome]]) -> None:
        # The loop is gone only when its program is ending without `close`.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(_complete, outcomes)

    def _settle(self, jobs: Sequence[Job]) -> list[tuple[Job, Outcome]]:
        """Commit transactions together and other work by itself; whatever fails together is tried alone."""
        together = [job for job in jobs if isinstance(job.task, Transaction)]
        alone = [job for job in jobs if not isinstance(job.task, Transaction)]
        outcomes: list[tuple[Job, Outcome]] = []
        if together:
            try:
                results = self._commit([job.task for job in together if isinstance(job.task, Transaction)])
                outcomes = list(zip(together, results, strict=True))
            except BaseException as error:
                if len(together) == 1:
                    outcomes = [(together[0], error)]
                else:
                    alone = [*together, *alone]
        for job in alone:
            outcomes.append((job, self._attempt(job)))
        return outcomes

    def _attempt(self, job: Job) -> Outcome:
        try:
            if isinstance(job.task, Transaction):
                return self._commit([job.task])[0]
            with self._transaction():
                return job.task(self._connection)
        except BaseException as error:
            return error

    def _drafts(self, transactions: Sequence[Transaction]) -> list[list[Draft]]:
        return [[draft(write, self._names) for write in transaction.writes] for transaction in transactions]

    def _commit(self, transactions: Sequence[Transaction]) -> list[Committed | Exception]:
        """One database transaction. A refusal stands in the place of its transaction; any other error is raised."""
        try:
            drafts = self._drafts(transactions)
        except KeyError:
            writes = (write for transaction in transactions for write in transaction.writes)
            self._names.intern(self._connection, self._names.missing(writes))
            drafts = self._drafts(transactions)
        outcomes: list[Committed | Exception] = []
        with self._transaction():
            group = Group(self._connection, self._names, self._search, self._clock())
            group.load(transactions, drafts)
            for transaction, prepared in zip(transactions, drafts, strict=True):
                try:
                    outcomes.append(group.run(transaction, prepared))
                except _CLEAN_REFUSALS as refusal:
                    outcomes.append(refusal)
            group.flush()
        if self._checkpoints is not None:
            self._checkpoints.committed(sum(map(len, drafts)))
        return outcomes

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            connection.execute("COMMIT")
        except BaseException:
            # SQLite has rolled back by itself after some errors (disk full among them).
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


@asynccontextmanager
async def alone(path: Path) -> AsyncIterator[None]:
    """Hold the turnstile while a file is opened: two processes that make it at once would lock each other out.

    Waits as long as a write does; after that it goes on without, and SQLite itself says what it cannot do.
    """
    turnstile = open_turnstile(path)
    deadline = asyncio.get_running_loop().time() + WAIT_SECONDS
    try:
        while turnstile is not None and asyncio.get_running_loop().time() < deadline:
            try:
                fcntl.flock(turnstile, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(_TURNSTILE_PAUSE)
        yield
    finally:
        if turnstile is not None:
            os.close(turnstile)


def open_turnstile(path: Path) -> int | None:
    """The lock file beside the database, or None where there can be none."""
    try:
        return os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError:
        # Nothing can be written beside the file, so nothing will be written into it either.
        return None


def _expire(job: Job) -> None:
    if job.claim.acquire(False) and not job.future.done():
        sentence = f"The database has been locked by another process for {WAIT_SECONDS:g} seconds; nothing was written."
        job.future.set_exception(StoreUnavailable(f"{sentence} Try again."))


def _complete(outcomes: Sequence[tuple[Job, Outcome]]) -> None:
    for job, outcome in outcomes:
        if job.future.done():
            continue
        if isinstance(outcome, sqlite3.Error):
            outcome = store_error(outcome)
        if isinstance(outcome, BaseException):
            job.future.set_exception(outcome)
        else:
            job.future.set_result(outcome)
