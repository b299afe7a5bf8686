"""The search tree evaluated in memory: what every store's compiled search must equal (https://hl7.org/fhir/R4/search.html)."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cmp_to_key, partial
from typing import Protocol

from fhir_server.fhir.outcome import TooCostly
from fhir_server.search import query as q
from fhir_server.search.entries import SEPARATOR, Entries, NumberEntry, list_canonicals
from fhir_server.search.geodesy import compute_distance
from fhir_server.search.nested_index import MAX_NESTED, describe_overflow, name_nested, name_overflow, nest_clause
from fhir_server.search.words import has_words, score


@dataclass(frozen=True, slots=True)
class Candidate:
    """A current resource as search sees it."""

    type: str
    id: str
    last_updated: int
    entries: Entries

    @property
    def reference(self) -> str:
        """`Type/id`."""
        return f"{self.type}/{self.id}"


class CurrentResources(Protocol):
    """All current resources, for the clauses that look at other ones."""

    def resolve(self, reference: str) -> Candidate | None:
        """The current resource at `Type/id`, or None (absent, deleted, or not a local reference)."""
        ...

    def iterate_type(self, type: str) -> Iterable[Candidate]:
        """All current resources of a type."""
        ...


class _NoOthers:
    """Where only a resource itself is looked at: no reference is followed."""

    def resolve(self, reference: str) -> Candidate | None:
        """None."""
        return None

    def iterate_type(self, type: str) -> Iterable[Candidate]:
        """Nothing."""
        return ()


NO_OTHERS = _NoOthers()
"""No other resources."""

Predicate = Callable[[Candidate], bool]


def matches(clause: q.Clause, candidate: Candidate, resources: CurrentResources) -> bool:
    """Whether the candidate matches the clause."""
    return compile_predicate(clause, resources)(candidate)


def compile_predicate(clause: q.Clause, resources: CurrentResources) -> Predicate:
    """The clause as a function of a candidate; valid as long as `resources` do not change."""
    match clause:
        case q.Equals(parameter, terms):
            excluded = frozenset(terms).isdisjoint
            return lambda candidate: not excluded(candidate.entries.terms.get(parameter, ()))
        case q.StartsWith(parameter, prefix):
            return _require_term(parameter, lambda term: term.startswith(prefix))
        case q.Contains(parameter, text):
            return _require_term(parameter, lambda term: text in _get_text(term))
        case q.EndsWith(parameter, suffix, normalised):
            return _require_term(parameter, lambda term: (_get_text(term) if normalised else term).endswith(suffix))
        case q.TermRange(parameter, low, high):
            return _require_term(parameter, lambda term: (low or "") <= term and (high is None or term < high))
        case q.Words():
            return lambda candidate: has_words(clause, candidate.entries.texts)
        case q.DateRange(parameter, bounds):
            return _require_date(parameter, bounds)
        case q.NumberRange(parameter):
            return lambda candidate: any(_fits(clause, entry) for entry in candidate.entries.numbers.get(parameter, ()))
        case q.Near(parameter):
            return lambda candidate: any(
                _is_near(clause, entry) for entry in candidate.entries.numbers.get(parameter, ())
            )
        case q.Present(parameter):
            return lambda candidate: _has_entry(candidate, parameter)
        case q.Ids(ids):
            return lambda candidate: candidate.id in ids
        case q.LastUpdated(bounds):
            return lambda candidate: _passes(bounds, candidate.last_updated, candidate.last_updated)
        case q.And() | q.Or() | q.Not():
            parts = [compile_predicate(part, resources) for part in q.iterate_children(clause)]
            return _COMBINATIONS[clause.__class__](parts)
    return _compile_link(clause, resources)


def _require_all(parts: Sequence[Predicate]) -> Predicate:
    if len(parts) == 2:  # most of them, and asked of every write that a kept answer may have
        first, second = parts
        return lambda candidate: first(candidate) and second(candidate)
    if len(parts) == 3:
        one, two, three = parts
        return lambda candidate: one(candidate) and two(candidate) and three(candidate)
    return lambda candidate: all(holds(candidate) for holds in parts)


def _require_any(parts: Sequence[Predicate]) -> Predicate:
    if len(parts) == 2:
        first, second = parts
        return lambda candidate: first(candidate) or second(candidate)
    return lambda candidate: any(holds(candidate) for holds in parts)


_COMBINATIONS: Mapping[type, Callable[[Sequence[Predicate]], Predicate]] = {
    q.And: _require_all,
    q.Or: _require_any,
    q.Not: lambda parts: lambda candidate: not parts[0](candidate),
}


def _compile_link(clause: q.Link | q.Every | q.Lineage, resources: CurrentResources) -> Predicate:
    match clause:
        case q.Chain():
            return _compile_chain(clause, resources)
        case q.Has() | q.CanonicalHas():
            return _compile_has(clause, resources)
        case q.CanonicalChain():
            return _compile_canonical_chain(clause, resources)
        case q.Within():
            return _compile_within(clause, resources)
        case q.Every():
            return _compile_every(clause, resources)
        case q.Lineage(parameter, ids, direction):
            return _compile_lineage(parameter, frozenset(ids), direction, resources)


def compute_sort_key(sort: tuple[q.Sort, ...], candidate: Candidate) -> q.SortKey:
    """The candidate's position: one value per sort key (None: missing), then its `Type/id`."""
    return (*(_compute_sort_value(key, candidate) for key in sort), candidate.reference)


def compare_keys(sort: tuple[q.Sort, ...], left: q.SortKey, right: q.SortKey) -> int:
    """Below, at or above 0 as `left` comes before, at or after `right`; missing values last, ties by `Type/id`."""
    for key, a, b in zip(sort, left, right, strict=False):
        if a == b:
            continue
        if a is None or b is None:
            return 1 if a is None else -1
        return _compare_values(a, b) * (-1 if key.descending else 1)
    return _compare_values(left[-1], right[-1])


def select_page(query: q.Query, matches: Iterable[Candidate]) -> tuple[list[Candidate], q.SortKey | None]:
    """The page of `matches` that the query asks for, in order, and the position of its last one when more resources."""
    keyed = ((compute_sort_key(query.sort, candidate), candidate) for candidate in matches)
    after = query.after
    if after is not None:
        keyed = (pair for pair in keyed if compare_keys(query.sort, pair[0], after) > 0)

    by_position = cmp_to_key(partial(compare_keys, query.sort))
    ordered = sorted(keyed, key=lambda pair: by_position(pair[0]))
    page = ordered[: query.count]
    has_next = bool(page) and len(ordered) > len(page)
    return [candidate for _, candidate in page], page[-1][0] if has_next else None


def _require_term(parameter: str, holds: Callable[[str], bool]) -> Predicate:
    return lambda candidate: any(map(holds, candidate.entries.terms.get(parameter, ())))


def _require_date(parameter: str, bounds: tuple[q.Bound, ...]) -> Predicate:
    if [(bound.end, bound.comparison) for bound in bounds] == [("low", "ge"), ("low", "lt")]:
        return _require_beginning(parameter, bounds[0].value, bounds[1].value)
    return lambda candidate: any(_passes(bounds, *entry) for entry in candidate.entries.dates.get(parameter, ()))


def _require_beginning(parameter: str, least: float, end: float) -> Predicate:
    def begins_within(candidate: Candidate) -> bool:
        for low, _ in candidate.entries.dates.get(parameter, ()):  # noqa: SIM110  # a generator takes as long again
            if least <= low < end:
                return True
        return False

    return begins_within


def _get_text(term: str) -> str:
    """The normalised text of a string's term."""
    return term.partition(SEPARATOR)[0]


def _has_entry(candidate: Candidate, parameter: str) -> bool:
    entries = candidate.entries
    return any(kind.get(parameter) for kind in (entries.terms, entries.dates, entries.numbers))


_COMPARISONS: Mapping[str, Callable[[int | float, int | float], bool]] = {
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
}


def _passes(bounds: tuple[q.Bound, ...], low: int | float, high: int | float) -> bool:
    ends = {"low": low, "high": high}
    return all(_COMPARISONS[bound.comparison](ends[bound.end], bound.value) for bound in bounds)


def _fits(clause: q.NumberRange, entry: NumberEntry) -> bool:
    key, low, high, unit = entry
    return key == clause.key and _passes(clause.bounds, low, high) and _has_unit(clause.unit, unit)


def _is_near(clause: q.Near, entry: NumberEntry) -> bool:
    key, latitude, longitude, _ = entry
    return key == "" and compute_distance(clause.latitude, clause.longitude, latitude, longitude) <= clause.metres


def _has_unit(searched: tuple[str | None, str] | None, unit: str) -> bool:
    """Whether the unit of an entry is the one searched for; `query.NumberRange` says how they are compared."""
    if searched is None or not unit:
        return searched is None
    system, code, text = unit.split(SEPARATOR)
    return searched[1] in (code, text) if searched[0] is None else searched == (system, code)


def _compile_chain(clause: q.Chain, resources: CurrentResources) -> Predicate:
    where = compile_predicate(clause.where, resources)

    def reaches(reference: str) -> bool:
        target = resources.resolve(reference)
        return target is not None and target.type == clause.type and where(target)

    has_match_outside, has_match_within = _require_term(clause.parameter, reaches), _compile_within(clause, resources)
    return lambda candidate: has_match_outside(candidate) or has_match_within(candidate)


def _compile_within(clause: q.Chain | q.Within, resources: CurrentResources) -> Predicate:
    parameter, type = clause.parameter, clause.type
    first, overflow = name_nested(parameter, type, 0), name_overflow(parameter, type)

    def has_match_within(candidate: Candidate) -> bool:
        terms = candidate.entries.terms
        if overflow in terms:
            raise TooCostly(describe_overflow(clause))
        if first not in terms:
            return False
        numbers = [number for number in range(MAX_NESTED) if name_nested(parameter, type, number) in terms]
        return any(compile_predicate(nest_clause(clause, number), resources)(candidate) for number in numbers)

    return has_match_within


def _compile_every(clause: q.Every, resources: CurrentResources) -> Predicate:
    wheres = {scope.type: compile_predicate(scope.where, resources) for scope in clause.scopes}

    def leads_outside(reference: str) -> bool:
        target = resources.resolve(reference)
        return target is None or target.type not in wheres or not wheres[target.type](target)

    has_outside = _require_term(clause.parameter, leads_outside)
    return lambda candidate: not has_outside(candidate)


def _compile_canonical_chain(clause: q.CanonicalChain, resources: CurrentResources) -> Predicate:
    where = compile_predicate(clause.where, resources)
    targets = filter(where, resources.iterate_type(clause.type))
    names = {name for target in targets for name in list_canonicals(target.entries.terms)}
    return _require_term(clause.parameter, names.__contains__)


def _compile_has(clause: q.Has | q.CanonicalHas, resources: CurrentResources) -> Predicate:
    where = compile_predicate(clause.where, resources)
    sources = filter(where, resources.iterate_type(clause.type))
    terms = {term for source in sources for term in source.entries.terms.get(clause.parameter, ())}
    if isinstance(clause, q.Has):
        return lambda candidate: candidate.reference in terms
    return lambda candidate: not terms.isdisjoint(list_canonicals(candidate.entries.terms))


def _compile_lineage(parameter: str, ids: frozenset[str], direction: str, resources: CurrentResources) -> Predicate:
    def climb(type: str, start: Iterable[str]) -> set[str]:
        """The references at the start and all above them; resources of other types lead nowhere."""
        ancestors = set(start)
        waiting = list(ancestors)
        while waiting:
            resource = resources.resolve(waiting.pop())
            if resource and resource.type == type:
                parents = set(resource.entries.terms.get(parameter, ())) - ancestors
                ancestors |= parents
                waiting += parents
        return ancestors

    def is_below(candidate: Candidate) -> bool:
        roots = [f"{candidate.type}/{id}" for id in ids]
        return not climb(candidate.type, [candidate.reference]).isdisjoint(roots)

    def is_above(candidate: Candidate) -> bool:
        return candidate.reference in climb(candidate.type, [f"{candidate.type}/{id}" for id in ids])

    return is_below if direction == "below" else is_above


def _compute_sort_value(key: q.Sort, candidate: Candidate) -> int | float | str | None:
    if key.kind == "id":
        return candidate.id
    if key.kind == "lastUpdated":
        return candidate.last_updated
    if key.kind == "score":
        return score(key.words, candidate.entries.texts)
    values = _list_sort_values(key, candidate)
    return (max if key.descending else min)(values, default=None)


def _list_sort_values(key: q.Sort, candidate: Candidate) -> list[str] | list[int] | list[float]:
    """The terms, or the ends of dates or numbers, that a sort key looks at."""
    if key.kind == "term":
        return list(candidate.entries.terms.get(key.parameter, ()))
    if key.kind == "date":
        return [high if key.descending else low for low, high in candidate.entries.dates.get(key.parameter, ())]
    numbers = candidate.entries.numbers.get(key.parameter, ())
    return [high if key.descending else low for _, low, high, _ in numbers]


def _compare_values(a: int | float | str | None, b: int | float | str | None) -> int:
    return (a > b) - (a < b)  # type: ignore[operator]  # both are of the one type that the sort kind has
