"""The types of search parameters, one module each (https://hl7.org/fhir/R4/search.html#ptypes)."""

from __future__ import annotations

from collections.abc import Mapping

from fhir_server.fhir.outcome import Invalid
from fhir_server.search.parameters.composite import COMPOSITES
from fhir_server.search.parameters.criteria import Criteria, ParameterType, Surroundings
from fhir_server.search.parameters.date import DATE
from fhir_server.search.parameters.near import NEAR
from fhir_server.search.parameters.number import NUMBER
from fhir_server.search.parameters.quantity import QUANTITY
from fhir_server.search.parameters.reference import REFERENCE
from fhir_server.search.parameters.special import SPECIAL
from fhir_server.search.parameters.string import STRING
from fhir_server.search.parameters.token import TOKEN
from fhir_server.search.parameters.uri import URI
from fhir_server.search.query import Sort
from fhir_server.search.registry import Parameter

__all__ = ["TYPES", "Criteria", "ParameterType", "Surroundings", "make_sort"]

TYPES: Mapping[str, ParameterType] = {
    "string": STRING,
    "token": TOKEN,
    "reference": REFERENCE,
    "date": DATE,
    "number": NUMBER,
    "quantity": QUANTITY,
    "uri": URI,
    "composite": COMPOSITES,
    "near": NEAR,
    "special": SPECIAL,
}


def make_sort(parameter: Parameter, descending: bool) -> Sort:
    """The sort key of a parameter. Raises Invalid for a type that has no order."""
    if parameter.code == "_id":
        return Sort("_id", "id", descending)
    if parameter.code == "_lastUpdated":
        return Sort("_lastUpdated", "lastUpdated", descending)
    kind = TYPES[parameter.type].sort_kind
    if kind is None:
        raise Invalid(f"`_sort={parameter.code}`: a {parameter.type} parameter has no order; sort by another one.")
    if len(parameter.parts) > 1:
        parts = ", ".join(f"`{part}`" for part in parameter.parts)
        raise Invalid(f"`_sort={parameter.code}`: its values are those of {parts} together; sort by one of these.")
    return Sort(parameter.parts[0] if parameter.parts else parameter.code, kind, descending)
