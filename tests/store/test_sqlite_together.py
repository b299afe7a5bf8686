"""Transactions that are written together: one that cannot be prepared does not take the others with it."""

from __future__ import annotations

import asyncio
import struct
from pathlib import Path

import pytest

from fhir_server.app import read_clock
from fhir_server.search.entries import Entries
from fhir_server.store.contract.case import put
from fhir_server.store.operations import Transaction
from fhir_server.store.sqlite import open_store

pytestmark = pytest.mark.anyio

WRITES = 40
"""More than the event loop writes itself."""


def make_transaction(name: str, entries: Entries) -> Transaction:
    return Transaction(writes=tuple(put(f"Patient/{name}{number}", entries) for number in range(WRITES)))


async def test_each_has_its_own_outcome(tmp_path: Path) -> None:
    store = await open_store(f"sqlite:///{tmp_path}/fhir.db", read_clock)
    right = Entries(terms={"family": ("jones\x1fJones",)})
    wrong = Entries(terms={"family": (7,)})  # type: ignore[dict-item]
    try:
        await store.transact(make_transaction("first", right))  # numbers the parameter
        outcomes = await asyncio.gather(
            *(store.transact(make_transaction(name, wrong if name == "b" else right)) for name in "abc"),
            return_exceptions=True,
        )
        assert [isinstance(outcome, Exception) for outcome in outcomes] == [False, True, False]
        assert (await store.read("Patient", "a0")) is not None
        assert (await store.read("Patient", "b0")) is None
        assert (await store.read("Patient", "c0")) is not None
    finally:
        await store.close()


async def test_writes_of_one_turn_of_the_loop_share_a_commit(tmp_path: Path) -> None:
    path = tmp_path / "fhir.db"
    store = await open_store(f"sqlite:///{path}", read_clock)
    entries = Entries(terms={"family": ("jones\x1fJones",)})
    try:
        await store.transact(Transaction(writes=(put("Patient/first", entries),)))  # numbers the parameter
        before = _count_commits(path)
        await asyncio.gather(*(store.transact(Transaction(writes=(put(f"Patient/{n}", entries),))) for n in range(8)))
        assert _count_commits(path) - before == 1
    finally:
        await store.close()


def _count_commits(path: Path) -> int:
    """The commits in the write-ahead log: frames with the size of the database (https://www.sqlite.org/fileformat2.html#walformat)."""
    log = path.with_name(f"{path.name}-wal").read_bytes()
    (page_size,) = struct.unpack_from(">I", log, 8)
    sizes = [struct.unpack_from(">I", log, start + 4)[0] for start in range(32, len(log), 24 + page_size)]
    return sum(size > 0 for size in sizes)


async def test_what_was_about_to_begin_is_written_before_the_store_closes(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/fhir.db"
    store = await open_store(uri, read_clock)
    write = asyncio.ensure_future(store.transact(Transaction(writes=(put("Patient/last", Entries()),))))
    await asyncio.sleep(0)  # it is submitted, and not begun
    await store.close()
    assert (await write).written[0].version == 1
    again = await open_store(uri, read_clock)
    try:
        assert await again.read("Patient", "last") is not None
    finally:
        await again.close()
