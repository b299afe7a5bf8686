"""Values under keys: the table `value`, which changes by compare-and-set; `now` is µs by the clock of the store."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from fhir_server.store.protocol import Clock

GET = "SELECT value FROM value WHERE key = ? AND (expires IS NULL OR expires > ?)"
"""Takes (key, now)."""

_LIST = "SELECT key, value FROM value WHERE key {} ? AND (expires IS NULL OR expires > ?) ORDER BY key LIMIT ?"
LIST_AFTER, LIST_FROM = _LIST.format(">"), _LIST.format(">=")
"""Take (key, now, limit)."""

Work = Callable[[sqlite3.Connection], bool]


def put_value_if(key: str, value: bytes, before: bytes | None, expires: int | None, clock: Clock) -> Work:
    """Work that puts a value under a key if `before` is there; False if not. It also removes what has expired."""

    def work(connection: sqlite3.Connection) -> bool:
        now = clock()
        if _read(connection, key, now) != before:
            return False
        connection.execute("DELETE FROM value WHERE expires <= ?", (now,))
        connection.execute("INSERT OR REPLACE INTO value VALUES (?, ?, ?)", (key, value, expires))
        return True

    return work


def remove_value_if(key: str, before: bytes, clock: Clock) -> Work:
    """Work that removes what is under a key if it is `before`; False if not."""

    def work(connection: sqlite3.Connection) -> bool:
        if _read(connection, key, clock()) != before:
            return False
        connection.execute("DELETE FROM value WHERE key = ?", (key,))
        return True

    return work


def _read(connection: sqlite3.Connection, key: str, now: int) -> bytes | None:
    row = connection.execute(GET, (key, now)).fetchone()
    return bytes(row[0]) if row else None
