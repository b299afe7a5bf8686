"""The numbers (`resource.rid`) of what resources link to, whether or not it was ever stored."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from fhir_server.store.sqlite.statements import insert, one_json

_FIND = (
    "SELECT json_group_array(json_array(r.ref, r.rid)) FROM json_each(?) j CROSS JOIN resource r WHERE r.ref = j.value"
)


def absent(rid: int, reference: str) -> tuple[int | str, ...]:
    """The row of `resource` for a target that was never stored."""
    return rid, reference, 0, 0, 0, 0, 1


def find_targets(connection: sqlite3.Connection, references: Iterable[str]) -> dict[str, int]:
    """The numbers of those references that have one."""
    return dict(one_json(connection, _FIND, references))


def number_targets(connection: sqlite3.Connection, references: Iterable[str]) -> dict[str, int]:
    """The numbers of all the references; new ones are given out in the open transaction."""
    wanted = sorted(set(references))
    found = find_targets(connection, wanted)
    new = [reference for reference in wanted if reference not in found]
    if new:
        last: int = connection.execute("SELECT max(rid) FROM resource").fetchone()[0] or 0
        numbered = dict(zip(new, range(last + 1, last + 1 + len(new)), strict=True))
        insert(connection, "resource", [absent(rid, reference) for reference, rid in numbered.items()])
        found |= numbered
    return found
