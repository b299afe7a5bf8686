"""The index table keeps MongoDB's rules, and the database has what the table says (docs/stores/mongodb.md)."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime, timedelta
from typing import Any

import pymongo
import pytest
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import OperationFailure

from fhir_server.search.sorts import SORTS
from fhir_server.store.contract.case import START, Ticks, put, write
from fhir_server.store.mongo import open_store
from fhir_server.store.mongo.compile import match_all
from fhir_server.store.mongo.history import _match_after
from fhir_server.store.mongo.indexes import (
    ARRAY_FIELDS,
    FIXED_INDEXES,
    HISTORY,
    LEASE_SECONDS,
    LOCK_SECONDS,
    LOCKS,
    META,
    VALUE_SECONDS,
    WRITERS,
    Index,
    list_indexes,
)
from fhir_server.store.mongo.sortkeys import list_sorts
from fhir_server.store.mongo.watermark import NEWEST_BY_TYPE
from fhir_server.store.protocol import StoreUnavailable
from tests.r4 import REGISTRY

REAL = "FHIR_TEST_MONGO_URL" in os.environ

ALL = {"Basic": list_indexes("Basic"), **{type: list_indexes(type) for type in SORTS}, **FIXED_INDEXES}


@pytest.mark.parametrize("collection", ALL)
def test_the_table_keeps_the_limits(collection: str) -> None:
    """At most 20 indexes of ours; MongoDB refuses an index over two arrays (CannotIndexParallelArrays)."""
    indexes = ALL[collection]
    assert len(indexes) <= 20
    assert len({index.name for index in indexes}) == len(indexes)
    for index in indexes:
        arrays = {path.partition(".")[0] for path, _ in index.keys} & ARRAY_FIELDS
        assert len(arrays) <= 1, index.name
        assert len({path for path, _ in index.keys}) == len(index.keys), index.name


def test_the_table_has_no_index_that_another_begins_with() -> None:
    for indexes in ALL.values():
        keys = [index.keys for index in indexes]
        for one in keys:
            assert [each for each in keys if each[: len(one)] == one] == [one]


def _made(uri: str) -> dict[str, dict[str, Any]]:
    with pymongo.MongoClient[dict[str, Any]](uri) as client:
        database = client.get_default_database()
        return {name: dict(database[name].index_information()) for name in database.list_collection_names()}


def test_the_indexes_are_made(mongo_uri: str) -> None:
    async def body() -> None:
        store = await open_store(mongo_uri, Ticks())
        await write(store, put("Patient/a"))
        await store.close()

    asyncio.run(body())
    made = _made(mongo_uri)

    def expected(indexes: tuple[Index, ...]) -> dict[str, list[tuple[str, int]]]:
        return {"_id_": [("_id", 1)], **{index.name: list(index.keys) for index in indexes}}

    wanted = {"Patient": list_indexes("Patient"), **FIXED_INDEXES}
    for name, indexes in wanted.items():
        assert {each: facts["key"] for each, facts in made[name].items()} == expected(indexes)
    partial = {name for name, facts in made["Patient"].items() if "partialFilterExpression" in facts}
    assert partial == {f"sort_{code}{end}" for code in list_sorts("Patient") for end in ("", "_down")}
    assert made["Patient"]["sort_birthdate_down"]["partialFilterExpression"] == {"live": True}
    assert made[LOCKS]["expiry"]["expireAfterSeconds"] == LOCK_SECONDS
    assert made[WRITERS]["expiry"]["expireAfterSeconds"] == LEASE_SECONDS
    assert made[META]["expiry"]["expireAfterSeconds"] == VALUE_SECONDS
    assert "expireAfterSeconds" not in str(made[HISTORY])


def test_an_index_of_another_shape_is_refused(mongo_uri: str) -> None:
    with pymongo.MongoClient[dict[str, Any]](mongo_uri) as client:
        client.get_default_database()[HISTORY].create_index([("something", 1)], name="type")
    with pytest.raises(StoreUnavailable, match="An index of the collection `history` is not the one"):
        asyncio.run(open_store(mongo_uri, Ticks()))


@pytest.mark.skipif(not REAL, reason="SecantusDB has no planner to ask; set FHIR_TEST_MONGO_URL")
def test_the_history_of_all_types_is_a_merge_of_theirs(mongo_uri: str) -> None:
    """SORT_MERGE of a scan for each type, of as many as R4 has, and DISTINCT_SCAN for the newest of each."""
    types = list(REGISTRY.types)
    with pymongo.MongoClient[dict[str, Any]](mongo_uri) as client:
        database = client.get_default_database()
        history = database[HISTORY]
        history.create_indexes([index.build_model() for index in FIXED_INDEXES[HISTORY]])
        named = ((n, types[n % len(types)]) for n in range(20 * len(types)))
        history.insert_many([{"_id": f"{type}/{n} 0000000001", "type": type, "updated": n} for n, type in named])
        for before in (None, (1_000, f"{types[7]}/3", 1)):
            wanted = match_all(({"type": {"$in": types}}, _match_after(before)))
            find = {"find": HISTORY, "filter": wanted, "sort": {"updated": -1, "_id": 1}, "limit": 21}
            told = database.command("explain", find, verbosity="executionStats")["executionStats"]
            assert "SORT_MERGE" in str(told) and "'SORT'" not in str(told)
            assert told["totalKeysExamined"] < 2 * len(types) and told["totalDocsExamined"] <= 30
        newest = {"aggregate": HISTORY, "pipeline": list(NEWEST_BY_TYPE), "cursor": {}}
        told = database.command("explain", newest, verbosity="executionStats")
        (counted,) = _list_values(told, "totalDocsExamined")
        assert "DISTINCT_SCAN" in str(told) and counted == 0


def _list_values(told: Any, name: str) -> list[Any]:
    """What stands at a key, at any depth, each value once."""
    if isinstance(told, dict):
        own = [told[name]] if name in told else []
        return sorted({*own, *(each for value in told.values() for each in _list_values(value, name))})
    return sorted({each for value in told for each in _list_values(value, name)}) if isinstance(told, list) else []


@pytest.mark.parametrize("code", [46, 117])
def test_an_index_that_another_process_makes_is_tried_again(
    mongo_uri: str, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """LockBusy and ConflictingOperationInProgress, which pass (mongo/src/mongo/base/error_codes.yml)."""
    real, times = AsyncCollection.create_indexes, 2

    async def refuse(self: AsyncCollection[Any], *arguments: Any, **options: Any) -> list[str]:
        nonlocal times
        times -= 1
        if times >= 0:
            raise OperationFailure("busy", code)
        return await real(self, *arguments, **options)

    async def body(retry: float) -> None:
        nonlocal times
        store = await open_store(mongo_uri, Ticks(), retry=retry)
        try:
            times = 2
            await write(store, put("Patient/a"))
        finally:
            await store.close()

    monkeypatch.setattr(AsyncCollection, "create_indexes", refuse)
    asyncio.run(body(20.0))
    assert set(_made(mongo_uri)["Patient"]) == {"_id_", *(index.name for index in list_indexes("Patient"))}
    times = 1_000_000
    with pytest.raises(StoreUnavailable, match="busy"):
        asyncio.run(body(0.1))


def test_values_have_a_date_after_which_they_may_be_removed(mongo_uri: str) -> None:
    """By the machine's clock, that of the TTL index, whatever the store's; values of earlier servers have none."""
    with pymongo.MongoClient[dict[str, Any]](mongo_uri, tz_aware=True) as client:
        meta = client.get_default_database()[META]
        meta.insert_one({"_id": "kept old", "value": b"one"})

        async def body() -> None:
            store = await open_store(mongo_uri, Ticks())
            assert await store.get_value("old") == b"one"
            assert await store.put_value_if("old", b"two", b"one") is True
            assert await store.put_value_if("new", b"x", None, START + 60_000_000) is True
            assert await store.put_value_if("far", b"x", None, 2**62) is True
            assert [key for key, _ in (await store.list_values("")).values] == ["far", "new", "old"]
            await store.close()

        started = datetime.now(UTC)
        asyncio.run(body())
        assert meta.find_one({"_id": "kept old"}) == {"_id": "kept old", "value": b"two"}
        removable = (meta.find_one({"_id": "kept new"}) or {})["removable"]
        assert started + timedelta(seconds=59) < removable < datetime.now(UTC) + timedelta(seconds=61)
