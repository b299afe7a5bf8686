"""A bundle's own writes of one resource type, among which the criteria of its other entries look for matches.

Each write's index entries are made once, when it is first looked at (`pending_index.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fhir_server.search.match import Candidate
from fhir_server.search.query import Clause
from fhir_server.writes.pending_index import PendingIndex

if TYPE_CHECKING:
    from fhir_server.writes.resolve_targets import Target

BuildCandidate = Callable[["Target"], Candidate | None]
"""A write as search sees it; None for one without a valid resource."""


@dataclass(slots=True)
class PendingTargets:
    """The writes of one type in the order they were resolved; `deletions` are among `targets`."""

    targets: dict[str, Target] = field(default_factory=dict)
    deletions: dict[str, Target] = field(default_factory=dict)
    _waiting: list[Target] = field(default_factory=list)
    _index: PendingIndex = field(default_factory=PendingIndex)

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
                self._index.put(candidate)
        self._waiting.clear()
        return self._index.find_matches(where)
