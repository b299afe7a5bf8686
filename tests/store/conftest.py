"""The MongoDB server of the store's tests: SecantusDB in this process, or the replica set at `FHIR_TEST_MONGO_URL`."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from urllib.parse import urlsplit, urlunsplit

import pymongo
import pytest


@pytest.fixture(scope="session")
def mongo_url() -> Iterator[str]:
    """The URL of a server that can do transactions, without a database; what it differs in: `mongo_divergences.md`."""
    given = os.environ.get("FHIR_TEST_MONGO_URL")
    if given:
        yield given
        return
    secantus = pytest.importorskip("secantus", reason="SecantusDB is not installed and FHIR_TEST_MONGO_URL not set")
    server = secantus.SecantusDBServer(port=0, storage_path=":memory:")
    server.start()
    yield f"{server.uri}?directConnection=true"
    server.stop()


@pytest.fixture
def mongo_uri(mongo_url: str) -> Iterator[str]:
    """The URI of a new database, dropped at the end."""
    name = f"test_{uuid.uuid4().hex}"
    yield urlunsplit(urlsplit(mongo_url)._replace(path=f"/{name}"))
    with pymongo.MongoClient[dict[str, object]](mongo_url) as client:
        client.drop_database(name)
