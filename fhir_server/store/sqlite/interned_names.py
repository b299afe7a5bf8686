"""Small numbers for resource types and their search parameters, shared by all processes through the table `name`."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from fhir_server.store.operations import Write
from fhir_server.store.sqlite.schema import begin_write

UNKNOWN = -1
"""The code of a name that no resource was stored under: no row has it."""


class Names:
    """Codes by type and parameter. Codes are only ever added, so each process remembers those it has read.

    Shared by the store's threads: a lookup is a dict access, and `refresh` only adds.
    """

    def __init__(self) -> None:
        self._codes: dict[str, dict[str, int]] = {}
        self._newest = 0

    def refresh(self, connection: sqlite3.Connection) -> None:
        """Learn the names added since the last time."""
        rows = connection.execute("SELECT code, name FROM name WHERE code > ? ORDER BY code", (self._newest,))
        for code, name in rows.fetchall():
            type, _, parameter = name.partition(".")
            self._codes.setdefault(type, {})[parameter] = code
            self._newest = max(self._newest, code)

    def get_code(self, type: str, parameter: str) -> int | None:
        """The code of a parameter of a type, where it was known at the last refresh."""
        return self._codes.get(type, {}).get(parameter)

    def find_code(self, connection: sqlite3.Connection, type: str, parameter: str = "") -> int:
        """The code of a type, or of one of its parameters; UNKNOWN if nothing was stored under it yet."""
        code = self.get_code(type, parameter)
        if code is None:
            self.refresh(connection)
            code = self._codes.get(type, {}).get(parameter, UNKNOWN)
        return code

    def has_code(self, type: str, parameter: str) -> bool:
        """Whether a parameter of a type had a code at the last refresh."""
        return parameter in self._codes.get(type, {})

    def get_codes(self, type: str) -> dict[str, int]:
        """Codes by parameter of a type whose names are interned; its own under the empty text."""
        return self._codes[type]

    def find_missing(self, writes: Iterable[Write]) -> list[str]:
        """The names that these writes need and nobody has interned, sorted."""
        missing: set[str] = set()
        for write in writes:
            codes = self._codes.get(write.type)
            if codes is None:
                missing.add(write.type)
                codes = {}
            entries = write.entries
            for part in (entries.terms, entries.dates, entries.numbers):
                if not part.keys() <= codes.keys():
                    missing.update(f"{write.type}.{parameter}" for parameter in part.keys() - codes.keys())
        return sorted(missing)

    def intern(self, connection: sqlite3.Connection, names: Iterable[str]) -> None:
        """Give codes to new names, in a transaction of its own so that no rollback can take a code back."""
        with begin_write(connection):
            connection.executemany("INSERT OR IGNORE INTO name (name) VALUES (?)", [(name,) for name in names])
        self.refresh(connection)
