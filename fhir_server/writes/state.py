"""What a decision or a rule reads: the stored state under the writes of the plan, each read noted as an assertion.

The transaction checks the assertions again, so that a decision commits only on the state that it was made on. On a
store with snapshot isolation, two transactions that add matches to each other's searches would both pass: decisions
that must not overlap name a lock in common (`State.lock`).
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import NamedTuple

import orjson

from fhir_server.fhir.outcome import TooCostly
from fhir_server.requests.context import Context
from fhir_server.requests.request import Caller
from fhir_server.search.entries import Entries
from fhir_server.search.query import Clause, Query, Scope
from fhir_server.security.access import Reader
from fhir_server.store.operations import Assertion, Matches, VersionIs
from fhir_server.store.protocol import Page, Stored
from fhir_server.writes.pending_writes import PendingWrites, Tree

MOST_READ = 2000
"""Resources that one search of a decision may find."""

MOST_PARSED = 5000
"""Resources that stay parsed between looks, with their texts, some 20 MB."""


class Resource(NamedTuple):
    """A resource as a decision sees it. `version` 0: written by the plan itself."""

    tree: Tree
    version: int


class State:
    """Reads for one decision, with the assertions and lock names that they lead to; `seen`: that of the last search.

    `reader`: the caller's, for decisions whose answer shows what they read; None for rules, which see everything.
    `pending`: the plan's own writes.
    """

    def __init__(
        self,
        context: Context,
        caller: Caller,
        reader: Reader | None = None,
        pending: PendingWrites | None = None,
    ) -> None:
        self.context = context
        self.caller = caller
        self.assertions: list[Assertion] = []
        self.locks: set[str] = set()
        self.seen: int | None = None
        self._reader = reader or Reader(context.unrestricted, None)
        self._pending = pending or PendingWrites()

    def lock(self, names: Iterable[str]) -> None:
        """Name locks: transactions that name one in common follow each other on every store."""
        self.locks.update(names)

    def count_pending(self, type: str) -> int:
        """How many resources of a type the plan writes."""
        return self._pending.count((type,))

    def list_pending(self, types: frozenset[str]) -> dict[str, Tree | None]:
        """The plan's own writes of these types, `Type/id` → tree, None for a deletion."""
        return self._pending.list_trees(types)

    async def read(self, type: str, id: str) -> Resource | None:
        """The current resource; None where there is none. Asserts the version that was read."""
        reference = f"{type}/{id}"
        if reference in self._pending:
            tree = self._pending.get(reference)
            return None if tree is None else Resource(tree, 0)
        stored = await self._reader.read(type, id)
        self.assertions.append(VersionIs(type, id, 0 if stored is None else stored.version))
        if stored is None or stored.raw is None:
            return None
        return await self.context.long_work.run(len(stored.raw), _to_resource, stored)

    async def search(self, type: str, where: Clause, most: int = MOST_READ, asserted: bool = True) -> list[Resource]:
        """All resources of a type that match, by id. Asserts that there are no others, and the version of each.

        `asserted` False: nothing is asserted, for a decision that would stand as well had it been made just before any
        other write of what it looks for. Raises TooCostly for more than `most`.
        """
        return await self.search_types({type: where}, (type,) if asserted else (), most)

    async def search_types(
        self, wanted: Mapping[str, Clause], asserted: Container[str], most: int = MOST_READ, brief: bool = False
    ) -> list[Resource]:
        """As `search`, for several types (type → what is looked for) in one look at the store.

        By type and id. `asserted`: the types of which that no others match, and the version of each, is asserted.
        `brief`: as in `search.query.Query`.
        """
        scopes = tuple(Scope(type, self._reader.restrict_clause(type, where)) for type, where in wanted.items())
        limit = most + self._pending.count(wanted)
        most_bytes = self.context.settings.max_answer
        page = await self._reader.search(Query(scopes, count=limit + 1, most_bytes=most_bytes, brief=brief))
        if page.next is not None or len(page.matches) > limit:
            types = " and ".join(f"`{type}`" for type in wanted)
            number = f"{most} resources"
            if len(page.matches) <= limit:
                number = f"{most_bytes:,} bytes (setting `max_answer`)"
            raise TooCostly(f"More than {number} of type {types} would have to be looked at; narrow the request.")
        self._assert_page(scopes, page, asserted)
        stored = [match for match in page.matches if match.reference not in self._pending]
        resources = await self.context.long_work.run_each(_to_resource, stored)
        found = dict(zip((match.reference for match in stored), resources, strict=True))
        for type, where in wanted.items():
            own = self._pending.find_matches(type, where, self._make_entries)
            found |= {reference: Resource(tree, 0) for reference, tree in own.items()}
        return [found[reference] for reference in sorted(found)]

    async def look(self, query: Query, asserted: Container[str], beside: str = "") -> Sequence[Tree] | None:
        """As `search_types` for a brief query that one plan asks often; None where more matches than it counts.

        `beside`: a write of the plan that is not looked for. What is found is shared: it must not be changed.
        """
        _, page = self._pending.pages.get(id(query), (query, None))
        if page is None:
            page = await self._reader.search(query)
            if page.next is not None:
                return None
            self._pending.pages[id(query)] = query, page
            self._assert_page(query.scopes, page, asserted)
        self.seen = page.seen
        found: Sequence[Stored] = page.matches
        others = [scope for scope in query.scopes if not self._pending.holds_only(scope.type, beside)]
        own_id = beside.partition("/")[2]
        if others or own_id in [match.id for match in found]:
            found = [match for match in found if match.reference not in self._pending]
        trees = await _parse_each(self.context, found)
        for scope in others:
            own = self._pending.find_matches(scope.type, scope.where, self._make_entries)
            trees += [tree for reference, tree in own.items() if reference != beside]
        return trees

    def _assert_page(self, scopes: Iterable[Scope], page: Page, asserted: Container[str]) -> None:
        self.seen = page.seen
        for scope in scopes:
            if scope.type in asserted:
                found = [each[1:3] for each in page.matches if each.type == scope.type]
                ids, versions = zip(*found, strict=True) if found else ((), ())
                self.assertions.append(Matches(Query((scope,)), ids, page.seen, versions))

    def assert_none(self, type: str, where: Clause, seen: int | None = None) -> None:
        """Assert that nothing of a type matches. `seen`: that of the search that showed it, as in `Matches`."""
        scope = Scope(type, self._reader.restrict_clause(type, where))
        self.assertions.append(Matches(Query((scope,)), (), seen))

    def _make_entries(self, type: str, tree: Tree) -> Entries:
        return self.context.index.make_entries(type, tree, self.caller.base)  # type: ignore[arg-type]


def _to_resource(stored: Stored) -> Resource:
    return Resource(_parse(stored), stored.version)


def _parse(stored: Stored) -> Tree:
    tree: Tree = orjson.loads(stored.raw or b"{}")
    return tree


async def _parse_each(context: Context, found: Sequence[Stored]) -> list[Tree]:
    """The resources as trees; those of the last versions that were looked at are parsed once."""
    parsed: dict[Stored, Tree] = context.snapshots.setdefault("parsed", {})
    trees = list(map(parsed.get, found))
    missing = [position for position, tree in enumerate(trees) if tree is None]
    if missing:
        added = await context.long_work.run_each(_parse, [found[position] for position in missing])
        if len(parsed) + len(missing) > MOST_PARSED:
            parsed.clear()
        for position, tree in zip(missing, added, strict=True):
            trees[position] = parsed[found[position]] = tree
    return trees  # type: ignore[return-value]
