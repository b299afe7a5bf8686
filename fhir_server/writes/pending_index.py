"""The index entries of a plan's own writes of one resource type, looked up by term and by date.

A clause is matched only with the writes that its equality criteria and date ranges leave over, so that a bundle whose
n writes each look among all n costs n look-ups and not n times n comparisons.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import inf

from fhir_server.search.entries import SEPARATOR
from fhir_server.search.match import NO_OTHERS, Candidate, compile_predicate
from fhir_server.search.query import And, Bound, Clause, DateRange, Equals, Or, StartsWith


@dataclass(slots=True)
class PendingIndex:
    """Writes by id, and their ids by term and by date, for the parameters that were looked up so far.

    What is taken out or replaced stays in the lists of ids: whatever they name is matched as it is now.
    """

    _candidates: dict[str, Candidate] = field(default_factory=dict)
    _ids: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    """By parameter and term, and by the code of each term alone; an id may stand there twice."""
    _dates: dict[str, list[tuple[int, str]]] = field(default_factory=dict)
    """By parameter, the beginning of each date interval (µs) and the id, in order."""

    def put(self, candidate: Candidate) -> None:
        """Add a write; it takes the place of an earlier one of the same id."""
        self._candidates[candidate.id] = candidate
        for parameter, ids in self._ids.items():
            _list_terms(ids, candidate, parameter)
        for parameter, dates in self._dates.items():
            for date in _iterate_dates(candidate, parameter):
                insort(dates, date)

    def remove(self, id: str) -> None:
        """Take a write out, if it is there."""
        self._candidates.pop(id, None)

    def find_matches(self, where: Clause) -> list[str]:
        """The ids of the writes that match."""
        ids = self._look_up(where)
        among = self._candidates if ids is None else dict.fromkeys(id for id in ids if id in self._candidates)
        if not among:
            return []
        holds = compile_predicate(where, NO_OTHERS)
        return [id for id in among if holds(self._candidates[id])]

    def _look_up(self, where: Clause) -> Sequence[str] | None:
        """The ids among which all matches are, as few as is known; None where the clause narrows nothing."""
        match where:
            case Equals(parameter, terms):
                ids = self._list_ids(parameter)
                return ids.get(terms[0], ()) if len(terms) == 1 else [id for term in terms for id in ids.get(term, ())]
            case StartsWith(parameter, prefix) if prefix.endswith(SEPARATOR):
                return self._list_ids(parameter).get(prefix, ())
            case DateRange(parameter, bounds):
                return self._look_up_dates(parameter, bounds)
            case And(clauses):
                found = (self._look_up(clause) for clause in clauses)
                return min((ids for ids in found if ids is not None), key=len, default=None)
            case Or(clauses):
                return self._look_up_each(clauses)
            case _:
                return None

    def _look_up_each(self, clauses: Iterable[Clause]) -> Sequence[str] | None:
        together: list[str] = []
        for clause in clauses:
            ids = self._look_up(clause)
            if ids is None:
                return None
            together += ids
        return together

    def _look_up_dates(self, parameter: str, bounds: Iterable[Bound]) -> Sequence[str] | None:
        """The ids whose intervals begin within the bounds, their ends included; None without a bound on beginnings."""
        beginnings = [bound for bound in bounds if bound.end == "low"]
        if not beginnings:
            return None
        least = max((bound.value for bound in beginnings if bound.comparison in ("ge", "gt")), default=-inf)
        most = min((bound.value for bound in beginnings if bound.comparison in ("le", "lt")), default=inf)
        dates = self._list_dates(parameter)
        first, end = bisect_left(dates, least, key=_beginning), bisect_right(dates, most, key=_beginning)
        return [id for _, id in dates[first:end]]

    def _list_ids(self, parameter: str) -> dict[str, list[str]]:
        ids = self._ids.get(parameter)
        if ids is None:
            ids = self._ids[parameter] = {}
            for candidate in self._candidates.values():
                _list_terms(ids, candidate, parameter)
        return ids

    def _list_dates(self, parameter: str) -> list[tuple[int, str]]:
        dates = self._dates.get(parameter)
        if dates is None:
            every = self._candidates.values()
            dates = sorted(date for candidate in every for date in _iterate_dates(candidate, parameter))
            self._dates[parameter] = dates
        return dates


def _list_terms(ids: dict[str, list[str]], candidate: Candidate, parameter: str) -> None:
    """Note a candidate's id under each of its terms, and under the code of each alone."""
    for term in candidate.entries.terms.get(parameter, ()):
        ids.setdefault(term, []).append(candidate.id)
        code, separator, rest = term.partition(SEPARATOR)
        if rest:
            ids.setdefault(code + separator, []).append(candidate.id)


def _iterate_dates(candidate: Candidate, parameter: str) -> Iterable[tuple[int, str]]:
    return ((low, candidate.id) for low, _ in candidate.entries.dates.get(parameter, ()))


def _beginning(date: tuple[int, str]) -> float:
    return date[0]
