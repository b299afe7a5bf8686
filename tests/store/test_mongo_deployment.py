"""What the store asks of a deployment, and what it says when something is wrong (docs/stores/mongodb.md)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import pymongo
import pytest
from bson import Timestamp
from pymongo.database import Database
from pymongo.errors import PyMongoError

from fhir_server.search.entries import Entries
from fhir_server.store.contract.case import Ticks, content, put, write
from fhir_server.store.mongo import deployment, open_store
from fhir_server.store.mongo.documents import LARGEST_DOCUMENT
from fhir_server.store.operations import Transaction, Write
from fhir_server.store.protocol import Expired, HistoryQuery, StoreUnavailable, TooLargeForStore


def _refused(uri: str) -> str:
    with pytest.raises(StoreUnavailable) as refusal:
        asyncio.run(open_store(uri, Ticks()))
    return str(refusal.value)


@contextmanager
def _database(uri: str) -> Iterator[Database[dict[str, Any]]]:
    with pymongo.MongoClient[dict[str, Any]](uri) as client:
        yield client.get_default_database()


def test_a_standalone_is_refused() -> None:
    secantus = pytest.importorskip("secantus")
    server = secantus.SecantusDBServer(port=0, storage_path=":memory:", replica_set_name=None)
    server.start()
    try:
        said = _refused(f"{server.uri}fhir?directConnection=true")
    finally:
        server.stop()
    assert said.startswith("This MongoDB server is a standalone")
    assert "--replSet rs0" in said and "rs.initiate()" in said and "replicaSet=rs0" in said


TOLD: dict[str, dict[str, Any]] = {
    "hello": {"setName": "rs0", "logicalSessionTimeoutMinutes": 30},
    "ping": {"ok": 1.0, "operationTime": Timestamp(1, 1)},
}


class _Server:
    """The `admin` of a client whose server tells what is given."""

    def __init__(self, told: dict[str, dict[str, Any]]) -> None:
        self.admin = self
        self._told = told

    async def command(self, name: str) -> dict[str, Any]:
        return self._told[name]


@pytest.mark.parametrize(("command", "field"), [("hello", "logicalSessionTimeoutMinutes"), ("ping", "operationTime")])
def test_a_server_that_tells_no_times_or_sessions_is_refused(command: str, field: str) -> None:
    """Members of a replica set and `mongos` tell both (https://www.mongodb.com/docs/manual/reference/command/nav-crud/)."""

    def check(told: dict[str, dict[str, Any]]) -> None:
        asyncio.run(deployment.check_deployment(cast(Any, _Server(told))))

    check(TOLD)
    without = {name: value for name, value in TOLD[command].items() if name != field}
    with pytest.raises(StoreUnavailable, match=f"`{field}`.* Use MongoDB 5.0 or later"):
        check(TOLD | {command: without})


def test_an_absent_server_is_waited_for_a_bounded_time() -> None:
    started = time.monotonic()
    said = _refused("mongodb://127.0.0.1:1/fhir?serverSelectionTimeoutMS=300")
    assert "No MongoDB server answers at the store's address" in said and "127.0.0.1:1" in said
    assert time.monotonic() - started < 5


def test_a_uri_without_a_database_is_refused() -> None:
    with pytest.raises(ValueError, match="No default database") as refusal:
        asyncio.run(open_store("mongodb://user:geheim@127.0.0.1:1", Ticks()))
    assert "mongodb://HOST[:PORT]" in str(refusal.value) and "geheim" not in str(refusal.value)


@pytest.mark.parametrize("user", ["user:ge/heim", "user:ge:heim", "user:ge@heim", "user:ge%heim"])
def test_a_password_that_is_not_escaped_is_not_shown(user: str) -> None:
    with pytest.raises(ValueError, match="The MongoDB URI cannot be used") as refusal:
        asyncio.run(open_store(f"mongodb://{user}@127.0.0.1:1/fhir", Ticks()))
    assert "heim" not in str(refusal.value) and "mongodb://HOST[:PORT]" in str(refusal.value)


def test_an_unknown_schema_version_is_refused(mongo_uri: str) -> None:
    with _database(mongo_uri) as database:
        database["meta"].insert_one({"_id": "schema", "version": 99})
    assert "has schema version 99, which this server does not know" in _refused(mongo_uri)


def test_a_document_that_is_too_large_is_refused_before_it_is_sent(mongo_uri: str) -> None:
    async def body() -> None:
        store = await open_store(mongo_uri, Ticks())
        fits = put("Binary/fits", text="x" * (LARGEST_DOCUMENT - 2000))
        entries = Entries(terms={"name": tuple(f"{number:0200}" for number in range(30_000))})
        try:
            for large in (
                put("Binary/large", text="x" * LARGEST_DOCUMENT),
                put("Patient/large", entries, "x" * 12_000_000),
            ):
                with pytest.raises(TooLargeForStore, match=f"`{large.type}/large` takes 1[678],"):
                    await write(store, put("Patient/beside"), large)
            assert await store.read("Patient", "beside") is None
            await write(store, fits)
            found = await store.read("Binary", "fits")
            assert found is not None and found.raw is not None and len(found.raw) > LARGEST_DOCUMENT - 2000
        finally:
            await store.close()

    asyncio.run(body())


@pytest.mark.long
def test_a_transaction_past_its_lifetime_writes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def read_lifetime(_: object) -> float:
        """SecantusDB does not tell it (mongo_divergences.md)."""
        return 0.3

    monkeypatch.setattr(deployment, "read_lifetime", read_lifetime)
    secantus = pytest.importorskip("secantus")
    server = secantus.SecantusDBServer(port=0, storage_path=":memory:", transaction_lifetime_seconds=0.3)
    server.start()

    async def body() -> None:
        store = await open_store(f"{server.uri}fhir?directConnection=true", Ticks())
        try:
            many = tuple(put(f"Patient/{number}") for number in range(4000))
            with pytest.raises(TooLargeForStore, match="several smaller transactions"):
                await store.transact(Transaction(many))
            assert (await store.history(HistoryQuery())).versions == ()
            await write(store, put("Patient/a"))
        finally:
            await store.close()

    try:
        asyncio.run(body())
    finally:
        server.stop()


def test_lock_documents_hold_no_identifier_and_expire(mongo_uri: str) -> None:
    async def body() -> None:
        store = await open_store(mongo_uri, Ticks())
        await write(store, put("Patient/p"), locks=("Patient.identifier=123-45-6789",))
        await write(store, put("Observation/o"), required=("Patient/p",))
        await store.close()

    asyncio.run(body())
    with _database(mongo_uri) as database:
        found = list(database["locks"].find())
    assert len(found) == 2
    for lock in found:
        assert isinstance(lock["_id"], bytes) and len(lock["_id"]) == 16
        assert lock["touched"] is not None
    assert "123-45" not in str(found)


def test_a_closed_store_leaves_no_writer_behind(mongo_uri: str) -> None:
    async def body() -> None:
        store = await open_store(mongo_uri, Ticks())
        await write(store, put("Patient/a"))
        with _database(mongo_uri) as database:
            assert database["writers"].count_documents({}) == 1
        await store.close()
        with pytest.raises(StoreUnavailable, match="closed"):
            await store.read("Patient", "a")

    asyncio.run(body())
    with _database(mongo_uri) as database:
        assert database["writers"].count_documents({}) == 0


def test_a_lost_token_is_expired(mongo_uri: str) -> None:
    async def body() -> None:
        store = await open_store(mongo_uri, Ticks())
        try:
            await write(store, put("Patient/a"))
            for lost in ("", "x", "2", "AAAA", (await store.read_changes(None)).token[:-8]):
                with pytest.raises(Expired):
                    await store.read_changes(lost)
        finally:
            await store.close()

    asyncio.run(body())


def test_two_writes_to_one_resource_are_refused(mongo_uri: str) -> None:
    async def body() -> None:
        store = await open_store(mongo_uri, Ticks())
        try:
            with pytest.raises(ValueError, match="at most one write per resource"):
                await store.transact(Transaction((put("Patient/a"), put("Patient/a"))))
        finally:
            await store.close()

    asyncio.run(body())


def test_a_post_to_an_id_that_is_there_counts_on(mongo_uri: str) -> None:
    """A POST is taken for new and not read first; when it is not, the transaction is tried again with a read."""

    async def body() -> None:
        store = await open_store(mongo_uri, Ticks())
        try:
            again = Write("POST", "Patient", "a", content("Patient/a"))
            versions = [(await write(store, again)).written[0].version for _ in range(3)]
            assert versions == [1, 2, 3]
        finally:
            await store.close()

    asyncio.run(body())


def test_a_wrong_password_is_said() -> None:
    secantus = pytest.importorskip("secantus")
    server = secantus.SecantusDBServer(port=0, storage_path=":memory:", require_auth=True)
    server.start()
    try:
        said = _refused(server.uri.replace("//", "//nobody:geheim@") + "fhir?authSource=admin&directConnection=true")
    except PyMongoError as error:  # the driver's own error would not do
        raise AssertionError(str(error)) from error
    finally:
        server.stop()
    assert "geheim" not in said and "uthenticat" in said


def test_a_reader_that_was_away_too_long_begins_anew() -> None:
    """The oplog has moved on: Expired; everything is given again from the beginning."""
    secantus = pytest.importorskip("secantus")
    server = secantus.SecantusDBServer(port=0, storage_path=":memory:", oplog_max_entries=10)
    server.start()

    async def body() -> None:
        store = await open_store(f"{server.uri}fhir?directConnection=true", Ticks())
        try:
            token = (await store.read_changes(None)).token
            for number in range(40):
                await write(store, put(f"Patient/{number}"))
                token = (await store.read_changes(token)).token if number == 0 else token
            with _database(server.uri + "admin") as database:
                database.command("secantusAdmin.pruneOplog")
            with pytest.raises(Expired, match="oplog has moved on"):
                await store.read_changes(token)
            anew = await store.read_changes(None)
            assert len(anew.versions) == 40
            await write(store, put("Patient/next"))
            assert [each.id for each in (await store.read_changes(anew.token)).versions] == ["next"]
        finally:
            await store.close()

    try:
        asyncio.run(body())
    finally:
        server.stop()
