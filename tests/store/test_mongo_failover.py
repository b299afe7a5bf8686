"""A primary that steps down under load: on a real replica set of several members (`FHIR_TEST_MONGO_URL`).

https://www.mongodb.com/docs/manual/reference/command/replSetStepDown/: writes in progress end with an error, another
member is elected.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from typing import Any

import pymongo
import pytest

from fhir_server.store.contract.case import Ticks, post, put, walk_changes, write
from fhir_server.store.mongo import open_store
from fhir_server.store.protocol import Store, StoreUnavailable

REAL = "FHIR_TEST_MONGO_URL" in os.environ
WRITERS, BUNDLES, FAILOVERS = 6, 12, 2


@pytest.fixture
def admin(mongo_url: str) -> Any:
    """The `admin` database of a replica set of which one member can be lost."""
    with pymongo.MongoClient[dict[str, Any]](mongo_url) as client:
        if len(client.admin.command("hello").get("hosts", ())) < 3:
            pytest.skip("FHIR_TEST_MONGO_URL names no replica set of three members")
        yield client.admin


async def _write_bundles(store: Store, writer: int, acknowledged: list[str], unknown: list[str]) -> None:
    for number in range(BUNDLES):
        id = f"{writer}-{number}"
        try:
            await write(store, post(f"Patient/{id}"), post(f"Observation/{id}"), put("Basic/counter"))
        except StoreUnavailable as error:
            if "may have been stored" in str(error):
                unknown.append(id)
        else:
            acknowledged.append(id)


@pytest.mark.long
@pytest.mark.skipif(not REAL, reason="SecantusDB has no elections; set FHIR_TEST_MONGO_URL to three members")
def test_what_is_acknowledged_while_primaries_step_down_is_there(admin: Any, mongo_uri: str) -> None:
    """Whole, once, and told once by the changes; what was refused is not there."""

    async def body() -> None:
        stores = [await open_store(mongo_uri, Ticks()) for _ in range(2)]
        acknowledged: list[str] = []
        unknown: list[str] = []
        try:
            await write(stores[0], put("Basic/counter"))
            writing = [
                asyncio.create_task(_write_bundles(stores[number % 2], number, acknowledged, unknown))
                for number in range(WRITERS)
            ]
            for failover in range(1, FAILOVERS + 1):
                while len(acknowledged) < WRITERS * BUNDLES * failover // (FAILOVERS + 2):
                    await asyncio.sleep(0.05)
                await asyncio.to_thread(admin.command, {"replSetStepDown": 10, "secondaryCatchUpPeriodSecs": 10})
            await asyncio.gather(*writing)
            every = [f"{writer}-{number}" for writer in range(WRITERS) for number in range(BUNDLES)]
            patients = {each.id for each in (await stores[0].read_many(f"Patient/{id}" for id in every)).values()}
            observations = {each.id for each in (await stores[1].read_many(f"Observation/{n}" for n in every)).values()}
            assert patients == observations, "no bundle by half"
            assert set(acknowledged) <= patients <= set(acknowledged) | set(unknown)
            counter = await stores[0].read("Basic", "counter")
            assert counter is not None and counter.version == len(patients) + 1
            told = Counter(f"{each.reference}/{each.version}" for each in await walk_changes(stores[0]))
            assert set(told.values()) == {1} and len(told) == 3 * len(patients) + 1
        finally:
            for store in stores:
                await store.close()

    asyncio.run(body())
