"""How many commands a read, a create, a bundle and a search send to the database (docs/stores/mongodb.md)."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from functools import partial

import pymongo
import pytest
from pymongo import monitoring
from pymongo.errors import OperationFailure

from fhir_server.search.query import Chain, Contains, Equals, Has, Lineage, Near, Query, Scope, Sort
from fhir_server.store.contract.case import Ticks, delete, ids, post, put, query, terms, token, write
from fhir_server.store.mongo import deployment, open_store
from fhir_server.store.operations import Matches
from fhir_server.store.protocol import HistoryQuery, Store

_UNCOUNTED = frozenset({"hello", "ismaster", "endSessions", "saslStart", "saslContinue", "authenticate"})
"""What belongs to a connection and not to an operation: its greeting, the log-in of a user, its end."""


class Commands(monitoring.CommandListener):
    """Counts the commands sent while it listens; the driver keeps a listener for good."""

    def __init__(self) -> None:
        self.sent: list[str] | None = None
        self.unlimited: list[str] = []

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        heartbeat = event.command_name == "update" and event.command.get("update") == "writers"
        if self.sent is not None and event.command_name not in _UNCOUNTED and not heartbeat:
            collection = event.command.get(event.command_name)
            name = f"{event.command_name} {collection}" if isinstance(collection, str) else event.command_name
            self.sent.append(name)
            if "maxTimeMS" not in event.command:
                self.unlimited.append(name)

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        """Of no interest here."""

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        """Of no interest here."""


async def _is_no_mongos(client: object) -> bool:
    return False


@pytest.fixture(scope="module")
def listener() -> Commands:
    made = Commands()
    monitoring.register(made)
    return made


@pytest.fixture
def sent(
    listener: Commands, mongo_uri: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Callable[[Store], Awaitable[object]]], list[str]]]:
    """What an operation sends, once the process has its collections and its place among the writers.

    Of a replica set: what is sent beside it to `mongos` is in `test_mongo_sharded.py`.
    """
    monkeypatch.setattr(deployment, "check_deployment", _is_no_mongos)

    async def measured(operation: Callable[[Store], Awaitable[object]]) -> list[str]:
        store = await open_store(mongo_uri, Ticks())
        try:
            tag = terms(code=[token("a")], subject=["Patient/p"], references=["Patient/p"])
            others = (put("Practitioner/d"), put("Encounter/e"), put("Condition/c"))
            await write(store, put("Patient/p"), put("Observation/o", tag), *others)
            listener.sent = []
            await operation(store)
            return listener.sent
        finally:
            listener.sent = None
            await store.close()

    yield lambda operation: asyncio.run(measured(operation))


def test_the_log_in_of_a_connection_is_no_command_of_an_operation(listener: Commands) -> None:
    """Of a server with users: SCRAM is a conversation of saslStart and saslContinue on each new connection."""
    secantus = pytest.importorskip("secantus")
    server = secantus.SecantusDBServer(port=0, storage_path=":memory:", require_auth=True)
    server.start()
    listener.sent = []
    try:
        with (
            pymongo.MongoClient[dict[str, object]](
                server.uri.replace("//", "//nobody:x@"), directConnection=True
            ) as asking,
            pytest.raises(OperationFailure),
        ):
            asking["fhir"]["Patient"].find_one()
        assert listener.sent == []
    finally:
        listener.sent = None
        server.stop()


Sent = Callable[[Callable[[Store], Awaitable[object]]], list[str]]


def test_read(sent: Sent) -> None:
    assert sent(lambda store: store.read("Patient", "p")) == ["find Patient"]
    assert sent(lambda store: store.vread("Patient", "p", 1)) == ["find history"]


def test_create(sent: Sent) -> None:
    """Two writes; without references or criteria nothing is read and no lock touched."""
    assert sent(lambda store: write(store, post("Patient/new"))) == [
        "insert Patient",
        "insert history",
        "commitTransaction",
    ]


def test_a_write_of_the_server_also_reads_the_registry(sent: Sent) -> None:
    """The search parameters that its entries were made by must still be in force."""
    assert sent(lambda store: write(store, post("Patient/new"), registry=0)) == [
        "find meta",
        "insert Patient",
        "insert history",
        "commitTransaction",
    ]


def test_create_with_references_of_two_types(sent: Sent) -> None:
    """Two writes, a read per referenced type, and all locks in one command."""
    required = ("Patient/p", "Practitioner/d")
    made = post("Observation/new", terms(references=required))
    assert sent(lambda store: write(store, made, required=required)) == [
        "find Patient",
        "find Practitioner",
        "update locks",
        "insert Observation",
        "insert history",
        "commitTransaction",
    ]


def test_conditional_create(sent: Sent) -> None:
    nothing = Matches(query("Patient", Equals("identifier", (token("1"),))), ())
    assert sent(
        lambda store: write(store, post("Patient/new"), assertions=(nothing,), locks=("Patient.identifier=1",))
    ) == ["aggregate Patient", "update locks", "insert Patient", "insert history", "commitTransaction"]


def test_update(sent: Sent) -> None:
    assert sent(lambda store: write(store, put("Patient/p"))) == [
        "find Patient",
        "update Patient",
        "insert history",
        "commitTransaction",
    ]


def test_what_a_transaction_reads_to_be_checked_has_a_time_limit(sent: Sent, listener: Commands) -> None:
    listener.unlimited = []
    commands = sent(lambda store: write(store, delete("Condition/c"), released=("Condition/c",)))
    asked = {name for name in commands if name.partition(" ")[0] in ("find", "aggregate")}
    assert "find Condition" in asked and any(name.startswith("aggregate") for name in asked)
    assert asked.isdisjoint(listener.unlimited)


def test_delete(sent: Sent) -> None:
    """What refers to it is asked of all types at once."""
    assert sent(lambda store: write(store, delete("Condition/c"), released=("Condition/c",))) == [
        "find Condition",
        "update locks",
        "listCollections",
        "aggregate Condition",
        "update Condition",
        "insert history",
        "commitTransaction",
    ]


def test_transaction_of_four_entries(sent: Sent) -> None:
    """{Patient, Encounter, 2 Observations} that refer to each other: a write per type and one for the history."""
    to_patient = terms(references=["Patient/new"])
    writes = (post("Patient/new"), post("Encounter/new", to_patient), *(post(f"Observation/{n}") for n in (1, 2)))
    assert sent(lambda store: write(store, *writes)) == [
        "insert Patient",
        "insert Encounter",
        "insert Observation",
        "insert history",
        "commitTransaction",
    ]


@pytest.mark.long
def test_many_writes_go_in_few_commands(sent: Sent) -> None:
    counted = Counter(sent(lambda store: write(store, *(post(f"Patient/{n}") for n in range(1500)))))
    assert counted == {"insert Patient": 1, "insert history": 1, "commitTransaction": 1}


def test_searches(sent: Sent) -> None:
    code = Equals("code", (token("a"),))
    assert sent(lambda store: store.search(query("Observation", code))) == ["aggregate Observation"]
    date = (Sort("date", "date", True),)
    assert sent(lambda store: store.search(query("Observation", code, sort=date))) == ["aggregate Observation"]
    chain = Chain("subject", "Patient", Equals("gender", (token("male"),)))
    # The targets, whether any resource contains such a target, and the page.
    assert sent(lambda store: store.search(query("Observation", chain))) == [
        "aggregate Patient",
        "aggregate Observation",
        "aggregate Observation",
    ]
    has = Has("Observation", "subject", code)
    assert sent(lambda store: store.search(query("Patient", has))) == ["aggregate Observation", "aggregate Patient"]
    assert sent(lambda store: store.count(query("Observation", code))) == ["aggregate Observation"]


def test_a_search_of_many_types_asks_those_that_are_stored(sent: Sent) -> None:
    """As `_contained=true`, `_revinclude=*` and `Patient/id/*` do; few types are asked at once."""

    def build_query(*types: str) -> Query:
        return Query(tuple(Scope(type, Equals("code", (token("a"),))) for type in types))

    many = build_query("Observation", "Account", "Goal", "Patient", "Basic")
    assert sent(lambda store: store.search(many)) == ["listCollections", "aggregate Observation", "aggregate Patient"]
    assert sent(lambda store: store.count(many)) == ["listCollections", "aggregate Observation", "aggregate Patient"]
    few = build_query("Account", "Goal", "Observation")
    assert sent(lambda store: store.count(few)) == [f"aggregate {scope.type}" for scope in few.scopes]


async def _search(query: Query, store: Store) -> None:
    await store.search(query)


def test_sorts(sent: Sent) -> None:
    """One that has keys is read from an index; for others the size of the type is asked, which costs nothing to know.

    Of these the keys are sorted, and the page is read by its ids.
    """
    size, asked = "count Observation", "aggregate Observation"
    value, code, date = Sort("value", "number"), Sort("code", "term"), Sort("date", "date")
    for sort, commands in (
        ((date,), [asked]),
        ((date, Sort("_id", "id")), [asked]),
        ((code,), [size, asked, asked]),
        ((Sort("_id", "id"), value), [asked]),
        ((value,), [size, asked, asked]),
        ((date, value), [asked, size, asked, asked]),
        ((value, date), [size, asked, asked]),
    ):
        wanted = query("Observation", sort=sort)
        assert sent(partial(_search, wanted)) == commands, sort


def test_scans_of_a_parameter(sent: Sent) -> None:
    strings = query("Observation", Contains("note", "abc", strings=True))
    assert sent(lambda store: store.search(strings)) == ["aggregate Observation"]
    short = query("Observation", Contains("note", "ab", strings=True))
    assert sent(lambda store: store.search(short)) == ["count Observation", "aggregate Observation"]


def test_a_hierarchy_is_a_question_for_each_level(sent: Sent) -> None:
    """One that finds something below, one that finds nothing more, then the search itself."""

    async def search(store: Store) -> None:
        below = Lineage("partof", ("top",), "below")
        assert await ids(store, "Location", below) == ["top", "ward"]

    async def fill_and_search(store: Store) -> None:
        await write(store, put("Location/top"), put("Location/ward", terms(partof=["Location/top"])))
        await search(store)

    assert sent(fill_and_search)[-3:] == ["aggregate Location"] * 3


def test_a_distance_is_one_question_more(sent: Sent) -> None:
    near = Near("near", 0.0, 0.0, 1000.0)
    assert sent(lambda store: store.search(query("Location", near))) == ["aggregate Location"] * 2


def test_included_resources_are_one_query_per_type(sent: Sent) -> None:
    found = ["Patient/p", "Encounter/e", "Condition/c", "Patient/never"]
    assert sorted(sent(lambda store: store.read_many(found))) == ["find Condition", "find Encounter", "find Patient"]


def test_history(sent: Sent) -> None:
    """The newest version and the writers give the horizon, then one page; of the whole system also the types."""
    horizon = ["aggregate history", "find writers"]
    assert sent(lambda store: store.history(HistoryQuery(("Patient",)))) == [*horizon, "find history"]
    assert sent(lambda store: store.history(HistoryQuery())) == [*horizon, "listCollections", "find history"]
