"""`_filter` as a clause: what each operator means for each type of parameter (https://hl7.org/fhir/R4/search_filter.html).

An operator is evaluated against the set of values of the parameter: `ne` asks for a value that is unequal, not for the
absence of an equal one. Strings are compared without case and accents, by code points; tokens and URIs as written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from fhir_server.fhir.datetimes import interval
from fhir_server.fhir.outcome import Invalid
from fhir_server.search.chains import build_chain
from fhir_server.search.entries import SEPARATOR
from fhir_server.search.filter_grammar import (
    TERMINOLOGY,
    Combination,
    Comparison,
    Filter,
    Negation,
    Step,
    expand_system_names,
    parse_filter,
)
from fhir_server.search.parameter_clause import ChainPosition, find_parameters, parse_parameter
from fhir_server.search.parameters import TYPES, Criteria
from fhir_server.search.parameters.coded import implies
from fhir_server.search.parameters.criteria import make_invalid, make_or
from fhir_server.search.parameters.string import FORM, normalise
from fhir_server.search.parameters.token import parse_token
from fhir_server.search.query import (
    And,
    Bound,
    Clause,
    Contains,
    DateRange,
    EndsWith,
    Equals,
    LastUpdated,
    Not,
    StartsWith,
    TermRange,
)
from fhir_server.search.registry import Parameter
from fhir_server.search.simplify import simplify_or

_GROUPS: Mapping[tuple[str, str], tuple[str, tuple[str, str]]] = {
    ("Group", "characteristic"): ("characteristic-value", ("code", "value")),
    ("DocumentReference", "relatesTo"): ("relationship", ("target", "code")),
}
"""Names of a filter alone: (type, name) → the composite that compares two children of one element, and their names."""

_ABOVE_TEXT = chr(ord(SEPARATOR) + 1)
_JUST_ABOVE = "\x01"
"""Added to a term it makes the next one: no FHIR text holds a character below it but NUL."""


def parse_filter_clause(type: str, text: str, criteria: Criteria) -> Clause:
    """What a filter asks of resources of `type`. Raises Invalid with the position, TooCostly when it asks too much."""
    return _convert_filter(type, parse_filter(text), ChainPosition("_filter"), criteria)


def _convert_filter(type: str, part: Filter, position: ChainPosition, criteria: Criteria) -> Clause:
    match part:
        case Combination("and", parts):
            return And(tuple(_convert_filter(type, each, position, criteria) for each in parts))
        case Combination(_, parts):
            return simplify_or(_convert_filter(type, each, position, criteria) for each in parts)
        case Negation(negated):
            return Not(_convert_filter(type, negated, position, criteria))
    return _convert_comparison(type, part, position, criteria)


def _convert_comparison(type: str, asked: Comparison, position: ChainPosition, criteria: Criteria) -> Clause:
    first, *rest = asked.path
    if (type, first.name) in _GROUPS and first.where is not None:
        return _convert_group(type, asked, criteria)
    try:
        parameter = find_parameters((type,), first.name, criteria)[0]
        if not rest:
            return _convert_test(parameter, asked.operator, asked.value, criteria)
    except Invalid as error:
        raise Invalid(f"`_filter`, position {first.at}: {error}") from error
    return _convert_chain(parameter, first, Comparison(tuple(rest), asked.operator, asked.value), position, criteria)


def _convert_chain(
    parameter: Parameter, step: Step, rest: Comparison, position: ChainPosition, criteria: Criteria
) -> Clause:
    """A resource that the reference leads to passes both the filter in brackets and the rest of the path."""
    if parameter.type != "reference":
        raise Invalid(
            f"`_filter`, position {step.at}: `{parameter.base}.{step.name}` is a {parameter.type} parameter; "
            "`.` and `[…]` follow references."
        )
    wanted = rest if step.where is None else Combination("and", (step.where, rest))
    names = set(_iterate_first_names(wanted))
    served = criteria.registry.types
    targets = [type for type in parameter.targets or served if type in served]
    able = [type for type in targets if all(_has_name(type, name, criteria) for name in names)]
    if not able:
        listed = ", ".join(f"`{name}`" for name in sorted(names))
        raise Invalid(
            f"`_filter`, position {step.at}: no type that `{parameter.base}.{step.name}` refers to has {listed}."
        )
    further = position.advance(len(able))
    return simplify_or(
        build_chain(parameter, type, _convert_filter(type, wanted, further, criteria), criteria.registry)
        for type in sorted(able)
    )


def _iterate_first_names(part: Filter) -> Iterator[str]:
    """The first name of each path."""
    match part:
        case Combination(_, parts):
            for each in parts:
                yield from _iterate_first_names(each)
        case Negation(negated):
            yield from _iterate_first_names(negated)
        case Comparison(path):
            yield path[0].name


def _has_name(type: str, name: str, criteria: Criteria) -> bool:
    return name in criteria.registry.parameters(type) or (type, name) in _GROUPS


def _convert_group(type: str, asked: Comparison, criteria: Criteria) -> Clause:
    """`relatesTo[code eq replaces].target re …`: both children in one element, which is a composite parameter."""
    first, *rest = asked.path
    code, children = _GROUPS[type, first.name]
    within = first.where
    if isinstance(within, Comparison) and len(within.path) == len(rest) == 1:
        values = {within.path[0].name: (within.operator, within.value), rest[0].name: (asked.operator, asked.value)}
        if set(values) == set(children) and {operator for operator, _ in values.values()} <= {"eq", "re"}:
            text = expand_system_names("$".join(values[child][1] for child in children))
            parameter = find_parameters((type,), code, criteria)[0]
            return TYPES[parameter.type].parse_clause(parameter, None, text, criteria)
    one, other = children
    raise Invalid(
        f"`_filter`, position {first.at}: `{first.name}` is written `{first.name}[{other} eq …].{one} eq …`, "
        f"or with `{one}` and `{other}` the other way round."
    )


def _convert_test(parameter: Parameter, operator: str, value: str, criteria: Criteria) -> Clause:
    if operator == "pr":
        if value not in ("true", "false"):
            raise Invalid(f"`{parameter.code} pr` takes `true` or `false`, not `{value}`.")
        return parse_parameter(
            parameter.base, f"{parameter.code}:missing", "false" if value == "true" else "true", criteria
        )
    possible = _OPERATORS[parameter.type]
    if operator not in possible:
        listed = ", ".join(f"`{each}`" for each in (*possible, "pr"))
        raise Invalid(
            f"`{operator}` does not apply to `{parameter.base}.{parameter.code}`, a {parameter.type} parameter. "
            f"Valid operators: {listed}."
        )
    return possible[operator](parameter, operator, value, criteria)


def _compare_by_prefix(parameter: Parameter, operator: str, value: str, criteria: Criteria) -> Clause:
    """The operators that are prefixes of search values too."""
    return TYPES[parameter.type].parse_clause(parameter, None, operator + expand_system_names(value), criteria)


def _compare_as_searched(parameter: Parameter, operator: str, value: str, criteria: Criteria) -> Clause:
    return TYPES[parameter.type].parse_clause(parameter, None, expand_system_names(value), criteria)


def _compare_periods(parameter: Parameter, operator: str, value: str, criteria: Criteria) -> Clause:
    """`po`: the stored period overlaps that of the value; `co`: it includes it."""
    try:
        low, high = interval(value, criteria.zone)
    except ValueError as error:
        raise make_invalid(parameter, value, str(error)) from None
    if operator == "po":
        tests = (Bound("low", "le", high), Bound("high", "ge", low))
    else:
        tests = (Bound("low", "le", low), Bound("high", "ge", high))
    return LastUpdated(tests) if parameter.code == "_lastUpdated" else DateRange(parameter.code, tests)


def _compare_strings(parameter: Parameter, operator: str, value: str, criteria: Criteria) -> Clause:
    """By the normalised text, which a term has before its separator; `_AFTER` is above all terms with that text."""
    code, text = parameter.code, normalise(value)
    if not text:
        raise make_invalid(parameter, value, FORM)
    below, above = TermRange(code, None, text), TermRange(code, text + _ABOVE_TEXT, None)
    found: Mapping[str, Clause] = {
        "eq": StartsWith(code, text + SEPARATOR),
        "ne": make_or((below, above)),
        "co": Contains(code, text, strings=True),
        "sw": StartsWith(code, text),
        "ew": EndsWith(code, text, normalised=True),
        "gt": above,
        "lt": below,
        "ge": TermRange(code, text, None),
        "le": TermRange(code, None, text + _ABOVE_TEXT),
    }
    return found[operator]


def _compare_uris(parameter: Parameter, operator: str, value: str, criteria: Criteria) -> Clause:
    code = parameter.code
    found: Mapping[str, Clause] = {
        "eq": Equals(code, (value,)),
        "ne": make_or((TermRange(code, None, value), TermRange(code, value + _JUST_ABOVE, None))),
        "co": Contains(code, value),
        "sw": StartsWith(code, value),
        "ew": EndsWith(code, value),
    }
    return found[operator]


def _compare_tokens(parameter: Parameter, operator: str, value: str, criteria: Criteria) -> Clause:
    value = expand_system_names(value)
    equal = TYPES[parameter.type].parse_clause(parameter, None, value, criteria)
    if operator == "eq":
        return equal
    if parameter.code == "_id":
        return Not(equal)
    system, code = parse_token(parameter, value)
    if not code:
        raise make_invalid(parameter, value, "`ne` needs a code.")
    if system and implies(parameter, system, code, criteria):
        system = ""  # as these elements are indexed
    low = code + SEPARATOR + (system or "")
    high = code + _ABOVE_TEXT if system is None else low + _JUST_ABOVE
    return make_or((TermRange(parameter.code, None, low), TermRange(parameter.code, high, None)))


def _compare_concepts(parameter: Parameter, operator: str, value: str, criteria: Criteria) -> Clause:
    """`ss`: the value subsumes a stored concept, which is then below it; `sb` the other way round."""
    text = expand_system_names(value).replace(",", "\\,")
    return parse_parameter(parameter.base, f"{parameter.code}:{TERMINOLOGY[operator]}", text, criteria)


_Comparer = Callable[[Parameter, str, str, Criteria], Clause]
_PREFIX_OPERATORS: Mapping[str, _Comparer] = dict.fromkeys(
    ("eq", "ne", "gt", "lt", "ge", "le", "ap", "sa", "eb"), _compare_by_prefix
)
_OPERATORS: Mapping[str, Mapping[str, _Comparer]] = {
    "string": dict.fromkeys(("eq", "ne", "co", "sw", "ew", "gt", "lt", "ge", "le"), _compare_strings),
    "number": _PREFIX_OPERATORS,
    "date": {**_PREFIX_OPERATORS, "co": _compare_periods, "po": _compare_periods},
    "quantity": _PREFIX_OPERATORS,
    "token": {**dict.fromkeys(("eq", "ne"), _compare_tokens), **dict.fromkeys(TERMINOLOGY, _compare_concepts)},
    "uri": dict.fromkeys(("eq", "ne", "co", "sw", "ew"), _compare_uris),
    "reference": {"re": _compare_as_searched},
    "composite": {"eq": _compare_as_searched},
    "near": {"eq": _compare_as_searched},
}
"""Per parameter type the operators that R4 gives it; R4 does not say which a uri has, so it has those of texts."""
