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
    examples = 10  # SecantusDB is slow
    many = 60

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

    # On SecantusDB each of these takes 10 to 25 s.

    @pytest.mark.long
    def test_too_many_to_be_ordered_by_score(self) -> None:
        super().test_too_many_to_be_ordered_by_score()

    @pytest.mark.long
    def test_many_alternatives(self) -> None:
        super().test_many_alternatives()

    @pytest.mark.long
    def test_transfers_conserve_the_sum(self) -> None:
        super().test_transfers_conserve_the_sum()

    @pytest.mark.long
    def test_many_writes_in_one_transaction(self) -> None:
        super().test_many_writes_in_one_transaction()

    @pytest.mark.long
    def test_reindex_goes_batch_by_batch(self) -> None:
        super().test_reindex_goes_batch_by_batch()

    async def open_again(self, clock: Clock) -> Store:
        return await open_store(self.uri(self.names[-1]), clock)
