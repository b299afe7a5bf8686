"""A plan's own writes of one resource type: by id, and by the terms that equality criteria look up.

Each write's index entries are made once and kept in a dictionary, so that a bundle of n conditional creates costs n
look-ups and not n times n comparisons.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fhir_server.search.entries import SEPARATOR
from fhir_server.search.match import Candidate, matches
from fhir_server.search.query import And, Clause, Equals, StartsWith
from fhir_server.writes.state import NO_NEIGHBOURS

if TYPE_CHECKING:
    from fhir_server.writes.resolve_targets import Target

Term = tuple[str, str]
"""(parameter, term), or the beginning of a term up to and with its separator."""

BuildCandidate = Callable[["Target"], Candidate | None]
"""A write as search sees it; None for one without a valid resource."""


@dataclass(slots=True)
class PendingTargets:
    """The writes of one type in the order they were resolved; `deletions` are among `targets`."""

    targets: dict[str, Target] = field(default_factory=dict)
    deletions: dict[str, Target] = field(default_factory=dict)
    _waiting: list[Target] = field(default_factory=list)
    _candidates: dict[str, Candidate] = field(default_factory=dict)
    _ids: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    """By parameter and term, for the parameters that were looked up so far; an id may stand there twice."""

    def add(self, target: Target) -> None:
        """Add a write; a later one of the same id takes its place."""
        self.targets[target.id] = target
        if target.action.method == "DELETE":
            self.deletions[target.id] = target
        else:
            self._waiting.append(target)

    @property
    def waiting_size(self) -> int:
        """Bytes of the resources that `find_matches` will look at for the first time."""
        return sum(len(target.action.text.raw) for target in self._waiting if target.action.text is not None)

    def find_matches(self, where: Clause, build_candidate: BuildCandidate) -> list[str]:
        """The ids of the writes whose resources match."""
        for target in self._waiting:
            candidate = build_candidate(target)
            if candidate is not None:
                self._add_candidate(candidate)
        self._waiting.clear()
        among = self._look_up(where)
        return [id for id in among if matches(where, self._candidates[id], NO_NEIGHBOURS)]

    def _add_candidate(self, candidate: Candidate) -> None:
        self._candidates[candidate.id] = candidate
        for parameter, ids in self._ids.items():
            _list_terms(ids, candidate, parameter)

    def _look_up(self, where: Clause) -> Iterable[str]:
        """The ids among which all matches are; all where no equality narrows them."""
        terms = find_equality(where)
        if terms is None:
            return tuple(self._candidates)
        return tuple(dict.fromkeys(id for parameter, term in terms for id in self._list_ids(parameter).get(term, ())))

    def _list_ids(self, parameter: str) -> dict[str, list[str]]:
        ids = self._ids.get(parameter)
        if ids is None:
            ids = self._ids[parameter] = {}
            for candidate in self._candidates.values():
                _list_terms(ids, candidate, parameter)
        return ids


def _list_terms(ids: dict[str, list[str]], candidate: Candidate, parameter: str) -> None:
    """Note a candidate's id under each of its terms, and under the code of each alone."""
    for term in candidate.entries.terms.get(parameter, ()):
        ids.setdefault(term, []).append(candidate.id)
        code, separator, rest = term.partition(SEPARATOR)
        if rest:
            ids.setdefault(code + separator, []).append(candidate.id)


def find_equality(where: Clause) -> Sequence[Term] | None:
    """The terms one of which every match has; None where the clause does not say so."""
    match where:
        case Equals(parameter, terms):
            return [(parameter, term) for term in terms]
        case StartsWith(parameter, prefix) if prefix.endswith(SEPARATOR):
            return [(parameter, prefix)]
        case And(clauses):
            return next(filter(None, map(find_equality, clauses)), None)
        case _:
            return None
