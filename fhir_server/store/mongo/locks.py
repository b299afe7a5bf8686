"""Locks by name: a queue within the process, and documents that the transactions of all processes touch.

Two transactions that write the same document cannot both commit, so what must not happen at once touches a document in
common. A reference touches one of STRIPES documents of its target and a deletion all of them: references do not stop
each other, yet none commits beside the deletion (https://www.mongodb.com/docs/manual/core/transactions-production-consideration/).
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b

from pymongo import UpdateOne

from fhir_server.store.operations import Transaction

STRIPES = 64


def hash_name(name: str) -> bytes:
    """The `_id` of a lock's document: short, and without the identifier that the name may hold."""
    return blake2b(name.encode(), digest_size=16).digest()


def touch(name: str) -> UpdateOne:
    """The write that takes a lock for the rest of the transaction; the document is made if absent, and expires."""
    change = {"$inc": {"count": 1}, "$currentDate": {"touched": True}}
    return UpdateOne({"_id": hash_name(name)}, change, upsert=True)


class Stripes:
    """Picks the stripe of each reference: turn by turn, so that the writers of one process do not meet."""

    def __init__(self) -> None:
        self._turns = itertools.count(random.randrange(STRIPES))

    def list_names(self, transaction: Transaction) -> list[str]:
        """The names of all locks of a transaction, sorted: those it names, its references' and its deletions'."""
        turn = next(self._turns) % STRIPES
        names = {f"lock {name}" for name in transaction.locks}
        released = set(transaction.released)
        names.update(_format_stripe(target, turn) for target in transaction.required if target not in released)
        names.update(_format_stripe(target, stripe) for target in released for stripe in range(STRIPES))
        return sorted(names)


def _format_stripe(target: str, number: int) -> str:
    return f"target {target} {number}"


def list_queued_names(transaction: Transaction) -> list[str]:
    """What a transaction waits for within its process, sorted: its named locks and the resources that it changes."""
    changed = {f"{write.type}/{write.id}" for write in transaction.writes if write.method != "POST"}
    return sorted(changed.union(transaction.locks, transaction.released))


@dataclass(slots=True)
class _Turn:
    """A lock of the process and how many hold it or wait for it."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    wanted: int = 0


class Queue:
    """Transactions of one process that share a name take turns: retries settle only races between processes."""

    def __init__(self) -> None:
        self._turns: dict[str, _Turn] = {}

    @asynccontextmanager
    async def take_turn(self, names: Iterable[str]) -> AsyncIterator[None]:
        """Hold all names, taken in the order given; the same order everywhere, or two would wait for each other."""
        wanted = list(names)
        with self._count_names(wanted):
            async with AsyncExitStack() as held:
                for name in wanted:
                    await held.enter_async_context(self._turns[name].lock)
                yield

    @contextmanager
    def _count_names(self, names: list[str]) -> Iterator[None]:
        """Keeps the turns of some names while somebody wants them."""
        for name in names:
            self._turns.setdefault(name, _Turn()).wanted += 1
        try:
            yield
        finally:
            for name in names:
                turn = self._turns[name]
                turn.wanted -= 1
                if not turn.wanted:
                    del self._turns[name]
