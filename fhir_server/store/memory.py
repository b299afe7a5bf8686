"""The store in memory: one process, nothing kept, the oracle of the other stores (https://hl7.org/fhir/R4/http.html).

No method awaits while it works on the state, so each is atomic towards all others on the event loop.
"""

from __future__ import annotations

import secrets
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from fhir_server.search.explain import describe_clause
from fhir_server.search.match import Candidate, compile_predicate, select_page
from fhir_server.search.query import Clause, Query
from fhir_server.search.words import MAX_SCORED, describe_too_many_scored
from fhir_server.store.operations import Assertion, Content, Matches, Transaction, VersionIs, Write, Written
from fhir_server.store.protocol import (
    REINDEXED_AT_ONCE,
    SEARCH_PARAMETER,
    AssertionFailed,
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
    ReadFailed,
    RegistryChanged,
    Reindexed,
    StillReferenced,
    Stored,
    StoreUnavailable,
    TargetsMissing,
)

MILLISECOND = 1000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


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
        self._kept: dict[str, bytes] = {}
        self._closed = False

    async def transact(self, transaction: Transaction) -> Committed:
        """See `protocol.Store.transact`; ValueError when two writes are of one resource."""
        await self.ready()
        _check_distinct(transaction.writes)
        self._check_registry(transaction.registry)
        for assertion in transaction.assertions:
            if not self._holds(assertion):
                raise AssertionFailed(assertion)
        undo: list[_Undo] = []
        mark = len(self._log), self._commits, self._newest
        try:
            written = self._write(transaction.writes, undo)
            self._check_references(transaction)
            found = tuple(self._read_current(reference) for reference in transaction.reads)
            pages = tuple(self._page(query) for query in transaction.queries)
        except BaseException:
            self._roll_back(undo, mark)
            raise
        self._registry += any(each.type == SEARCH_PARAMETER and each.version for each in written)
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
        return self._page(query)

    async def count(self, query: Query) -> int:
        """The number of matches."""
        return sum(1 for _ in self._matched(query))

    async def explain(self, query: Query) -> tuple[str, ...]:
        """See `protocol.Explaining.explain`: everything of a type is looked at."""
        started = time.perf_counter()
        page = self._page(query)
        took = (time.perf_counter() - started) * 1000
        lines = [
            f"{scope.type}: all {len(self._current.get(scope.type, ()))} resources are tested, there is no index: "
            f"{describe_clause(scope.where)}."
            for scope in query.scopes
        ]
        return (*lines, f"The search took {took:.2f} ms and found {len(page.matches)} on this page.")

    async def matching(self, references: Sequence[str], where: Clause) -> frozenset[str]:
        """The references whose current resource matches."""
        holds = compile_predicate(where, self)
        candidates = filter(None, map(self.resolve, references))
        return frozenset(candidate.reference for candidate in candidates if holds(candidate))

    async def history(self, query: HistoryQuery) -> HistoryPage:
        """A page of versions, newest first."""
        versions = sorted(self._in_history(query), key=_history_order)
        page = tuple(versions[: query.count])
        more = bool(page) and len(versions) > len(page)
        last = (page[-1].last_updated, page[-1].reference, page[-1].version) if more else None
        return HistoryPage(page, last, self._newest)

    async def changes(self, after: str | None, limit: int = 1000) -> Changes:
        """Committed versions in commit order; the token is the number of the last one."""
        start = self._parse_token(after)
        versions = [entry for entry in self._log if entry[0] > start][:limit]
        return Changes(tuple(version for _, version in versions), str(versions[-1][0] if versions else start))

    async def reindex(self, type: str, extract: Extract, registry: int, after: str | None = None) -> Reindexed:
        """Make the entries of the next resources anew, by id."""
        self._check_registry(registry)
        left = sorted(candidate.id for candidate in self.iterate_type(type) if after is None or candidate.id > after)
        batch = left[:REINDEXED_AT_ONCE]
        for id in batch:
            self._reindex(f"{type}/{id}", extract)
        return Reindexed(len(batch), batch[-1] if len(left) > len(batch) else None)

    async def registry_version(self) -> int:
        """How often a SEARCH_PARAMETER resource was written or purged."""
        return self._registry

    async def wait_for_open_transactions(self) -> None:
        """Return: no transaction awaits anything."""

    async def get_value(self, key: str) -> bytes | None:
        """What is under the key."""
        return self._kept.get(key)

    async def put_value_if(self, key: str, value: bytes, before: bytes | None) -> bool:
        """Put the value there unless something else came first."""
        if self._kept.get(key) != before:
            return False
        self._kept[key] = value
        return True

    async def purge(self, type: str, id: str) -> bool:
        """Forget the resource."""
        if self._versions.pop(f"{type}/{id}", None) is None:
            return False
        self._registry += type == SEARCH_PARAMETER
        self._current[type].pop(id, None)
        self._log = [entry for entry in self._log if (entry[1].type, entry[1].id) != (type, id)]
        return True

    async def page_key(self) -> bytes:
        """The store's 32 random bytes."""
        return self._secret

    async def ready(self) -> None:
        """Return unless closed."""
        if self._closed:
            raise StoreUnavailable("The in-memory store is closed.")

    async def close(self) -> None:
        """Refuse further writes; there is nothing to release."""
        self._closed = True

    def resolve(self, reference: str) -> Candidate | None:
        """`match.CurrentResources.resolve`."""
        type, _, id = reference.partition("/")
        return self._current[type].get(id) if type in self._current else None

    def iterate_type(self, type: str) -> Iterable[Candidate]:
        """`match.CurrentResources.of_type`."""
        return tuple(self._current[type].values()) if type in self._current else ()

    def _check_registry(self, number: int | None) -> None:
        if number not in (None, self._registry):
            raise RegistryChanged(f"the registry is {self._registry}, not {number}")

    def _holds(self, assertion: Assertion) -> bool:
        if isinstance(assertion, VersionIs):
            return len(self._versions.get(f"{assertion.type}/{assertion.id}", ())) == assertion.version
        return self._finds(assertion)

    def _finds(self, assertion: Matches) -> bool:
        query = replace(assertion.query, sort=(), after=None, count=len(assertion.ids) + 1)
        return tuple(match.id for match in self._page(query).matches) == assertion.ids

    def _write(self, writes: Iterable[Write], undo: list[_Undo]) -> tuple[Written, ...]:
        # Never below what any reader has seen: otherwise `_since` the newest version known could miss this one.
        now = max(self._clock() // MILLISECOND * MILLISECOND, self._newest)
        return tuple(self._write_one(write, now, undo) for write in writes)

    def _write_one(self, write: Write, now: int, undo: list[_Undo]) -> Written:
        reference = f"{write.type}/{write.id}"
        before = self.resolve(reference)
        if write.content is None and before is None:
            return Written(write.type, write.id, 0, 0, False)
        versions = self._versions.setdefault(reference, [])
        version = len(versions) + 1
        last_updated = max(now, versions[-1].last_updated + MILLISECOND) if versions else now
        raw = None if write.content is None else _spliced(write.content, version, last_updated)
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

    def _check_references(self, transaction: Transaction) -> None:
        missing = [reference for reference in dict.fromkeys(transaction.required) if not self.resolve(reference)]
        if missing:
            raise TargetsMissing(missing)
        sources = self._sources(frozenset(transaction.released), transaction.exempt)
        if sources:
            raise StillReferenced(sources)

    def _sources(self, targets: frozenset[str], exempt: frozenset[str]) -> dict[str, list[str]]:
        """The current resources that refer to each target, exempt types aside."""
        sources: dict[str, list[str]] = {}
        if not targets:
            return sources
        for type in sorted(self._current.keys() - exempt):
            for candidate in self.iterate_type(type):
                for target in targets.intersection(candidate.entries.references):
                    sources.setdefault(target, []).append(candidate.reference)
        return sources

    def _read_current(self, reference: str) -> Stored:
        versions = self._versions.get(reference)
        if not versions or versions[-1].raw is None:
            raise ReadFailed(reference, deleted=bool(versions))
        return versions[-1]

    def _matched(self, query: Query) -> Iterator[Candidate]:
        for scope in query.scopes:
            yield from filter(compile_predicate(scope.where, self), self.iterate_type(scope.type))

    def _page(self, query: Query) -> Page:
        if any(key.kind == "score" for key in query.sort):
            for scope in query.scopes:
                if sum(1 for _ in self._matched(Query((scope,)))) > MAX_SCORED:
                    raise BudgetExceeded(describe_too_many_scored(scope.type))
        candidates, position = select_page(query, self._matched(query))
        return Page(tuple(self._versions[candidate.reference][-1] for candidate in candidates), position)

    def _in_history(self, query: HistoryQuery) -> Iterator[Stored]:
        for versions in self._versions.values():
            if query.types and versions[0].type not in query.types:
                continue
            if query.id is not None and versions[0].id != query.id:
                continue
            for version, successor in zip(versions, [*versions[1:], None], strict=True):
                if _asked_for(query, version, successor):
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


def _check_distinct(writes: Sequence[Write]) -> None:
    if len({(write.type, write.id) for write in writes}) < len(writes):
        raise ValueError("A transaction has at most one write per resource.")


def _spliced(content: Content, version: int, last_updated: int) -> bytes:
    instant = (_EPOCH + timedelta(microseconds=last_updated)).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
    return content.head + f'"versionId":"{version}","lastUpdated":"{instant}Z"'.encode() + content.tail


def _history_order(version: Stored) -> HistoryKey:
    return (-version.last_updated, version.reference, -version.version)


def _asked_for(query: HistoryQuery, version: Stored, successor: Stored | None) -> bool:
    """Whether the query asks for the version; it was current from its lastUpdated until just before its successor's."""
    if query.since is not None and version.last_updated < query.since:
        return False
    if query.at is not None:
        start, end = query.at
        if version.last_updated > end or (successor is not None and successor.last_updated <= start):
            return False
    if query.before is not None:
        last_updated, reference, number = query.before
        return _history_order(version) > (-last_updated, reference, -number)
    return True
