"""The numbers (`resource.rid`) of the targets of links, whether or not they were ever stored."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from fhir_server.store.sqlite.statements import insert, read_json

_FIND = (
    "SELECT json_group_array(json_array(r.ref, r.rid)) FROM json_each(?) j CROSS JOIN resource r WHERE r.ref = j.value"
)


def make_absent_row(rid: int, reference: str) -> tuple[int | str, ...]:
    """The row of `resource` for a target that was never stored."""
    return rid, reference, 0, 0, 0, 0, 1


def number_targets(connection: sqlite3.Connection, references: Iterable[str]) -> dict[str, int]:
    """The numbers of all the references; a reference without one gets it in the open transaction."""
    distinct = sorted(set(references))
    targets: dict[str, int] = dict(read_json(connection, _FIND, distinct))
    if new := [reference for reference in distinct if reference not in targets]:
        last: int = connection.execute("SELECT max(rid) FROM resource").fetchone()[0] or 0
        numbered = dict(zip(new, range(last + 1, last + 1 + len(new)), strict=True))
        insert(connection, "resource", [make_absent_row(rid, reference) for reference, rid in numbered.items()])
        targets |= numbered
    return targets
