"""Values under keys: the table `value`, which changes by compare-and-set; `now` is µs by the clock of the store."""

from __future__ import annotations

import sqlite3

GET = "SELECT value FROM value WHERE key = ? AND (expires IS NULL OR expires > ?)"
"""Takes (key, now)."""

_LIST = "SELECT key, value FROM value WHERE key {} ? AND (expires IS NULL OR expires > ?) ORDER BY key LIMIT ?"
LIST_AFTER, LIST_FROM = _LIST.format(">"), _LIST.format(">=")
"""Take (key, now, limit)."""


def put_value_if(
    connection: sqlite3.Connection, key: str, value: bytes, before: bytes | None, expires: int | None, now: int
) -> bool:
    """Put a value under a key if `before` is there, in the open transaction; False if not. Removes expired values."""
    if read_value(connection, key, now) != before:
        return False
    connection.execute("DELETE FROM value WHERE expires <= ?", (now,))
    connection.execute("INSERT OR REPLACE INTO value VALUES (?, ?, ?)", (key, value, expires))
    return True


def remove_value_if(connection: sqlite3.Connection, key: str, before: bytes, now: int) -> bool:
    """Remove the value under a key if it is `before`, in the open transaction; False if not."""
    if read_value(connection, key, now) != before:
        return False
    connection.execute("DELETE FROM value WHERE key = ?", (key,))
    return True


def read_value(connection: sqlite3.Connection, key: str, now: int) -> bytes | None:
    """What is under a key; None where there is nothing."""
    row = connection.execute(GET, (key, now)).fetchone()
    return bytes(row[0]) if row else None
