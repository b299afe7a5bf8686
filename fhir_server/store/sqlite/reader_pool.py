"""Threads that read, each with a connection of its own, opened when it is first needed (https://www.sqlite.org/threadsafe.html)."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import TypeVar

from fhir_server.store.protocol import BudgetExceeded
from fhir_server.store.sqlite.schema import store_error
from fhir_server.store.sqlite.search import Search

T = TypeVar("T")

Reader = tuple[sqlite3.Connection, Search]


class Lane:
    """Runs work on `threads` threads, in the order it came; refuses it when more than `most` wait or run."""

    def __init__(self, opener: Callable[[], Reader], threads: int, most: int | None = None) -> None:
        self._opener = opener
        self._idle: SimpleQueue[Reader] = SimpleQueue()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="sqlite-reader")
        self._most = most
        self._busy = 0

    async def run(self, work: Callable[[sqlite3.Connection, Search], T]) -> T:
        """What the work gives. Raises what it raises, SQLite's errors as the store's, BudgetExceeded when refused."""
        if self._most is not None and self._busy >= self._most:
            raise BudgetExceeded(f"The search is slow, and {self._most} slow searches are being answered already.")
        self._busy += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, self._with_reader, work)
        finally:
            self._busy -= 1

    async def close(self) -> None:
        """Finish what was begun."""
        await asyncio.get_running_loop().run_in_executor(None, self._pool.shutdown)
        while not self._idle.empty():
            self._idle.get()[0].close()

    def _with_reader(self, work: Callable[[sqlite3.Connection, Search], T]) -> T:
        try:
            with self._reader() as (connection, search):
                return work(connection, search)
        except sqlite3.Error as error:
            raise store_error(error) from error

    @contextmanager
    def _reader(self) -> Iterator[Reader]:
        try:
            reader = self._idle.get_nowait()
        except Empty:
            reader = self._opener()
        try:
            yield reader
        finally:
            self._idle.put(reader)
