"""What is asked of a sharded cluster and of no replica set: all see what was acknowledged (docs/decisions/0019).

MongoDB: reads with `afterClusterTime` wait for prepared transactions, those without pass over them
(https://www.mongodb.com/docs/manual/core/transactions-sharded-clusters/). `mongos` says `msg: "isdbgrid"` in its
`hello` (https://www.mongodb.com/docs/manual/reference/command/hello/); here a replica set is taken for one.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any, cast
from urllib.parse import urlsplit, urlunsplit

import pymongo
import pytest
from bson import Timestamp
from pymongo import monitoring
from pymongo.errors import AutoReconnect

from fhir_server.search.query import Equals
from fhir_server.store.contract import Differential
from fhir_server.store.contract.case import Ticks, delete, post, put, query, terms, token, write
from fhir_server.store.mongo import deployment, open_store, transact
from fhir_server.store.mongo.commit import Attempt
from fhir_server.store.operations import Matches, VersionIs
from fhir_server.store.protocol import (
    AssertionFailed,
    Clock,
    HistoryQuery,
    Store,
    StoreUnavailable,
    TargetsMissing,
)


async def _is_mongos(client: object) -> bool:
    return True


async def _is_no_mongos(client: object) -> bool:
    return False


class Commands(monitoring.CommandListener):
    """The commands sent while it listens: name, `afterClusterTime`, whether in a transaction; the latest times told."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Timestamp | None, bool]] | None = None
        self.known = Timestamp(0, 0)
        self.committed = Timestamp(0, 0)

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        collection = event.command.get(event.command_name)
        heartbeat = event.command_name == "update" and collection == "writers"
        if self.sent is not None and not heartbeat:
            after = event.command.get("readConcern", {}).get("afterClusterTime")
            self.sent.append((f"{event.command_name} {collection}", after, "txnNumber" in event.command))

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        time = event.reply.get("$clusterTime", {}).get("clusterTime", self.known)
        self.known = max(self.known, time)
        if event.command_name == "commitTransaction":
            self.committed = self.known

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        """Of no interest here."""


@pytest.fixture(scope="module")
def commands() -> Commands:
    made = Commands()
    monitoring.register(made)
    return made


Body = Callable[[Store, Store], Awaitable[object]]
Run = Callable[[Body], Any]


@pytest.fixture
def behind_mongos(mongo_uri: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a test on two stores of one database, which both take the server for `mongos`."""
    monkeypatch.setattr(deployment, "check_deployment", _is_mongos)

    async def run(body: Body) -> object:
        store, other = await open_store(mongo_uri, Ticks(), retry=2.0), await open_store(mongo_uri, Ticks())
        try:
            tag = terms(code=[token("a")], subject=["Patient/p"], references=["Patient/p"])
            await write(store, put("Patient/p"), put("Observation/o", tag), put("Condition/c"))
            await write(other, put("Patient/q"))
            return await body(store, other)
        finally:
            await store.close()
            await other.close()

    return lambda body: asyncio.run(run(body))


@pytest.mark.parametrize(("said", "sharded"), [({"msg": "isdbgrid"}, True), ({"setName": "rs0"}, False)])
def test_a_sharded_cluster_is_known_by_its_greeting(said: dict[str, str], sharded: bool) -> None:
    class Server:
        async def command(self, name: str) -> dict[str, Any]:
            return said | {"logicalSessionTimeoutMinutes": 30, "operationTime": Timestamp(1, 1)}

    class Client:
        admin = Server()

    assert asyncio.run(deployment.check_deployment(cast(Any, Client()))) is sharded


def test_what_refers_to_a_deleted_resource_is_asked_after_the_transaction(
    behind_mongos: Run, commands: Commands
) -> None:
    """And what was written is read once more, at the time of its commit: it is visible when the answer goes."""

    async def body(store: Store, _: Store) -> None:
        commands.sent = []
        before = commands.known
        await write(store, delete("Condition/c"), released=("Condition/c",))
        sent, commands.sent = commands.sent, None
        assert [name for name, _, _ in sent] == [
            "find Condition",
            "update locks",
            "listCollections 1",
            "aggregate Condition",
            "update Condition",
            "insert history",
            "commitTransaction 1",
            "find Condition",
            "find history",
        ]
        after = {number: time for number, (_, time, _) in enumerate(sent) if time is not None}
        assert after.keys() == {3, 7, 8}
        assert before <= after[3] <= after[7] <= after[8]
        assert after[7] == commands.committed

    behind_mongos(body)


def test_a_replica_set_is_asked_none_of_this(
    mongo_uri: str, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deployment, "check_deployment", _is_no_mongos)

    async def body() -> None:
        store = await open_store(mongo_uri, Ticks())
        await write(store, put("Condition/c"))
        commands.sent = []
        await write(store, delete("Condition/c"), released=("Condition/c",))
        sent, commands.sent = commands.sent, None
        await store.close()
        assert len(sent) == 7 and all(time is None for _, time, _ in sent)

    asyncio.run(body())


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The first attempt that reads anything sees none of it, as at a moment before it was written."""
    real, attempts = Attempt._read_states, [0]

    async def read_states(self: Attempt, references: Iterable[str]) -> None:
        attempts[0] += 1
        if attempts[0] > 1:
            await real(self, references)

    monkeypatch.setattr(Attempt, "_read_states", read_states)
    return attempts


def test_a_target_that_another_mongos_acknowledged_is_looked_for_again(
    behind_mongos: Run, commands: Commands, late: list[int]
) -> None:
    """Outside the transaction, whose answer brings along the time of the shard that holds it."""

    async def body(store: Store, other: Store) -> None:
        late[0] = 0
        refers = post("Observation/new", terms(references=["Patient/q"]))
        commands.sent = []
        await write(store, refers, required=("Patient/q",), assertions=(VersionIs("Condition", "c", 1),))
        sent, commands.sent = commands.sent, None
        assert late[0] == 2
        assert [name for name, _, within in sent if not within][:2] == ["find Condition", "find Patient"]
        assert await store.read("Observation", "new") is not None

    behind_mongos(body)


def test_what_is_missing_a_second_time_is_missing(behind_mongos: Run) -> None:
    async def body(store: Store, _: Store) -> None:
        with pytest.raises(TargetsMissing, match="Patient/never"):
            await write(store, post("Observation/new"), required=("Patient/never",))
        unmatched = Matches(query("Observation", Equals("code", (token("a"),))), ())
        with pytest.raises(AssertionFailed):
            await write(store, post("Observation/new"), assertions=(unmatched,))
        assert await store.read("Observation", "new") is None

    behind_mongos(body)


def test_a_history_says_nothing_complete_before_every_shard_shows_it(
    behind_mongos: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a commit waits to be visible, its process promises nothing later than it; nobody has an answer yet."""

    async def body(store: Store, other: Store) -> None:
        waiting, shown = asyncio.Event(), asyncio.Event()

        async def wait(*_: object) -> None:
            waiting.set()
            await shown.wait()

        monkeypatch.setattr(transact, "wait_until_visible", wait)
        writing = asyncio.create_task(write(store, put("Patient/late")))
        await waiting.wait()
        found = await other.read("Patient", "late")
        assert found is not None and not writing.done()
        assert (await other.history(HistoryQuery())).horizon <= found.last_updated
        shown.set()
        assert (await writing).written[0].version == 1

    behind_mongos(body)


def test_a_commit_that_stays_invisible_is_not_acknowledged(behind_mongos: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def lose(*_: object) -> None:
        raise AutoReconnect("connection closed")

    async def body(store: Store, _: Store) -> None:
        monkeypatch.setattr(transact, "wait_until_visible", lose)
        with pytest.raises(StoreUnavailable, match="may have been stored or not"):
            await write(store, put("Patient/lost"))

    behind_mongos(body)


def test_an_attempt_lists_all_that_has_to_be_visible(behind_mongos: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Current resources, their versions, and the number of the search parameters; of what is purged the resource."""
    listed: list[dict[str, list[str]]] = []

    async def note(database: object, session: object, ids: dict[str, list[str]], most_ms: int) -> None:
        listed.append(ids)

    async def body(store: Store, _: Store) -> None:
        monkeypatch.setattr(transact, "wait_until_visible", note)
        await write(store, put("Patient/p"), delete("Condition/c"), delete("Condition/never"))
        await write(store, put("SearchParameter/s"))
        await write(store, purged=("Patient/p",))

    behind_mongos(body)
    assert listed[0] == {
        "Condition": ["c"],
        "Patient": ["p"],
        "history": ["Patient/p 0000000002", "Condition/c 0000000002"],
    }
    assert listed[1]["meta"] == ["registry"]
    assert listed[2] == {"Patient": ["p"]}


class TestSharded(Differential):
    """The answers behind `mongos` are those of the oracle too."""

    examples = 5
    many = 15

    @pytest.fixture(autouse=True)
    def _server(self, mongo_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        monkeypatch.setattr(deployment, "check_deployment", _is_mongos)
        self.url = mongo_url
        self.names: list[str] = []
        yield
        with pymongo.MongoClient[dict[str, object]](mongo_url) as client:
            for name in self.names:
                client.drop_database(name)

    async def open_store(self, clock: Clock) -> Store:
        self.names.append(f"test_{uuid.uuid4().hex}")
        return await open_store(urlunsplit(urlsplit(self.url)._replace(path=f"/{self.names[-1]}")), clock)
