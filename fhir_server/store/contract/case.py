"""What the contract's tests are written with: a clock, hand-made writes and the `stored` decorator (../protocol.py).

Index entries are made by hand here, so that a store can be judged without the code that indexes FHIR resources.
"""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from fhir_server.search.entries import NO_ENTRIES, SEPARATOR, DateEntry, Entries, NumberEntry
from fhir_server.search.query import EVERYTHING, Clause, Query, Scope, SortKey
from fhir_server.store.operations import Content, Transaction, Write
from fhir_server.store.protocol import Clock, Committed, Extract, HistoryKey, HistoryQuery, Store, Stored, WriteConflict

START = 1_795_420_800_000_000
"""2026-11-23T08:00:00Z in µs."""

MILLISECOND = 1000
HOUR = 3_600_000_000

LIMIT = 300
"""Seconds after which a test has failed."""

T = TypeVar("T")

PAGES = 1000
"""More pages than any walk here has."""


class Ticks:
    """A clock that moves only when told."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> int:
        return self.now

    def forward(self, microseconds: int) -> int:
        """Move on (or back, when negative) and return the time."""
        self.now += microseconds
        return self.now


class Case(ABC):
    """Tests of one store. A subclass says how it is opened; each call gives a new, empty database."""

    @abstractmethod
    async def open_store(self, clock: Clock) -> Store:
        """A store on an empty database of its own; the test closes it."""


def run_on_store(test: Callable[[Any, Store, Ticks], Awaitable[None]]) -> Callable[[Any], None]:
    """The async test as a plain one that runs in an event loop with an open store and its clock."""

    async def with_store(case: Case) -> None:
        clock = Ticks()
        store = await case.open_store(clock)
        try:
            async with asyncio.timeout(LIMIT):
                await test(case, store, clock)
        finally:
            await store.close()

    def run(case: Case) -> None:
        asyncio.run(with_store(case))

    run.__name__ = test.__name__  # not functools.wraps: pytest would take the wrapped parameters for fixtures
    run.__doc__ = test.__doc__
    return run


def content(reference: str, text: str = "") -> Content:
    """A resource with an odd layout, so that any re-serialisation shows; `text` is where versions differ."""
    type, _, id = reference.partition("/")
    head = f'{{ "resourceType":"{type}",\n"id" : "{id}","meta":{{"source":"urn:é", '
    return Content(head.encode(), f'}},"value":1.10,  "text":"{text}" }}'.encode())


def put(reference: str, entries: Entries = NO_ENTRIES, text: str = "") -> Write:
    """An update (or update-as-create)."""
    type, _, id = reference.partition("/")
    return Write("PUT", type, id, content(reference, text), entries)


def post(reference: str, entries: Entries = NO_ENTRIES, text: str = "") -> Write:
    """A create."""
    return put(reference, entries, text)._replace(method="POST")


def delete(reference: str) -> Write:
    """A deletion."""
    type, _, id = reference.partition("/")
    return Write("DELETE", type, id)


async def purge(store: Store, *references: str) -> None:
    """Remove resources physically."""
    await store.transact(Transaction(purged=references))


def terms(references: Iterable[str] = (), **values: Iterable[str]) -> Entries:
    """Entries of terms (a keyword's `_` stands for `-`) and, for integrity, of the references given."""
    return Entries(terms=_sort_values(values), references=tuple(sorted(references)))


def dates(**values: Iterable[DateEntry]) -> Entries:
    """Entries of date intervals alone."""
    return Entries(dates=_sort_values(values))


def numbers(**values: Iterable[NumberEntry]) -> Entries:
    """Entries of numbers alone."""
    return Entries(numbers=_sort_values(values))


def _sort_values(values: Mapping[str, Iterable[Any]]) -> dict[str, tuple[Any, ...]]:
    return {name.replace("_", "-"): tuple(sorted(set(each))) for name, each in values.items()}


def token(code: str, system: str = "") -> str:
    """The term of a token."""
    return f"{code}{SEPARATOR}{system}"


def canonical(url: str, version: str = "") -> str:
    """The term of a canonical."""
    return f"{url}{SEPARATOR}{version}"


def string(value: str) -> str:
    """The term of a string."""
    return f"{value.lower()}{SEPARATOR}{value}"


async def write(store: Store, *writes: Write, **rest: Any) -> Committed:
    """One transaction of the writes, tried again when the store reports a conflict with another one."""
    return await retry_transaction(store, Transaction(writes, **rest))


async def retry_transaction(store: Store, transaction: Transaction, attempts: int = 100) -> Committed:
    """`transact`, tried again on WriteConflict, as its promise allows."""
    for _ in range(attempts - 1):
        try:
            return await store.transact(transaction)
        except WriteConflict:
            await asyncio.sleep(0.001)
    return await store.transact(transaction)


def query(type: str, where: Clause = EVERYTHING, **rest: Any) -> Query:
    """A query over one type."""
    return Query((Scope(type, where),), **rest)


async def ids(store: Store, type: str, where: Clause) -> list[str]:
    """The ids that match, in order."""
    return [match.id for match in (await store.search(query(type, where, count=1000))).matches]


async def walk(store: Store, asked: Query) -> list[Stored]:
    """All pages of a search; positions go through JSON, as they do in page links."""

    async def load(after: SortKey | None) -> tuple[Sequence[Stored], SortKey | None]:
        page = await store.search(replace(asked, after=after))
        return page.matches, None if page.next is None else tuple(json.loads(json.dumps(page.next)))

    return await _collect(load, asked.after)


async def walk_history(store: Store, asked: HistoryQuery) -> list[Stored]:
    """All pages of a history."""

    async def load(before: HistoryKey | None) -> tuple[Sequence[Stored], HistoryKey | None]:
        page = await store.history(replace(asked, before=before))
        return page.versions, page.next

    return await _collect(load, asked.before)


async def walk_changes(store: Store, after: str | None = None, limit: int = 1000) -> list[Stored]:
    """All changes after a token."""

    async def load(token: str | None) -> tuple[Sequence[Stored], str | None]:
        changes = await store.read_changes(token, limit)
        return changes.versions, changes.token if changes.versions else None

    return await _collect(load, after)


async def _collect(
    load: Callable[[T | None], Awaitable[tuple[Sequence[Stored], T | None]]], after: T | None
) -> list[Stored]:
    """What `load` gives page by page, until no position follows."""
    found: list[Stored] = []
    for _ in range(PAGES):
        versions, after = await load(after)
        found += versions
        if after is None:
            return found
    raise AssertionError(f"There are more than {PAGES} pages.")


async def reindex(store: Store, types: Iterable[str], extract: Extract) -> int:
    """All batches of the types; returns how many resources."""
    registry, done = await store.registry_version(), 0
    for type in types:
        after: str | None = None
        for _ in range(PAGES):
            batch = await store.reindex(type, extract, registry, after)
            done, after = done + batch.count, batch.next
            if after is None:
                break
    return done


def list_labels(versions: Iterable[Stored]) -> list[tuple[str, int]]:
    """(`Type/id`, version) of each."""
    return [(version.reference, version.version) for version in versions]
