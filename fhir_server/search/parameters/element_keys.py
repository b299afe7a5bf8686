"""Names of elements, for the index entries that several search parameters share (https://hl7.org/fhir/R4/searchparameter-registry.html).

`value-quantity` and `combo-value-quantity` both look at `Observation.value`. The additional entries that modifiers and
units need are indexed once, under a name of the element, such as `value:canonical`.
"""

from __future__ import annotations

from functools import lru_cache

from fhir_server.fhir.path import Member, Path, parse_for
from fhir_server.search.registry import Parameter


def name_element(code: str, steps: Path) -> str:
    """The name for an element: its path, or the parameter's code where the path alone does not say which elements."""
    plain = steps and all(isinstance(step, Member) and step.index is None for step in steps)
    return ".".join(step.name for step in steps if isinstance(step, Member)) if plain else code


@lru_cache(maxsize=4096)
def list_element_names(parameter: Parameter) -> tuple[str, ...]:
    """The names for all elements of a parameter."""
    branches = parse_for(parameter.expression, parameter.base)
    return tuple(dict.fromkeys(name_element(parameter.code, branch.steps) for branch in branches))
