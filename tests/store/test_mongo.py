"""The MongoDB store keeps the store contract (fhir_server/store/protocol.py) and compares with the in-memory oracle."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from urllib.parse import urlsplit, urlunsplit

import pymongo
import pytest

from fhir_server.store.contract import Differential, DurableContract, StoreContract
from fhir_server.store.mongo import open_store
from fhir_server.store.protocol import Budget, Clock, Store


class TestMongo(StoreContract, DurableContract, Differential):
    examples = 10  # SecantusDB is slow
    many = 40
    slow = frozenset(  # 4 to 25 s each on SecantusDB
        {
            "test_a_failure_leaves_nothing",
            "test_a_token_resumes",
            "test_a_walk_while_others_write",
            "test_many_alternatives",
            "test_many_criteria",
            "test_many_writes_in_one_transaction",
            "test_reindex_goes_batch_by_batch",
            "test_reindex_never_overwrites_a_newer_version",
            "test_too_many_to_be_ordered_by_score",
            "test_transfers_conserve_the_sum",
        }
    )

    @pytest.fixture(autouse=True)
    def _server(self, mongo_url: str) -> Iterator[None]:
        self.url = mongo_url
        self.list_names: list[str] = []
        yield
        with pymongo.MongoClient[dict[str, object]](mongo_url) as client:
            for name in self.list_names:
                client.drop_database(name)

    def uri(self, name: str) -> str:
        """The URI of a database of the server."""
        return urlunsplit(urlsplit(self.url)._replace(path=f"/{name}"))

    async def open_store(self, clock: Clock) -> Store:
        self.list_names.append(f"test_{uuid.uuid4().hex}")
        # what these tests ask for is little: how long a server in Python takes for it is no matter of theirs
        return await open_store(self.uri(self.list_names[-1]), clock, Budget(seconds=100))

    async def open_again(self, clock: Clock) -> Store:
        return await open_store(self.uri(self.list_names[-1]), clock)
