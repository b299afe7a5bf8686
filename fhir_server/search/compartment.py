"""Searches within a compartment: `Patient/1/Observation` (https://hl7.org/fhir/R4/compartmentdefinition.html)."""

from __future__ import annotations

from collections.abc import Iterable

from fhir_server.fhir.definitions import Definitions
from fhir_server.fhir.outcome import NotFound
from fhir_server.fhir.resource import is_id
from fhir_server.search.query import Clause, Equals, Ids
from fhir_server.search.simplify import simplify_or

ITSELF = "{def}"
"""The parameter name of a CompartmentDefinition that stands for the resource that the compartment belongs to."""


def list_member_types(definitions: Definitions, compartment: str) -> tuple[str, ...]:
    """The member types of a compartment, its own type included, sorted; NotFound where the type has no compartment."""
    if compartment not in definitions.compartments:
        raise NotFound(f"`{compartment}` has no compartment. Valid ones: {_list_types(definitions.compartments)}.")
    members = (type for type, parameters in definitions.compartments[compartment].items() if parameters)
    return tuple(sorted({compartment, *members}))


def build_compartment_clause(definitions: Definitions, compartment: str, id: str, type: str) -> Clause:
    """What places a resource of `type` in the compartment of `compartment`/`id`; NotFound where none can be in it.

    The resource that the compartment belongs to counts as in it, whether or not its definition says so with `{def}`:
    R4 says so for three of the five, R5 for the Patient as well.
    """
    members = list_member_types(definitions, compartment)
    if type not in members:
        raise NotFound(f"`{type}` is not in the {compartment} compartment. Valid types: {_list_types(members)}.")
    if not is_id(id):
        raise NotFound(
            f"There is no compartment `{compartment}/{id}`: `{id}` is not a FHIR id. To look at those of everybody, "
            f"search `{type}` itself."
        )
    parameters = definitions.compartments[compartment].get(type, ())
    clauses: list[Clause] = [Equals(code, (f"{compartment}/{id}",)) for code in parameters if code != ITSELF]
    if type == compartment:
        clauses.append(Ids((id,)))
    return simplify_or(clauses)


def _list_types(types: Iterable[str]) -> str:
    return ", ".join(f"`{type}`" for type in sorted(types))
