"""What a message books over what is taken already: told in the acknowledgement, and by a Task that a person closes.

Whether it may is decided by the rule of bookings, which every write meets (docs/scheduling.md): a Schedule that the
partner keeps is the partner's to overbook, any other is not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from fhir_server.fhir.outcome import Issue
from fhir_server.scheduling.settle import Visit, settle
from fhir_server.scheduling.site import read_site
from fhir_server.workers.interpreters import Entry
from fhir_server.writes.state import State
from mappers.hl7v2 import issues as hl7v2_issues
from mappers.hl7v2.needs import write_criteria
from mappers.hl7v2.partner import Partner
from mappers.hl7v2.tasks import make_task
from mappers.scheduling.elements import code_of
from mappers.scheduling.occupied import OCCUPYING
from mappers.scheduling.ownership import split_by_owner

OVERBOOKED = "overbooked"
"""Code of the Task of an Appointment that the partner's word puts where another one is."""


async def find_overbooked(
    state: State, entries: Iterable[Entry], partner: Partner, seed: str
) -> tuple[list[dict[str, Any]], list[hl7v2_issues.Issue]]:
    """A Task for each Appointment among the entries that is stored over another one, and the warnings for the sender.

    What a Schedule of ours forbids is not in them: the rule refuses it with the whole message.
    """
    tasks: list[dict[str, Any]] = []
    remarks: list[hl7v2_issues.Issue] = []
    if state.context.settings.booking == "off":
        return tasks, remarks
    for entry in entries:
        if entry["resource"]["resourceType"] != "Appointment":
            continue
        clashes = await _find_clashes(state, entry, partner.name)
        if clashes:
            told = " ".join(clash.diagnostics for clash in clashes)
            text = f"The appointment is stored as the partner tells it, although its time is taken: {told}"
            remarks.append(hl7v2_issues.warn("0", text))
            tasks.append(_make_entry(entry, text, seed, partner))
    return tasks, remarks


async def _find_clashes(state: State, entry: Entry, partner: str) -> Sequence[Issue]:
    """What is in the way of an Appointment and does not hinder it."""
    type, _, id = entry["request"]["url"].partition("/")
    stored = await state.read(type, id) if id and "?" not in type else None
    new = {"id": id, **entry["resource"]}
    if code_of(new) not in OCCUPYING:
        return ()
    practice = await read_site(state)
    old = dict(stored.tree) if stored is not None else None
    settled = await settle(state, Visit(new, old, practice, state.context.clock()))
    remaining, aside = split_by_owner(settled.refusals, new, practice, partner)
    told = [*remaining, *aside] if state.context.settings.booking == "warn" else aside
    return [each.issue for each in told]


def _make_entry(entry: Entry, text: str, seed: str, partner: Partner) -> dict[str, Any]:
    url = entry["request"]["url"]
    reference = url if "/" in url else entry["fullUrl"]
    change = make_task(OVERBOOKED, text, (reference, seed), partner)
    change.resource["focus"] = {"reference": reference}
    assert change.identity is not None
    request = {"method": "POST", "url": "Task", "ifNoneExist": write_criteria([change.identity])}
    return {"fullUrl": change.url, "resource": change.resource, "request": request}
