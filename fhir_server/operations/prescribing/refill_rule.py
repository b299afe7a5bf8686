"""The rule of refill requests for plain writes, where the setting says so (docs/prescribing.md#refill-requests)."""

from __future__ import annotations

from fhir_server.operations.prescribing.changes import TYPE
from fhir_server.operations.prescribing.surroundings import find_local, read
from fhir_server.writes.rules import ALLOWED, Change, Ruling
from fhir_server.writes.state import State
from mappers.billing.fields import Resource
from mappers.prescribing.refills import check_refill, find_renewal, is_refill_request

REFERENCES = ("focus", "for", "subject", "priorPrescription")


async def refill_rule(state: State, change: Change) -> Ruling:
    """Refuse what is no refill request, or no answer to one; other Tasks, and those of partners, are not looked at."""
    if change.new is None or state.caller.principal.partner:
        return ALLOWED
    new, old = dict(change.new), dict(change.current) if change.current is not None else None
    if not is_refill_request(new) and not is_refill_request(old):
        return ALLOWED
    prescription = await _read_prescription(state, new.get("focus"))
    renewal = await _read_prescription(state, {"reference": find_renewal(new)})
    local = [_localize(state, each) for each in (old, new, prescription, renewal)]
    return Ruling(tuple(check_refill(local[0], local[1] or new, local[2], local[3])))


def _localize(state: State, resource: Resource | None) -> Resource | None:
    """A resource whose references to this server are `Type/id`, however they are written; others are left out."""
    if resource is None:
        return None
    found = {name: find_local(state, resource[name]) for name in REFERENCES if name in resource}
    rest = {name: value for name, value in resource.items() if name not in found}
    return rest | {name: {"reference": text} for name, text in found.items() if text}


async def _read_prescription(state: State, element: object) -> Resource | None:
    reference = find_local(state, element)
    return await read(state, reference) if reference.startswith(f"{TYPE}/") else None
