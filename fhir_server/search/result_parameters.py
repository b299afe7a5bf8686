"""Search result parameters: `_sort`, `_count`, `_include`, `_summary` … (https://hl7.org/fhir/R4/search.html#return)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar, get_args

from fhir_server.fhir.outcome import Invalid
from fhir_server.search.include import Include
from fhir_server.search.parameter_clause import NO_FULL_TEXT, UnsupportedParameter, check_indexed, parameter_of
from fhir_server.search.parameters import Criteria, sort_of
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

V = TypeVar("V", bound=str)

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
    """What the client asked about the result; None or empty where it said nothing."""

    sort: tuple[Sort, ...] = ()
    count: int | None = None
    includes: tuple[Include, ...] = ()
    total: Total | None = None
    summary: Summary | None = None
    elements: tuple[str, ...] = ()
    contained: ContainedMode = "false"
    contained_type: ContainedType = "container"
    given: frozenset[str] = field(default=frozenset())


@dataclass(frozen=True, slots=True)
class Asked:
    """One result parameter of a search over `types`: `name` without its `modifier` ("" for none).

    `returned`: the types that matches may have.
    """

    types: Sequence[str]
    name: str
    modifier: str
    value: str
    criteria: Criteria
    returned: Sequence[str]


def with_parameter(result: Result, asked: Asked) -> Result:
    """The result parameters with one more; Invalid: bad value, UnsupportedParameter: what lenient handling ignores."""
    if not asked.value:
        raise UnsupportedParameter(f"`{asked.name}` has no value; leave it out.", code="invalid")
    if asked.modifier and asked.name not in ("_include", "_revinclude"):
        raise Invalid(f"`{asked.name}` takes no modifier, so `:{asked.modifier}` cannot be applied.")
    if asked.name in result.given and asked.name not in REPEATABLE:
        raise Invalid(f"`{asked.name}` is given more than once; give one value.")
    return replace(PARAMETERS[asked.name](result, asked), given=result.given | {asked.name})


def _sort(result: Result, asked: Asked) -> Result:
    keys = {sort.parameter: sort for sort in result.sort}
    for text in asked.value.split(","):
        key = _sort_key(text.removeprefix("-"), text.startswith("-"), asked)
        keys.setdefault(key.parameter, key)  # a second key of the same name can decide nothing
    return replace(result, sort=tuple(keys.values()))


def _sort_key(code: str, descending: bool, asked: Asked) -> Sort:
    if code == "_score":
        if not asked.criteria.full_text:
            raise UnsupportedParameter(NO_FULL_TEXT.format("_sort=_score"))
        return Sort("_score", "score", not descending)  # R4: the best match first; its words are known at the end
    try:
        parameters = parameter_of(asked.types, code, asked.criteria)
    except UnsupportedParameter as error:
        raise Invalid(f"`_sort={asked.value}` cannot be applied: {error}") from error
    kinds = {sort_of(parameter, descending) for parameter in parameters}
    if len(kinds) > 1:
        raise Invalid(f"`{code}` is not of one type in the resource types searched, so they cannot be sorted by it.")
    return kinds.pop()


def _count(result: Result, asked: Asked) -> Result:
    if not (asked.value.isascii() and asked.value.isdigit()):
        raise Invalid(f"`_count` must be a whole number of at least 0, not `{asked.value}`.")
    # A page has a most anyway (setting `max_count`); Python reads a number of any length, at its price.
    return replace(result, count=int(asked.value.lstrip("0")[:18] or "0"))


def _total(result: Result, asked: Asked) -> Result:
    return replace(result, total=_one_of(TOTALS, asked))


def _summary(result: Result, asked: Asked) -> Result:
    return replace(result, summary=_one_of(SUMMARIES, asked))


def _one_of(values: Sequence[V], asked: Asked) -> V:
    for value in values:
        if value == asked.value:
            return value
    listed = ", ".join(f"`{value}`" for value in values)
    raise Invalid(f"`{asked.name}` cannot be `{asked.value}`. Valid values: {listed}.")


def _elements(result: Result, asked: Asked) -> Result:
    names = asked.value.split(",")
    for name in names:
        if not _ELEMENT.fullmatch(name):
            raise Invalid(f"`_elements` takes names of top-level elements separated by commas, not `{name}`.")
    return replace(result, elements=tuple(dict.fromkeys((*result.elements, *names))))


def _include(result: Result, asked: Asked) -> Result:
    include = _parsed_include(asked)
    return replace(result, includes=tuple(dict.fromkeys((*result.includes, include))))


def _parsed_include(asked: Asked) -> Include:
    if asked.modifier not in ("", "iterate"):
        raise Invalid(f"`{asked.name}` has no modifier `{asked.modifier}`; R4 knows `:iterate`.")
    reverse, iterate = asked.name == "_revinclude", asked.modifier == "iterate"
    if asked.value == "*":
        return Include("*", "*", "", reverse, iterate)
    source, code, target = (*asked.value.split(":"), "", "", "")[:3]
    if asked.value.count(":") not in (1, 2) or not source or not code or asked.value.endswith(":"):
        raise Invalid(
            f"`{asked.name}={asked.value}` should read `[type]:[reference parameter]`, "
            "with `:[target type]` where wanted, or `*`."
        )
    _check_types(asked, source, target)
    _check_reference(asked, source, code, target)
    include = Include(source, code, target, reverse, iterate)
    if not iterate and not reverse and source not in asked.returned:
        raise UnsupportedParameter(
            f"`{asked.name}={asked.value}` cannot include anything, since no `{source}` is searched for; "
            "to follow included resources, write `_include:iterate`."
        )
    return include


def _check_types(asked: Asked, source: str, target: str) -> None:
    for type in filter(None, (source, target)):
        if type not in asked.criteria.registry.types:
            raise Invalid(f"`{type}` in `{asked.name}={asked.value}` is no resource type of this server.")


def _check_reference(asked: Asked, source: str, code: str, target: str) -> None:
    if code == "*":
        return
    references = references_of(asked.criteria.registry.parameters(source))
    if code not in references:
        raise Invalid(
            f"`{source}` has no reference parameter `{code}` for `{asked.name}`. "
            f"Valid ones: {', '.join(f'`{known}`' for known in sorted(references))}."
        )
    check_indexed([references[code]])
    targets = references[code].targets
    if target and targets and target not in targets:
        raise Invalid(
            f"`{source}.{code}` cannot refer to `{target}`. Valid types: {', '.join(f'`{type}`' for type in targets)}."
        )
    reached = {target} if target else set(targets)
    if asked.name == "_revinclude" and not asked.modifier and reached and reached.isdisjoint(asked.returned):
        raise UnsupportedParameter(
            f"`{asked.name}={asked.value}` cannot include anything, since `{source}.{code}` does not refer to "
            f"{' or '.join(f'`{type}`' for type in asked.types)}."
        )


def references_of(parameters: Mapping[str, Parameter]) -> dict[str, Parameter]:
    """The reference parameters among `parameters`."""
    return {code: parameter for code, parameter in parameters.items() if parameter.type == "reference"}


def _contained(result: Result, asked: Asked) -> Result:
    return replace(result, contained=_one_of(CONTAINED_MODES, asked))


def _contained_type(result: Result, asked: Asked) -> Result:
    return replace(result, contained_type=_one_of(CONTAINED_TYPES, asked))


def _type(result: Result, asked: Asked) -> Result:
    if set(asked.value.split(",")) != set(asked.types):
        searched = ", ".join(f"`{type}`" for type in asked.types)
        raise Invalid(f"`_type={asked.value}` cannot be applied: this search is for {searched}.")
    return result


PARAMETERS: Mapping[str, Callable[[Result, Asked], Result]] = {
    "_contained": _contained,
    "_containedType": _contained_type,
    "_count": _count,
    "_elements": _elements,
    "_include": _include,
    "_revinclude": _include,
    "_sort": _sort,
    "_summary": _summary,
    "_total": _total,
    "_type": _type,
}

REPEATABLE = frozenset({"_elements", "_include", "_revinclude", "_sort"})
