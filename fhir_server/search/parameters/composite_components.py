"""Composites whose components are looked up by themselves: any types, any number (https://hl7.org/fhir/R4/search.html#composite).

Each element has entries of its own, named like those of contained resources (`search.nested_index`): `pair:#0.when` has
those of the component `when` of the first element that `pair` finds. So each component matches as a parameter of its
type does, a string by its beginning, and all of them match the same element.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fhir_server.search.nested_index import MAX_NESTED, name_nested, name_overflow
from fhir_server.search.parameters import date, number, quantity, reference, string, token, uri
from fhir_server.search.parameters.criteria import Criteria
from fhir_server.search.query import And, Clause, Within
from fhir_server.search.registry import Component, Parameter

_CLAUSES: Mapping[str, Callable[[Parameter, str | None, str, Criteria], Clause]] = {
    "date": date.DATE.parse_clause,
    "number": number.NUMBER.parse_clause,
    "reference": reference.REFERENCE.parse_clause,
    "string": string.STRING.parse_clause,
    "token": token.TOKEN.parse_clause,
    "uri": uri.URI.parse_clause,
}


def name_components(components: Sequence[Component]) -> tuple[str, ...]:
    """The name of each component within the composite: its code, numbered where a code comes twice."""
    codes = [component.code for component in components]
    return tuple(code if codes.count(code) == 1 else f"{code}.{at}" for at, code in enumerate(codes))


def parse_clause(parameter: Parameter, values: Sequence[str], criteria: Criteria) -> Clause:
    """One element whose components have these values, still escaped, in the components' order."""
    named = zip(name_components(parameter.components), parameter.components, values, strict=True)
    return Within(parameter.code, And(tuple(_parse_component(parameter.base, *each, criteria) for each in named)))


def _parse_component(base: str, name: str, component: Component, text: str, criteria: Criteria) -> Clause:
    if component.type == "quantity":
        parameter = Parameter(name, base, "quantity", "", "")
        return quantity.match_base_units(name, (name,), *quantity.parse_quantity(parameter, text))
    parameter = Parameter(name, base, component.type, "", component.expression, coded=component.coded)
    return _CLAUSES[component.type](parameter, None, text, criteria)


ComponentEntries = tuple[str, int, Sequence[Any]]
"""(name within the composite, index of the kind, entries)."""


def add_element(sinks: Sequence[dict[str, Any]], code: str, components: Sequence[ComponentEntries]) -> None:
    """Adds the entries of one more element of a composite; `name_overflow` stands for the first one too many."""
    terms = sinks[0]
    number = next((number for number in range(MAX_NESTED) if name_nested(code, "", number) not in terms), MAX_NESTED)
    if number == MAX_NESTED:
        terms[name_overflow(code, "")] = ("#",)
        return
    prefix = name_nested(code, "", number)
    terms[code], terms[prefix] = ("#",), (str(number),)
    for name, kind, entries in components:
        sinks[kind][f"{prefix}.{name}"] = tuple(entries)
