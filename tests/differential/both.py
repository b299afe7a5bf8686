"""The same resources, at the same ids and times, in a server on each store; and how two answers are compared.

The in-memory store is the oracle: it evaluates the search tree directly. Every other store is one line of `STORES`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import orjson
import pytest

from fhir_server.app import Knowledge, Seams, Server, open_server
from fhir_server.settings import Settings
from tests.conftest import faults_only, leave_invariants_out
from tests.corpora.corpus import JSON, Sent, entries, examples, files, rewritten

STORES: dict[str, Callable[[pytest.FixtureRequest], str]] = {
    "sqlite": lambda request: f"sqlite:///{request.getfixturevalue('tmp_path_factory').mktemp('store')}/fhir.db",
    "mongodb": lambda request: request.getfixturevalue("fresh_mongo_uri")(),
}
IN_THE_LONG_RUN = ["sqlite", pytest.param("mongodb", marks=pytest.mark.long)]
"""Parameters of a fixture: SecantusDB takes half a minute to be loaded, so MongoDB is compared in the long run."""
ORACLE = "memory://"
FEW_BUNDLES = 3
"""Of Synthea's, the smallest: what the fast run loads beside the official examples."""
START = 1_767_600_000_000_000
"""2026-01-05T08:00:00Z, µs."""

Pairs = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Ask:
    """One search: a path below the base, its parameters, and whether they go in a form."""

    path: str
    pairs: tuple[tuple[str, str], ...] = ()
    form: bool = False

    def __str__(self) -> str:
        query = str(httpx.QueryParams(list(self.pairs)))
        return f"POST {self.path}/_search {query}" if self.form else f"GET {self.path}?{query}"


@dataclass(frozen=True, slots=True)
class Both:
    """A client of the oracle's server and one of the other store's; `trees`: what both hold, by `Type/id`."""

    oracle: httpx.AsyncClient
    other: httpx.AsyncClient
    trees: dict[str, dict[str, Any]]
    server: Server


def uri_of(request: pytest.FixtureRequest) -> str:
    """The URI of a new store of the kind that the fixture is parametrised with."""
    return STORES[request.param](request)


class Clock:
    """A time that stands still until it is told to go on, so that both servers write at the same moments."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> int:
        return self.now


def resources(bundles: int | None) -> Iterator[Sent]:
    """The official examples, and Synthea's smallest bundles (None: all) with the uuid of each full URL as id."""
    yield from (sent for sent in examples() if sent.id is not None)
    for path in files("synthea")[:bundles]:
        sent = entries(path.read_bytes())
        locations = {each.full_url: f"{each.type}/{each.full_url.removeprefix('urn:uuid:')}" for each in sent}
        for each in sent:
            tree = orjson.loads(rewritten(each.raw, locations))
            id = locations[each.full_url].partition("/")[2]
            yield Sent(each.name, each.type, id, orjson.dumps({**tree, "id": id}))


@asynccontextmanager
async def both(
    known: Knowledge, uri: str, bundles: int | None = FEW_BUNDLES, full_text: bool = False
) -> AsyncIterator[Both]:
    """Both servers, loaded with so many Synthea bundles (None: all), with or without an index of words.

    Every seventh resource has a second version, and every fiftieth is deleted.
    """
    clock = Clock()
    async with AsyncExitStack() as stack:
        clients: list[httpx.AsyncClient] = []
        for store in (ORACLE, uri):
            # includes, sorts and totals of everything must fit on a page
            # and a slow machine is no difference
            limits = {"max_count": 5000, "search_seconds": 600.0, "request_timeout": 900.0}
            as_sent = {"references": "allow", "booking": "off", "encounter_moves_appointment": False}
            settings = Settings(store=store, full_text=full_text, **as_sent, **limits)  # type: ignore[arg-type]
            server = await stack.enter_async_context(
                open_server(settings, faults_only, leave_invariants_out(known), Seams(clock=clock), create=True)
            )
            transport = httpx.ASGITransport(server.api)
            clients.append(
                await stack.enter_async_context(httpx.AsyncClient(transport=transport, base_url="http://test/fhir"))
            )
        trees = await _load(clients, clock, bundles)
        clock.now += 3_600_000_000
        yield Both(clients[0], clients[1], trees, server)


async def _load(clients: Sequence[httpx.AsyncClient], clock: Clock, bundles: int | None) -> dict[str, dict[str, Any]]:
    trees: dict[str, dict[str, Any]] = {}
    for number, sent in enumerate(resources(bundles)):
        # several resources share a lastUpdated, so that its ties are searched and sorted as well
        clock.now += 1000 * (number % 3)
        url = f"/{sent.type}/{sent.id}"
        tree = orjson.loads(sent.raw)
        await _everywhere(clients, "PUT", url, sent.raw)
        trees[url[1:]] = tree
        if number % 7 == 3:
            trees[url[1:]] = {**tree, "language": "en-GB", "implicitRules": "http://example.org/rules"}
            await _everywhere(clients, "PUT", url, orjson.dumps(trees[url[1:]]))
        if number % 50 == 49:
            del trees[url[1:]]
            await _everywhere(clients, "DELETE", url)
    return trees


async def _everywhere(clients: Sequence[httpx.AsyncClient], method: str, url: str, body: bytes = b"") -> None:
    for client in clients:
        answer = await client.request(method, url, content=body, headers=JSON)
        assert answer.status_code in (200, 201, 204), (url, answer.text)


async def answer(client: httpx.AsyncClient, ask: Ask) -> httpx.Response:
    if ask.form:
        return await client.post(f"{ask.path}/_search", data=_form(ask.pairs), headers={"Accept": JSON["Accept"]})
    return await client.get(ask.path, params=list(ask.pairs), headers=JSON)


def _form(pairs: Pairs) -> dict[str, list[str]]:
    """httpx takes repeated fields as lists."""
    form: dict[str, list[str]] = {}
    for name, value in pairs:
        form.setdefault(name, []).append(value)
    return form


def comparable(response: httpx.Response) -> dict[str, Any]:
    """The answer without what differs between any two answers: the bundle's own id and time, and the page tokens."""
    body = response.json()
    if body["resourceType"] == "Bundle":
        del body["id"], body["meta"]
        body["link"] = [link if link["relation"] != "next" else "next" for link in body["link"]]
    return {"status": response.status_code, "body": body}


async def compared(both: Both, ask: Ask) -> tuple[httpx.Response, str]:
    """The oracle's answer; and the search and what differs for a person to read, empty where both answer alike."""
    first, second = await answer(both.oracle, ask), await answer(both.other, ask)
    left, right = comparable(first), comparable(second)
    if left == right and left["status"] < 500:
        return first, ""
    return first, f"{ask}\n  oracle: {shown(left)}\n  other:  {shown(right)}"


def shown(answer: dict[str, Any]) -> str:
    """Status, total, links and the ids of an answer with their modes; the diagnostics of an error."""
    body = answer["body"]
    if body["resourceType"] != "Bundle":
        return f"{answer['status']} {[issue.get('diagnostics') for issue in body.get('issue', ())]}"
    found = [f"{entry['search']['mode'][0]}:{entry.get('fullUrl', '')[17:]}" for entry in body.get("entry", ())]
    return f"{answer['status']} total {body.get('total')} {body['link']} {found}"


def matches(page: dict[str, Any]) -> list[str]:
    """`Type/id` of the matches on a page."""
    return [
        entry["fullUrl"].removeprefix("http://test/fhir/")
        for entry in page.get("entry", ())
        if entry["search"]["mode"] == "match"
    ]
