"""Fixtures that many tests share: the definitions once per run, and a server in this process on each store."""

from __future__ import annotations

import atexit
import functools
import gc
import os
import shutil
import socket
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

import httpx
import pymongo
import pytest
from pymongo import pool_shared

from tests.shared import shared_path

# The process that hands tests to others has no use for the product: it is imported where it is needed.
if TYPE_CHECKING:
    from fhir_server.app import Knowledge, Seams, Server
    from fhir_server.settings import Settings

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


def is_external(name: str) -> bool:
    """Of a file or test: whether its name says that it needs more than memory and this process."""
    return "sqlite" in name or "mongo" in name


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """`make check` does not even read the files of which it runs no test: a third of all there is to collect."""
    if "not external" not in config.option.markexpr:
        return None
    return True if collection_path.name in EXTERNAL_FOLDERS or is_external(collection_path.name) else None


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Iterator[None]:
    """Collect with the garbage collection off: what is read and collected stays, and is looked through no more."""
    gc.disable()
    if session.config.getoption("dist", "no") == "no" or hasattr(session.config, "workerinput"):
        import hypothesis

        # The same examples in every run; a slow machine is no fault of the code.
        hypothesis.settings.register_profile("repeatable", derandomize=True, database=None, deadline=None)
        hypothesis.settings.load_profile("repeatable")
    yield
    gc.enable()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests on other stores than memory, those of folders that start processes, and those that are slow."""
    for item in items:
        if item.path.parent.name in EXTERNAL_FOLDERS or is_external(item.nodeid.lower()):
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
    from tests.r4 import KNOWN

    return KNOWN


def leave_invariants_out(known: Knowledge) -> Knowledge:
    """The same without the invariants: one official example has an empty narrative, which txt-2 refuses."""
    from fhir_server.validation.structure import StructureValidator

    return replace(known, validator=StructureValidator(known.definitions, invariants=False))


def faults_only(level: str, message: str, **fields: object) -> None:
    """A log that shows server faults beside the failing test."""
    if level == "error":
        print(message, fields)


@functools.cache
def find_first_file() -> Path:
    """Where a process keeps the SQLite file of a server that has just been opened for the first time."""
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder, "fhir.db")


async def copy_first_file(settings: Settings, known: Knowledge) -> None:
    """Make the SQLite file of these settings as a server makes it that has the shipped definitions alone.

    A copy takes a millisecond; storing the definitions takes 0.2 s, in each of thousands of tests.
    """
    from fhir_server.app import open_server
    from fhir_server.store.sqlite.store import find_file

    first, path = find_first_file(), find_file(settings.store)
    if path.exists():
        return
    if not first.exists():
        begun = first.with_name("begun.db")
        default = type(settings).model_construct(store=f"sqlite:///{begun}")  # whatever the environment says
        async with open_server(default, known=known, create=True):
            pass
        begun.rename(first)
    shutil.copyfile(first, path)
    path.chmod(0o600)


def stores_the_shipped_alone(settings: Settings, seams: Seams | None) -> bool:
    """Whether a new file holds what it holds with default settings and the real clock."""
    from fhir_server.app import Seams

    fields = ("base_url", "capability", "full_text", "path", "profiles")
    default = Seams()
    return (
        settings.store.startswith("sqlite:///")
        and all(getattr(settings, name) == type(settings).model_fields[name].default for name in fields)
        and (seams is None or (seams.clock, seams.definitions) == (default.clock, default.definitions))
    )


@asynccontextmanager
async def serving(known: Knowledge | None, seams: Seams | None = None, **settings: object) -> AsyncIterator[Client]:
    """A server in this process with these settings, and a client of it."""
    from fhir_server.app import open_server
    from fhir_server.settings import Settings
    from tests.r4 import KNOWN

    chosen = Settings(**settings)  # type: ignore[arg-type]
    if known is KNOWN and stores_the_shipped_alone(chosen, seams):
        await copy_first_file(chosen, known)
    async with open_server(chosen, log=faults_only, known=known, seams=seams, create=True) as server:
        transport = httpx.ASGITransport(server.api)
        async with Client(transport=transport, base_url="http://test/fhir") as client:
            client.server = server
            yield client


class DriverSocket(socket.socket):
    """A socket that pymongo makes: closed without a word when it is dropped."""

    def __del__(self) -> None:
        self.close()


@pytest.fixture(scope="session", autouse=True)
def close_what_pymongo_drops() -> Iterator[None]:
    """Close the sockets that pymongo forgets, so that an unclosed one of anybody else can be an error.

    Where a task is cancelled that waits for a connection (a worker that stops, a request that took too long), its
    asynchronous client drops the socket that it is just connecting (in 4.20; PYTHON-5867). A filter of warnings cannot
    tell it from another socket. A client that nobody closes is still an error: pymongo itself warns of it.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool_shared, "socket", SimpleNamespace(**{**vars(socket), "socket": DriverSocket}))
        yield


class MongoServer:
    """A MongoDB server at a URI without a database; `emptied` are the databases of tests that have ended."""

    def __init__(self, client: pymongo.MongoClient[dict[str, object]], url: str) -> None:
        self._client = client
        self._url = url
        self.emptied: list[str] = []

    def build_uri(self, name: str) -> str:
        """The URI of a database."""
        return urlunsplit(urlsplit(self._url)._replace(path=f"/{name}"))

    def empty(self, names: Iterable[str]) -> None:
        """Remove all documents, so that the databases can be given to another test."""
        for name in names:
            database = self._client.get_database(name, write_concern=pymongo.WriteConcern("majority"))
            for collection in database.list_collection_names():
                database[collection].delete_many({})
            self.emptied.append(name)

    def drop(self, names: Iterable[str]) -> None:
        """Drop the databases."""
        for name in names:
            self._client.drop_database(name)


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


@pytest.fixture(scope="session")
def mongo_server(mongo_url: str) -> Iterator[MongoServer]:
    """What makes, empties and drops the databases of the tests."""
    with pymongo.MongoClient[dict[str, object]](mongo_url) as client:
        server = MongoServer(client, mongo_url)
        yield server
        server.drop(server.emptied)


@pytest.fixture(scope="module")
def fresh_mongo_uri(mongo_server: MongoServer) -> Iterator[Callable[[], str]]:
    """Makes URIs of databases that never held anything, all dropped after the module."""
    names: list[str] = []

    def make() -> str:
        names.append(f"test_{uuid.uuid4().hex}")
        return mongo_server.build_uri(names[-1])

    yield make
    mongo_server.drop(names)


@pytest.fixture
def new_mongo_uri(mongo_server: MongoServer) -> Iterator[Callable[[], str]]:
    """Makes URIs of databases without documents, which may have collections and indexes of an earlier test.

    A real server takes seconds for the indexes of twenty types, and milliseconds for emptying them.
    """
    names: list[str] = []

    def make() -> str:
        names.append(mongo_server.emptied.pop() if mongo_server.emptied else f"test_{uuid.uuid4().hex}")
        return mongo_server.build_uri(names[-1])

    yield make
    mongo_server.empty(names)


@pytest.fixture(params=["memory", "sqlite"])
def store_uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh store of each kind."""
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/fhir.db"


@pytest.fixture
async def empty_client(known: Knowledge, store_uri: str) -> AsyncIterator[Client]:
    """A client of a server on a store that holds nothing at all, not even the definitions that ship."""
    from fhir_server.app import Seams

    async with serving(known, Seams(definitions=None), store=store_uri) as client:
        yield client


@pytest.fixture
async def client(known: Knowledge, store_uri: str) -> AsyncIterator[Client]:
    """A client of a server with default settings on each store."""
    async with serving(known, store=store_uri) as client:
        yield client
