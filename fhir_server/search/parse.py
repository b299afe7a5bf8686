"""A query string as a search tree, everything checked (https://hl7.org/fhir/R4/search.html)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from fhir_server.fhir.outcome import Invalid, Issue, TooCostly
from fhir_server.search.contained import ContainedSearch, plan_contained_search
from fhir_server.search.entries import TextParameter
from fhir_server.search.filter import parse_filter_clause
from fhir_server.search.include import Include
from fhir_server.search.list import parse_list_clause
from fhir_server.search.parameter_clause import (
    UnsupportedParameter,
    find_parameters,
    knows_parameter,
    parse_parameter,
)
from fhir_server.search.parameters import Criteria
from fhir_server.search.parameters.element_keys import list_element_names
from fhir_server.search.parameters.quantity import CANONICAL
from fhir_server.search.query import NOTHING, And, Clause, Or, Query, Scope, Sort, Words
from fhir_server.search.registry import Registry
from fhir_server.search.result_parameters import (
    PARAMETERS,
    Options,
    Result,
    ResultParameter,
    Summary,
    Total,
    apply_parameter,
)
from fhir_server.search.simplify import IsSingle, simplify_and
from fhir_server.search.text import parse_text_clause
from fhir_server.search.words import CONTENT, TEXT, iterate_scored_words

MAX_CRITERIA = 1500
MAX_CRITERIA_OF_ALL = 15_000
"""Criteria that must hold together, of one type and of all types searched: more take a database long to prepare."""

MAX_ALTERNATIVES = 12_000
"""Alternatives of all criteria together that no common look-up answers, such as beginnings of strings."""

MAX_COMBINATIONS = 60_000
"""These alternatives times the number of criteria: each criterion is planned with each alternative of the others."""

Pairs = Sequence[tuple[str, str]]

CriterionParser = Callable[[str, str, Criteria], Clause]


def _make_text_parser(code: TextParameter) -> CriterionParser:
    return lambda type, text, criteria: parse_text_clause(type, code, text, criteria)


COMMON_CRITERIA: Mapping[str, CriterionParser] = {
    "_filter": parse_filter_clause,
    "_list": parse_list_clause,
    TEXT: _make_text_parser(TEXT),
    CONTENT: _make_text_parser(CONTENT),
}
"""Criteria that are no search parameters of a type: they apply to whatever type is searched, and to no chain."""

NOT_SEARCHED = frozenset({"_format", "_pretty", "__explain"})
"""Parameters that do not change what is searched: answered by the HTTP layer and by `interactions.explain`."""


@dataclass(frozen=True, slots=True)
class Search:
    """What a client asked for.

    `query`: the first page. `applied`: the parameters in force, in order and as given, for the self link. `issues`: one
    warning for each ignored parameter (lenient handling). `total`, `summary`: None where the client did not say.
    `contained`: the search among contained resources, None where they are not searched; the query has no scopes where
    they alone are.
    `words`: what matches are scored by, () where no full text was searched.
    """

    query: Query
    applied: tuple[tuple[str, str], ...]
    issues: tuple[Issue, ...] = ()
    includes: tuple[Include, ...] = ()
    total: Total | None = None
    summary: Summary | None = None
    elements: tuple[str, ...] = ()
    contained: ContainedSearch | None = None
    words: tuple[Words, ...] = ()


def parse(types: Sequence[str], pairs: Pairs, criteria: Criteria, options: Options) -> Search:
    """The search that `pairs` (decoded names and values) ask for over `types`, all of them served.

    Over several types only the parameters that all of them have are valid. Repeated parameters are ANDed.
    Raises Invalid, NotSupported or TooCostly with a sentence; with `options.lenient`, parameters that are unknown,
    unsupported or empty become warnings instead, but never a modifier, prefix or value that cannot be applied.
    """
    clauses: dict[str, list[Clause]] = {type: [] for type in types}
    applied: list[tuple[str, str]] = []
    issues: list[Issue] = []
    result = Result()
    returned = _list_returned_types(types, pairs, criteria.registry)
    for name, value in pairs:
        code, _, modifier = name.partition(":")
        if code in NOT_SEARCHED:
            continue
        try:
            if code in PARAMETERS:
                result = apply_parameter(result, ResultParameter(types, code, modifier, value, criteria, returned))
            else:
                _add_clauses(clauses, name, value, criteria)
        except UnsupportedParameter as error:
            if not options.lenient:
                raise
            issues.append(replace(error.issues[0], severity="warning", diagnostics=f"Ignored: {error}"))
        else:
            applied.append((name, value))
    words = _list_searched_words(clauses)
    _check_combination(result, words)
    if words:
        result = replace(result, sort=_score_by(words, result.sort))
    query = _build_query(clauses, result, criteria.registry, options)
    return Search(
        replace(query, scopes=()) if result.contained == "true" else query,
        tuple(applied),
        tuple(issues),
        *(result.includes, result.total, result.summary, result.elements),
        None if result.contained == "false" else _plan_contained(query, result, criteria.registry),
        words,
    )


def _score_by(words: tuple[Words, ...], sort: Sequence[Sort]) -> tuple[Sort, ...]:
    return tuple([replace(key, words=words) if key.kind == "score" else key for key in sort])


def _plan_contained(query: Query, result: Result, registry: Registry) -> ContainedSearch:
    return plan_contained_search(query.scopes, registry.types, without_containers=result.contained_type == "contained")


def _list_returned_types(types: Sequence[str], pairs: Pairs, registry: Registry) -> Sequence[str]:
    """The types that matches may have: any, where containers are returned for what they contain."""
    values = dict(pairs)
    containers = values.get("_contained") in ("true", "both") and values.get("_containedType") != "contained"
    return registry.types if containers else types


def list_system_types(pairs: Pairs, registry: Registry) -> tuple[str, ...]:
    """The types of a system search: those that `_type` lists, or all that are served."""
    values = [value for name, value in pairs if name == "_type" and value]
    if not values:
        return registry.types
    types = tuple(dict.fromkeys(values[0].split(",")))
    for type in types:
        if type not in registry.types:
            raise Invalid(f"`_type` names `{type}`, which is no resource type of this server.")
    return types


def _add_clauses(clauses: dict[str, list[Clause]], name: str, value: str, criteria: Criteria) -> None:
    """Adds what `name=value` asks of each type; all or none of them."""
    code = name.partition(".")[0].partition(":")[0]
    if len(clauses) > 1 and code != "_has" and not (code in COMMON_CRITERIA and value):
        find_parameters(tuple(clauses), code, criteria)
    # over several types, a reverse chain matches none of those that its reference cannot lead to
    fit = [type for type in clauses if code != "_has" or knows_parameter(type, name, criteria)] or list(clauses)
    added = {type: parse_criterion(type, name, value, criteria) if type in fit else NOTHING for type in clauses}
    for type, clause in added.items():
        clauses[type].append(clause)


def parse_criterion(type: str, name: str, value: str, criteria: Criteria) -> Clause:
    """What one criterion asks of a resource of `type`. Raises as `parse` does."""
    code, _, modifier = name.partition(":")
    if code not in COMMON_CRITERIA or not value:
        return parse_parameter(type, name, value, criteria)
    if modifier:
        raise Invalid(f"`{code}` has no modifiers, so `{name}` cannot be applied.")
    return COMMON_CRITERIA[code](type, value, criteria)


def _list_searched_words(clauses: Mapping[str, Sequence[Clause]]) -> tuple[Words, ...]:
    """The words searched, which are the same for every type."""
    criteria = next(iter(clauses.values()), ())
    return tuple(dict.fromkeys(words for clause in criteria for words in iterate_scored_words(clause)))


def _check_combination(result: Result, words: Sequence[Words]) -> None:
    """R4, Summary: includes cannot be mixed with `_summary=text`; scores are of words."""
    if not words and any(key.kind == "score" for key in result.sort):
        raise Invalid(
            "`_sort=_score` orders by how well `_text` or `_content` is met, so it needs one of them, with a word that "
            "matches have."
        )
    if result.summary == "text" and result.includes:
        raise Invalid("`_summary=text` cannot be combined with `_include` or `_revinclude`; leave one of them out.")


def _build_query(clauses: dict[str, list[Clause]], result: Result, registry: Registry, options: Options) -> Query:
    is_single = _make_is_single(registry)
    count = options.default_count if result.count is None else min(result.count, options.max_count)
    scopes = tuple(Scope(type, simplify_and(type, required, is_single)) for type, required in clauses.items())
    criteria = [len(scope.where.clauses) if isinstance(scope.where, And) else 1 for scope in scopes]
    if max(criteria, default=0) > MAX_CRITERIA or sum(criteria) > MAX_CRITERIA_OF_ALL:
        raise TooCostly(
            f"The search has {max(criteria):,} criteria that must all hold; {MAX_CRITERIA:,} are possible for a type, "
            f"and {MAX_CRITERIA_OF_ALL:,} for all types together. Alternatives, separated by commas, may be more."
        )
    alternatives = sum(_count_alternatives(scope.where) for scope in scopes)
    most = min(MAX_ALTERNATIVES, MAX_COMBINATIONS // max([1, *criteria]))
    if alternatives > most:
        raise TooCostly(
            f"The criteria of the search have {alternatives:,} alternatives together, for all types; {most:,} are "
            "possible for so many criteria. Search in several steps."
        )
    return Query(scopes, result.sort, 0 if result.summary == "count" else count)


def _count_alternatives(where: Clause) -> int:
    """The alternatives of criteria that have several: each is prepared by itself."""
    if isinstance(where, And):
        return sum(map(_count_alternatives, where.clauses))
    return len(where.clauses) if isinstance(where, Or) else 0


def _make_is_single(registry: Registry) -> IsSingle:
    def is_single(type: str, code: str) -> bool:
        table = registry.parameters(type)
        parameter = table.get(code)
        if parameter is None and code.endswith(CANONICAL):
            element = (code.removesuffix(CANONICAL),)
            quantities = (each for each in table.values() if each.type == "quantity")
            parameter = next((each for each in quantities if list_element_names(each) == element), None)
        return parameter is not None and not parameter.repeats

    return is_single
