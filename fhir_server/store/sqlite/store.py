"""`protocol.Store` on one SQLite file, shared by any number of processes (https://www.sqlite.org/wal.html).

`read`, `vread` and brief searches run on the event loop itself, on a connection of its own: that takes less than a
change of threads. Other searches and histories run on a few threads, each with its own connection; writes on one
(`writer.py`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from fhir_server.search.query import Clause, Query
from fhir_server.store import protocol
from fhir_server.store.checks import check_distinct
from fhir_server.store.operations import Transaction
from fhir_server.store.protocol import BUDGET, Budget, Clock, Committed, Reindexed, Stored, StoreUnavailable
from fhir_server.store.sqlite import fulltext, upkeep, values
from fhir_server.store.sqlite.budget import Slow
from fhir_server.store.sqlite.cardinality import Sizes
from fhir_server.store.sqlite.checkpoint import Checkpoints
from fhir_server.store.sqlite.explain import explain
from fhir_server.store.sqlite.file_watch import FileWatch
from fhir_server.store.sqlite.history import read_changes, read_history, row_to_stored
from fhir_server.store.sqlite.interned_names import Names
from fhir_server.store.sqlite.process_lock import hold_turn
from fhir_server.store.sqlite.reader_pool import Lane, Reader
from fhir_server.store.sqlite.schema import connect, convert_error, migrate
from fhir_server.store.sqlite.search import Search
from fhir_server.store.sqlite.sqlite_config import stop_counting_memory
from fhir_server.store.sqlite.statements import format_json
from fhir_server.store.sqlite.verify import verify_batch, verify_file
from fhir_server.store.sqlite.writable import check_writable
from fhir_server.store.sqlite.writer import Writer

READERS = 3
"""Threads for searches: more than the cores that a small machine has would only compete."""

PATIENCE = 0.3
"""Seconds after which a search leaves these threads to others, and is run again on one for slow searches."""

AT_ONCE = 0.004
"""Seconds after which a brief search leaves the event loop, and is run again on a thread."""

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
# So many reads take less time than a change of threads.
_FEW = 10

# SQLite's integers end here; no version is larger.
_LAST_VERSION = 2**63 - 1


async def open_store(uri: str, clock: Clock, budget: Budget = BUDGET, create: bool = True) -> SqliteStore:
    """Open `sqlite:///PATH` (`sqlite:////…` for an absolute path; `?mode=ro` opens it read-only).

    `create`: whether the file is made if it is absent. Raises ValueError for another URI, StoreUnavailable when there
    is no file or it cannot be opened or was written by a newer server.
    """
    path, readonly = _parse_uri(uri)
    create = create and not readonly
    if not create and not path.exists():
        raise StoreUnavailable(f"There is no database `{path.absolute()}`; correct the store's path.")
    stop_counting_memory()
    try:
        async with nullcontext() if readonly else hold_turn(path):
            writing = connect(path, writer=True, readonly=readonly, create=create)
            if not readonly:
                migrate(writing, path)
                fulltext.create_index(writing)
            return SqliteStore(path, writing, clock, budget, readonly)
    except sqlite3.Error as error:
        raise convert_error(error, path.absolute()) from error


def find_file(uri: str) -> Path:
    """The path of the file of a URI. Raises ValueError for another URI."""
    return _parse_uri(uri)[0]


def watch_file(uri: str) -> FileWatch:
    """A watch over the file of a URI alone, whether it is open or not."""
    return FileWatch(_parse_uri(uri)[0], ("",))


def _parse_uri(uri: str) -> tuple[Path, bool]:
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
        self._readonly = readonly
        self._clock = clock
        self._names = Names()
        self._names.refresh(writing)
        self._reading = connect(path, writer=False)
        self._sizes = Sizes()
        self._glance = Search(self._reading, self._names, self._sizes, budget, AT_ONCE)
        self._ordinary = Lane(partial(self._open_reader, budget, PATIENCE), READERS)
        self._slow = Lane(partial(self._open_reader, budget, None), SLOW_READERS, MOST_SLOW)
        self._writing = writing
        checkpoints = None if readonly else Checkpoints(path)
        self._writer = Writer(writing, path, self._names, clock, budget, checkpoints)
        self._standing = self._writer.standing
        self._closed = False

    async def transact(self, transaction: Transaction) -> Committed:
        """See `protocol.Store.transact`; ValueError when two writes are of one resource."""
        check_distinct(transaction.writes)
        committed: Committed = await self._writer.submit(transaction)
        return committed

    async def read(self, type: str, id: str) -> Stored | None:
        """See `protocol.Store.read`; runs on the event loop."""
        return self._read_one(_READ, (f"{type}/{id}",))

    async def vread(self, type: str, id: str, version: int) -> Stored | None:
        """See `protocol.Store.vread`; runs on the event loop."""
        return self._read_one(_VREAD, (f"{type}/{id}", version)) if 0 < version <= _LAST_VERSION else None

    def _read_one(self, statement: str, values: tuple[Any, ...]) -> Stored | None:
        row = next(iter(self._fetch_rows(statement, values)), None)
        return row_to_stored(*row) if row else None

    def _fetch_rows(self, statement: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        """The rows of a short statement, on the event loop."""
        self._check_open()
        try:
            return self._reading.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise convert_error(error) from error

    def _read_brief_history(self, query: protocol.HistoryQuery) -> protocol.HistoryPage:
        """The page of a brief history as it was kept, else as it is read now."""
        page = self._standing.find_history(query, self._reading)
        if page is None:
            with self._glance.limit():
                page = read_history(self._reading, self._names, query)
            self._standing.keep_history(query, page)
        return page

    def _find_brief(self, query: Query) -> protocol.Page:
        """The page of a brief query as it was kept, else as it is searched for now."""
        page = self._standing.find(query, self._reading)
        if page is None:
            page = self._glance.find_page(query)
            self._standing.keep(query, page)
        return page

    def _try_at_once(self, work: Callable[[], T]) -> T | None:
        """The result of what is probably short, on the event loop; None when it turns out to be long."""
        self._check_open()
        try:
            return work()
        except Slow:
            return None
        except sqlite3.Error as error:
            raise convert_error(error) from error

    async def read_many(self, references: Iterable[str], deletions: bool = False) -> Mapping[str, Stored]:
        """See `protocol.Store.read_many`."""
        distinct = list(dict.fromkeys(references))
        arguments = (format_json(distinct), deletions)
        if len(distinct) <= _FEW:
            rows = self._fetch_rows(_READ_MANY, arguments)
        else:
            rows = await self._run_read(lambda connection, _: connection.execute(_READ_MANY, arguments).fetchall())
        return {row[0]: row_to_stored(*row) for row in rows}

    async def search(self, query: Query) -> protocol.Page:
        """See `protocol.Store.search`; a brief one runs on the event loop."""
        page = self._try_at_once(lambda: self._find_brief(query)) if query.brief else None
        if page is not None:
            return page
        return await self._run_search(lambda _, search: search.find_page(query))

    async def count(self, query: Query) -> int:
        """See `protocol.Store.count`."""
        return await self._run_search(lambda _, search: search.count(query))

    async def explain(self, query: Query) -> tuple[str, ...]:
        """See `protocol.Store.explain`."""
        return await self._run_search(
            lambda connection, search: explain(connection, search, self._names, self._sizes, query)
        )

    async def find_matching(self, references: Sequence[str], where: Clause) -> frozenset[str]:
        """See `protocol.Store.find_matching`."""
        return await self._run_search(lambda _, search: search.find_matching(references, where))

    async def history(self, query: protocol.HistoryQuery) -> protocol.HistoryPage:
        """See `protocol.Store.history`; a brief one runs on the event loop."""
        page = self._try_at_once(lambda: self._read_brief_history(query)) if query.brief else None
        if page is not None:
            return page
        return await self._run_read(lambda connection, _: read_history(connection, self._names, query))

    async def read_changes(self, after: str | None, limit: int = 1000) -> protocol.Changes:
        """See `protocol.Store.read_changes`; the token is a number that rises with each version."""
        return await self._run_read(lambda connection, _: read_changes(connection, after, limit))

    async def reindex(self, type: str, extract: protocol.Extract, registry: int, after: str | None = None) -> Reindexed:
        """See `protocol.Store.reindex`: by the order in which the resources came, a database transaction a batch."""
        return await self._run_write(
            lambda connection: upkeep.reindex(connection, self._names, type, extract, registry, int(after or 0))
        )

    async def verify(self, type: str, extract: protocol.Extract, after: str | None = None) -> protocol.Verified:
        """See `protocol.Store.verify`."""
        return await self._run_read(lambda connection, _: verify_batch(connection, type, extract, int(after or 0)))

    async def verify_database(self) -> tuple[str, ...]:
        """See `protocol.Store.verify_database`."""
        return await self._run_read(lambda connection, _: verify_file(connection))

    async def registry_version(self) -> int:
        """See `protocol.Store.registry_version`; runs on the event loop."""
        number: int = self._fetch_rows(upkeep.REGISTRY, ())[0][0]
        return number

    async def wait_for_open_transactions(self) -> None:
        """See `protocol.Store.wait_for_open_transactions`: here they follow one another."""

    async def get_value(self, key: str) -> bytes | None:
        """See `protocol.Store.get_value`; runs on the event loop."""
        rows = self._fetch_rows(values.GET, (key, self._clock()))
        return bytes(rows[0][0]) if rows else None

    async def put_value_if(self, key: str, value: bytes, before: bytes | None, expires: int | None = None) -> bool:
        """See `protocol.Store.put_value_if`."""
        return await self._run_write(
            lambda connection: values.put_value_if(connection, key, value, before, expires, self._clock())
        )

    async def remove_value_if(self, key: str, before: bytes) -> bool:
        """See `protocol.Store.remove_value_if`."""
        return await self._run_write(lambda connection: values.remove_value_if(connection, key, before, self._clock()))

    async def list_values(
        self, prefix: str, after: str = "", limit: int = protocol.VALUES_PER_PAGE
    ) -> protocol.ValuePage:
        """See `protocol.Store.list_values`; runs on the event loop."""
        statement = values.LIST_AFTER if after >= prefix else values.LIST_FROM
        rows = self._fetch_rows(statement, (max(prefix, after), self._clock(), limit + 1))
        return protocol.ValuePage.from_rows([(key, bytes(value)) for key, value in rows], prefix, limit)

    async def page_key(self) -> bytes:
        """See `protocol.Store.page_key`."""
        select = "SELECT value FROM meta WHERE key = 'secret'"
        return await self._run_read(lambda connection, _: bytes(connection.execute(select).fetchone()[0]))

    async def check_ready(self) -> None:
        """See `protocol.Store.check_ready`: reads a row of the file that is still at its path."""
        self._writer.watch.check()
        await self.page_key()

    async def check_writable(self) -> None:
        """See `protocol.Store.check_writable`."""
        await check_writable(self._path, self._readonly, self._writer)

    async def check_full_text(self) -> None:
        """See `protocol.Store.check_full_text`."""
        await self._run_read(lambda connection, _: fulltext.check_index(connection))

    async def backup(self, path: Path, progress: protocol.Progress = lambda done, total: None) -> None:
        """Copy the database to `path` while it is in use; `progress` counts pages. Raises StoreUnavailable."""
        await self._run_read(lambda connection, _: upkeep.back_up(connection, path, progress))

    async def close(self) -> None:
        """See `protocol.Store.close`."""
        if self._closed:
            return
        self._closed = True
        await self._writer.close()
        await self._ordinary.close()
        await self._slow.close()
        self._reading.close()
        upkeep.fold_log(self._writing)
        self._writing.close()

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailable("The database is closed.")

    async def _run_read(self, work: Callable[[sqlite3.Connection, Search], T]) -> T:
        self._check_open()
        return await self._ordinary.run(work)

    async def _run_write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run work in a database transaction of its own."""
        result: T = await self._writer.submit(work)
        return result

    async def _run_search(self, work: Callable[[sqlite3.Connection, Search], T]) -> T:
        """Run work that may take long: what exceeds the patience of the ordinary lane is run again on the slow one."""
        try:
            return await self._run_read(work)
        except Slow:
            self._check_open()
            return await self._slow.run(work)

    def _open_reader(self, budget: Budget, patience: float | None) -> Reader:
        self._writer.watch.check()  # all connections read one file
        connection = connect(self._path, writer=False)
        return connection, Search(connection, self._names, self._sizes, budget, patience)
