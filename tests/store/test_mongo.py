"""The MongoDB store keeps the store contract (fhir_server/store/protocol.py) and compares with the in-memory oracle."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from urllib.parse import urlsplit, urlunsplit

import pymongo
import pytest

from fhir_server.store.contract import Differential, DurableContract, StoreContract
from fhir_server.store.mongo import open_store
from fhir_server.store.protocol import Clock, Store


class TestMongo(StoreContract, DurableContract, Differential):
    examples = 25  # SecantusDB is slow
    many = 150

    @pytest.fixture(autouse=True)
    def _server(self, mongo_url: str) -> Iterator[None]:
        self.url = mongo_url
        self.names: list[str] = []
        yield
        with pymongo.MongoClient[dict[str, object]](mongo_url) as client:
            for name in self.names:
                client.drop_database(name)

    def uri(self, name: str) -> str:
        """The URI of a database of the server."""
        return urlunsplit(urlsplit(self.url)._replace(path=f"/{name}"))

    async def open_store(self, clock: Clock) -> Store:
        self.names.append(f"test_{uuid.uuid4().hex}")
        return await open_store(self.uri(self.names[-1]), clock)

    @pytest.mark.long  # 20 s for the 10,001 documents
    def test_too_many_to_be_ordered_by_score(self) -> None:
        super().test_too_many_to_be_ordered_by_score()

    async def open_again(self, clock: Clock) -> Store:
        return await open_store(self.uri(self.names[-1]), clock)
