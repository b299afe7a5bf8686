"""What compiling a clause needs beside it: names, the database, and what the planner knows (https://hl7.org/fhir/R4/search.html)."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field

from fhir_server.search.query import Clause
from fhir_server.store.sqlite.interned_names import Names


@dataclass(frozen=True, slots=True)
class Context:
    """What compiling needs beside the clause.

    `small`: clauses with few index rows, which a probe reads all at once; `near`: chains to few resources, likewise.
    """

    names: Names
    connection: sqlite3.Connection
    small: frozenset[Clause] = field(default_factory=frozenset)
    near: frozenset[Clause] = field(default_factory=frozenset)

    def tp(self, type: str, parameter: str) -> int:
        """The number of a type's parameter."""
        return self.names.code(self.connection, type, parameter)

    def code(self, type: str) -> int:
        """The number of a type."""
        return self.names.code(self.connection, type)


COLUMNS = {"d": "quick", "l": "quick", "t": "terms", "n": "numbers"}
"""The column of `entries` in which each part is."""


def path(part: str, parameter: str) -> str:
    """The JSON path of a parameter's entries in their column of `entries`."""
    return f'$.{part}."{parameter}"'
