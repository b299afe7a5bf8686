"""What the tables say of an event: its structure, the status that it gives, the segments and fields that it reads."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from mappers.hl7v2.tables import read_table

PERSON = frozenset({"A28", "A29", "A31"})
"""Events about a person, which never touch a visit."""


class Event(NamedTuple):
    """A row of `events.tsv` with that of its family: `fields` are those that a row of the family's tables names."""

    structure: str
    status: str
    segments: frozenset[str]
    fields: frozenset[str]


@cache
def read_events() -> dict[tuple[str, str], Event]:
    """Every event that is read, by message type and event."""
    families = {name: (segments, tables.split()) for name, segments, tables in read_table("families.tsv")}
    fields = {
        name: frozenset(cells[1].partition(".")[0] for table in tables for cells in read_table(f"{table}.tsv"))
        for name, (_, tables) in families.items()
    }
    return {
        (name, event): Event(structure, status, frozenset((segments or families[name][0]).split()), fields[name])
        for name, event, structure, status, segments in read_table("events.tsv")
    }
