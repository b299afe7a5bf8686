"""`protocol.Store` on one SQLite file, shared by any number of processes (https://www.sqlite.org/wal.html).

`read` and `vread` run on the event loop itself, on a connection of its own: a few microseconds, less than a change of
threads. Searches and histories run on a few threads, each with its own connection; writes on one (`writer.py`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from fhir_server.search.query import Clause, Query
from fhir_server.store.checks import check_distinct
from fhir_server.store.operations import Transaction
from fhir_server.store.protocol import (
    BUDGET,
    VALUES_PER_PAGE,
    Budget,
    Changes,
    Clock,
    Committed,
    Extract,
    HistoryPage,
    HistoryQuery,
    Page,
    Progress,
    Reindexed,
    Stored,
    StoreUnavailable,
    ValuePage,
)
from fhir_server.store.sqlite import fulltext, upkeep, values
from fhir_server.store.sqlite.budget import Slow
from fhir_server.store.sqlite.cardinality import Sizes
from fhir_server.store.sqlite.checkpoint import Checkpoints
from fhir_server.store.sqlite.explain import explain
from fhir_server.store.sqlite.history import changes, history, stored
from fhir_server.store.sqlite.interned_names import Names
from fhir_server.store.sqlite.process_lock import alone
from fhir_server.store.sqlite.reader_pool import Lane, Reader
from fhir_server.store.sqlite.schema import connect, migrate, store_error
from fhir_server.store.sqlite.search import Search
from fhir_server.store.sqlite.sqlite_config import uncounted
from fhir_server.store.sqlite.statements import as_json
from fhir_server.store.sqlite.writer import Writer

READERS = 3
"""Threads for searches: more than the cores that a small machine has would only compete."""

PATIENCE = 0.3
"""Seconds after which a search leaves these threads to others, and begins anew on one for slow searches."""

SLOW_READERS = 1
MOST_SLOW = 8
"""Slow searches that may wait or run at once; more are refused."""

T = TypeVar("T")

_READ = (
    "SELECT r.ref, r.version, r.updated, v.method, v.raw FROM resource r CROSS JOIN version v"
    " WHERE r.ref = ? AND v.seq = r.seq"
)
_VREAD = (
    "SELECT r.ref, v.version, v.updated, v.method, v.raw FROM resource r CROSS JOIN version v"
    " WHERE r.ref = ? AND v.rid = r.rid AND v.version = ?"
)
_READ_MANY = (
    "SELECT r.ref, r.version, r.updated, v.method, v.raw FROM json_each(?) j CROSS JOIN resource r CROSS JOIN version v"
    " WHERE r.ref = j.value AND r.deleted <= ? AND v.seq = r.seq"
)
# So many reads take less time than handing them to another thread.
_FEW = 10

# SQLite's integers end here; no version is larger.
_LAST_VERSION = 2**63 - 1


async def open_store(uri: str, clock: Clock, budget: Budget = BUDGET) -> SqliteStore:
    """Open `sqlite:///PATH` (`sqlite:////…` for an absolute path; `?mode=ro` opens it read-only), made if absent.

    Raises ValueError for another URI, StoreUnavailable when the file cannot be opened or was made by a newer server.
    """
    path, readonly = _parse(uri)
    uncounted()
    try:
        async with nullcontext() if readonly else alone(path):
            writing = connect(path, writer=True, readonly=readonly)
            if not readonly:
                migrate(writing, path)
                fulltext.prepare(writing)
            return SqliteStore(path, writing, clock, budget, readonly)
    except sqlite3.Error as error:
        raise store_error(error) from error


def check_there(uri: str) -> None:
    """Raises StoreUnavailable when the file of a URI is absent, for work that would have nothing to do on a new one."""
    path, _ = _parse(uri)
    if not path.exists():
        raise StoreUnavailable(f"There is no database `{path.absolute()}`; correct the store's path.")


def _parse(uri: str) -> tuple[Path, bool]:
    scheme, _, rest = uri.partition(":///")
    name, _, options = rest.partition("?")
    if scheme == "sqlite" and name == ":memory:":
        raise ValueError("The SQLite store lives in a file; use `memory://` for a store that ends with the process.")
    if scheme != "sqlite" or not name or options not in ("", "mode=ro"):
        raise ValueError(f"`{uri}` is not a URI of the SQLite store. Use `sqlite:///PATH`.")
    return Path(name), options == "mode=ro"


class SqliteStore:
    """See `protocol.Store`. Made by `open_store`, on the event loop that will use it."""

    def __init__(
        self, path: Path, writing: sqlite3.Connection, clock: Clock, budget: Budget, readonly: bool = False
    ) -> None:
        self._path = path
        self._clock = clock
        self._names = Names()
        self._names.refresh(writing)
        self._reading = connect(path, writer=False)
        self._sizes = Sizes()
        self._ordinary = Lane(partial(self._reader, budget, PATIENCE), READERS)
        self._slow = Lane(partial(self._reader, budget, None), SLOW_READERS, MOST_SLOW)
        self._writing = writing
        self._writer = Writer(writing, path, self._names, clock, budget, None if readonly else Checkpoints(path))
        self._closed = False

    async def transact(self, transaction: Transaction) -> Committed:
        """See `protocol.Store.transact`; ValueError when two writes are of one resource."""
        check_distinct(transaction.writes)
        committed: Committed = await self._writer.submit(transaction)
        return committed

    async def read(self, type: str, id: str) -> Stored | None:
        """See `protocol.Store.read`; runs on the event loop."""
        return self._one(_READ, (f"{type}/{id}",))

    async def vread(self, type: str, id: str, version: int) -> Stored | None:
        """See `protocol.Store.vread`; runs on the event loop."""
        return self._one(_VREAD, (f"{type}/{id}", version)) if 0 < version <= _LAST_VERSION else None

    def _one(self, statement: str, values: tuple[Any, ...]) -> Stored | None:
        row = next(iter(self._here(statement, values)), None)
        return stored(*row) if row else None

    def _here(self, statement: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        """The rows of a short statement, on the event loop."""
        self._check_open()
        try:
            return self._reading.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise store_error(error) from error

    async def read_many(self, references: Iterable[str], deletions: bool = False) -> Mapping[str, Stored]:
        """See `protocol.Store.read_many`."""
        wanted = list(dict.fromkeys(references))
        values = (as_json(wanted), deletions)
        if len(wanted) <= _FEW:
            rows = self._here(_READ_MANY, values)
        else:
            rows = await self._in_pool(lambda connection, _: connection.execute(_READ_MANY, values).fetchall())
        return {row[0]: stored(*row) for row in rows}

    async def search(self, query: Query) -> Page:
        """See `protocol.Store.search`."""
        return await self._searched(lambda _, search: search.page(query))

    async def count(self, query: Query) -> int:
        """See `protocol.Store.count`."""
        return await self._searched(lambda _, search: search.count(query))

    async def explain(self, query: Query) -> tuple[str, ...]:
        """See `protocol.Store.explain`."""
        return await self._searched(
            lambda connection, search: explain(connection, search, self._names, self._sizes, query)
        )

    async def find_matching(self, references: Sequence[str], where: Clause) -> frozenset[str]:
        """See `protocol.Store.find_matching`."""
        return await self._searched(lambda _, search: search.matching(references, where))

    async def history(self, query: HistoryQuery) -> HistoryPage:
        """See `protocol.Store.history`."""
        return await self._in_pool(lambda connection, _: history(connection, self._names, query))

    async def read_changes(self, after: str | None, limit: int = 1000) -> Changes:
        """See `protocol.Store.read_changes`; the token is a number that rises with each version."""
        return await self._in_pool(lambda connection, _: changes(connection, after, limit))

    async def reindex(self, type: str, extract: Extract, registry: int, after: str | None = None) -> Reindexed:
        """See `protocol.Store.reindex`: by the order in which the resources came, a database transaction a batch."""
        work = upkeep.reindexing(self._names, type, extract, registry, int(after or 0))
        done: Reindexed = await self._writer.submit(work)
        return done

    async def registry_version(self) -> int:
        """See `protocol.Store.registry_version`; runs on the event loop."""
        number: int = self._here(upkeep.REGISTRY, ())[0][0]
        return number

    async def wait_for_open_transactions(self) -> None:
        """See `protocol.Store.wait_for_open_transactions`: here one transaction follows the other."""

    async def get_value(self, key: str) -> bytes | None:
        """See `protocol.Store.get_value`; runs on the event loop."""
        rows = self._here(values.GET, (key, self._clock()))
        return bytes(rows[0][0]) if rows else None

    async def put_value_if(self, key: str, value: bytes, before: bytes | None, expires: int | None = None) -> bool:
        """See `protocol.Store.put_value_if`."""
        done: bool = await self._writer.submit(values.put_value_if(key, value, before, expires, self._clock))
        return done

    async def remove_value_if(self, key: str, before: bytes) -> bool:
        """See `protocol.Store.remove_value_if`."""
        done: bool = await self._writer.submit(values.remove_value_if(key, before, self._clock))
        return done

    async def list_values(self, prefix: str, after: str = "", limit: int = VALUES_PER_PAGE) -> ValuePage:
        """See `protocol.Store.list_values`; runs on the event loop."""
        statement = values.LIST_AFTER if after >= prefix else values.LIST_FROM
        rows = self._here(statement, (max(prefix, after), self._clock(), limit + 1))
        return ValuePage.from_rows([(key, bytes(value)) for key, value in rows], prefix, limit)

    async def purge(self, type: str, id: str) -> bool:
        """See `protocol.Store.purge`."""
        purged: bool = await self._writer.submit(upkeep.purging(self._names, f"{type}/{id}"))
        return purged

    async def page_key(self) -> bytes:
        """See `protocol.Store.page_key`."""
        select = "SELECT value FROM meta WHERE key = 'secret'"
        return await self._in_pool(lambda connection, _: bytes(connection.execute(select).fetchone()[0]))

    async def check_ready(self) -> None:
        """See `protocol.Store.check_ready`: reads a row."""
        await self.page_key()

    async def check_full_text(self) -> None:
        """See `protocol.Store.check_full_text`."""
        await self._in_pool(lambda connection, _: fulltext.check(connection))

    async def backup(self, path: Path, progress: Progress = lambda done, total: None) -> None:
        """Copy the database to `path` while it is in use; `progress` counts pages. Raises StoreUnavailable."""
        await self._in_pool(lambda connection, _: upkeep.back_up(connection, path, progress))

    async def close(self) -> None:
        """See `protocol.Store.close`."""
        if self._closed:
            return
        self._closed = True
        await self._writer.close()
        await self._ordinary.close()
        await self._slow.close()
        self._reading.close()
        upkeep.settle(self._writing)
        self._writing.close()

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailable("The database is closed.")

    async def _in_pool(self, work: Callable[[sqlite3.Connection, Search], T]) -> T:
        self._check_open()
        return await self._ordinary.run(work)

    async def _searched(self, work: Callable[[sqlite3.Connection, Search], T]) -> T:
        """Work that may take long: what the ordinary lane gives up is done again where it keeps nobody waiting."""
        try:
            return await self._in_pool(work)
        except Slow:
            self._check_open()
            return await self._slow.run(work)

    def _reader(self, budget: Budget, patience: float | None) -> Reader:
        connection = connect(self._path, writer=False)
        return connection, Search(connection, self._names, self._sizes, budget, patience)
