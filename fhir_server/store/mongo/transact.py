"""Transactions from queue to commit: tried again while others win, committed once (https://www.mongodb.com/docs/manual/core/transactions/).

A transient error repeats the whole transaction, an unknown outcome the commit alone. When even that stays unknown, the
version that would have been written tells, by the transaction's id, whether it was. What is asked outside of the
transaction, before it and about its commit, is asked again as long while the database is away.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass

from bson import ObjectId
from pymongo import AsyncMongoClient, ReadPreference
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import ConnectionFailure, PyMongoError
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from fhir_server.store.mongo.causal import wait_until_visible
from fhir_server.store.mongo.commit import AlreadyCreated, Attempt, Context, Work
from fhir_server.store.mongo.errors import (
    CACHE_REFUSED,
    LIFETIME_PASSED,
    NO_SUCH_TRANSACTION,
    TOO_LONG,
    UNKNOWN_COMMIT,
    is_conflict,
    is_transient,
    translate_error,
)
from fhir_server.store.mongo.indexes import Collections, Document
from fhir_server.store.mongo.locks import Queue, Stripes, list_queued_names
from fhir_server.store.mongo.repeat import LONGEST_PAUSE, repeat
from fhir_server.store.mongo.rivals import Marks, is_large, read_marks
from fhir_server.store.operations import Transaction
from fhir_server.store.protocol import (
    AssertionFailed,
    Committed,
    LastingConflict,
    ReadFailed,
    StoreError,
    StoreUnavailable,
    TargetsMissing,
    TooLargeForStore,
)
from fhir_server.store.uninterrupted import finish

SECONDS = 20.0
"""How long a transaction is tried again before it is a conflict (or the database unavailable)."""

COMMIT_MS = 10_000
"""How long the database may take to make a commit durable on a majority before it is asked again."""

_FIRST_PAUSE = 0.002

_READ_TOO_EARLY = (TargetsMissing, ReadFailed, AssertionFailed)
"""What a transaction on a sharded cluster may say whose moment lies before what was acknowledged elsewhere."""

OUTCOME_UNKNOWN = (
    "MongoDB was lost while it committed, so this may have been stored or not. Read the resources before you try "
    "again; a create that carries `If-None-Exist` with an identifier can be repeated safely."
)


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds for which a transaction is tried again, and for which the database keeps one open.

    `sharded`: the database is behind `mongos`.
    """

    retry: float
    lifetime: float
    sharded: bool = False


class Transactor:
    """Runs the transactions of one process."""

    def __init__(
        self, client: AsyncMongoClient[Document], context: Context, collections: Collections, limits: Limits
    ) -> None:
        self._client = client
        self._context = context
        self._collections = collections
        self._limits = limits
        self._queue = Queue()
        self._stripes = Stripes()

    async def run(self, transaction: Transaction) -> Committed:
        """See `protocol.Store.transact`."""
        deadline = time.monotonic() + self._limits.retry
        async with self._queue.take_turn(list_queued_names(transaction)):
            try:
                types = sorted({write.type for write in transaction.writes})
                await repeat(lambda: self._collections.ensure(types), deadline)
                if not transaction.writes:
                    return await self._repeat(Work(transaction, ObjectId(), 0, ()), deadline)
                await repeat(self._context.watermark.renew_if_stale, deadline)
                async with self._context.watermark.open_transaction() as now:
                    work = Work(transaction, ObjectId(), now, self._stripes.list_names(transaction))
                    return await self._repeat(work, deadline)
            except PyMongoError as error:
                raise translate_error(error) from error

    async def _repeat(self, work: Work, deadline: float) -> Committed:
        tries, assume_new, looked_again = 0, True, False
        marks: Marks | None = None
        while True:
            started = time.monotonic()
            try:
                return await self._attempt(work, assume_new, deadline)
            except AlreadyCreated as error:
                cause: Exception = error
                assume_new = False
            except _READ_TOO_EARLY as error:
                # It has looked again since; said a second time, it is so.
                if not self._context.sharded or looked_again or time.monotonic() > deadline:
                    raise
                cause, looked_again = error, True
            except PyMongoError as error:
                if self._has_outlived(error, started):
                    raise TooLargeForStore(TOO_LONG) from error
                if not is_transient(error):
                    raise
                cause, assume_new = error, False
            tries += 1
            if time.monotonic() > deadline:
                raise await self._build_failure(cause, work, marks) from cause
            if marks is None and is_large(work.transaction):
                marks = await read_marks(self._context.database, work)
            await asyncio.sleep(random.random() * min(LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(tries, 10)))

    def _has_outlived(self, error: PyMongoError, started: float) -> bool:
        code = getattr(error, "code", None)
        passed = time.monotonic() - started >= self._limits.lifetime
        return code == LIFETIME_PASSED or (code == NO_SUCH_TRANSACTION and passed)

    async def _build_failure(self, cause: Exception, work: Work, marks: Marks | None) -> StoreError:
        """Why it was not written; `marks` are those after the first attempt of a large transaction."""
        if isinstance(cause, ConnectionFailure):
            return translate_error(cause)
        refused = marks is not None and isinstance(cause, PyMongoError) and is_conflict(cause)
        if refused and await read_marks(self._context.database, work) == marks:
            return TooLargeForStore(CACHE_REFUSED)
        if getattr(cause, "code", None) == NO_SUCH_TRANSACTION:
            return TooLargeForStore(TOO_LONG)
        return LastingConflict("Other transactions kept changing the same resources; nothing was written.")

    async def _attempt(self, work: Work, assume_new: bool, deadline: float) -> Committed:
        async with self._client.start_session(causal_consistency=False) as session:
            await session.start_transaction(
                read_concern=ReadConcern("snapshot"),
                write_concern=WriteConcern("majority", wtimeout=COMMIT_MS),
                read_preference=ReadPreference.PRIMARY,
                max_commit_time_ms=COMMIT_MS,
            )
            attempt = Attempt(self._context, session, work, assume_new)
            # Leaving the session aborts what was not committed.
            try:
                committed = await attempt.run()
            except _READ_TOO_EARLY:
                if self._context.sharded:
                    await attempt.look_again()
                raise
            await finish(self._commit(session, attempt, deadline))
            self._context.watermark.note_commit(attempt.get_newest_time())
            return committed

    async def _commit(self, session: AsyncClientSession, attempt: Attempt, deadline: float) -> None:
        """Commit, and wait until whoever reads sees it. Raises StoreUnavailable where that stays unknown."""
        await self._send_commit(session, attempt, deadline)
        ids = attempt.list_written() if self._context.sharded else {}
        if ids:
            try:
                await repeat(lambda: wait_until_visible(self._context.database, session, ids, COMMIT_MS), deadline)
            except PyMongoError as error:
                raise StoreUnavailable(OUTCOME_UNKNOWN) from error

    async def _send_commit(self, session: AsyncClientSession, attempt: Attempt, deadline: float) -> None:
        unknown = False
        while True:
            try:
                return await session.commit_transaction()
            except PyMongoError as error:
                if error.has_error_label(UNKNOWN_COMMIT):
                    unknown = True
                    if time.monotonic() > deadline:
                        raise StoreUnavailable(OUTCOME_UNKNOWN) from error
                    await asyncio.sleep(random.random() * LONGEST_PAUSE)
                    continue
                if unknown and await self._was_committed(attempt, deadline):
                    return None
                raise

    async def _was_committed(self, attempt: Attempt, deadline: float) -> bool:
        try:
            return await repeat(attempt.is_committed, deadline)
        except PyMongoError as error:
            raise StoreUnavailable(OUTCOME_UNKNOWN) from error
