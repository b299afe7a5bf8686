"""The rule of prescriptions for plain writes, where the setting says so (docs/prescribing.md#plain-writes).

What a partner's messages tell has been prescribed elsewhere, and is stored as they tell it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fhir_server.operations.prescribing.changes import TYPE
from fhir_server.operations.prescribing.refill_rule import refill_rule
from fhir_server.operations.prescribing.surroundings import read_prescription
from fhir_server.writes.rules import ALLOWED, Change, Rules, Ruling
from fhir_server.writes.state import State
from mappers.prescribing.checks import check_prescription
from mappers.prescribing.life_cycle import check_transition
from mappers.scheduling.elements import code_of

_CHECKED = (
    "contained",
    "dispenseRequest",
    "doNotPerform",
    "dosageInstruction",
    "extension",
    "medicationCodeableConcept",
    "medicationReference",
    "priorPrescription",
    "requester",
    "subject",
)
"""The elements that the checks look at: an active prescription is checked again when one of them changes."""


async def prescription_rule(state: State, change: Change) -> Ruling:
    """Refuse what may not follow, and what becomes active, or is active and changes, against the checks."""
    if change.new is None or state.caller.principal.partner:
        return ALLOWED
    new, old = dict(change.new), dict(change.current) if change.current is not None else None
    issue = check_transition(code_of(old), code_of(new)) if old is not None else None
    if issue is not None:
        return Ruling((issue,))
    if code_of(new) != "active" or (old is not None and _is_same(old, new)):
        return ALLOWED
    around = await read_prescription(state, {**new, "id": change.id})
    return Ruling(tuple(each.issue for each in check_prescription(around)))


def _is_same(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    return code_of(old) == "active" and all(old.get(name) == new.get(name) for name in _CHECKED)


PRESCRIBING_RULES: Rules = {TYPE: prescription_rule, "Task": refill_rule}
