"""How a search was read, in sentences (https://hl7.org/fhir/R4/search.html#conformance)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fhir_server.fhir.datetimes import format_instant
from fhir_server.search import query as q
from fhir_server.search.entries import COMPOSITE, OPEN_HIGH, OPEN_LOW, SEPARATOR
from fhir_server.search.parameters import Criteria
from fhir_server.search.parse import clause_for
from fhir_server.search.result_parameters import PARAMETERS

MOST_TYPES = 5
MOST_TERMS = 10
"""What a sentence lists at most; it says how many more there are."""

_SIGNS = {"lt": "<", "le": "≤", "gt": ">", "ge": "≥"}


def readings(types: Sequence[str], pairs: Sequence[tuple[str, str]], criteria: Criteria) -> Iterator[str]:
    """A sentence for each parameter in force and each of the first types: its type, its modifier, what it looks for."""
    for name, value in pairs:
        if name.partition(":")[0] in PARAMETERS:
            yield f"`{name}={value}` is about the result."
            continue
        for type in types[:MOST_TYPES]:
            clause = clause_for(type, name, value, criteria)
            yield f"`{name}={value}` on {type} is {_kind(type, name, criteria)}: {described(clause)}."
        if len(types) > MOST_TYPES:
            yield f"`{name}={value}` is read alike on {len(types) - MOST_TYPES} further types."


def _kind(type: str, name: str, criteria: Criteria) -> str:
    if name.startswith("_has:"):
        return "a reverse chain"
    if "." in name:
        return "a chain"
    code, _, modifier = name.partition(":")
    parameter = criteria.registry.parameters(type).get(code)
    kind = f"a {parameter.type} parameter" if parameter is not None else "a criterion"
    return f"{kind} with the modifier `:{modifier}`" if modifier else kind


def described(clause: q.Clause) -> str:
    """A clause as text: `` `code` is `8867-4|http://loinc.org` ``."""
    match clause:
        case q.Equals(parameter, terms):
            return f"`{parameter}` is {_listed(terms)}"
        case q.StartsWith(parameter, prefix):
            return f"`{parameter}` starts with {_term(prefix)}"
        case q.Contains(parameter, text):
            return f"`{parameter}` contains {_term(text)}"
        case q.EndsWith(parameter, suffix):
            return f"`{parameter}` ends with {_term(suffix)}"
        case q.DateRange(parameter, tests):
            return f"one time of `{parameter}` has {_tests(tests, True)}"
        case q.TermRange(parameter, low, high):
            bounds = (f"{sign} {_term(end)}" for sign, end in (("≥", low), ("<", high)) if end is not None)
            return f"`{parameter}` is {' and '.join(bounds)}"
        case q.Words(parameter, words, prefix):
            begun = ", the last one only begun" if prefix else ""
            return f"`{parameter}` has, side by side, the words `{' '.join(words)}`{begun}"
        case q.Near(parameter, latitude, longitude, metres):
            return f"`{parameter}` is at most {metres:g} m from {latitude:g}, {longitude:g}"
        case q.NumberRange(parameter, tests, key, unit):
            of = f" in unit `{'|'.join(part or '' for part in unit)}`" if unit else ""
            return f"one number of `{parameter}`{f' of {_term(key)}' if key else ''}{of} has {_tests(tests, False)}"
        case q.LastUpdated(tests):
            return f"`_lastUpdated` has {_tests(tests, True)}"
        case q.Present(parameter):
            return f"`{parameter}` has a value"
        case q.Ids(ids):
            return f"the id is {_listed(ids)}"
    return _joined(clause)


def _joined(clause: q.Clause) -> str:
    match clause:
        case q.Chain(parameter, target, where):
            return f"`{parameter}` refers to a {target} where {described(where)}"
        case q.Has(source, parameter, where):
            return f"`{parameter}` of a {source} refers to it where {described(where)}"
        case q.CanonicalChain(parameter, target, where):
            return f"`{parameter}` names by its URL a {target} where {described(where)}"
        case q.CanonicalHas(source, parameter, where):
            return f"`{parameter}` of a {source} names it by its URL where {described(where)}"
        case q.Within(parameter, where):
            return f"one element of `{parameter}` has {described(where)}"
        case q.Lineage(parameter, ids, direction):
            return f"by `{parameter}` it is {direction} {_listed(ids)}, or one of these"
        case q.Not(inner):
            return f"not ({described(inner)})"
        case q.And(()):
            return "everything"
        case q.Or(()):
            return "nothing"
        case q.And(clauses):
            return " and ".join(f"({described(part)})" for part in clauses)
        case q.Or(clauses):
            return " or ".join(f"({described(part)})" for part in clauses)
    return clause.__class__.__name__


def _listed(terms: Sequence[str]) -> str:
    shown = ", ".join(_term(term) for term in terms[:MOST_TERMS])
    if len(terms) > MOST_TERMS:
        return f"one of {len(terms)} values, such as {shown}"
    return shown if len(terms) == 1 else f"one of {shown}"


def _term(text: str) -> str:
    return f"`{text.replace(SEPARATOR, '|').replace(COMPOSITE, '$')}`"


def _tests(tests: Sequence[q.Test], times: bool) -> str:
    words = {"low": "start", "high": "end"} if times else {"low": "low end", "high": "high end"}
    shown = (f"{words[test.end]} {_SIGNS[test.comparison]} {_bound(test.value, times)}" for test in tests)
    return " and ".join(shown) or "any value"


def _bound(value: float, times: bool) -> str:
    if times and OPEN_LOW < value < OPEN_HIGH:
        try:
            return format_instant(int(value))
        except OverflowError:
            return f"{value} µs"
    return f"{value:g}" if not times else str(value)
