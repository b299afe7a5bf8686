"""`_filter` as a clause: what each operator means for each type of parameter (https://hl7.org/fhir/R4/search_filter.html).

An operator is evaluated against the set of values of the parameter: `ne` asks for a value that is unequal, not for the
absence of an equal one. Strings are compared without case and accents, by code points; tokens and URIs as written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from fhir_server.fhir.datetimes import parse_interval
from fhir_server.fhir.outcome import Invalid
from fhir_server.search.chains import chain
from fhir_server.search.entries import SEPARATOR
from fhir_server.search.filter_grammar import (
    TERMINOLOGY,
    Comparison,
    Filter,
    Joined,
    Negated,
    Step,
    parse,
    with_systems,
)
from fhir_server.search.parameter_clause import Place, clause_of, parameter_of
from fhir_server.search.parameters import TYPES, Criteria
from fhir_server.search.parameters.coded import implies
from fhir_server.search.parameters.criteria import any_of, wrong
from fhir_server.search.parameters.string import NOTHING_LEFT, normalise
from fhir_server.search.parameters.token import parsed
from fhir_server.search.query import (
    And,
    Clause,
    Contains,
    DateRange,
    EndsWith,
    Equals,
    LastUpdated,
    Not,
    StartsWith,
    TermRange,
    Test,
)
from fhir_server.search.registry import Parameter
from fhir_server.search.simplify import disjunction

_GROUPS: Mapping[tuple[str, str], tuple[str, tuple[str, str]]] = {
    ("Group", "characteristic"): ("characteristic-value", ("code", "value")),
    ("DocumentReference", "relatesTo"): ("relationship", ("target", "code")),
}
"""Names of a filter alone: (type, name) → the composite that compares two children of one element, and their names."""

_AFTER = chr(ord(SEPARATOR) + 1)
_JUST_ABOVE = "\x01"
"""Added to a term it makes the next one: no FHIR text holds a character below it but NUL."""


def filter_clause(type: str, text: str, criteria: Criteria) -> Clause:
    """What a filter asks of resources of `type`. Raises Invalid with the position, TooCostly when it asks too much."""
    return _clause(type, parse(text), Place("_filter"), criteria)


def _clause(type: str, part: Filter, place: Place, criteria: Criteria) -> Clause:
    match part:
        case Joined("and", parts):
            return And(tuple(_clause(type, each, place, criteria) for each in parts))
        case Joined(_, parts):
            return disjunction(_clause(type, each, place, criteria) for each in parts)
        case Negated(negated):
            return Not(_clause(type, negated, place, criteria))
    return _comparison(type, part, place, criteria)


def _comparison(type: str, asked: Comparison, place: Place, criteria: Criteria) -> Clause:
    first, *rest = asked.path
    if (type, first.name) in _GROUPS and first.where is not None:
        return _group(type, asked, criteria)
    try:
        parameter = parameter_of((type,), first.name, criteria)[0]
        if not rest:
            return _tested(parameter, asked.operator, asked.value, criteria)
    except Invalid as error:
        raise Invalid(f"`_filter`, position {first.at}: {error}") from error
    return _chain(parameter, first, Comparison(tuple(rest), asked.operator, asked.value), place, criteria)


def _chain(parameter: Parameter, step: Step, rest: Comparison, place: Place, criteria: Criteria) -> Clause:
    """A resource that the reference leads to passes both the filter in brackets and the rest of the path."""
    if parameter.type != "reference":
        raise Invalid(
            f"`_filter`, position {step.at}: `{parameter.base}.{step.name}` is a {parameter.type} parameter; "
            "`.` and `[…]` follow references."
        )
    wanted = rest if step.where is None else Joined("and", (step.where, rest))
    names = set(_names(wanted))
    served = criteria.registry.types
    targets = [type for type in parameter.targets or served if type in served]
    able = [type for type in targets if all(_reads(type, name, criteria) for name in names)]
    if not able:
        listed = ", ".join(f"`{name}`" for name in sorted(names))
        raise Invalid(
            f"`_filter`, position {step.at}: no type that `{parameter.base}.{step.name}` refers to has {listed}."
        )
    further = place.next(len(able))
    return disjunction(
        chain(parameter, type, _clause(type, wanted, further, criteria), criteria.registry) for type in sorted(able)
    )


def _names(part: Filter) -> Iterator[str]:
    """The first name of each path."""
    match part:
        case Joined(_, parts):
            for each in parts:
                yield from _names(each)
        case Negated(negated):
            yield from _names(negated)
        case Comparison(path):
            yield path[0].name


def _reads(type: str, name: str, criteria: Criteria) -> bool:
    return name in criteria.registry.parameters(type) or (type, name) in _GROUPS


def _group(type: str, asked: Comparison, criteria: Criteria) -> Clause:
    """`relatesTo[code eq replaces].target re …`: both children in one element, which is a composite parameter."""
    first, *rest = asked.path
    code, children = _GROUPS[type, first.name]
    within = first.where
    if isinstance(within, Comparison) and len(within.path) == len(rest) == 1:
        values = {within.path[0].name: (within.operator, within.value), rest[0].name: (asked.operator, asked.value)}
        if set(values) == set(children) and {operator for operator, _ in values.values()} <= {"eq", "re"}:
            text = with_systems("$".join(values[child][1] for child in children))
            parameter = parameter_of((type,), code, criteria)[0]
            return TYPES[parameter.type].clause(parameter, None, text, criteria)
    one, other = children
    raise Invalid(
        f"`_filter`, position {first.at}: `{first.name}` is written `{first.name}[{other} eq …].{one} eq …`, "
        f"or with `{one}` and `{other}` the other way round."
    )


def _tested(parameter: Parameter, operator: str, value: str, criteria: Criteria) -> Clause:
    if operator == "pr":
        if value not in ("true", "false"):
            raise Invalid(f"`{parameter.code} pr` takes `true` or `false`, not `{value}`.")
        return clause_of(parameter.base, f"{parameter.code}:missing", "false" if value == "true" else "true", criteria)
    possible = _OPERATORS[parameter.type]
    if operator not in possible:
        listed = ", ".join(f"`{each}`" for each in (*possible, "pr"))
        raise Invalid(
            f"`{operator}` does not apply to `{parameter.base}.{parameter.code}`, a {parameter.type} parameter. "
            f"Valid operators: {listed}."
        )
    return possible[operator](parameter, operator, value, criteria)


def _prefix(parameter: Parameter, operator: str, value: str, criteria: Criteria) -> Clause:
    """The operators that are prefixes of search values too."""
    return TYPES[parameter.type].clause(parameter, None, operator + with_systems(value), criteria)


def _plain(parameter: Parameter, operator: str, value: str, criteria: Criteria) -> Clause:
    return TYPES[parameter.type].clause(parameter, None, with_systems(value), criteria)


def _period(parameter: Parameter, operator: str, value: str, criteria: Criteria) -> Clause:
    """`po`: the stored period overlaps that of the value; `co`: it includes it."""
    try:
        low, high = parse_interval(value, criteria.zone)
    except ValueError as error:
        raise wrong(parameter, value, str(error)) from None
    if operator == "po":
        tests = (Test("low", "le", high), Test("high", "ge", low))
    else:
        tests = (Test("low", "le", low), Test("high", "ge", high))
    return LastUpdated(tests) if parameter.code == "_lastUpdated" else DateRange(parameter.code, tests)


def _string(parameter: Parameter, operator: str, value: str, criteria: Criteria) -> Clause:
    """By the normalised text, which a term has before its separator; `_AFTER` is above all terms with that text."""
    code, text = parameter.code, normalise(value)
    if not text:
        raise wrong(parameter, value, NOTHING_LEFT)
    below, above = TermRange(code, None, text), TermRange(code, text + _AFTER, None)
    found: Mapping[str, Clause] = {
        "eq": StartsWith(code, text + SEPARATOR),
        "ne": any_of((below, above)),
        "co": Contains(code, text, strings=True),
        "sw": StartsWith(code, text),
        "ew": EndsWith(code, text, normalised=True),
        "gt": above,
        "lt": below,
        "ge": TermRange(code, text, None),
        "le": TermRange(code, None, text + _AFTER),
    }
    return found[operator]


def _uri(parameter: Parameter, operator: str, value: str, criteria: Criteria) -> Clause:
    code = parameter.code
    found: Mapping[str, Clause] = {
        "eq": Equals(code, (value,)),
        "ne": any_of((TermRange(code, None, value), TermRange(code, value + _JUST_ABOVE, None))),
        "co": Contains(code, value),
        "sw": StartsWith(code, value),
        "ew": EndsWith(code, value),
    }
    return found[operator]


def _token(parameter: Parameter, operator: str, value: str, criteria: Criteria) -> Clause:
    value = with_systems(value)
    equal = TYPES[parameter.type].clause(parameter, None, value, criteria)
    if operator == "eq":
        return equal
    if parameter.code == "_id":
        return Not(equal)
    system, code = parsed(parameter, value)
    if not code:
        raise wrong(parameter, value, "`ne` needs a code.")
    if system and implies(parameter, system, code, criteria):
        system = ""  # as these elements are indexed
    low = code + SEPARATOR + (system or "")
    high = code + _AFTER if system is None else low + _JUST_ABOVE
    return any_of((TermRange(parameter.code, None, low), TermRange(parameter.code, high, None)))


def _by_terminology(parameter: Parameter, operator: str, value: str, criteria: Criteria) -> Clause:
    """`ss`: the value subsumes a stored concept, which is then below it; `sb` the other way round."""
    text = with_systems(value).replace(",", "\\,")
    return clause_of(parameter.base, f"{parameter.code}:{TERMINOLOGY[operator]}", text, criteria)


_Compile = Callable[[Parameter, str, str, Criteria], Clause]
_COMPARED: Mapping[str, _Compile] = dict.fromkeys(("eq", "ne", "gt", "lt", "ge", "le", "ap", "sa", "eb"), _prefix)
_OPERATORS: Mapping[str, Mapping[str, _Compile]] = {
    "string": dict.fromkeys(("eq", "ne", "co", "sw", "ew", "gt", "lt", "ge", "le"), _string),
    "number": _COMPARED,
    "date": {**_COMPARED, "co": _period, "po": _period},
    "quantity": _COMPARED,
    "token": {**dict.fromkeys(("eq", "ne"), _token), **dict.fromkeys(TERMINOLOGY, _by_terminology)},
    "uri": dict.fromkeys(("eq", "ne", "co", "sw", "ew"), _uri),
    "reference": {"re": _plain},
    "composite": {"eq": _plain},
    "near": {"eq": _plain},
}
"""Per parameter type the operators that R4 gives it; R4 does not say which a uri has, so it has those of texts."""
