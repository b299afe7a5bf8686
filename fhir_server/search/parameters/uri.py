"""URI parameters: equal to the value, character by character (https://hl7.org/fhir/R4/search.html#uri)."""

from __future__ import annotations

from typing import Any

from fhir_server.search.escapes import unescape
from fhir_server.search.parameters.criteria import Criteria, ParameterType, Surroundings
from fhir_server.search.query import Clause, Equals
from fhir_server.search.registry import Parameter


def clause(parameter: Parameter, modifier: str | None, text: str, criteria: Criteria) -> Clause:
    """The URI as written."""
    return Equals(parameter.code, (unescape(text),))


def _uri(value: Any, around: Surroundings) -> tuple[str, ...]:
    return (value,)


URI = ParameterType(
    kind="terms",
    extract=dict.fromkeys(("uri", "url", "canonical", "oid", "uuid"), _uri),
    clause=clause,
)
