"""A transaction that the database refuses for its cache is too costly; one that others outrun is a conflict.

MongoDB 5.0 answers WriteConflict (112) for changes that its cache does not hold, 6.0.5 TransactionTooLargeForCache
(388): https://www.mongodb.com/docs/manual/reference/error-codes/.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from pymongo import monitoring
from pymongo.errors import OperationFailure

from fhir_server.store.contract.case import Ticks, post, put, terms, write
from fhir_server.store.mongo import open_store
from fhir_server.store.mongo.commit import Attempt
from fhir_server.store.mongo.rivals import LEAST_LARGE
from fhir_server.store.operations import Transaction
from fhir_server.store.protocol import Committed, LastingConflict, Store, TooLargeForStore

LARGE = put("Patient/large", text="x" * LEAST_LARGE)


@pytest.fixture
def refused(mongo_uri: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs a transaction that the database refuses for half a second; another process acts between its attempts."""
    real = Attempt.run

    async def run(transaction: Transaction, code: int, act: Callable[[Store], Awaitable[object]] | None) -> None:
        store, other = await open_store(mongo_uri, Ticks(), retry=0.5), await open_store(mongo_uri, Ticks())
        try:
            await write(other, put("Patient/large"), put("Patient/target"))

            async def refuse(self: Attempt) -> Committed:
                if self.work.transaction != transaction:
                    return await real(self)
                if act is not None:
                    await act(other)
                error = {"errorLabels": ["TransientTransactionError"], "code": code}
                raise OperationFailure("this operation conflicted with another operation", code, error)

            monkeypatch.setattr(Attempt, "run", refuse)
            await store.transact(transaction)
        finally:
            await store.close()
            await other.close()

    def start(
        transaction: Transaction, code: int = 112, act: Callable[[Store], Awaitable[object]] | None = None
    ) -> None:
        asyncio.run(run(transaction, code, act))

    return start


@pytest.mark.parametrize("code", [112, 251], ids=["WriteConflict", "NoSuchTransaction"])
def test_a_large_transaction_that_nobody_outruns_takes_too_much_cache(refused: Callable[..., None], code: int) -> None:
    """Whoever writes something else at the same time has nothing to do with it."""
    with pytest.raises(TooLargeForStore, match="several smaller transactions, or give `mongod` more cache"):
        refused(Transaction((LARGE,)), code, lambda other: write(other, put("Patient/another")))


def test_a_small_one_is_a_conflict(refused: Callable[..., None]) -> None:
    with pytest.raises(LastingConflict, match="Other transactions kept changing the same resources"):
        refused(Transaction((put("Patient/large"),)))


def test_one_whose_resource_others_change_is_a_conflict(refused: Callable[..., None]) -> None:
    with pytest.raises(LastingConflict):
        refused(Transaction((LARGE,)), act=lambda other: write(other, put("Patient/large")))


def test_one_whose_lock_others_touch_is_a_conflict(refused: Callable[..., None]) -> None:
    large = Transaction((LARGE,), locks=("Patient.identifier=1",))
    with pytest.raises(LastingConflict):
        refused(large, act=lambda other: write(other, put("Patient/another"), locks=("Patient.identifier=1",)))


class Inserts(monitoring.CommandListener):
    """Whether each command that writes resources goes on after an error."""

    def __init__(self) -> None:
        self.found: list[tuple[str, bool]] = []

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        if event.command.get(event.command_name) == "Basic" and event.command_name in ("insert", "update"):
            self.found.append((event.command_name, event.command["ordered"]))

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        """Of no interest here."""

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        """Of no interest here."""


def test_the_first_error_of_a_write_ends_it(mongo_uri: str) -> None:
    """Else the driver goes on with the next message of a large one, and tells of it that the transaction is gone."""
    inserts = Inserts()
    monitoring.register(inserts)

    async def body() -> None:
        store = await open_store(mongo_uri, Ticks())
        try:
            await write(store, put("Basic/0"), put("Basic/2"))
            inserts.found.clear()
            tag = terms(code=["x"])
            await write(store, put("Basic/0", tag), post("Basic/1", tag), put("Basic/2", tag), post("Basic/3", tag))
        finally:
            await store.close()

    asyncio.run(body())
    assert inserts.found == [("insert", True), ("update", True)]
