"""Search result parameters: `_sort`, `_count`, `_include`, `_summary` … (https://hl7.org/fhir/R4/search.html#return)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from fhir_server.fhir.outcome import Invalid
from fhir_server.search.include import Include
from fhir_server.search.parameter_clause import NO_FULL_TEXT, UnsupportedParameter, check_indexed, find_parameters
from fhir_server.search.parameters import Criteria, make_sort
from fhir_server.search.query import Sort
from fhir_server.search.registry import Parameter

Total = Literal["none", "estimate", "accurate"]
Summary = Literal["true", "text", "data", "count", "false"]
ContainedMode = Literal["false", "true", "both"]
ContainedType = Literal["container", "contained"]
TOTALS: tuple[Total, ...] = get_args(Total)
SUMMARIES: tuple[Summary, ...] = get_args(Summary)
CONTAINED_MODES: tuple[ContainedMode, ...] = get_args(ContainedMode)
CONTAINED_TYPES: tuple[ContainedType, ...] = get_args(ContainedType)

_ELEMENT = re.compile(r"[A-Za-z][A-Za-z0-9]*")


@dataclass(frozen=True, slots=True)
class Options:
    """How a search is read.

    `lenient`: what `Prefer: handling=lenient` asks for. `default_count`: the page size when `_count` is not given;
    `max_count`: the largest page given out, whatever `_count` says.
    """

    lenient: bool = False
    default_count: int = 20
    max_count: int = 1000


@dataclass(frozen=True, slots=True)
class Result:
    """What the client asked about the result; None or empty where it did not say. `names`: the parameters it gave."""

    sort: tuple[Sort, ...] = ()
    count: int | None = None
    includes: tuple[Include, ...] = ()
    total: Total | None = None
    summary: Summary | None = None
    elements: tuple[str, ...] = ()
    contained: ContainedMode = "false"
    contained_type: ContainedType = "container"
    names: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class ResultParameter:
    """One result parameter of a search over `types`: `name` without its `modifier` ("" for none).

    `returned`: the types that matches may have.
    """

    types: Sequence[str]
    name: str
    modifier: str
    value: str
    criteria: Criteria
    returned: Sequence[str]


Apply = Callable[[Result, ResultParameter], Result]


def apply_parameter(result: Result, parameter: ResultParameter) -> Result:
    """The result parameters with one more. Raises Invalid, UnsupportedParameter for what lenient handling ignores."""
    if not parameter.value:
        raise UnsupportedParameter(f"`{parameter.name}` has no value; leave it out.", code="invalid")
    if parameter.modifier and parameter.name not in ("_include", "_revinclude"):
        raise Invalid(f"`{parameter.name}` takes no modifier, so `:{parameter.modifier}` cannot be applied.")
    if parameter.name in result.names and parameter.name not in REPEATABLE:
        raise Invalid(f"`{parameter.name}` is given more than once; give one value.")
    return replace(PARAMETERS[parameter.name](result, parameter), names=result.names | {parameter.name})


def _apply_sort(result: Result, parameter: ResultParameter) -> Result:
    keys = {sort.parameter: sort for sort in result.sort}
    for text in parameter.value.split(","):
        key = _parse_sort_key(text.removeprefix("-"), text.startswith("-"), parameter)
        keys.setdefault(key.parameter, key)  # a second key of the same name can decide nothing
    return replace(result, sort=tuple(keys.values()))


def _parse_sort_key(code: str, descending: bool, parameter: ResultParameter) -> Sort:
    if code == "_score":
        if not parameter.criteria.full_text:
            raise UnsupportedParameter(NO_FULL_TEXT.format("_sort=_score"))
        return Sort("_score", "score", not descending)  # R4: the best match first; its words are known at the end
    try:
        parameters = find_parameters(parameter.types, code, parameter.criteria)
    except UnsupportedParameter as error:
        raise Invalid(f"`_sort={parameter.value}` cannot be applied: {error}") from error
    kinds = {make_sort(parameter, descending) for parameter in parameters}
    if len(kinds) > 1:
        raise Invalid(f"`{code}` is not of one type in the resource types searched, so they cannot be sorted by it.")
    return kinds.pop()


def _apply_count(result: Result, parameter: ResultParameter) -> Result:
    if not (parameter.value.isascii() and parameter.value.isdigit()):
        raise Invalid(f"`_count` must be a whole number of at least 0, not `{parameter.value}`.")
    # `Options.max_count` limits the page anyway; to read a number of any length would take Python long.
    return replace(result, count=int(parameter.value.lstrip("0")[:18] or "0"))


def _make_choice(field: str, values: Sequence[str]) -> Apply:
    """What applies a parameter that takes one of some values, which is kept in a field of Result."""

    def apply_choice(result: Result, parameter: ResultParameter) -> Result:
        if parameter.value not in values:
            listed = ", ".join(f"`{value}`" for value in values)
            raise Invalid(f"`{parameter.name}` cannot be `{parameter.value}`. Valid values: {listed}.")
        chosen: Any = {field: parameter.value}
        return replace(result, **chosen)

    return apply_choice


def _apply_elements(result: Result, parameter: ResultParameter) -> Result:
    names = parameter.value.split(",")
    for name in names:
        if not _ELEMENT.fullmatch(name):
            raise Invalid(f"`_elements` takes names of top-level elements separated by commas, not `{name}`.")
    return replace(result, elements=tuple(dict.fromkeys((*result.elements, *names))))


def _apply_include(result: Result, parameter: ResultParameter) -> Result:
    return replace(result, includes=tuple(dict.fromkeys((*result.includes, _parse_include(parameter)))))


def _parse_include(parameter: ResultParameter) -> Include:
    if parameter.modifier not in ("", "iterate"):
        raise Invalid(f"`{parameter.name}` has no modifier `{parameter.modifier}`; R4 knows `:iterate`.")
    reverse, iterate = parameter.name == "_revinclude", parameter.modifier == "iterate"
    if parameter.value == "*":
        return Include("*", "*", "", reverse, iterate)
    source, code, target = (*parameter.value.split(":"), "", "", "")[:3]
    if parameter.value.count(":") not in (1, 2) or not source or not code or parameter.value.endswith(":"):
        raise Invalid(
            f"`{parameter.name}={parameter.value}` should read `[type]:[reference parameter]`, "
            "with `:[target type]` where wanted, or `*`."
        )
    _check_types(parameter, source, target)
    _check_reference(parameter, source, code, target)
    include = Include(source, code, target, reverse, iterate)
    if not iterate and not reverse and source not in parameter.returned:
        raise UnsupportedParameter(
            f"`{parameter.name}={parameter.value}` cannot include anything, since no `{source}` is searched for; "
            "to follow included resources, write `_include:iterate`."
        )
    return include


def _check_types(parameter: ResultParameter, source: str, target: str) -> None:
    for type in filter(None, (source, target)):
        if type not in parameter.criteria.registry.types:
            raise Invalid(f"`{type}` in `{parameter.name}={parameter.value}` is no resource type of this server.")


def _check_reference(parameter: ResultParameter, source: str, code: str, target: str) -> None:
    if code == "*":
        return
    references = select_references(parameter.criteria.registry.parameters(source))
    if code not in references:
        raise Invalid(
            f"`{source}` has no reference parameter `{code}` for `{parameter.name}`. "
            f"Valid ones: {', '.join(f'`{known}`' for known in sorted(references))}."
        )
    check_indexed([references[code]])
    targets = references[code].targets
    if target and targets and target not in targets:
        raise Invalid(
            f"`{source}.{code}` cannot refer to `{target}`. Valid types: {', '.join(f'`{type}`' for type in targets)}."
        )
    reached = {target} if target else set(targets)
    if (
        parameter.name == "_revinclude"
        and not parameter.modifier
        and reached
        and reached.isdisjoint(parameter.returned)
    ):
        raise UnsupportedParameter(
            f"`{parameter.name}={parameter.value}` cannot include anything, since `{source}.{code}` does not refer to "
            f"{' or '.join(f'`{type}`' for type in parameter.types)}."
        )


def select_references(parameters: Mapping[str, Parameter]) -> dict[str, Parameter]:
    """The reference parameters among `parameters`."""
    return {code: parameter for code, parameter in parameters.items() if parameter.type == "reference"}


def _check_type(result: Result, parameter: ResultParameter) -> Result:
    if set(parameter.value.split(",")) != set(parameter.types):
        searched = ", ".join(f"`{type}`" for type in parameter.types)
        raise Invalid(f"`_type={parameter.value}` cannot be applied: this search is for {searched}.")
    return result


PARAMETERS: Mapping[str, Apply] = {
    "_contained": _make_choice("contained", CONTAINED_MODES),
    "_containedType": _make_choice("contained_type", CONTAINED_TYPES),
    "_count": _apply_count,
    "_elements": _apply_elements,
    "_include": _apply_include,
    "_revinclude": _apply_include,
    "_sort": _apply_sort,
    "_summary": _make_choice("summary", SUMMARIES),
    "_total": _make_choice("total", TOTALS),
    "_type": _check_type,
}

REPEATABLE = frozenset({"_elements", "_include", "_revinclude", "_sort"})
