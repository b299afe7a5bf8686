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
from fhir_server.store.sqlite.schema import convert_error
from fhir_server.store.sqlite.search import Search

T = TypeVar("T")

Reader = tuple[sqlite3.Connection, Search]


class Lane:
    """Runs work on `threads` threads, in the order of the calls; refuses it when `most` calls wait or run."""

    def __init__(self, opener: Callable[[], Reader], threads: int, most: int | None = None) -> None:
        self._opener = opener
        self._idle: SimpleQueue[Reader] = SimpleQueue()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="sqlite-reader")
        self._most = most
        self._busy = 0

    async def run(self, work: Callable[[sqlite3.Connection, Search], T]) -> T:
        """The result of the work. Raises its errors (SQLite's as the store's), and BudgetExceeded when refused."""
        if self._most is not None and self._busy >= self._most:
            raise BudgetExceeded(f"The search is slow, and {self._most} slow searches are being answered already.")
        self._busy += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, self._run_work, work)
        finally:
            self._busy -= 1

    async def close(self) -> None:
        """Finish the work that waits and close the connections."""
        await asyncio.get_running_loop().run_in_executor(None, self._pool.shutdown)
        while not self._idle.empty():
            self._idle.get()[0].close()

    def _run_work(self, work: Callable[[sqlite3.Connection, Search], T]) -> T:
        try:
            with self._borrow_reader() as (connection, search):
                return work(connection, search)
        except sqlite3.Error as error:
            raise convert_error(error) from error

    @contextmanager
    def _borrow_reader(self) -> Iterator[Reader]:
        try:
            reader = self._idle.get_nowait()
        except Empty:
            reader = self._opener()
        try:
            yield reader
        finally:
            self._idle.put(reader)
