"""How a search was read, in sentences (https://hl7.org/fhir/R4/search.html#conformance)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fhir_server.fhir.datetimes import format_instant
from fhir_server.search import query as q
from fhir_server.search.entries import COMPOSITE, OPEN_HIGH, OPEN_LOW, SEPARATOR
from fhir_server.search.parameters import Criteria
from fhir_server.search.parse import parse_criterion
from fhir_server.search.result_parameters import PARAMETERS

MAX_TYPES = 5
MAX_TERMS = 10
"""What a sentence lists at most; it says how many more there are."""

_SIGNS = {"lt": "<", "le": "≤", "gt": ">", "ge": "≥"}


def explain_parameters(types: Sequence[str], pairs: Sequence[tuple[str, str]], criteria: Criteria) -> Iterator[str]:
    """A sentence for each parameter in force and each of the first types: its type, its modifier, what it looks for."""
    for name, value in pairs:
        if name.partition(":")[0] in PARAMETERS:
            yield f"`{name}={value}` is about the result."
            continue
        for type in types[:MAX_TYPES]:
            clause = parse_criterion(type, name, value, criteria)
            yield f"`{name}={value}` on {type} is {_describe_kind(type, name, criteria)}: {describe_clause(clause)}."
        if len(types) > MAX_TYPES:
            yield f"`{name}={value}` is read alike on {len(types) - MAX_TYPES} further types."


def _describe_kind(type: str, name: str, criteria: Criteria) -> str:
    if name.startswith("_has:"):
        return "a reverse chain"
    if "." in name:
        return "a chain"
    code, _, modifier = name.partition(":")
    parameter = criteria.registry.parameters(type).get(code)
    kind = f"a {parameter.type} parameter" if parameter is not None else "a criterion"
    return f"{kind} with the modifier `:{modifier}`" if modifier else kind


def describe_clause(clause: q.Clause) -> str:
    """A clause as text: `` `code` is `8867-4|http://loinc.org` ``."""
    match clause:
        case q.Equals(parameter, terms):
            return f"`{parameter}` is {_list_terms(terms)}"
        case q.StartsWith(parameter, prefix):
            return f"`{parameter}` starts with {_quote_term(prefix)}"
        case q.Contains(parameter, text):
            return f"`{parameter}` contains {_quote_term(text)}"
        case q.EndsWith(parameter, suffix):
            return f"`{parameter}` ends with {_quote_term(suffix)}"
        case q.DateRange(parameter, bounds):
            return f"one time of `{parameter}` has {_describe_bounds(bounds, True)}"
        case q.TermRange(parameter, low, high):
            ends = (f"{sign} {_quote_term(end)}" for sign, end in (("≥", low), ("<", high)) if end is not None)
            return f"`{parameter}` is {' and '.join(ends)}"
        case q.Words(parameter, words, prefix):
            begun = ", the last one only begun" if prefix else ""
            return f"`{parameter}` has, side by side, the words `{' '.join(words)}`{begun}"
        case q.Near(parameter, latitude, longitude, metres):
            return f"`{parameter}` is at most {metres:g} m from {latitude:g}, {longitude:g}"
        case q.NumberRange(parameter, bounds, key, unit):
            of_key = f" of {_quote_term(key)}" if key else ""
            in_unit = f" in unit `{'|'.join(part or '' for part in unit)}`" if unit else ""
            return f"one number of `{parameter}`{of_key}{in_unit} has {_describe_bounds(bounds, False)}"
        case q.LastUpdated(bounds):
            return f"`_lastUpdated` has {_describe_bounds(bounds, True)}"
        case q.Present(parameter):
            return f"`{parameter}` has a value"
        case q.Ids(ids):
            return f"the id is {_list_terms(ids)}"
    return _describe_structure(clause)


def _describe_structure(clause: q.Clause) -> str:
    match clause:
        case q.Chain(parameter, target, where):
            return f"`{parameter}` refers to a {target} where {describe_clause(where)}"
        case q.Has(source, parameter, where):
            return f"`{parameter}` of a {source} refers to it where {describe_clause(where)}"
        case q.CanonicalChain(parameter, target, where):
            return f"`{parameter}` names by its URL a {target} where {describe_clause(where)}"
        case q.CanonicalHas(source, parameter, where):
            return f"`{parameter}` of a {source} names it by its URL where {describe_clause(where)}"
        case q.Within(parameter, where):
            return f"one element of `{parameter}` has {describe_clause(where)}"
        case q.Every(parameter, scopes):
            allowed = " or ".join(f"a {scope.type} where {describe_clause(scope.where)}" for scope in scopes)
            return f"every `{parameter}` refers to {allowed or 'nothing'}"
        case q.Lineage(parameter, ids, direction):
            return f"by `{parameter}` it is {direction} {_list_terms(ids)}, or one of these"
        case q.Not(inner):
            return f"not ({describe_clause(inner)})"
        case q.And(()):
            return "everything"
        case q.Or(()):
            return "nothing"
        case q.And(clauses):
            return " and ".join(f"({describe_clause(part)})" for part in clauses)
        case q.Or(clauses):
            return " or ".join(f"({describe_clause(part)})" for part in clauses)
    return clause.__class__.__name__


def _list_terms(terms: Sequence[str]) -> str:
    shown = ", ".join(_quote_term(term) for term in terms[:MAX_TERMS])
    if len(terms) > MAX_TERMS:
        return f"one of {len(terms)} values, such as {shown}"
    return shown if len(terms) == 1 else f"one of {shown}"


def _quote_term(text: str) -> str:
    return f"`{text.replace(SEPARATOR, '|').replace(COMPOSITE, '$')}`"


def _describe_bounds(bounds: Sequence[q.Bound], times: bool) -> str:
    words = {"low": "start", "high": "end"} if times else {"low": "low end", "high": "high end"}
    shown = (f"{words[bound.end]} {_SIGNS[bound.comparison]} {_describe_value(bound.value, times)}" for bound in bounds)
    return " and ".join(shown) or "any value"


def _describe_value(value: float, times: bool) -> str:
    if times and OPEN_LOW < value < OPEN_HIGH:
        try:
            return format_instant(int(value))
        except OverflowError:
            return f"{value} µs"
    return f"{value:g}" if not times else str(value)
