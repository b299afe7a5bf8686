"""A plan's own writes as its rules see them: `Type/id` → the resource as it will be stored, searchable by type."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fhir_server.fhir.resource import Text
from fhir_server.search.entries import Entries
from fhir_server.search.match import Candidate
from fhir_server.search.query import Clause, Query
from fhir_server.store.protocol import Page
from fhir_server.writes.identity import build_stored_tree
from fhir_server.writes.pending_index import PendingIndex

Tree = Mapping[str, Any]

MakeEntries = Callable[[str, Tree], Entries]
"""The index entries of a resource of a type."""


@dataclass(slots=True)
class _OfType:
    trees: dict[str, Tree | Text | None] = field(default_factory=dict)
    """By reference; a text is parsed when it is first looked at. None for a deletion."""
    waiting: dict[str, Entries | None] = field(default_factory=dict)
    """By reference, the entries (None: not made yet) of what the index does not have as it is."""
    index: PendingIndex | None = None
    """Made when the type is searched first."""

    def read(self, reference: str) -> Tree | None:
        """The resource; None for a deletion and for what is not written."""
        tree = self.trees.get(reference)
        if isinstance(tree, Text):
            tree = self.trees[reference] = build_stored_tree(tree.tree, reference.partition("/")[2])
        return tree


_NOTHING = _OfType()


class PendingWrites:
    """Writes by reference. Index entries are made and looked at once for each write, when its type is searched."""

    def __init__(self, trees: Mapping[str, Tree | None] | None = None) -> None:
        self._types: dict[str, _OfType] = {}
        self.pages: dict[int, tuple[Query, Page]] = {}
        """By the identity of the query, what decisions of the plan have looked at in the store, and asserted."""
        for reference, tree in (trees or {}).items():
            self.put(reference, tree)

    def put(self, reference: str, tree: Tree | Text | None, entries: Entries | None = None) -> None:
        """Add a write, None for a deletion, in place of an earlier one. `entries`: its index entries, where known.

        A text takes less memory than a tree, and most are never looked at.
        """
        type = reference[: reference.index("/")]
        writes = self._types.get(type)
        if writes is None:
            writes = self._types[type] = _OfType()
        writes.trees[reference] = tree
        writes.waiting[reference] = entries

    def __contains__(self, reference: str) -> bool:
        return reference in self._of_type(reference.partition("/")[0]).trees

    def get(self, reference: str) -> Tree | None:
        """The resource; None for a deletion and for what is not written."""
        return self._of_type(reference.partition("/")[0]).read(reference)

    def list_trees(self, types: Iterable[str]) -> dict[str, Tree | None]:
        """The writes of these types, `Type/id` → tree, None for a deletion."""
        written = map(self._of_type, types)
        return {reference: each.read(reference) for each in written for reference in each.trees}

    def holds_only(self, type: str, reference: str) -> bool:
        """Whether nothing of a type is written but that one, if any."""
        return self._of_type(type).trees.keys() <= {reference}

    def count(self, types: Iterable[str]) -> int:
        """How many resources of these types are written."""
        return sum(len(self._of_type(type).trees) for type in types)

    def find_matches(self, type: str, where: Clause, make_entries: MakeEntries) -> dict[str, Tree]:
        """The writes of a type that match, `Type/id` → tree."""
        writes = self._types.get(type)
        if writes is None:
            return {}
        index = writes.index = writes.index or PendingIndex()
        for reference, entries in writes.waiting.items():
            tree, id = writes.read(reference), reference.partition("/")[2]
            if tree is None:
                index.remove(id)
            else:
                index.put(Candidate(type, id, 0, entries or make_entries(type, tree)))
        writes.waiting.clear()
        found = (f"{type}/{id}" for id in index.find_matches(where))
        return {reference: tree for reference in found if (tree := writes.read(reference)) is not None}

    def _of_type(self, type: str) -> _OfType:
        return self._types.get(type, _NOTHING)
