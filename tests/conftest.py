"""Fixtures that many tests share: the definitions once per run, and a server in this process on each store."""

from __future__ import annotations

import gc
import os
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import httpx
import hypothesis
import pymongo
import pytest

from fhir_server.app import Knowledge, Seams, Server, load_knowledge, open_server
from fhir_server.settings import Settings
from fhir_server.validation.structure import StructureValidator
from tests.shared import shared_path

# The same examples in every run; a slow machine is no fault of the code.
hypothesis.settings.register_profile("repeatable", derandomize=True, database=None, deadline=None)
hypothesis.settings.load_profile("repeatable")

Serve = Callable[..., AbstractAsyncContextManager["Client"]]


class Client(httpx.AsyncClient):
    """An HTTP client of a server in this process; `server` is that server."""

    server: Server

    async def fhir(self, method: str, url: str, **options: object) -> httpx.Response:
        """A request whose answer must not be a server fault."""
        response = await self.request(method, url, **options)  # type: ignore[arg-type]
        assert response.status_code < 500, response.text
        return response


EXTERNAL_FOLDERS = frozenset({"bench", "clients", "commands", "faults"})
SLOW_TESTS = frozenset((Path(__file__).parent / "slow_tests.txt").read_text(encoding="utf-8").split())
"""`tests/path.py::function` of what `make check` leaves to `make test`."""


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Collect with the garbage collection off: what is read and collected stays, and is looked through no more."""
    gc.disable()
    yield
    gc.enable()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests on other stores than memory, those of folders that start processes, and those that are slow."""
    for item in items:
        folder, name = item.path.parent.name, item.nodeid.lower()
        if folder in EXTERNAL_FOLDERS or "sqlite" in name or "mongo" in name:
            item.add_marker("external")
        if item.nodeid.partition("[")[0] in SLOW_TESTS:
            item.add_marker("slow")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of official definitions and sample data beside the project; `shared_path` gives what is in it."""
    return shared_path()


@pytest.fixture(scope="session")
def known() -> Knowledge:
    return load_knowledge(Settings())


def leave_invariants_out(known: Knowledge) -> Knowledge:
    """The same without the invariants: one official example has an empty narrative, which txt-2 refuses."""
    return replace(known, validator=StructureValidator(known.definitions, invariants=False))


def faults_only(level: str, message: str, **fields: object) -> None:
    """A log that shows server faults beside the failing test."""
    if level == "error":
        print(message, fields)


@asynccontextmanager
async def serving(known: Knowledge | None, seams: Seams | None = None, **settings: object) -> AsyncIterator[Client]:
    """A server in this process with these settings, and a client of it."""
    chosen = Settings(**settings)  # type: ignore[arg-type]
    async with open_server(chosen, log=faults_only, known=known, seams=seams, create=True) as server:
        transport = httpx.ASGITransport(server.api)
        async with Client(transport=transport, base_url="http://test/fhir") as client:
            client.server = server
            yield client


@pytest.fixture(scope="session")
def mongo_url() -> Iterator[str]:
    """A MongoDB server that can do transactions, without a database: the one at `FHIR_TEST_MONGO_URL`, else SecantusDB.

    What SecantusDB differs in: store/mongo_divergences.md.
    """
    given = os.environ.get("FHIR_TEST_MONGO_URL")
    if given:
        yield given
        return
    secantus = pytest.importorskip("secantus", reason="SecantusDB is not installed and FHIR_TEST_MONGO_URL not set")
    server = secantus.SecantusDBServer(port=0, storage_path=":memory:")
    server.start()
    yield f"{server.uri}?directConnection=true"
    server.stop()


@pytest.fixture(scope="module")
def new_mongo_uri(mongo_url: str) -> Iterator[Callable[[], str]]:
    """Makes URIs of new databases, all dropped after the module."""
    names: list[str] = []

    def make() -> str:
        names.append(f"test_{uuid.uuid4().hex}")
        return urlunsplit(urlsplit(mongo_url)._replace(path=f"/{names[-1]}"))

    yield make
    with pymongo.MongoClient[dict[str, object]](mongo_url) as client:
        for name in names:
            client.drop_database(name)


@pytest.fixture(params=["memory", "sqlite"])
def store_uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh store of each kind."""
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/fhir.db"


@pytest.fixture
async def empty_client(known: Knowledge, store_uri: str) -> AsyncIterator[Client]:
    """A client of a server on a store that holds nothing at all, not even the definitions that ship."""
    async with serving(known, Seams(definitions=None), store=store_uri) as client:
        yield client


@pytest.fixture
async def client(known: Knowledge, store_uri: str) -> AsyncIterator[Client]:
    """A client of a server with default settings on each store."""
    async with serving(known, store=store_uri) as client:
        yield client
