"""The commit watermark: the time below which nothing commits any more, although transactions commit out of order.

A transaction chooses its `lastUpdated` before it commits, so a newer one may be visible first. Each writing process
therefore keeps a document in `writers` whose `floor` promises: what I commit from now on is not older. A history's
horizon is the least of the newest version visible and, read after it, all floors:

- a writer whose document was visible commits nothing below its floor;
- a writer whose document was not visible yet reads the newest version after making it, so after the horizon's reader
  did, and takes no time below what it read. The floor of a process never falls.

A writer that dies leaves its document until it expires (`indexes.LEASE_SECONDS`); the horizon then stands still, which
is safe. One that was suspended starts no transaction on a document older than RENEWED_WITHIN, and the database aborts
those it had begun (`transactionLifetimeLimitSeconds`) before the document expires.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

from bson import Int64, ObjectId
from pymongo.errors import PyMongoError
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from fhir_server.store.mongo.indexes import HISTORY, WRITERS, Database
from fhir_server.store.protocol import Clock

MILLISECOND = 1000

HEARTBEAT = 1.0
"""Seconds between renewals of the floor: how far a horizon lies behind at most when all writers are well."""

IDLE = 10.0
"""Seconds without a transaction after which a process gives its document up."""

RENEWED_WITHIN = 30.0
"""Seconds since the last renewal within which a transaction may start."""

SKEW = 1_000_000
"""By how many µs the clocks of the processes may differ for `wait_for_open_transactions`."""

PURGED = "purged"
"""The `_id` in `writers` that keeps the newest time ever purged: what was visible once stays a floor."""

NEWEST_BY_TYPE: tuple[Mapping[str, Any], ...] = (
    {"$sort": {"type": 1, "updated": -1}},
    {"$group": {"_id": "$type", "updated": {"$first": "$updated"}}},
)
"""The newest time of each type: DISTINCT_SCAN, a seek in the index `type` for each
(https://www.mongodb.com/docs/manual/reference/operator/aggregation/group/#optimization-to-return-the-first-or-last-document-of-each-group)."""


class CommitWatermark:
    """This process's floor, and the horizon over all. Times are µs; one event loop."""

    def __init__(self, database: Database, clock: Clock) -> None:
        majority = ReadConcern("majority")
        self._history = database[HISTORY].with_options(read_concern=majority)
        self._writers = database[WRITERS].with_options(read_concern=majority, write_concern=WriteConcern("majority"))
        self._clock = clock
        self._id = ObjectId()
        self._least = 0
        self._order = 0
        self._open: dict[int, int] = {}
        self._keys = itertools.count()
        self._renewed: float | None = None
        self._entered = 0.0
        self._renewing = asyncio.Lock()
        self._heartbeat: asyncio.Task[None] | None = None

    def read_clock(self) -> int:
        """The time by the clock of the store."""
        return self._clock()

    async def renew_if_stale(self) -> None:
        """Publish the floor where that is not done or too long ago for a transaction to start."""
        if not self._is_fresh():
            async with self._renewing:
                if not self._is_fresh():
                    await self._publish()

    @asynccontextmanager
    async def open_transaction(self) -> AsyncIterator[int]:
        """While a transaction runs: the time that its writes take at least, a whole number of ms."""
        await self.renew_if_stale()
        self._entered = time.monotonic()
        now = max(self._clock() // MILLISECOND * MILLISECOND, self._least)
        key = next(self._keys)
        self._open[key] = now
        try:
            yield now
        finally:
            del self._open[key]

    def allocate_orders(self, above: int, count: int) -> range:
        """Numbers for as many versions, above the one given and above all that this process gave before."""
        first = max(self._order, self._clock(), above) + 1
        self._order = first + count
        return range(first, first + count)

    def note_commit(self, newest: int) -> None:
        """A version of that time is visible: nothing later may be older."""
        self._least = max(self._least, newest)

    async def read_horizon(self) -> int:
        """The newest time of which nothing older commits after this call."""
        newest = await self._read_newest_version()
        floors = []
        async for writer in self._writers.find({"_id": {"$ne": self._id}}):
            if writer["_id"] == PURGED:
                newest = max(newest, writer["newest"])
            else:
                floors.append(writer["floor"])
        horizon: int = min([newest, *floors, *self._open.values()])
        self._least = max(self._least, horizon)
        return horizon

    async def wait_for_open_transactions(self) -> None:
        """Wait until every transaction that any process had begun before the call has ended."""
        begun = set(self._open)
        passed = {"$lte": Int64(self._clock() + SKEW)}
        others = {"_id": {"$nin": [self._id, PURGED]}, "floor": passed}
        while not begun.isdisjoint(self._open) or await self._writers.find_one(others) is not None:
            await asyncio.sleep(HEARTBEAT / 4)

    async def close(self) -> None:
        """Give the document up; only when no transaction runs."""
        if self._heartbeat is not None:
            self._heartbeat.cancel()
            with suppress(asyncio.CancelledError):
                await self._heartbeat
        if self._renewed is not None:
            self._renewed = None
            with suppress(PyMongoError):
                await self._writers.delete_one({"_id": self._id})

    def _is_fresh(self) -> bool:
        return self._renewed is not None and time.monotonic() - self._renewed < RENEWED_WITHIN

    async def _read_newest(self) -> int:
        newest = await self._read_newest_version()
        purged = await self._writers.find_one({"_id": PURGED})
        return max(newest, purged["newest"] if purged else 0)

    async def _read_newest_version(self) -> int:
        async with await self._history.aggregate(list(NEWEST_BY_TYPE)) as cursor:
            return max([int(found["updated"]) async for found in cursor], default=0)

    async def _publish(self) -> None:
        """Make the document, then take no time below the newest version that is visible afterwards."""
        self._least = max(self._least, await self._read_newest())
        started = time.monotonic()
        await self._write(upsert=True)
        self._least = max(self._least, await self._read_newest())
        self._renewed = started
        if self._heartbeat is None or self._heartbeat.done():
            self._heartbeat = asyncio.create_task(self._send_heartbeats())

    async def _write(self, upsert: bool) -> bool:
        floor = min([self._least, *self._open.values()])
        change = {"$set": {"floor": Int64(floor)}, "$currentDate": {"renewed": True}}
        done = await self._writers.update_one({"_id": self._id}, change, upsert=upsert)
        return done.matched_count > 0

    async def _send_heartbeats(self) -> None:
        """Raise the floor with the clock while there is work."""
        while self._renewed is not None:
            await asyncio.sleep(HEARTBEAT)
            async with self._renewing:
                with suppress(PyMongoError):
                    await self._renew()

    async def _renew(self) -> None:
        if not self._open and time.monotonic() - self._entered > IDLE:
            self._renewed = None
            await self._writers.delete_one({"_id": self._id})
        elif self._is_fresh():
            self._least = max(self._least, self._clock() // MILLISECOND * MILLISECOND)
            started = time.monotonic()
            # Gone from the database: the next transaction makes it anew.
            self._renewed = started if await self._write(upsert=False) else None
