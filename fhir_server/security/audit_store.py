"""Audit events as AuditEvent resources in the store (setting `audit`): searched like others, written by no client.

Who has the store can change them, and no chain tells: docs/audit.md has what the files do better.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple

import orjson

from fhir_server.fhir.resource import is_id
from fhir_server.search.entries import Entries
from fhir_server.security.audit import PAUSE, Event, run_beside
from fhir_server.security.audit_event import event_to_audit_event
from fhir_server.store.operations import Content, Transaction, Write
from fhir_server.store.protocol import Clock, RegistryChanged, Store, StoreError

TYPE = "AuditEvent"
AT_ONCE = 200
"""Events in one transaction."""


class Indexing(NamedTuple):
    """How an event is indexed: its tree → its entries; the number of the search parameters by which that is done."""

    make_entries: Callable[[str, dict[str, Any]], Entries]
    get_number: Callable[[], int]
    reload: Callable[[], Awaitable[object]]


class AuditStore:
    """`Audit` into the store; what is taken is written in groups, a transaction each."""

    def __init__(self, store: Store, clock: Clock, new_id: Callable[[], str], indexing: Indexing) -> None:
        self._store, self._clock, self._new_id, self._indexing = store, clock, new_id, indexing
        self._waiting: list[tuple[str, bytes]] = []
        self._writing = asyncio.Lock()

    def __call__(self, event: Event) -> None:
        """Take an event. What stands for an id in the URL and is none is left out."""
        if event.id is not None and not is_id(event.id):
            event = event._replace(id=None)
        self._waiting.append((self._new_id(), event_to_audit_event(event, self._clock())))

    async def settle(self) -> None:
        """Return once every event that was taken is stored; many wait for one transaction. Raises OSError."""
        if self._waiting or self._writing.locked():
            # whoever waits may go away: what is being written is written to its end, and once
            await asyncio.shield(asyncio.ensure_future(self._write_all()))

    async def _write_all(self) -> None:
        async with self._writing:
            while self._waiting:
                group = self._waiting[:AT_ONCE]
                try:
                    await self._store.transact(self._build_transaction(group))
                except RegistryChanged:
                    await self._indexing.reload()
                    continue
                except StoreError as error:
                    raise OSError(errno.EIO, str(error)) from error
                del self._waiting[: len(group)]

    def _build_transaction(self, group: list[tuple[str, bytes]]) -> Transaction:
        number = self._indexing.get_number()
        writes = tuple([self._build_write(id, orjson.loads(line)) for id, line in group])
        return Transaction(writes=writes, registry=number)

    def _build_write(self, id: str, tree: dict[str, Any]) -> Write:
        rest = orjson.dumps({name: value for name, value in tree.items() if name != "resourceType"})
        content = Content(b'{"resourceType":"%b","id":"%b","meta":{' % (TYPE.encode(), id.encode()), b"}," + rest[1:])
        return Write("POST", TYPE, id, content, self._indexing.make_entries(TYPE, {**tree, "id": id}))

    async def follow(self) -> None:
        """Write what nobody waits for, every second."""
        while True:
            await asyncio.sleep(PAUSE)
            # the next write that is waited for tells its client
            with suppress(OSError):
                await self.settle()


@asynccontextmanager
async def open_audit_store(
    store: Store, clock: Clock, new_id: Callable[[], str], indexing: Indexing
) -> AsyncIterator[AuditStore]:
    """An audit into the store, with what is left written at the end."""
    audit = AuditStore(store, clock, new_id, indexing)
    try:
        async with run_beside(audit.follow()):
            yield audit
    finally:
        with suppress(OSError):
            await audit.settle()
