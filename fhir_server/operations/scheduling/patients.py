"""The patient of a scheduling operation: by reference, or as the resource of IHE's `patient-resource`."""

from __future__ import annotations

from hashlib import sha256
from typing import NamedTuple

import orjson

from fhir_server.fhir.outcome import Invalid, PreconditionFailed, Unprocessable
from fhir_server.fhir.resource import parse
from fhir_server.operations.scheduling.parameters import Parameters
from fhir_server.search.entries import SEPARATOR
from fhir_server.search.query import Equals
from fhir_server.writes.action import Action
from fhir_server.writes.state import State
from mappers.scheduling.elements import Resource, members

PATIENT_NAMES = ("patient-reference", "patient-resource")
_MOST = 20


class Patient(NamedTuple):
    """A reference (empty: none was named), and the resource to create where it is not stored yet."""

    reference: str = ""
    newcomer: Resource | None = None


NOBODY = Patient()


async def read_patient(state: State, asked: Parameters) -> Patient:
    """Whom a request is for: the stored Patient of this id or identifiers, else the one that was sent.

    Raises Invalid where two different ones are named, Unprocessable for one that could not be found again,
    PreconditionFailed where the identifiers are those of several.
    """
    reference = asked.reference("patient-reference")
    resource = asked.resource("patient-resource", "Patient")
    if resource is None:
        return Patient(reference)
    found = await _find(state, resource)
    if reference and found.reference != reference:
        text = f"`patient-resource` is not `{reference}` of `patient-reference`; send one of the two."
        raise Invalid(text, code="value", expression=("patient-resource",))
    return found


async def _find(state: State, resource: Resource) -> Patient:
    id = resource.get("id")
    if isinstance(id, str) and await state.read("Patient", id) is not None:
        return Patient(f"Patient/{id}")
    named = [each for each in members(resource, "identifier") if each.get("system") and each.get("value")]
    if not named or len(named) > _MOST:
        text = f"A Patient that is not stored here needs an identifier with system and value, {_MOST} at most."
        raise Unprocessable(text, code="required", expression=("patient-resource.identifier",))
    keys = sorted(f"{each['value']}{SEPARATOR}{each['system']}" for each in named)
    matches = await state.search("Patient", Equals("identifier", tuple(keys)))
    if len(matches) > 1:
        text = "The identifiers are those of several Patients; name one in `patient-reference`."
        raise PreconditionFailed(text, code="multiple-matches", expression=("patient-resource.identifier",))
    if matches:
        return Patient(f"Patient/{matches[0].tree['id']}")
    # the id follows from the identifiers, so that two requests at once make one Patient
    own = sha256(orjson.dumps(keys)).hexdigest()[:32]
    if await state.read("Patient", own) is not None:  # it has other identifiers by now
        own = state.context.new_id()
    return Patient(f"Patient/{own}", {**resource, "id": own})


def create_patient(patient: Patient) -> tuple[Action, ...]:
    """The write of a Patient who is not stored yet."""
    new = patient.newcomer
    if new is None:
        return ()
    return (Action("PUT", "Patient", new["id"], id=new["id"], text=parse(orjson.dumps(new))),)
