"""The writing connection: group commit, and turns with other processes (https://www.sqlite.org/isolation.html).

All transactions that wait when the connection becomes free are written in one database transaction with one fsync. A
commit waits for the disk, so that a thread does it. The rows before it are written on the event loop when they are few:
the thread would have to win the GIL back from a busy loop after each statement, which takes longer than the rows do,
and while it commits the loop plans the next ones.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from fhir_server.store import protocol
from fhir_server.store.operations import Matches, Transaction
from fhir_server.store.protocol import Budget, Clock, Committed, Reindexed, StoreUnavailable
from fhir_server.store.sqlite import upkeep
from fhir_server.store.sqlite.cardinality import Sizes
from fhir_server.store.sqlite.checkpoint import Checkpoints
from fhir_server.store.sqlite.commit import Draft, Group, make_draft
from fhir_server.store.sqlite.file_watch import FileWatch
from fhir_server.store.sqlite.interned_names import Names
from fhir_server.store.sqlite.process_lock import WAIT_SECONDS, Turnstile
from fhir_server.store.sqlite.recent import Position, RecentWrites, WrittenEntries
from fhir_server.store.sqlite.schema import BUSY_MS, begin_write, roll_back
from fhir_server.store.sqlite.search import Search
from fhir_server.store.sqlite.standing import StandingAnswers
from fhir_server.store.sqlite.waiting import Job, Outcome, WaitingJobs, Work

_MOST_WRITES = 2000
"""Writes after which a commit takes no more transactions."""

_MOST_ON_LOOP = 32
"""Most writes whose rows are written on the event loop: 2 ms."""

_LARGEST_ON_LOOP = 64 * 1024
"""Bytes of the largest resource whose rows are."""

_HANDOVER_SECONDS = 0.001
_REFUSALS = (
    *(protocol.AssertionFailed, protocol.RegistryChanged, protocol.TargetsMissing),
    *(protocol.StillReferenced, protocol.ReadFailed),
)
"""Errors of one transaction, raised before it has changed anything."""

Outcomes = list[tuple[Job, Outcome]]


class Writer:
    """Owns the writing connection: while `_busy` the thread uses it, else the event loop.

    `watch`: over the files as they were when this was made. `has_failed`: SQLite refused a commit; whoever finds that
    it takes writes again sets it back.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        path: Path,
        names: Names,
        clock: Clock,
        budget: Budget,
        checkpoints: Checkpoints | None,
    ) -> None:
        self._connection = connection
        self._names = names
        self._clock = clock
        self._checkpoints = checkpoints
        self.watch = FileWatch(path)
        self.has_failed = False
        self._search = Search(connection, names, Sizes(), budget)
        self._recent = RecentWrites()
        self._turnstile = Turnstile(path)
        self.standing = StandingAnswers(self._turnstile.count_others)
        self._uncommitted: tuple[list[WrittenEntries], Position] = [], Position(0, 0, 0, 0, 0)
        self._loop = asyncio.get_running_loop()
        self._waiting = WaitingJobs(self._loop)
        self._busy = self._begins = self._closed = self._has_turn = False
        self._works: queue.SimpleQueue[Callable[[], Outcomes] | None] = queue.SimpleQueue()
        connection.execute("PRAGMA busy_timeout = 0")  # only the thread may wait
        self._thread = threading.Thread(target=self._run, name="sqlite-writer", daemon=True)
        self._thread.start()

    async def submit(self, task: Transaction | Work) -> Any:
        """Run a task in a database transaction, durable on return. Raises what the task raises, or StoreUnavailable.

        When the caller is cancelled before the turn of the task came, it is never run; after that the caller waits.
        """
        drafts = None
        if isinstance(task, Transaction) and len(task.writes) > _MOST_ON_LOOP:
            # not on the writing thread, where others' writes would wait for it
            drafts = await self._loop.run_in_executor(None, self._try_to_make_drafts, task)
        if self._closed:
            raise StoreUnavailable("The database is closed; nothing was written.")
        job = self._waiting.add(task)
        job.drafts = drafts
        if not (self._busy or self._begins):
            # after the other requests that have their turn now: what they write goes into the same commit
            self._begins = True
            self._loop.call_soon(self._begin)
        return await self._waiting.wait_for(job)

    def _begin(self) -> None:
        self._begins = False
        self._start()

    def _try_to_make_drafts(self, task: Transaction) -> list[Draft] | None:
        with suppress(Exception):  # done again in the turn, where the error is told
            return self._make_drafts(task)
        return None

    def _make_drafts(self, task: Transaction) -> list[Draft]:
        return [make_draft(write, self._names) for write in task.writes]

    async def close(self) -> None:
        """Finish what waits and stop the thread; left to itself is one that waits for a turn that does not come."""
        if not self._closed:
            self._closed = True
            self._start()  # what was about to begin
            if not self._busy:
                self._works.put(None)
        await self._loop.run_in_executor(None, self._thread.join, WAIT_SECONDS)
        while self._thread.is_alive() and self._has_turn:
            await self._loop.run_in_executor(None, self._thread.join, WAIT_SECONDS)
        if self._checkpoints is not None:
            await self._loop.run_in_executor(None, self._checkpoints.stop)
        self._turnstile.close()

    def _start(self) -> None:
        """On the loop: begin with the jobs that wait, unless the thread is at work: `_complete_jobs` calls again."""
        if self._busy or not self._waiting:
            return
        self._busy = True
        written = self._write_on_loop()
        if written is None:
            self._works.put(self._write_in_turn)
            return
        begun = threading.Lock()
        begun.acquire()
        self._works.put(partial(self._commit_written, written, begun))
        # The thread needs the GIL to begin, and would get it only when the loop has nothing more to do.
        begun.acquire(timeout=_HANDOVER_SECONDS)

    def _complete_jobs(self, outcomes: Outcomes) -> None:
        """On the loop: tell the outcomes and go on with the jobs that came meanwhile."""
        self._busy = False
        for job, outcome in outcomes:
            job.complete(outcome)
        self._start()
        if self._closed and not self._busy:
            self._works.put(None)

    def _write_on_loop(self) -> Outcomes | None:
        """On the loop: the rows of a few short transactions, written but not committed; None leaves all to the thread.

        None when another process has its turn, when something may take long, and after an error: the thread then does
        it again and tells the error.
        """
        jobs = self._waiting.list_unclaimed()
        transactions = [job.task for job in jobs if isinstance(job.task, Transaction) and self._is_short(job.task)]
        if len(transactions) < len(jobs) or sum(len(each.writes) for each in transactions) > _MOST_ON_LOOP:
            return None
        if (self._checkpoints is not None and self._checkpoints.due) or not self._turnstile.try_enter():
            return None
        try:
            self.watch.check_before_write()
            self._prepare(jobs)
            self._connection.execute("BEGIN IMMEDIATE")
            results = self._write(jobs, searches=False)
        except Exception:
            roll_back(self._connection)
            self._turnstile.leave()
            return None
        self._waiting.claim(jobs)
        return list(zip(jobs, results, strict=True))

    def _is_short(self, transaction: Transaction) -> bool:
        """Whether it only looks up and writes rows: queries may take long, and so may finding references."""
        if transaction.queries or transaction.released or transaction.purged or len(transaction.writes) > _MOST_ON_LOOP:
            return False
        for each in transaction.assertions:
            if isinstance(each, Matches) and not self._recent.can_check(each):
                return False
        for write in transaction.writes:  # a generator would take longer than the look
            if write.content is not None and len(write.content.tail) >= _LARGEST_ON_LOOP:
                return False
        return True

    def _run(self) -> None:
        while (work := self._works.get()) is not None:
            outcomes = work()
            self._has_turn = False
            # The loop is gone only when its program is ending without `close`.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._complete_jobs, outcomes)

    def _commit_written(self, written: Outcomes, begun: threading.Lock) -> Outcomes:
        """On the thread: commit what the loop has written."""
        self._has_turn = True
        begun.release()
        try:
            self._connection.execute("COMMIT")
        except BaseException:
            self.standing.withdraw()
            roll_back(self._connection)
            with self._allow_waiting():
                return self._settle([job for job, _ in written])
        finally:
            self._turnstile.leave()
        self._note_committed()
        self._count_writes(job.task for job, _ in written)
        return written

    def _write_in_turn(self) -> Outcomes:
        """On the thread: wait for this process's turn and write the jobs that wait by then."""
        jobs: list[Job] = []
        outcomes: Outcomes = []
        try:
            with suppress(Exception):  # done again in the turn, each job by itself, where the error is told
                self._prepare(self._waiting.list_unclaimed())  # while other processes write
            with self._turnstile.wait_for_turn(), self._allow_waiting():
                self._has_turn = True
                jobs = self._waiting.claim_first(_MOST_WRITES)
                self.watch.check_before_write()
                if self._checkpoints is not None:
                    self._checkpoints.finish_if_due(self._connection)
                outcomes = self._settle(jobs)
        except BaseException as error:
            settled = {job for job, _ in outcomes}
            outcomes += [(job, error) for job in jobs or self._waiting.claim_first(_MOST_WRITES) if job not in settled]
        return outcomes

    @contextmanager
    def _allow_waiting(self) -> Iterator[None]:
        """Wait for a locked file here: programs that know nothing of turns may hold it for a while."""
        self._connection.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
        try:
            yield
        finally:
            self._connection.execute("PRAGMA busy_timeout = 0")

    def _settle(self, jobs: Sequence[Job]) -> Outcomes:
        """Commit transactions together, purges and other work by themselves; what fails together is tried alone.

        Not where the file is locked: each would wait as long as they did together.
        """
        together = [job for job in jobs if _is_ordinary(job.task)]
        alone = [job for job in jobs if not _is_ordinary(job.task)]
        outcomes: Outcomes = []
        if together:
            try:
                outcomes = list(zip(together, self._commit(together), strict=True))
            except BaseException as error:
                self._note_failure(error)
                if len(together) == 1 or _is_locked(error):
                    outcomes = [(job, error) for job in together]
                else:
                    alone = [*together, *alone]
        for job in alone:
            outcomes.append((job, self._attempt(job)))
        return outcomes

    def _attempt(self, job: Job) -> Outcome:
        try:
            if isinstance(job.task, Transaction):
                return self._commit([job])[0]
            self._recent.forget()
            with begin_write(self._connection):
                result = job.task(self._connection)
            self.standing.doubt()
            if self._checkpoints is not None and isinstance(result, Reindexed):
                self._checkpoints.count_writes(result.count)
            return result
        except BaseException as error:
            self._note_failure(error)
            return error

    def _note_failure(self, error: BaseException) -> None:
        self.has_failed = self.has_failed or isinstance(error, sqlite3.Error)

    def _prepare(self, jobs: Iterable[Job]) -> None:
        """Make the drafts that are not made yet. Raises KeyError when a type or parameter has no number."""
        for job in jobs:
            if job.drafts is None and isinstance(job.task, Transaction):
                job.drafts = self._make_drafts(job.task)

    def _commit(self, jobs: Sequence[Job]) -> list[Committed | Exception]:
        """One database transaction for those of the jobs. A refusal is an outcome; other errors are raised."""
        try:
            self._prepare(jobs)
        except KeyError:
            writes = (write for job in jobs if isinstance(job.task, Transaction) for write in job.task.writes)
            self._names.intern(self._connection, self._names.find_missing(writes))
            self._prepare(jobs)
        try:
            with begin_write(self._connection):
                outcomes = self._write(jobs)
        except BaseException:
            self.standing.withdraw()
            raise
        self._note_committed()
        self._count_writes(job.task for job in jobs)
        if not all(_is_ordinary(job.task) for job in jobs):
            self._recent.forget()
            self.standing.doubt()
            if self._checkpoints is not None:
                self._checkpoints.empty_log()
        return outcomes

    def _write(self, jobs: Sequence[Job], searches: bool = True) -> list[Committed | Exception]:
        """Write the rows of transactions, in the open database transaction; a refusal is an outcome.

        `searches`: as in `Group.run`.
        """
        outcomes: list[Committed | Exception] = []
        prepared = [(job.task, job.drafts or ()) for job in jobs if isinstance(job.task, Transaction)]
        group = Group(self._connection, self._names, self._search, self._clock(), self._recent)
        group.load(prepared)
        for transaction, drafts in prepared:
            try:
                outcomes.append(group.run(transaction, drafts, searches))
            except _REFUSALS as refusal:
                outcomes.append(refusal)
        group.flush()
        self._uncommitted = group.written, group.position
        for (transaction, _), outcome in zip(prepared, outcomes, strict=True):
            for reference in transaction.purged if isinstance(outcome, Committed) else ():
                upkeep.purge(self._connection, reference)
        self.standing.announce(group.written, group.list_stored)
        return outcomes

    def _note_committed(self) -> None:
        self._recent.add(*self._uncommitted)
        self.standing.confirm()

    def _count_writes(self, tasks: Iterable[Transaction | Work]) -> None:
        if self._checkpoints:
            self._checkpoints.count_writes(sum(len(task.writes) for task in tasks if isinstance(task, Transaction)))


def _is_ordinary(task: Transaction | Work) -> bool:
    return isinstance(task, Transaction) and not task.purged


def _is_locked(error: BaseException) -> bool:
    return getattr(error, "sqlite_errorname", "").startswith("SQLITE_BUSY")
