"""All search expressions of a type as one trie of JSON keys, walked once per resource (http://hl7.org/fhirpath/N1/).

A node stands for an element; its leaves make entries of the element, its members lead on by JSON key, its filters are
the `where(…)` steps. `planter` grows tries from FHIRPath steps; `unrolled` makes the walk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from fhir_server.fhir.outcome import TooCostly
from fhir_server.fhir.path import Condition
from fhir_server.search.parameters.criteria import Extractor, Surroundings

Sinks = Sequence[dict[str, Any]]
"""Entries by code, in one dict per kind (`KINDS`): a tuple as long as one element gave them all, then a list."""

MOST_ENTRIES = 200_000
"""Values of one parameter that can be indexed; the setting `max_entries` refuses resources with less."""

KINDS = ("terms", "dates", "numbers")

GroupExtractor = Callable[[Any, Sinks, Surroundings], None]
"""Adds the entries of all composites of one element."""

Accepts = Callable[[Any, Surroundings], bool]
"""Whether an element meets the condition of a `where(…)`."""


class Node:
    """One element of the trie. `repeats`: its JSON value is a list."""

    __slots__ = ("filters", "groups", "leaves", "members", "picked", "repeats")

    def __init__(self, repeats: bool = False) -> None:
        self.repeats = repeats
        self.leaves: list[tuple[Extractor, int, list[str]]] = []
        self.groups: list[GroupExtractor] = []
        self.members: dict[str, Node] = {}
        self.picked: list[tuple[str, int, Node]] = []
        self.filters: list[tuple[Condition, Accepts, Node]] = []

    def add(self, extract: Extractor, code: str, kind: int = 0) -> None:
        """Plants a leaf whose entries go to `KINDS[kind]`; parameters with the same extraction share one."""
        for planted, _, codes in self.leaves:
            if planted is extract:
                if code not in codes:
                    codes.append(code)
                return
        self.leaves.append((extract, kind, [code]))

    def get_member(self, key: str, index: int | None, repeats: bool) -> Node:
        """The node of a JSON key, or of one element of its list."""
        if index is None:
            return self.members.setdefault(key, Node(repeats))
        for picked, at, node in self.picked:
            if (picked, at) == (key, index):
                return node
        self.picked.append((key, index, Node()))
        return self.picked[-1][2]

    def prune(self) -> bool:
        """Removes what leads to no leaf; True when nothing is left."""
        self.members = {key: node for key, node in self.members.items() if not node.prune()}
        self.picked = [each for each in self.picked if not each[2].prune()]
        self.filters = [each for each in self.filters if not each[2].prune()]
        return not (self.leaves or self.groups or self.members or self.picked or self.filters)

    def iterate_children(self) -> Iterator[Node]:
        """The nodes that this one leads to."""
        yield from self.members.values()
        yield from (node for _, _, node in self.picked)
        yield from (node for _, _, node in self.filters)


def build_number_error(code: str) -> TooCostly:
    """The error where a parameter has more values than can be indexed: sorting them would take long."""
    return TooCostly(
        f"The resource has more than {MOST_ENTRIES:,} values of the search parameter `{code}`, which is more than "
        "can be indexed; divide it."
    )


def add(sink: dict[str, Any], code: str, entries: tuple[Any, ...]) -> None:
    """Puts more entries under a code; a list of its own, so that ten thousand members of a Group stay linear."""
    earlier = sink.get(code)
    if earlier is None:
        sink[code] = entries
    elif earlier.__class__ is list:
        if len(earlier) > MOST_ENTRIES:
            raise build_number_error(code)
        earlier.extend(entries)
    else:
        sink[code] = [*earlier, *entries]
