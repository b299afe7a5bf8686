"""Transactions that are written together: one that cannot be prepared does not take the others with it."""

from __future__ import annotations

import asyncio
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
