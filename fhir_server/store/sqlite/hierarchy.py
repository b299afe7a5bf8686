"""Resources above and below others in a hierarchy, as one recursive statement (https://www.sqlite.org/lang_with.html)."""

from __future__ import annotations

from fhir_server.search.query import Lineage
from fhir_server.store.sqlite.conditions import Sql
from fhir_server.store.sqlite.context import Context, format_path
from fhir_server.store.sqlite.statements import format_json

_ROOTS = "SELECT r.rid FROM json_each(?) j CROSS JOIN resource r WHERE r.ref = j.value"
_BELOW = "SELECT x.rid FROM within w CROSS JOIN link x WHERE x.tp = ? AND x.target = w.rid"
_ABOVE = (
    "SELECT t.rid FROM within w CROSS JOIN entries e CROSS JOIN json_each(e.quick, ?) j CROSS JOIN resource t"
    " WHERE e.rid = w.rid AND t.ref = j.value AND t.type = ?"
)


def select_lineage(clause: Lineage, type: str, context: Context) -> Sql:
    """A SELECT of the `rid`s; UNION drops rows that were reached before, so that a circle ends."""
    code = context.find_code(type)
    values: tuple[int | str, ...]
    step, values = _BELOW, (context.find_code(type, clause.parameter),)
    if clause.direction == "above":
        step, values = _ABOVE, (format_path("l", clause.parameter), code)
    text = (
        f"WITH RECURSIVE within(rid) AS ({_ROOTS} UNION {step})"
        " SELECT r.rid FROM within w CROSS JOIN resource r WHERE r.rid = w.rid AND r.type = ? AND r.deleted = 0"
    )
    return text, (format_json(f"{type}/{id}" for id in clause.ids), *values, code)
