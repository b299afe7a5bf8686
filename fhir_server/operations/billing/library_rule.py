"""Rule sets and the settings of payers are checked when they are stored, whatever the door."""

from __future__ import annotations

from fhir_server.search.entries import SEPARATOR
from fhir_server.search.query import Equals
from fhir_server.writes.rules import ALLOWED, Change, Ruling
from fhir_server.writes.state import State
from mappers.billing import codes
from mappers.billing.fields import Resource
from mappers.billing.site_libraries import code_type, find_kind, find_library_faults


async def library_rule(state: State, change: Change) -> Ruling:
    """Refuse a Library of ours that cannot be read, or that is the second active one; code its type."""
    kind = find_kind(change.new)
    if change.new is None or not kind:
        return ALLOWED
    library: Resource = {**change.new, "id": change.id}
    state.lock((f"library {kind}",))
    size = sum(len(each.get("data", "")) for each in library.get("content", ()))
    others = await read_libraries(state, kind)
    issues = await state.context.long_work.run(size, find_library_faults, library, others)
    return Ruling(tuple(issues)) if issues else Ruling(elements={"type": code_type(library)})


async def read_libraries(state: State, kind: str) -> list[Resource]:
    """The active Libraries of a kind."""
    found = await state.search("Library", Equals("type", (f"{kind}{SEPARATOR}{codes.LIBRARY_KIND}",)))
    return [dict(each.tree) for each in found if each.tree.get("status") == "active"]
