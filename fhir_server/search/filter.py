"""`_filter` as a clause: what each operator means for each type of parameter (https://hl7.org/fhir/R4/search_filter.html).

An operator is evaluated against the set of values of the parameter: `ne` asks for a value that is unequal, not for the
absence of an equal one. Strings are compared without case and accents, by code points; tokens and URIs as written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from fhir_server.fhir.datetimes import parse_interval
from fhir_server.fhir.outcome import Invalid
from fhir_server.search import filter_grammar as grammar
from fhir_server.search import query as q
from fhir_server.search.chains import build_chain
from fhir_server.search.entries import SEPARATOR
from fhir_server.search.filter_grammar import TERMINOLOGY, Comparison, expand_system_names
from fhir_server.search.parameter_clause import ChainPosition, ask_parts, find_parameters, parse_parameter
from fhir_server.search.parameters import TYPES, Criteria
from fhir_server.search.parameters.coded import implies
from fhir_server.search.parameters.criteria import make_or, reject
from fhir_server.search.parameters.string import FORM, normalise
from fhir_server.search.parameters.token import parse_token
from fhir_server.search.registry import Parameter
from fhir_server.search.simplify import simplify_or

_GROUPS: Mapping[tuple[str, str], tuple[str, tuple[str, str]]] = {
    ("Group", "characteristic"): ("characteristic-value", ("code", "value")),
    ("DocumentReference", "relatesTo"): ("relationship", ("target", "code")),
}
"""Names that only filters have: (type, name) → the composite that compares two children of an element, their names."""

_ABOVE_TEXT = chr(ord(SEPARATOR) + 1)
_JUST_ABOVE = "\x01"
"""Appended to a term it makes the next one: the only character below it, NUL, is in no FHIR text."""


def parse_filter_clause(type: str, text: str, criteria: Criteria) -> q.Clause:
    """What a filter asks of resources of `type`. Raises Invalid with the position, TooCostly when it asks too much."""
    return _convert_filter(type, grammar.parse_filter(text), ChainPosition("_filter"), criteria)


def _convert_filter(type: str, tree: grammar.Filter, position: ChainPosition, criteria: Criteria) -> q.Clause:
    match tree:
        case grammar.Combination("and", parts):
            return q.And(tuple(_convert_filter(type, part, position, criteria) for part in parts))
        case grammar.Combination(_, parts):
            return simplify_or(_convert_filter(type, part, position, criteria) for part in parts)
        case grammar.Negation(part):
            return q.Not(_convert_filter(type, part, position, criteria))
    return _convert_comparison(type, tree, position, criteria)


def _convert_comparison(type: str, comparison: Comparison, position: ChainPosition, criteria: Criteria) -> q.Clause:
    first, *rest = comparison.path
    if (type, first.name) in _GROUPS and first.where is not None:
        return _convert_group(type, comparison, criteria)
    try:
        parameter = find_parameters((type,), first.name, criteria)[0]
        if not rest:
            return _convert_test(parameter, comparison.operator, comparison.value, criteria)
    except Invalid as error:
        raise Invalid(f"`_filter`, position {first.position}: {error}") from error
    return _convert_chain(parameter, first, replace(comparison, path=tuple(rest)), position, criteria)


def _convert_chain(
    parameter: Parameter, step: grammar.Step, rest: Comparison, position: ChainPosition, criteria: Criteria
) -> q.Clause:
    """A resource that the reference leads to passes both the filter in brackets and the rest of the path."""
    if parameter.type != "reference":
        raise Invalid(
            f"`_filter`, position {step.position}: `{parameter.base}.{step.name}` is a {parameter.type} parameter; "
            "`.` and `[…]` follow references."
        )
    tree = rest if step.where is None else grammar.Combination("and", (step.where, rest))
    names = {each.path[0].name for each in grammar.iterate_comparisons(tree, brackets=False)}
    served = criteria.registry.types
    targets = [type for type in parameter.targets or served if type in served]
    types = [type for type in targets if all(_has_name(type, name, criteria) for name in names)]
    if not types:
        listed = ", ".join(f"`{name}`" for name in sorted(names))
        raise Invalid(
            f"`_filter`, position {step.position}: no type that `{parameter.base}.{step.name}` refers to has {listed}."
        )
    next_position = position.advance(len(types))
    return simplify_or(
        build_chain(parameter, type, _convert_filter(type, tree, next_position, criteria), criteria.registry)
        for type in sorted(types)
    )


def _has_name(type: str, name: str, criteria: Criteria) -> bool:
    return name in criteria.registry.parameters(type) or (type, name) in _GROUPS


def _convert_group(type: str, comparison: Comparison, criteria: Criteria) -> q.Clause:
    """`relatesTo[code eq replaces].target re …`: both children in one element, which is a composite parameter."""
    first, *rest = comparison.path
    code, children = _GROUPS[type, first.name]
    if isinstance(first.where, Comparison) and len(first.where.path) == len(rest) == 1:
        operands = {first.where.path[0].name: first.where, rest[0].name: comparison}
        if set(operands) == set(children) and {each.operator for each in operands.values()} <= {"eq", "re"}:
            text = "$".join(operands[child].value for child in children)
            return _compare_as_searched(find_parameters((type,), code, criteria)[0], "eq", text, criteria)
    one, other = children
    raise Invalid(
        f"`_filter`, position {first.position}: `{first.name}` is written `{first.name}[{other} eq …].{one} eq …`, "
        f"or with `{one}` and `{other}` the other way round."
    )


def _convert_test(parameter: Parameter, operator: str, value: str, criteria: Criteria) -> q.Clause:
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
    return ask_parts(possible[operator](parameter, operator, value, criteria), parameter)


def _compare_by_prefix(parameter: Parameter, operator: str, value: str, criteria: Criteria) -> q.Clause:
    """The operators that are prefixes of search values too."""
    return TYPES[parameter.type].parse_clause(parameter, None, operator + expand_system_names(value), criteria)


def _compare_as_searched(parameter: Parameter, operator: str, value: str, criteria: Criteria) -> q.Clause:
    return TYPES[parameter.type].parse_clause(parameter, None, expand_system_names(value), criteria)


def _compare_periods(parameter: Parameter, operator: str, value: str, criteria: Criteria) -> q.Clause:
    """`po`: the stored period overlaps that of the value; `co`: it includes it."""
    try:
        low, high = parse_interval(value, criteria.zone)
    except ValueError as error:
        raise reject(parameter, value, str(error)) from None
    if operator == "po":
        bounds = (q.Bound("low", "le", high), q.Bound("high", "ge", low))
    else:
        bounds = (q.Bound("low", "le", low), q.Bound("high", "ge", high))
    return q.LastUpdated(bounds) if parameter.code == "_lastUpdated" else q.DateRange(parameter.code, bounds)


def _compare_strings(parameter: Parameter, operator: str, value: str, criteria: Criteria) -> q.Clause:
    """By the normalised text, which a term has before its separator; `_AFTER` is above all terms with that text."""
    code, text = parameter.code, normalise(value)
    if not text:
        raise reject(parameter, value, FORM)
    below, above = q.TermRange(code, None, text), q.TermRange(code, text + _ABOVE_TEXT, None)
    clauses: Mapping[str, q.Clause] = {
        "eq": q.StartsWith(code, text + SEPARATOR),
        "ne": make_or((below, above)),
        "co": q.Contains(code, text, strings=True),
        "sw": q.StartsWith(code, text),
        "ew": q.EndsWith(code, text, normalised=True),
        "gt": above,
        "lt": below,
        "ge": q.TermRange(code, text, None),
        "le": q.TermRange(code, None, text + _ABOVE_TEXT),
    }
    return clauses[operator]


def _compare_uris(parameter: Parameter, operator: str, value: str, criteria: Criteria) -> q.Clause:
    code = parameter.code
    clauses: Mapping[str, q.Clause] = {
        "eq": q.Equals(code, (value,)),
        "ne": make_or((q.TermRange(code, None, value), q.TermRange(code, value + _JUST_ABOVE, None))),
        "co": q.Contains(code, value),
        "sw": q.StartsWith(code, value),
        "ew": q.EndsWith(code, value),
    }
    return clauses[operator]


def _compare_tokens(parameter: Parameter, operator: str, value: str, criteria: Criteria) -> q.Clause:
    value = expand_system_names(value)
    equal = TYPES[parameter.type].parse_clause(parameter, None, value, criteria)
    if operator == "eq":
        return equal
    if parameter.code == "_id":
        return q.Not(equal)
    system, code = parse_token(parameter, value)
    if not code:
        raise reject(parameter, value, "`ne` needs a code.")
    if system and implies(parameter, system, code, criteria):
        system = ""  # as these elements are indexed
    low = code + SEPARATOR + (system or "")
    high = code + _ABOVE_TEXT if system is None else low + _JUST_ABOVE
    return make_or((q.TermRange(parameter.code, None, low), q.TermRange(parameter.code, high, None)))


def _compare_concepts(parameter: Parameter, operator: str, value: str, criteria: Criteria) -> q.Clause:
    """`ss`: the value subsumes a stored concept, which is then below it; `sb` the other way round."""
    text = expand_system_names(value).replace(",", "\\,")
    return parse_parameter(parameter.base, f"{parameter.code}:{TERMINOLOGY[operator]}", text, criteria)


_Comparer = Callable[[Parameter, str, str, Criteria], q.Clause]
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
"""By parameter type, the operators that R4 gives it; R4 does not say which a uri has, so it has those of texts."""
