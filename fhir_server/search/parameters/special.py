"""Special parameters, and those that R4 leaves without an expression: not supported (https://hl7.org/fhir/R4/search.html#special)."""

from __future__ import annotations

from fhir_server.fhir.outcome import NotSupported
from fhir_server.search.parameters.criteria import Criteria, ParameterType
from fhir_server.search.query import Clause
from fhir_server.search.registry import Parameter


def parse_clause(parameter: Parameter, modifier: str | None, text: str, criteria: Criteria) -> Clause:
    """Always NotSupported."""
    raise NotSupported(f"This server does not support the search parameter `{parameter.code}`; leave it out.")


SPECIAL = ParameterType(kind="terms", extractors={}, parse_clause=parse_clause, sort_kind=None)
