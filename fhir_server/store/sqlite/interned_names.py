"""Small numbers for resource types and their search parameters, agreed by all processes through the table `name`."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from fhir_server.store.operations import Write

UNKNOWN = -1
"""The code of a name that no resource was stored under: finds nothing."""

_SELF = ""


class Names:
    """Codes by type and parameter. Codes are only ever added, so each process keeps what it has seen.

    Shared by the store's threads: a lookup is a dict access, and `refresh` only adds.
    """

    def __init__(self) -> None:
        self._codes: dict[str, dict[str, int]] = {}
        self._types: dict[int, str] = {}
        self._newest = 0

    def refresh(self, connection: sqlite3.Connection) -> None:
        """Learn the names added since the last time."""
        rows = connection.execute("SELECT code, name FROM name WHERE code > ? ORDER BY code", (self._newest,))
        for code, name in rows.fetchall():
            type, _, parameter = name.partition(".")
            self._codes.setdefault(type, {})[parameter] = code
            if not parameter:
                self._types[code] = type
            self._newest = max(self._newest, code)

    def code(self, connection: sqlite3.Connection, type: str, parameter: str = _SELF) -> int:
        """The code of a type, or of one of its parameters; UNKNOWN if nothing was stored under it yet."""
        found = self._codes.get(type, {}).get(parameter)
        if found is None:
            self.refresh(connection)
            found = self._codes.get(type, {}).get(parameter, UNKNOWN)
        return found

    def known(self, type: str, parameter: str) -> bool:
        """Whether a parameter of a type had a code at the last refresh."""
        return parameter in self._codes.get(type, {})

    def of_type(self, type: str) -> dict[str, int]:
        """Codes by parameter of a type whose names are interned; its own under the empty text."""
        return self._codes[type]

    def missing(self, writes: Iterable[Write]) -> list[str]:
        """The names that these writes need and nobody has interned, sorted."""
        found: set[str] = set()
        for write in writes:
            known = self._codes.get(write.type)
            if known is None:
                found.add(write.type)
                known = {}
            entries = write.entries
            for part in (entries.terms, entries.dates, entries.numbers):
                if not part.keys() <= known.keys():
                    found.update(f"{write.type}.{parameter}" for parameter in part.keys() - known.keys())
        return sorted(found)

    def intern(self, connection: sqlite3.Connection, names: Iterable[str]) -> None:
        """Give codes to new names, in a transaction of its own so that no rollback can take a code back."""
        connection.execute("BEGIN IMMEDIATE")
        try:
            connection.executemany("INSERT OR IGNORE INTO name (name) VALUES (?)", [(name,) for name in names])
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        self.refresh(connection)
