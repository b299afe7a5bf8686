"""Audit events in files that show when they were changed: each line is chained to the one before by a keyed hash.

A process appends to a file of its own. The key, and of every file the number of its lines and its last digest, are kept
in the store (`audit/key`, `audit/head/<file>`), at least every second and at the end; so a changed, moved or missing
line, a missing file and an end that was cut off are found. Who has the store can make everything anew: docs/audit.md.
"""

from __future__ import annotations

import asyncio
import hmac
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import orjson

from fhir_server.security.audit import PAUSE, Event, run_beside
from fhir_server.security.audit_event import event_to_audit_event
from fhir_server.store.protocol import Clock, Store, StoreError

KEY = "audit/key"
HEADS = "audit/head/"
BEGINNING = "0" * 64
"""What the first line of a file is chained to."""


async def read_key(store: Store) -> bytes:
    """The key of the chains, made once per store."""
    while True:
        key = await store.get_value(KEY)
        if key is not None:
            return key
        await store.put_value_if(KEY, secrets.token_bytes(32), None)


class Chain:
    """The keyed hashes (HMAC with SHA-256) that chain the lines of a file."""

    def __init__(self, key: bytes) -> None:
        # copied for each line, which costs less than to begin with the key again
        self._begun = hmac.new(key, digestmod="sha256")

    def compute_hash(self, before: str, line: bytes) -> str:
        """The hash of a line after the one whose hash is `before`."""
        begun = self._begun.copy()
        begun.update(before.encode() + line)
        return begun.hexdigest()


class AuditFile:
    """`Audit` into one file; what is taken is written in groups, one fsync for each."""

    def __init__(self, path: Path, key: bytes, store: Store, clock: Clock) -> None:
        self._path, self._chain, self._store, self._clock = path, Chain(key), store, clock
        self._waiting: list[bytes] = []
        self._count, self._hash, self._head = 0, BEGINNING, b""
        self._writing = asyncio.Lock()
        # 0600: what was read of whom is as private as what was read
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)

    def __call__(self, event: Event) -> None:
        """Take an event."""
        self._waiting.append(event_to_audit_event(event, self._clock()))

    async def settle(self) -> None:
        """Return once every event that was taken is in the file and synced; many wait for one sync."""
        async with self._writing:
            if not self._waiting:
                return
            lines, self._waiting = self._waiting, []
            try:
                await asyncio.to_thread(self._write, lines)
            except OSError:
                self._waiting = lines + self._waiting
                raise

    def _write(self, lines: list[bytes]) -> None:
        text, digest = bytearray(), self._hash
        for line in lines:
            digest = self._chain.compute_hash(digest, line)
            text += line + b"\t" + digest.encode() + b"\n"
        size = os.fstat(self._file).st_size
        try:
            view = memoryview(text)
            while view:
                view = view[os.write(self._file, view) :]
            os.fsync(self._file)
        except OSError:
            del view
            os.ftruncate(self._file, size)
            raise
        self._hash, self._count = digest, self._count + len(lines)

    async def keep_head(self) -> None:
        """Tell the store how far the file is."""
        head = orjson.dumps({"count": self._count, "hash": self._hash})
        if head == self._head:
            return
        if await self._store.put_value_if(f"{HEADS}{self._path.name}", head, self._head or None):
            self._head = head

    async def follow(self) -> None:
        """Write what nobody waits for, and keep the head, every second."""
        while True:
            await asyncio.sleep(PAUSE)
            # the next write that is waited for tells a full disk to its client
            with suppress(OSError, StoreError):
                await self.settle()
                await self.keep_head()

    async def close(self) -> None:
        """Write what is left."""
        try:
            with suppress(OSError, StoreError):
                await self.settle()
                await self.keep_head()
        finally:
            os.close(self._file)


@asynccontextmanager
async def open_audit_file(folder: str, store: Store, clock: Clock) -> AsyncIterator[AuditFile]:
    """A new file in the folder, which is made where it is missing. Raises OSError."""
    Path(folder).mkdir(mode=0o700, parents=True, exist_ok=True)
    moment = datetime.fromtimestamp(clock() / 1_000_000, UTC).strftime("%Y%m%dT%H%M%SZ")
    path = Path(folder) / f"{moment}-{secrets.token_hex(4)}.jsonl"
    audit = AuditFile(path, await read_key(store), store, clock)
    # the store knows of the file before anything is in it, so that a missing one is missed
    await audit.keep_head()
    try:
        async with run_beside(audit.follow()):
            yield audit
    finally:
        await audit.close()


def find_faults(path: Path, key: bytes, head: bytes) -> list[str]:
    """What is wrong with a file that the store knows; a sentence each. `head`: the value that the store has of it."""
    known = orjson.loads(head)
    chain, digest, count, passed = Chain(key), BEGINNING, 0, known["count"] == 0
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        return [f"`{path.name}` cannot be read: {error.strerror}; it had {known['count']} events."]
    for number, text in enumerate(lines[:-1], 1):
        line, _, told = text.rpartition(b"\t")
        digest = chain.compute_hash(digest, line)
        if told.decode("ascii", "replace") != digest:
            return [f"`{path.name}`, line {number}: it was changed, or lines before it were changed, moved or removed."]
        count = number
        passed = passed or (count == known["count"] and digest == known["hash"])
    if lines[-1]:
        return [f"`{path.name}` ends within a line: the machine stopped while it was written, or the end was cut off."]
    if count < known["count"]:
        return [f"`{path.name}` has {count} events; it had at least {known['count']}."]
    return [] if passed else [f"`{path.name}`: event {known['count']} is not the one that the store knows."]
