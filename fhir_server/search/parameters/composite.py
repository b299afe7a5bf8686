"""Composite parameters: several components of one element (https://hl7.org/fhir/R4/search.html#composite).

How an element's values are kept depends on its components:

| components | entry |
|---|---|
| terms only | a term: the search forms of the components joined by COMPOSITE |
| one term, one date, number or quantity | a number: (search form of the term, low, high, unit) |
| one term, two numbers | a number: (search form of the term, first, second, "") |
| all others, and those with a string that is not the last of terms | each by itself (`parts`) |

A quantity in a unit that is not in `quantity.COMMON_UNITS` has a second entry, in base units, under the
pseudo-parameter `code:canonical`. A token has two search forms (`token.list_forms`), so an element has an entry for
each of them; that of a string is its normalised text, that of any other term the term itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice, product
from typing import Any, Literal

from fhir_server.fhir.outcome import NotSupported
from fhir_server.fhir.references import parse
from fhir_server.search.entries import COMPOSITE, SEPARATOR
from fhir_server.search.escapes import split, unescape
from fhir_server.search.parameters import coded, composite_components, date, number, quantity, string, token
from fhir_server.search.parameters.criteria import Alternatives, Criteria, Entry, ParameterType, make_or, reject
from fhir_server.search.query import Clause, Equals, NumberRange, StartsWith
from fhir_server.search.registry import Component, Parameter

_TERMS = frozenset({"token", "string", "reference", "uri"})
_RANGES = frozenset({"date", "number", "quantity"})


def find_kind(components: Sequence[Component]) -> Literal["terms", "numbers", "parts"]:
    """The part of Entries that a composite's entries go to. Raises ValueError for components that cannot be joined."""
    types = [component.type for component in components]
    if len(types) < 2 or not _TERMS.union(_RANGES).issuperset(types):
        raise ValueError(f"A composite of {', '.join(types) or 'nothing'} cannot be indexed.")
    ranges = [type for type in types if type in _RANGES]
    if not ranges and "string" not in types[:-1]:
        return "terms"
    one_key = len(types) - len(ranges) == 1 and "string" not in types
    return "numbers" if one_key and (len(ranges) == 1 or ranges == ["number", "number"]) else "parts"


MOST_COMBINED = 10_000
"""Entries that the components of one element may have together: a list of codes times a list of values."""

Combiner = Callable[[Sequence[Sequence[Any]]], tuple[Entry, ...]]
"""(entries of each component of one element) → entries of the composite; one more than MOST_COMBINED of too many."""


def make_combiner(components: Sequence[Component]) -> Combiner:
    """How the entries of one element are made of its components' entries, given in order.

    Of components whose kind is no `parts`.
    """
    forms = [_FORMS.get(component.type, tuple) for component in components]
    if find_kind(components) == "terms":
        return lambda values: tuple(
            [
                COMPOSITE.join(each)
                for each in islice(
                    product(*(form(found) for form, found in zip(forms, values, strict=True))), MOST_COMBINED + 1
                )
            ]
        )
    key = next(at for at, component in enumerate(components) if component.type in _TERMS)
    ranges = [at for at in range(len(components)) if at != key]
    if len(ranges) == 2:
        first, second = ranges
        return lambda values: tuple(
            (form, low[1], high[1], "")
            for form, low, high in islice(
                product(forms[key](values[key]), values[first], values[second]), MOST_COMBINED + 1
            )
        )
    at = ranges[0]
    if components[at].type == "date":
        return lambda values: tuple(
            (form, *found, "")
            for form, found in islice(product(forms[key](values[key]), values[at]), MOST_COMBINED + 1)
        )
    return lambda values: tuple(
        (form, *found[1:]) for form, found in islice(product(forms[key](values[key]), values[at]), MOST_COMBINED + 1)
    )


def _list_token_forms(terms: Iterable[str]) -> list[str]:
    forms: list[str] = []
    for term in terms:
        if term != token.TEXT_ONLY:
            forms += token.list_forms(term)
    return forms


def _list_string_forms(terms: Iterable[str]) -> list[str]:
    return [term.partition(SEPARATOR)[0] for term in terms]


_FORMS: Mapping[str, Callable[[Iterable[str]], Iterable[str]]] = {
    "token": _list_token_forms,
    "string": _list_string_forms,
    "reference": tuple,
    "uri": tuple,
}


def parse_clause(parameter: Parameter, modifier: str | None, text: str, criteria: Criteria) -> Clause:
    """The components' values, joined by `$`, met by one element."""
    values = split(text, "$")
    components = parameter.components
    if len(values) != len(components) or not all(values):
        form = "$".join(f"[{component.code}]" for component in components)
        raise reject(parameter, text, f"a composite is written `{form}`.")
    kind = find_kind(components)
    if kind == "parts":
        return composite_components.parse_clause(parameter, values, criteria)
    pairs = list(zip(components, values, strict=True))
    forms = [
        _parse_form(parameter, component, value, criteria) for component, value in pairs if component.type in _TERMS
    ]
    if kind == "terms":
        key = COMPOSITE.join(forms)
        starts = components[-1].type == "string"
        return StartsWith(parameter.code, key) if starts else Equals(parameter.code, (key,))
    ranges = [(component, value) for component, value in pairs if component.type in _RANGES]
    searched = _parse_range(parameter, ranges, criteria)
    return make_or(
        NumberRange(parameter.code + suffix, tests, key=forms[0], unit=unit)
        for suffix, unit, tests in quantity.iterate_units(*searched)
    )


def _parse_form(parameter: Parameter, component: Component, text: str, criteria: Criteria) -> str:
    if component.type == "token":
        system, code = token.parse_token(parameter, text)
        if not code:
            raise NotSupported(f"`{parameter.code}={text}`: a composite needs the code of `{component.code}`.")
        if system and coded.implies(component, system, code, criteria):
            system = ""  # elements of type code are indexed without the system that their binding implies
        return code if system is None else f"{code}{SEPARATOR}{system}"
    if component.type == "string":
        normalised = string.normalise(unescape(text))
        if not normalised:
            raise reject(parameter, text, f"in `{component.code}`, {string.FORM}")
        return normalised
    if component.type == "reference":
        return _parse_reference(parameter, component, text, criteria)
    return unescape(text)


def _parse_reference(parameter: Parameter, component: Component, text: str, criteria: Criteria) -> str:
    reference = parse(unescape(text), criteria.base, criteria.registry.types)
    if reference.kind == "local":
        return f"{reference.type}/{reference.id}"
    if reference.kind == "foreign":
        return reference.text
    raise reject(parameter, text, f"`{component.code}` is written `Type/id` or as an absolute URL.")


def _parse_range(
    parameter: Parameter, ranges: Sequence[tuple[Component, str]], criteria: Criteria
) -> tuple[quantity.Unit | None, Alternatives]:
    """The unit, and the tests on the one range or on the two numbers kept as low and high."""
    if len(ranges) == 2:
        first = number.parse_alternatives(parameter, unescape(ranges[0][1]), "low", "low")
        second = number.parse_alternatives(parameter, unescape(ranges[1][1]), "high", "high")
        return None, tuple(left + right for left, right in product(first, second))
    component, text = ranges[0]
    if component.type == "date":
        return None, date.parse_alternatives(parameter, text, criteria)
    if component.type == "quantity":
        return quantity.parse_quantity(parameter, text)
    return None, number.parse_alternatives(parameter, unescape(text))


COMPOSITES = ParameterType(kind="terms", extractors={}, parse_clause=parse_clause, sort_kind=None)
