"""The store in memory: one process, nothing kept, the oracle of the other stores (https://hl7.org/fhir/R4/http.html).

No method awaits while it works on the state, so each is atomic towards all others on the event loop.
"""

from __future__ import annotations

import secrets
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from typing import NamedTuple

from fhir_server.search.explain import describe_clause
from fhir_server.search.match import Candidate, compile_predicate, compute_sort_key, select_page
from fhir_server.search.query import Clause, Query
from fhir_server.search.words import MAX_SCORED, describe_too_many_scored
from fhir_server.store.checks import (
    Checks,
    changes_registry,
    check_distinct,
    check_matches,
    check_registry,
    check_value,
)
from fhir_server.store.operations import Transaction, ValueIs, VersionIs, Write, Written
from fhir_server.store.protocol import (
    REINDEXED_AT_ONCE,
    SEARCH_PARAMETER,
    VALUES_PER_PAGE,
    BudgetExceeded,
    Changes,
    Clock,
    Committed,
    Expired,
    Extract,
    HistoryKey,
    HistoryPage,
    HistoryQuery,
    Page,
    Reindexed,
    Stored,
    StoreUnavailable,
    ValuePage,
    Verified,
    cut_history,
    cut_page,
    describe_wrong_entries,
)

MILLISECOND = 1000
_NO_VALUE = (None, None)


async def open_store(uri: str, clock: Clock) -> MemoryStore:
    """A new, empty store; `uri` is `memory://`."""
    if uri != "memory://":
        raise ValueError(f"`{uri}` is not a URI of the in-memory store. Use `memory://`.")
    return MemoryStore(clock)


@dataclass(frozen=True, slots=True)
class _Undo:
    """What one write changed: the resource, and its entries before (None: it was not current)."""

    reference: str
    before: Candidate | None


class _Latest(NamedTuple):
    """See `checks.Latest`."""

    version: int
    live: bool


class MemoryStore:
    """`protocol.Store` over dictionaries."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._versions: dict[str, list[Stored]] = {}
        self._current: defaultdict[str, dict[str, Candidate]] = defaultdict(dict)
        self._log: list[tuple[int, Stored]] = []
        self._commits = 0
        self._newest = 0
        self._secret = secrets.token_bytes(32)
        self._registry = 0
        self._values: dict[str, tuple[bytes | None, int | None]] = {}
        self._expiries: list[tuple[int, str]] = []
        self._closed = False

    async def transact(self, transaction: Transaction) -> Committed:
        """See `protocol.Store.transact`; ValueError when two writes are of one resource."""
        await self.check_ready()
        check_distinct(transaction.writes)
        check_registry(transaction.registry, self._registry)
        self._check(transaction)
        undo: list[_Undo] = []
        mark = len(self._log), self._commits, self._newest
        try:
            written = self._apply_writes(transaction.writes, undo)
            found = tuple(self._versions[reference][-1] for reference in transaction.reads)
            pages = tuple(self._find_page(query) for query in transaction.queries)
        except BaseException:
            self._roll_back(undo, mark)
            raise
        self._registry += changes_registry(written)
        for reference in transaction.purged:
            self._purge(reference)
        return Committed(written, found, pages)

    async def read(self, type: str, id: str) -> Stored | None:
        """The current version, or None if it never existed."""
        versions = self._versions.get(f"{type}/{id}")
        return versions[-1] if versions else None

    async def vread(self, type: str, id: str, version: int) -> Stored | None:
        """That version, or None."""
        versions = self._versions.get(f"{type}/{id}", [])
        return versions[version - 1] if 1 <= version <= len(versions) else None

    async def read_many(self, references: Iterable[str], deletions: bool = False) -> Mapping[str, Stored]:
        """The latest versions among the references."""
        latest = {reference: self._versions[reference][-1] for reference in references if reference in self._versions}
        return {reference: stored for reference, stored in latest.items() if deletions or stored.raw is not None}

    async def search(self, query: Query) -> Page:
        """A page of current resources."""
        return self._find_page(query)

    async def count(self, query: Query) -> int:
        """The number of matches."""
        return sum(1 for _ in self._iterate_matches(query))

    async def explain(self, query: Query) -> tuple[str, ...]:
        """See `protocol.Store.explain`: everything of a type is looked at."""
        started = time.perf_counter()
        page = self._find_page(query)
        took = (time.perf_counter() - started) * 1000
        lines = [
            f"{scope.type}: all {len(self._current.get(scope.type, ()))} resources are tested, there is no index: "
            f"{describe_clause(scope.where)}."
            for scope in query.scopes
        ]
        return (*lines, f"The search took {took:.2f} ms and found {len(page.matches)} on this page.")

    async def find_matching(self, references: Sequence[str], where: Clause) -> frozenset[str]:
        """The references whose current resource matches."""
        holds = compile_predicate(where, self)
        candidates = filter(None, map(self.resolve, references))
        return frozenset(candidate.reference for candidate in candidates if holds(candidate))

    async def history(self, query: HistoryQuery) -> HistoryPage:
        """A page of versions, newest first."""
        versions = sorted(self._iterate_history(query), key=_build_history_key)
        page, more = cut_history(versions, query)
        last = (page[-1].last_updated, page[-1].reference, page[-1].version) if more else None
        return HistoryPage(page, last, self._newest)

    async def read_changes(self, after: str | None, limit: int = 1000) -> Changes:
        """Committed versions in commit order; the token is the number of the last one."""
        start = self._parse_token(after)
        versions = [entry for entry in self._log if entry[0] > start][:limit]
        return Changes(tuple(version for _, version in versions), str(versions[-1][0] if versions else start))

    async def reindex(self, type: str, extract: Extract, registry: int, after: str | None = None) -> Reindexed:
        """Make the entries of the next resources anew, by id."""
        check_registry(registry, self._registry)
        left = sorted(candidate.id for candidate in self.iterate_type(type) if after is None or candidate.id > after)
        batch = left[:REINDEXED_AT_ONCE]
        for id in batch:
            self._reindex(f"{type}/{id}", extract)
        return Reindexed(len(batch), batch[-1] if len(left) > len(batch) else None)

    async def verify(self, type: str, extract: Extract, after: str | None = None) -> Verified:
        """Compare the entries of all resources of a type."""
        resources = [(each, self._versions[each.reference][-1].raw) for each in self.iterate_type(type)]
        wrong = [each.reference for each, raw in resources if raw is None or extract(type, raw) != each.entries]
        return Verified(len(resources), None, tuple(map(describe_wrong_entries, wrong)))

    async def verify_database(self) -> tuple[str, ...]:
        """There is nothing beside the entries."""
        return ()

    async def registry_version(self) -> int:
        """How often a SEARCH_PARAMETER resource was written or purged."""
        return self._registry

    async def wait_for_open_transactions(self) -> None:
        """Return: no transaction awaits anything."""

    async def get_value(self, key: str) -> bytes | None:
        """What is under the key."""
        return self._get_value(key)

    def _get_value(self, key: str) -> bytes | None:
        value, expires = self._values.get(key, _NO_VALUE)
        return value if expires is None or expires > self._clock() else None

    async def put_value_if(self, key: str, value: bytes, before: bytes | None, expires: int | None = None) -> bool:
        """Put the value there unless something else came first; forget what has expired."""
        if await self.get_value(key) != before:
            return False
        while self._expiries and self._expiries[0][0] <= self._clock():
            expiry, expired = heappop(self._expiries)
            if self._values.get(expired, _NO_VALUE)[1] == expiry:
                del self._values[expired]
        self._values[key] = value, expires
        if expires is not None:
            heappush(self._expiries, (expires, key))
        return True

    async def remove_value_if(self, key: str, before: bytes) -> bool:
        """Remove the value unless something else came first."""
        if await self.get_value(key) != before:
            return False
        del self._values[key]
        return True

    async def list_values(self, prefix: str, after: str = "", limit: int = VALUES_PER_PAGE) -> ValuePage:
        """A page of values by key."""
        keys = sorted(key for key in self._values if key > after and key.startswith(prefix))
        rows = [(key, value) for key in keys if (value := await self.get_value(key)) is not None]
        return ValuePage.from_rows(rows, prefix, limit)

    async def page_key(self) -> bytes:
        """The store's 32 random bytes."""
        return self._secret

    async def check_ready(self) -> None:
        """Return unless closed."""
        if self._closed:
            raise StoreUnavailable("The in-memory store is closed.")

    async def check_writable(self) -> None:
        """Return unless closed."""
        await self.check_ready()

    async def check_full_text(self) -> None:
        """Return: texts are always kept."""

    async def close(self) -> None:
        """Refuse further writes; there is nothing to release."""
        self._closed = True

    def resolve(self, reference: str) -> Candidate | None:
        """`match.Follow.resolve`."""
        type, _, id = reference.partition("/")
        return self._current[type].get(id) if type in self._current else None

    def iterate_type(self, type: str) -> Iterable[Candidate]:
        """`match.Follow.of_type`."""
        return tuple(self._current[type].values()) if type in self._current else ()

    def _check(self, transaction: Transaction) -> None:
        writes = {f"{write.type}/{write.id}": write for write in transaction.writes}
        checks = Checks(transaction, writes, self._get_latest)
        for assertion in transaction.assertions:
            if isinstance(assertion, VersionIs):
                checks.check_version(assertion)
            elif isinstance(assertion, ValueIs):
                check_value(assertion, self._get_value(assertion.key))
            else:
                check_matches(assertion, self._find_page(assertion.first_page))
        checks.check_required()
        if transaction.released:
            checks.check_released(self._find_sources(transaction, writes))
        checks.check_reads()

    def _get_latest(self, reference: str) -> _Latest:
        return _Latest(len(self._versions.get(reference, ())), self.resolve(reference) is not None)

    def _find_sources(self, transaction: Transaction, writes: Mapping[str, Write]) -> Iterator[tuple[str, str]]:
        """(target, source) of the current resources that refer to the released ones and are not written here."""
        released = set(transaction.released)
        for type in self._current.keys() - transaction.exempt:
            for candidate in self.iterate_type(type):
                if candidate.reference not in writes:
                    for target in released.intersection(candidate.entries.references):
                        yield target, candidate.reference

    def _apply_writes(self, writes: Iterable[Write], undo: list[_Undo]) -> tuple[Written, ...]:
        # Never below what any reader has seen: otherwise `_since` the newest version known could miss this one.
        now = max(self._clock() // MILLISECOND * MILLISECOND, self._newest)
        return tuple(self._apply_write(write, now, undo) for write in writes)

    def _apply_write(self, write: Write, now: int, undo: list[_Undo]) -> Written:
        reference = f"{write.type}/{write.id}"
        before = self.resolve(reference)
        if write.content is None and before is None:
            return Written(write.type, write.id, 0, 0, False)
        versions = self._versions.setdefault(reference, [])
        version = len(versions) + 1
        last_updated = max(now, versions[-1].last_updated + MILLISECOND) if versions else now
        raw = None if write.content is None else write.content.build_text(version, last_updated)
        undo.append(_Undo(reference, before))
        versions.append(Stored(write.type, write.id, version, last_updated, write.method, raw))
        self._commits += 1
        self._log.append((self._commits, versions[-1]))
        self._newest = max(self._newest, last_updated)
        if raw is None:
            del self._current[write.type][write.id]
        else:
            self._current[write.type][write.id] = Candidate(write.type, write.id, last_updated, write.entries)
        return Written(write.type, write.id, version, last_updated, before is None)

    def _roll_back(self, undo: list[_Undo], mark: tuple[int, int, int]) -> None:
        length, self._commits, self._newest = mark
        del self._log[length:]
        for change in reversed(undo):
            versions = self._versions[change.reference]
            undone = versions.pop()
            if not versions:
                del self._versions[change.reference]
            self._current[undone.type].pop(undone.id, None)
            if change.before is not None:
                self._current[undone.type][undone.id] = change.before

    def _purge(self, reference: str) -> None:
        if self._versions.pop(reference, None) is not None:
            type, _, id = reference.partition("/")
            self._registry += type == SEARCH_PARAMETER
            self._current[type].pop(id, None)
            self._log = [entry for entry in self._log if entry[1].reference != reference]

    def _iterate_matches(self, query: Query) -> Iterator[Candidate]:
        for scope in query.scopes:
            yield from filter(compile_predicate(scope.where, self), self.iterate_type(scope.type))

    def _find_page(self, query: Query) -> Page:
        if any(key.kind == "score" for key in query.sort):
            for scope in query.scopes:
                if sum(1 for _ in self._iterate_matches(Query((scope,)))) > MAX_SCORED:
                    raise BudgetExceeded(describe_too_many_scored(scope.type))
        candidates, position = select_page(query, self._iterate_matches(query))
        found = [(compute_sort_key(query.sort, each), self._versions[each.reference][-1]) for each in candidates]
        page = cut_page(found, query)
        return page if page.next is not None else Page(page.matches, position)

    def _iterate_history(self, query: HistoryQuery) -> Iterator[Stored]:
        for versions in self._versions.values():
            if query.types and versions[0].type not in query.types:
                continue
            if query.id is not None and versions[0].id != query.id:
                continue
            for version, successor in zip(versions, [*versions[1:], None], strict=True):
                if _is_in_history(query, version, successor):
                    yield version

    def _reindex(self, reference: str, extract: Extract) -> None:
        candidate = self.resolve(reference)
        raw = self._versions[reference][-1].raw if candidate else None
        if candidate is None or raw is None:
            return
        entries = extract(candidate.type, raw)
        self._current[candidate.type][candidate.id] = replace(candidate, entries=entries)

    def _parse_token(self, token: str | None) -> int:
        if token is None:
            return 0
        if not token.isdecimal() or int(token) > self._commits:
            raise Expired(f"`{token}` is not a change token of this store.")
        return int(token)


def _build_history_key(version: Stored) -> HistoryKey:
    return (-version.last_updated, version.reference, -version.version)


def _is_in_history(query: HistoryQuery, version: Stored, successor: Stored | None) -> bool:
    """Whether the query asks for the version; it was current from its lastUpdated until just before its successor's."""
    if query.since is not None and version.last_updated < query.since:
        return False
    if query.at is not None:
        start, end = query.at
        if version.last_updated > end or (successor is not None and successor.last_updated <= start):
            return False
    if query.before is not None:
        last_updated, reference, number = query.before
        return _build_history_key(version) > (-last_updated, reference, -number)
    return True
