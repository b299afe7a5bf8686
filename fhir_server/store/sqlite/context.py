"""What compiling a clause needs beside it: names, the database, and what the planner has chosen."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field

from fhir_server.search.query import Clause
from fhir_server.store.sqlite.interned_names import Names


@dataclass(frozen=True, slots=True)
class Context:
    """What compiling a clause needs beside it.

    `read_whole`: clauses with so few index rows that a probe reads all of them at once; `targets_first`: chains with so
    few targets that a probe lists these first.
    """

    names: Names
    connection: sqlite3.Connection
    read_whole: frozenset[Clause] = field(default_factory=frozenset)
    targets_first: frozenset[Clause] = field(default_factory=frozenset)

    def find_code(self, type: str, parameter: str = "") -> int:
        """The number of a type, or of one of its parameters (the column `tp`)."""
        return self.names.find_code(self.connection, type, parameter)

    def compile_code(self, type: str, parameter: str) -> tuple[str, tuple[int | str, ...]]:
        """The number of a parameter as SQL and its value; the statement itself looks for one that is not known here.

        Most tests ask about what some resource has, but those of access ask about labels that often none has.
        """
        code = self.names.get_code(type, parameter)
        if code is not None:
            return "?", (code,)
        return "(SELECT code FROM name WHERE name = ?)", (f"{type}.{parameter}",)


COLUMNS = {"d": "quick", "l": "quick", "t": "terms", "n": "numbers"}
"""The column of `entries` in which each part is (`rows.Columns`)."""


def format_path(part: str, parameter: str) -> str:
    """The JSON path of a parameter's entries in their column of `entries`."""
    return f'$.{part}."{parameter}"'
