"""The search tree evaluated in memory: what every store's compiled search must equal (https://hl7.org/fhir/R4/search.html)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cmp_to_key
from typing import Protocol

from fhir_server.fhir.outcome import TooCostly
from fhir_server.search import query as q
from fhir_server.search.entries import SEPARATOR, DateEntry, Entries, NumberEntry, canonicals
from fhir_server.search.geodesy import great_circle
from fhir_server.search.nested_index import PLACES, inside, more, place, too_many
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


class Follow(Protocol):
    """The other current resources, for `Chain` and `Has`."""

    def resolve(self, reference: str) -> Candidate | None:
        """The current resource at `Type/id`, or None (absent, deleted, or not a local reference)."""
        ...

    def of_type(self, type: str) -> Iterable[Candidate]:
        """All current resources of a type."""
        ...


Predicate = Callable[[Candidate], bool]


def matches(clause: q.Clause, candidate: Candidate, follow: Follow) -> bool:
    """Whether the candidate matches the clause."""
    return predicate(clause, follow)(candidate)


def predicate(clause: q.Clause, follow: Follow) -> Predicate:
    """The clause as a function of a candidate; valid as long as the resources behind `follow` do not change."""
    match clause:
        case q.Equals(parameter, terms):
            return _some_term(parameter, frozenset(terms).__contains__)
        case q.StartsWith(parameter, prefix):
            return _some_term(parameter, lambda term: term.startswith(prefix))
        case q.Contains(parameter, text):
            return _some_term(parameter, lambda term: text in _text(term))
        case q.EndsWith(parameter, suffix, normalised):
            return _some_term(parameter, lambda term: (_text(term) if normalised else term).endswith(suffix))
        case q.TermRange(parameter, low, high):
            return _some_term(parameter, lambda term: (low or "") <= term and (high is None or term < high))
        case q.Words():
            return lambda candidate: has_words(clause, candidate.entries.texts)
        case q.DateRange(parameter, tests):
            return lambda candidate: any(_passes(tests, *entry) for entry in _dates(candidate, parameter))
        case q.NumberRange(parameter):
            return lambda candidate: any(_fits(clause, entry) for entry in _numbers(candidate, parameter))
        case q.Near(parameter):
            return lambda candidate: any(_is_near(clause, entry) for entry in _numbers(candidate, parameter))
        case q.Present(parameter):
            return lambda candidate: _present(candidate, parameter)
        case q.Ids(ids):
            return lambda candidate: candidate.id in ids
        case q.LastUpdated(tests):
            return lambda candidate: _passes(tests, candidate.last_updated, candidate.last_updated)
        case q.And(clauses):
            return _every([predicate(part, follow) for part in clauses])
        case q.Or(clauses):
            return _some([predicate(part, follow) for part in clauses])
        case q.Not(negated):
            holds = predicate(negated, follow)
            return lambda candidate: not holds(candidate)
    return _followed(clause, follow)


def _followed(clause: q.Link | q.Lineage, follow: Follow) -> Predicate:
    match clause:
        case q.Chain():
            return _chain(clause, follow)
        case q.Has():
            return _has(clause, follow)
        case q.CanonicalChain():
            return _canonical_chain(clause, follow)
        case q.CanonicalHas():
            return _canonical_has(clause, follow)
        case q.Within():
            return _inside(clause, follow)
        case q.Lineage(parameter, ids, direction):
            return _lineage(parameter, frozenset(ids), direction, follow)


def sort_key(sort: tuple[q.Sort, ...], candidate: Candidate) -> q.SortKey:
    """The candidate's position: one value per sort key (None: missing), then its `Type/id`."""
    return (*(_sort_value(key, candidate) for key in sort), candidate.reference)


def compare(sort: tuple[q.Sort, ...], left: q.SortKey, right: q.SortKey) -> int:
    """Below, at or above 0 as `left` comes before, at or after `right`; missing values last, ties by `Type/id`."""
    for key, a, b in zip(sort, left, right, strict=False):
        if a == b:
            continue
        if a is None or b is None:
            return 1 if a is None else -1
        return _order(a, b) * (-1 if key.descending else 1)
    return _order(left[-1], right[-1])


def select_page(query: q.Query, matched: Iterable[Candidate]) -> tuple[list[Candidate], q.SortKey | None]:
    """The page of `matched` that the query asks for, in order, and the position of its last one when more follow."""
    keyed = ((sort_key(query.sort, candidate), candidate) for candidate in matched)
    after = query.after
    if after is not None:
        keyed = (pair for pair in keyed if compare(query.sort, pair[0], after) > 0)

    def by_position(left: tuple[q.SortKey, Candidate], right: tuple[q.SortKey, Candidate]) -> int:
        return compare(query.sort, left[0], right[0])

    ordered = sorted(keyed, key=cmp_to_key(by_position))
    page = ordered[: query.count]
    more = bool(page) and len(ordered) > len(page)
    return [candidate for _, candidate in page], page[-1][0] if more else None


def _every(parts: Sequence[Predicate]) -> Predicate:
    return lambda candidate: all(holds(candidate) for holds in parts)


def _some(parts: Sequence[Predicate]) -> Predicate:
    return lambda candidate: any(holds(candidate) for holds in parts)


def _some_term(parameter: str, holds: Callable[[str], bool]) -> Predicate:
    return lambda candidate: any(map(holds, candidate.entries.terms.get(parameter, ())))


def _text(term: str) -> str:
    """The normalised text of a string's term."""
    return term.partition(SEPARATOR)[0]


def _dates(candidate: Candidate, parameter: str) -> tuple[DateEntry, ...]:
    return candidate.entries.dates.get(parameter, ())


def _numbers(candidate: Candidate, parameter: str) -> tuple[NumberEntry, ...]:
    return candidate.entries.numbers.get(parameter, ())


def _present(candidate: Candidate, parameter: str) -> bool:
    entries = candidate.entries
    return any(kind.get(parameter) for kind in (entries.terms, entries.dates, entries.numbers))


_COMPARISONS: dict[str, Callable[[int | float, int | float], bool]] = {
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
}


def _passes(tests: tuple[q.Test, ...], low: int | float, high: int | float) -> bool:
    ends = {"low": low, "high": high}
    return all(_COMPARISONS[test.comparison](ends[test.end], test.value) for test in tests)


def _fits(clause: q.NumberRange, entry: NumberEntry) -> bool:
    key, low, high, unit = entry
    return key == clause.key and _passes(clause.tests, low, high) and _has_unit(clause.unit, unit)


def _is_near(clause: q.Near, entry: NumberEntry) -> bool:
    key, latitude, longitude, _ = entry
    return key == "" and great_circle(clause.latitude, clause.longitude, latitude, longitude) <= clause.metres


def _has_unit(wanted: tuple[str | None, str] | None, unit: str) -> bool:
    if wanted is None:
        return True
    if not unit:
        return False
    system, code, text = unit.split(SEPARATOR)
    if wanted[0] is None:
        return wanted[1] in (code, text)
    return wanted == (system, code)


def _chain(clause: q.Chain, follow: Follow) -> Predicate:
    where = predicate(clause.where, follow)

    def reaches(reference: str) -> bool:
        target = follow.resolve(reference)
        return target is not None and target.type == clause.type and where(target)

    outside, within = _some_term(clause.parameter, reaches), _inside(clause, follow)
    return lambda candidate: outside(candidate) or within(candidate)


def _inside(clause: q.Chain | q.Within, follow: Follow) -> Predicate:
    parameter, type = clause.parameter, clause.type
    first, beyond = place(parameter, type, 0), more(parameter, type)

    def within(candidate: Candidate) -> bool:
        terms = candidate.entries.terms
        if beyond in terms:
            raise TooCostly(too_many(clause))
        if first not in terms:
            return False
        there = [number for number in range(PLACES) if place(parameter, type, number) in terms]
        return any(predicate(inside(clause, number), follow)(candidate) for number in there)

    return within


def _has(clause: q.Has, follow: Follow) -> Predicate:
    where = predicate(clause.where, follow)
    sources = (source for source in follow.of_type(clause.type) if where(source))
    pointed_to = {term for source in sources for term in source.entries.terms.get(clause.parameter, ())}
    return lambda candidate: candidate.reference in pointed_to


def _canonical_chain(clause: q.CanonicalChain, follow: Follow) -> Predicate:
    where = predicate(clause.where, follow)
    targets = (target for target in follow.of_type(clause.type) if where(target))
    names = {name for target in targets for name in canonicals(target.entries.terms)}
    return _some_term(clause.parameter, names.__contains__)


def _canonical_has(clause: q.CanonicalHas, follow: Follow) -> Predicate:
    where = predicate(clause.where, follow)
    sources = (source for source in follow.of_type(clause.type) if where(source))
    named = {term for source in sources for term in source.entries.terms.get(clause.parameter, ())}
    return lambda candidate: not named.isdisjoint(canonicals(candidate.entries.terms))


def _lineage(parameter: str, ids: frozenset[str], direction: str, follow: Follow) -> Predicate:
    def upwards(type: str, start: Iterable[str]) -> set[str]:
        """The references at the start and all above them; resources of other types lead nowhere."""
        reached = set(start)
        waiting = list(reached)
        while waiting:
            resource = follow.resolve(waiting.pop())
            if resource and resource.type == type:
                above = set(resource.entries.terms.get(parameter, ())) - reached
                reached |= above
                waiting += above
        return reached

    def below(candidate: Candidate) -> bool:
        roots = [f"{candidate.type}/{id}" for id in ids]
        return not upwards(candidate.type, [candidate.reference]).isdisjoint(roots)

    def above(candidate: Candidate) -> bool:
        return candidate.reference in upwards(candidate.type, [f"{candidate.type}/{id}" for id in ids])

    return below if direction == "below" else above


def _sort_value(key: q.Sort, candidate: Candidate) -> int | float | str | None:
    if key.kind == "id":
        return candidate.id
    if key.kind == "lastUpdated":
        return candidate.last_updated
    if key.kind == "score":
        return score(key.words, candidate.entries.texts)
    values = _sort_values(key, candidate)
    if not values:
        return None
    return max(values) if key.descending else min(values)


def _sort_values(key: q.Sort, candidate: Candidate) -> list[str] | list[int] | list[float]:
    if key.kind == "term":
        return list(candidate.entries.terms.get(key.parameter, ()))
    if key.kind == "date":
        return [high if key.descending else low for low, high in _dates(candidate, key.parameter)]
    return [high if key.descending else low for _, low, high, _ in _numbers(candidate, key.parameter)]


def _order(a: int | float | str | None, b: int | float | str | None) -> int:
    return (a > b) - (a < b)  # type: ignore[operator]  # both are of the one type that the sort kind has
