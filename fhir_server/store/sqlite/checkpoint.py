"""Checkpoints: the write-ahead log is folded into the file, so that no commit has to wait for it (https://www.sqlite.org/wal.html#ckpt).

A passive checkpoint copies what is committed while others read and write; SQLite starts the log anew when a commit
finds all of it copied. Under steady writing that moment never comes by itself: then the writer copies the short rest
between two commits. After a purge the log is emptied as well, since it holds what was purged.
"""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing, suppress
from pathlib import Path

from fhir_server.store.sqlite.fulltext import iterate_merges
from fhir_server.store.sqlite.schema import connect

WRITES = 2000
"""Writes after which the log is folded; about 30 MB of it."""

_LONGEST_LOG = 16_000
_IDLE_SECONDS = 2.0

_CHECKPOINT = "PRAGMA wal_checkpoint(PASSIVE)"
_EMPTY = "PRAGMA wal_checkpoint(TRUNCATE)"
_LONGEST_WAIT_MS = 250
"""How long writers wait while the log is emptied and somebody reads what is in it; it is tried again later."""


class Checkpoints:
    """A thread with a connection of its own. The writer calls the other functions than `stop`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writes = 0
        self.due = False
        self._emptying = True  # a process that was killed may have left what it purged
        self._purged = self._stopping = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sqlite-checkpoint", daemon=True)
        self._thread.start()

    def count_writes(self, writes: int) -> None:
        """Add the writes of a commit; wakes the thread after `WRITES` of them."""
        self._writes += writes
        if self._writes >= WRITES:
            self._writes = 0
            self._wake.set()

    def finish_if_due(self, connection: sqlite3.Connection) -> None:
        """Between two commits: copy the pages logged while the thread copied, if the log has grown long."""
        if self.due:
            self.due = False
            with suppress(sqlite3.Error):
                connection.execute(_CHECKPOINT).fetchall()

    def empty_log(self) -> None:
        """Let the thread empty the log within a few seconds, or as soon as nobody reads what is in it any more."""
        self._emptying = self._purged = True

    def stop(self) -> None:
        """End the thread."""
        self._stopping = True
        self._wake.set()
        self._thread.join()

    def _run(self) -> None:
        with suppress(sqlite3.Error), closing(connect(self._path, writer=True)) as connection:
            connection.execute(f"PRAGMA busy_timeout = {_LONGEST_WAIT_MS}")
            while not self._stopping:
                due = self._wake.wait(_IDLE_SECONDS)
                self._wake.clear()
                # When little is written, the log is folded while nobody writes.
                if due or self._writes:
                    self._writes = 0
                    self._fold(connection)
                if self._emptying and not self._stopping:
                    self._emptying = False
                    self._empty(connection)

    def _fold(self, connection: sqlite3.Connection) -> None:
        # A full disk or a busy file: the next time will do; the log keeps everything until then.
        with suppress(sqlite3.Error):
            _, frames, _ = connection.execute(_CHECKPOINT).fetchone()
            self.due = frames > _LONGEST_LOG

    def _empty(self, connection: sqlite3.Connection) -> None:
        try:
            for _ in iterate_merges(connection) if self._purged else ():
                if self._stopping:
                    return
            self._purged = False
            busy = connection.execute(_EMPTY).fetchone()[0]
        except sqlite3.Error:
            busy = True
        self._emptying = self._emptying or bool(busy)
