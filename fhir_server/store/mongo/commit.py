"""One attempt at a transaction: everything between the start of a session's transaction and its commit.

The resources that the transaction names are read at once, a query per type; it is checked whole, then written in one
bulk per type and one for `history`. A refused transaction has written nothing but its locks, and is aborted.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

from bson import ObjectId
from pymongo import InsertOne, ReplaceOne
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import ExecutionTimeout, PyMongoError

from fhir_server.store.checks import Checks, changes_registry, check_matches, check_value
from fhir_server.store.mongo.causal import start_session_behind
from fhir_server.store.mongo.documents import (
    PROJECTION,
    build_documents,
    build_version_id,
    match_versions,
    parse_current,
)
from fhir_server.store.mongo.errors import is_duplicate
from fhir_server.store.mongo.indexes import HISTORY, LOCKS, META, Database, Document, is_type
from fhir_server.store.mongo.locks import touch
from fhir_server.store.mongo.referring import build_sources_pipeline
from fhir_server.store.mongo.search import Search
from fhir_server.store.mongo.upkeep import check_registry, purge, raise_registry
from fhir_server.store.mongo.values import get_value
from fhir_server.store.mongo.watermark import MILLISECOND, CommitWatermark
from fhir_server.store.operations import Matches, Transaction, ValueIs, VersionIs, Write, Written
from fhir_server.store.protocol import SEARCH_PARAMETER, Committed, Stored, StoreUnavailable

_STATE = {"version": 1, "updated": 1, "order": 1, "live": 1}
_IDS_PER_READ = 10_000
_TARGETS_PER_READ = 250
"""Of deleted resources: each is up to ten texts of at most 100 bytes for every type, and a command has 16 MB."""

READ_MS = 20_000
"""How long a transaction waits for the state of what it names, and for what refers to what it deletes, each."""


class AlreadyCreated(Exception):
    """A resource that was taken for new is there, or another transaction holds a lock's document: try again."""


@dataclass(frozen=True, slots=True)
class Work:
    """A transaction and what is fixed before its first attempt: its id, its time, its locks."""

    transaction: Transaction
    id: ObjectId
    now: int
    locks: Sequence[str]


@dataclass(frozen=True, slots=True)
class Context:
    """What the attempts of a process share: the database, the searches on its primary, and the watermark.

    `sharded`: the database is behind `mongos`, where what is committed may be visible later (`causal.py`).
    """

    database: Database
    search: Search
    watermark: CommitWatermark
    sharded: bool


@dataclass(frozen=True, slots=True)
class _State:
    """A resource as the transaction's snapshot has it."""

    version: int = 0
    updated: int = 0
    order: int = 0
    live: bool = False


_ABSENT = _State()


@dataclass(slots=True)
class Attempt:
    """One attempt in the open transaction of `session`; with `assume_new` the resource of a POST is not read first."""

    context: Context
    session: AsyncClientSession
    work: Work
    assume_new: bool
    states: dict[str, _State] = field(default_factory=dict)
    versions: dict[str, Stored] = field(default_factory=dict)

    async def run(self) -> Committed:
        """Check and write. Raises the protocol's errors, CreatedAlready and the driver's."""
        transaction = self.work.transaction
        writes = {f"{write.type}/{write.id}": write for write in transaction.writes}
        if transaction.registry is not None and writes:
            await check_registry(self.context.database, transaction.registry, self.session)
        await self._read_states(self._collect_references(writes))
        checks = Checks(transaction, writes, self._get_state)
        for assertion in transaction.assertions:
            if isinstance(assertion, VersionIs):
                checks.check_version(assertion)
            elif isinstance(assertion, Matches):
                check_matches(assertion, await self.context.search.find_page(assertion.first_page, self.session))
        await self._check_values()
        checks.check_required()
        # After the checks: whoever changed what they saw touched a lock in common, and this write meets it.
        if writes and self.work.locks:
            await self._touch_locks()
        if transaction.released:
            checks.check_released(await self._find_sources(transaction, writes))
        checks.check_reads()
        written = await self._write(writes)
        if changes_registry(written):
            await raise_registry(self.context.database, self.session)
        found = await self._read(transaction.reads)
        pages = [await self.context.search.find_page(query, self.session) for query in transaction.queries]
        for reference in transaction.purged:
            await purge(self.context.database, reference, self.session)
        return Committed(written, found, tuple(pages))

    async def _check_values(self) -> None:
        """Raises AssertionFailed; each is checked once, as many writes of a transaction assert the same."""
        asserted = {each: None for each in self.work.transaction.assertions if isinstance(each, ValueIs)}
        now = self.context.watermark.read_clock() if asserted else 0
        for each in asserted:
            check_value(each, await get_value(self.context.database, each.key, now, self.session))

    async def look_again(self) -> None:
        """Read outside the transaction what its checks were made on.

        Another `mongos` may know later times of the shards than ours. The answers bring these along, so that a next
        attempt sees what was committed by now.
        """
        transaction = self.work.transaction
        writes = {f"{write.type}/{write.id}": write for write in transaction.writes}
        for type, ids in _iterate_batches(self._collect_references(writes)):
            wanted = {"_id": {"$in": ids}}
            async with self.context.database[type].find(wanted, {"_id": 1}, max_time_ms=READ_MS) as found:
                await found.to_list()
        for assertion in transaction.assertions:
            if isinstance(assertion, Matches):
                await self.context.search.find_page(assertion.first_page)

    def list_written(self) -> dict[str, list[str]]:
        """The `_id`s of the documents that the attempt has written or purged, by collection."""
        found = group_by_type((*self.versions, *self.work.transaction.purged))
        if SEARCH_PARAMETER in found:
            found[META] = ["registry"]
        if self.versions:
            found[HISTORY] = [build_version_id(each.reference, each.version) for each in self.versions.values()]
        return found

    async def is_committed(self) -> bool:
        """Whether its versions are there, when the answer to its commit was lost; purged ones are gone."""
        async with self._start_session() as session:
            history = self.context.database[HISTORY]
            for reference in self.work.transaction.purged:
                return await history.find_one(match_versions(reference), {"_id": 1}, session=session) is None
            for reference, version in self.versions.items():
                wanted = {"_id": build_version_id(reference, version.version)}
                found = await history.find_one(wanted, {"transaction": 1}, session=session)
                return found is not None and found.get("transaction") == self.work.id
        return False

    def get_newest_time(self) -> int:
        """The latest time of the versions made; 0 without any."""
        return max((version.last_updated for version in self.versions.values()), default=0)

    @asynccontextmanager
    async def _start_session(self) -> AsyncIterator[AsyncClientSession | None]:
        """For questions beside the transaction; None where all that is committed is visible anyway."""
        if not self.context.sharded:
            yield None
            return
        async with start_session_behind(self.context.database, self.session) as session:
            yield session

    async def _find_sources(self, transaction: Transaction, writes: Iterable[str]) -> list[tuple[str, str]]:
        async with self._start_session() as session:
            return await find_sources(self.context.database, transaction, writes, session)

    async def _touch_locks(self) -> None:
        touches = [touch(name) for name in self.work.locks]
        await self.context.database[LOCKS].bulk_write(touches, ordered=False, session=self.session)

    def _collect_references(self, writes: Mapping[str, Write]) -> set[str]:
        """The references whose state must be known."""
        transaction = self.work.transaction
        named = {reference for reference, write in writes.items() if not (self.assume_new and write.method == "POST")}
        named.update(f"{each.type}/{each.id}" for each in transaction.assertions if isinstance(each, VersionIs))
        named.update(target for target in (*transaction.required, *transaction.reads) if target not in writes)
        return named

    async def _read_states(self, references: Iterable[str]) -> None:
        for type, ids in _iterate_batches(references):
            wanted = {"_id": {"$in": ids}}
            asked = self.context.database[type].find(wanted, _STATE, session=self.session, max_time_ms=READ_MS)
            with refuse_slow_reads():
                async with asked as cursor:
                    async for found in cursor:
                        state = _State(found["version"], found["updated"], found["order"], found["live"])
                        self.states[f"{type}/{found['_id']}"] = state

    def _get_state(self, reference: str) -> _State:
        return self.states.get(reference, _ABSENT)

    async def _write(self, writes: Mapping[str, Write]) -> tuple[Written, ...]:
        newest = max((self._get_state(reference).order for reference in writes), default=0)
        orders = self.context.watermark.allocate_orders(newest, len(writes))
        changes: dict[str, list[InsertOne[Document] | ReplaceOne[Document]]] = {}
        versions: list[Document] = []
        written = []
        for order, (reference, write) in zip(orders, writes.items(), strict=True):
            state = self._get_state(reference)
            if write.content is None and not state.live:
                written.append(Written(write.type, write.id, 0, 0, False))
                continue
            made = self._build_version(write, state)
            current, version = build_documents(made, order, self.work.id, write)
            changes.setdefault(write.type, []).append(_build_change(current, state))
            versions.append(version)
            self.versions[reference] = made
            created = write.content is not None and not state.live
            written.append(Written(write.type, write.id, made.version, made.last_updated, created))
        try:
            for type, listed in changes.items():
                # In order, new ones first: a command for each kind, and the first error is the one that is told.
                listed.sort(key=lambda change: isinstance(change, ReplaceOne))
                await self.context.database[type].bulk_write(listed, session=self.session)
            if versions:
                await self.context.database[HISTORY].insert_many(versions, session=self.session)
        except PyMongoError as error:
            if is_duplicate(error):
                raise AlreadyCreated from error
            raise
        return tuple(written)

    def _build_version(self, write: Write, state: _State) -> Stored:
        version, updated = state.version + 1, max(self.work.now, state.updated + MILLISECOND)
        raw = None if write.content is None else write.content.build_text(version, updated)
        return Stored(write.type, write.id, version, updated, write.method, raw)

    async def _read(self, references: Sequence[str]) -> tuple[Stored, ...]:
        found = dict(self.versions)
        others = [reference for reference in references if reference not in found]
        found.update(await read_current(self.context.database, others, self.session))
        return tuple([found[reference] for reference in references])


def _build_change(current: Document, state: _State) -> InsertOne[Document] | ReplaceOne[Document]:
    if not state.version:
        return InsertOne(current)
    return ReplaceOne({"_id": current["_id"], "version": state.version}, current)


@contextmanager
def refuse_slow_reads() -> Iterator[None]:
    """Raises StoreUnavailable for a read that took longer than READ_MS: it is no search that could ask for less."""
    try:
        yield
    except ExecutionTimeout as error:
        raise StoreUnavailable(
            "MongoDB did not tell in time what the transaction refers to; nothing was written. Try again."
        ) from error


def group_by_type(references: Iterable[str]) -> dict[str, list[str]]:
    """Ids by type of the local references, each once, sorted."""
    found: dict[str, list[str]] = {}
    for reference in sorted(set(references)):
        type, _, id = reference.partition("/")
        if is_type(type):
            found.setdefault(type, []).append(id)
    return found


def _iterate_batches(references: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """(type, ids) of the local references, so many ids at once as one query names."""
    for type, ids in group_by_type(references).items():
        for start in range(0, len(ids), _IDS_PER_READ):
            yield type, ids[start : start + _IDS_PER_READ]


async def read_current(
    database: Database, references: Iterable[str], session: AsyncClientSession | None = None
) -> dict[str, Stored]:
    """The newest versions of the resources among the references, deletions too; one query per type."""
    reads = [_read_type(database, type, ids, session) for type, ids in _iterate_batches(references)]
    # A session runs one command after the other.
    answers = [await each for each in reads] if session else await asyncio.gather(*reads)
    return {version.reference: version for answer in answers for version in answer}


async def _read_type(
    database: Database, type: str, ids: Sequence[str], session: AsyncClientSession | None
) -> list[Stored]:
    async with database[type].find({"_id": {"$in": ids}}, PROJECTION, session=session) as cursor:
        return [parse_current(type, document) async for document in cursor]


async def find_sources(
    database: Database, transaction: Transaction, writes: Iterable[str], session: AsyncClientSession | None
) -> list[tuple[str, str]]:
    """(target, source) of the current resources that refer to the released ones and are not written here.

    Asked outside the transaction, which may not use `$unionWith`: its locks on the targets are held by now, so that
    every reference is either visible here or cannot commit beside it.
    """
    types = sorted(set(filter(is_type, await database.list_collection_names())).difference(transaction.exempt))
    written = group_by_type(writes)
    found: set[tuple[str, str]] = set()
    for start in range(0, len(transaction.released) if types else 0, _TARGETS_PER_READ):
        targets = transaction.released[start : start + _TARGETS_PER_READ]
        pipelines = [(type, build_sources_pipeline(type, targets, written.get(type, []))) for type in types]
        (first, stages), *rest = pipelines
        united = [{"$unionWith": {"coll": type, "pipeline": pipeline}} for type, pipeline in rest]
        asked = database[first].aggregate([*stages, *united], session=session, maxTimeMS=READ_MS)
        with refuse_slow_reads():
            async with await asked as cursor:
                async for document in cursor:
                    found.update((text.partition("=")[2], document["source"]) for text in document["targets"])
    return sorted(found)
