"""`protocol.Store` on a MongoDB replica set or sharded cluster (https://www.mongodb.com/docs/languages/python/pymongo-driver/current/)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager

import pymongo
from pymongo import AsyncMongoClient, ReadPreference
from pymongo.errors import PyMongoError
from pymongo.write_concern import WriteConcern

from fhir_server.search.query import Clause, Query
from fhir_server.store.checks import check_distinct
from fhir_server.store.mongo import changes as feed
from fhir_server.store.mongo import deployment, upkeep, values
from fhir_server.store.mongo import explain as explaining
from fhir_server.store.mongo.commit import Context, read_current
from fhir_server.store.mongo.documents import LAST_VERSION, PROJECTION, build_version_id, parse_current, parse_version
from fhir_server.store.mongo.errors import CLOSED, translate_error, translate_errors
from fhir_server.store.mongo.history import history
from fhir_server.store.mongo.indexes import HISTORY, Collections, Document
from fhir_server.store.mongo.repeat import repeat
from fhir_server.store.mongo.search import Search
from fhir_server.store.mongo.transact import SECONDS, Limits, Transactor
from fhir_server.store.mongo.watermark import CommitWatermark
from fhir_server.store.operations import Transaction
from fhir_server.store.protocol import (
    BUDGET,
    VALUES_PER_PAGE,
    Budget,
    BudgetExceeded,
    Changes,
    Clock,
    Committed,
    Extract,
    HistoryPage,
    HistoryQuery,
    Page,
    Reindexed,
    Stored,
    StoreUnavailable,
    ValuePage,
    Verified,
)

READY_SECONDS = 3.0


async def open_store(uri: str, clock: Clock, budget: Budget = BUDGET, retry: float = SECONDS) -> MongoStore:
    """Open `mongodb://…/DB` or `mongodb+srv://…/DB`; collections and indexes are made where absent.

    `retry`: s for which a transaction, or the making of an index, is tried again. Raises ValueError for another URI;
    StoreUnavailable when no server answers within `deployment.WAIT_MS`, when it cannot do transactions or tells no
    times, or when the database has another schema version or other indexes of the same names.
    """
    client, name = deployment.connect(uri)
    try:
        sharded = await deployment.check_deployment(client)
        database = client.get_database(name, write_concern=WriteConcern("majority"))
        await deployment.check_schema(database)
        await deployment.page_key(database)
        collections = Collections(database.with_options(read_preference=ReadPreference.PRIMARY))
        await repeat(collections.prepare, time.monotonic() + retry)
        limits = Limits(retry, await deployment.read_lifetime(client), sharded)
        return MongoStore(client, name, collections, clock, limits, budget)
    except PyMongoError as error:
        await client.close()
        raise translate_error(error) from error
    except BaseException:
        await client.close()
        raise


class MongoStore:
    """See `protocol.Store`. Made by `open_store`, on the event loop that will use it."""

    def __init__(
        self,
        client: AsyncMongoClient[Document],
        name: str,
        collections: Collections,
        clock: Clock,
        limits: Limits,
        budget: Budget,
    ) -> None:
        majority = WriteConcern("majority")
        self._client = client
        self._clock = clock
        self._database = client.get_database(name, read_preference=ReadPreference.PRIMARY, write_concern=majority)
        # The URI's `readPreference` is for searches; all else must see what was just written.
        self._search_database = client.get_database(name)
        self._budget = budget
        self._search = Search(self._search_database, budget)
        self._watermark = CommitWatermark(self._database, clock)
        place = Context(self._database, Search(self._database, budget), self._watermark, limits.sharded)
        self._transactor = Transactor(client, place, collections, limits)
        self._searches = asyncio.Semaphore(deployment.count_search_slots(client))
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False

    async def transact(self, transaction: Transaction) -> Committed:
        """See `protocol.Store.transact`; ValueError when two writes are of one resource."""
        check_distinct(transaction.writes)
        async with self._use_client():
            return await self._transactor.run(transaction)

    async def read(self, type: str, id: str) -> Stored | None:
        """See `protocol.Store.read`."""
        async with self._use_client():
            found = await self._database[type].find_one({"_id": id}, PROJECTION)
        return parse_current(type, found) if found else None

    async def vread(self, type: str, id: str, version: int) -> Stored | None:
        """See `protocol.Store.vread`."""
        if not 0 < version <= LAST_VERSION:
            return None
        async with self._use_client():
            found = await self._database[HISTORY].find_one({"_id": build_version_id(f"{type}/{id}", version)})
        return parse_version(found) if found else None

    async def read_many(self, references: Iterable[str], deletions: bool = False) -> Mapping[str, Stored]:
        """See `protocol.Store.read_many`."""
        async with self._use_client():
            found = await read_current(self._database, references)
        return found if deletions else {reference: each for reference, each in found.items() if each.raw is not None}

    async def search(self, query: Query) -> Page:
        """See `protocol.Store.search`."""
        async with self._use_search():
            return await self._search.find_page(query)

    async def count(self, query: Query) -> int:
        """See `protocol.Store.count`."""
        async with self._use_search():
            return await self._search.count(query)

    async def find_matching(self, references: Sequence[str], where: Clause) -> frozenset[str]:
        """See `protocol.Store.find_matching`."""
        async with self._use_search():
            return await self._search.find_matching(references, where)

    async def explain(self, query: Query) -> tuple[str, ...]:
        """See `protocol.Store.explain`."""
        async with self._use_search():
            return await explaining.explain(self._search_database, query, self._budget)

    async def history(self, query: HistoryQuery) -> HistoryPage:
        """See `protocol.Store.history`."""
        async with self._use_client():
            return await history(self._database, self._watermark, query)

    async def read_changes(self, after: str | None, limit: int = 1000) -> Changes:
        """See `protocol.Store.read_changes`; a token may be used again and lives as long as the database's oplog."""
        async with self._use_client():
            return await feed.read_changes(self._database, after, limit)

    async def reindex(self, type: str, extract: Extract, registry: int, after: str | None = None) -> Reindexed:
        """See `protocol.Store.reindex`: by id."""
        async with self._use_client():
            return await upkeep.reindex(self._database, type, extract, registry, after or "")

    async def verify(self, type: str, extract: Extract, after: str | None = None) -> Verified:
        """See `protocol.Store.verify`."""
        async with self._use_client():
            return await upkeep.verify(self._database, type, extract, after or "")

    async def verify_database(self) -> tuple[str, ...]:
        """See `protocol.Store.verify_database`: MongoDB looks after its files."""
        return ()

    async def registry_version(self) -> int:
        """See `protocol.Store.registry_version`."""
        async with self._use_client():
            return await upkeep.registry_version(self._database)

    async def wait_for_open_transactions(self) -> None:
        """See `protocol.Store.wait_for_open_transactions`: waits for the floors of all writers to pass this moment."""
        async with self._use_client():
            await self._watermark.wait_for_open_transactions()

    async def get_value(self, key: str) -> bytes | None:
        """See `protocol.Store.get_value`."""
        async with self._use_client():
            return await values.get_value(self._database, key, self._clock())

    async def put_value_if(self, key: str, value: bytes, before: bytes | None, expires: int | None = None) -> bool:
        """See `protocol.Store.put_value_if`."""
        async with self._use_client():
            return await values.put_value_if(self._database, key, value, before, expires, self._clock())

    async def remove_value_if(self, key: str, before: bytes) -> bool:
        """See `protocol.Store.remove_value_if`."""
        async with self._use_client():
            return await values.remove_value_if(self._database, key, before, self._clock())

    async def list_values(self, prefix: str, after: str = "", limit: int = VALUES_PER_PAGE) -> ValuePage:
        """See `protocol.Store.list_values`."""
        async with self._use_client():
            return await values.list_values(self._database, prefix, after, limit, self._clock())

    async def page_key(self) -> bytes:
        """See `protocol.Store.page_key`."""
        async with self._use_client():
            return await deployment.page_key(self._database)

    async def check_ready(self) -> None:
        """See `protocol.Store.check_ready`: asks the primary."""
        try:
            async with self._use_client():
                with pymongo.timeout(READY_SECONDS):
                    await self._database.command("ping")
        except BudgetExceeded as error:
            raise StoreUnavailable(f"MongoDB does not answer within {READY_SECONDS:g} seconds.") from error

    async def check_writable(self) -> None:
        """See `protocol.Store.check_writable`: the primary that answers takes writes."""
        await self.check_ready()

    async def check_full_text(self) -> None:
        """See `protocol.Store.check_full_text`: texts are always kept."""

    async def close(self) -> None:
        """See `protocol.Store.close`."""
        if self._closed:
            return
        self._closed = True
        await self._idle.wait()
        await self._watermark.close()
        await self._client.close()

    @asynccontextmanager
    async def _use_search(self) -> AsyncIterator[None]:
        """While a search runs, which waits as long for its turn as it may take."""
        async with self._use_client():
            try:
                async with asyncio.timeout(self._budget.seconds):
                    await self._searches.acquire()
            except TimeoutError as error:
                raise self._budget.build_time_error() from error
            try:
                yield
            finally:
                self._searches.release()

    @asynccontextmanager
    async def _use_client(self) -> AsyncIterator[None]:
        """While an operation runs: the client stays open, and its errors become the store's."""
        if self._closed:
            raise StoreUnavailable(CLOSED)
        self._running += 1
        self._idle.clear()
        try:
            with translate_errors():
                yield
        finally:
            self._running -= 1
            if not self._running:
                self._idle.set()
