"""Every store answers every search as the in-memory oracle does: same status, ids, order, totals, links and texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator

import pytest

from fhir_server.app import Knowledge
from tests.differential.asking import Asking, vocabulary
from tests.differential.both import (
    IN_THE_LONG_RUN,
    Ask,
    Both,
    answer,
    both,
    comparable,
    compared,
    matches,
    shown,
    uri_of,
)
from tests.differential.chosen import CHOSEN

pytestmark = pytest.mark.anyio

SEED = 20260105
FAST, LONG = 600, 3000
ON_MONGO = 1000
"""Random searches of the long run there; SecantusDB takes longer for each."""
WALKS_FAST, WALKS_LONG = 25, 150


@pytest.fixture(scope="module", params=IN_THE_LONG_RUN)
async def servers(request: pytest.FixtureRequest, known: Knowledge) -> AsyncIterator[Both]:
    async with both(known, uri_of(request)) as servers:
        yield servers


async def compare(servers: Both, count: int, seed: int) -> None:
    """Random searches; the answers have to be mostly successes with matches, or they would show little."""
    asking = Asking(vocabulary(servers.server, servers.trees), seed)
    statuses: Counter[int] = Counter()
    differences, with_matches = [], 0
    for _ in range(count):
        ask = asking.search()
        response, found = await compared(servers, ask)
        if found:
            differences.append(found)
        else:
            statuses[response.status_code] += 1
            with_matches += response.status_code == 200 and bool(response.json().get("entry"))
    assert differences == [], f"{len(differences)} of {count}:\n" + "\n".join(differences[:20])
    assert statuses[200] > 0.85 * count, statuses
    assert with_matches > 0.4 * count


async def walk(servers: Both, ask: Ask) -> None:
    """Page by page both stores give the order of the undivided answer, and nothing twice."""
    whole = await answer(servers.oracle, Ask(ask.path, (*ask.pairs, ("_count", "5000"))))
    if whole.status_code != 200:
        return
    expected = matches(whole.json())
    for client in (servers.oracle, servers.other):
        found: list[str] = []
        page = (await answer(client, Ask(ask.path, (*ask.pairs, ("_count", str(1 + len(expected) // 7)))))).json()
        while True:
            found += matches(page)
            following = [link["url"] for link in page["link"] if link["relation"] == "next"]
            if not following:
                break
            response = await client.get(following[0])
            assert response.status_code == 200, (str(ask), response.text)
            page = response.json()
        assert found == expected, f"{ask} walked on {'the oracle' if client is servers.oracle else 'the other store'}"


async def walks(servers: Both, count: int, seed: int) -> None:
    asking = Asking(vocabulary(servers.server, servers.trees), seed)
    done = 0
    while done < count:
        ask = asking.search()
        pairs = tuple(pair for pair in ask.pairs if pair[0] not in ("_count", "_summary") and "include" not in pair[0])
        if not ask.form:
            await walk(servers, Ask(ask.path, pairs))
            done += 1


async def test_random_searches(servers: Both) -> None:
    await compare(servers, FAST, SEED)


async def test_page_walks(servers: Both) -> None:
    await walks(servers, WALKS_FAST, SEED)


async def test_chosen_searches(servers: Both) -> None:
    """Each is answered alike, and as its line says: with matches, without, or refused."""
    assert len({chosen.ask for chosen in CHOSEN}) >= 400
    differences, unexpected = [], []
    for chosen in CHOSEN:
        response, found = await compared(servers, chosen.ask)
        if found:
            differences.append(found)
        if not chosen.is_met(response):
            unexpected.append(f"{chosen.ask} should be {chosen.expected}: {shown(comparable(response))[:400]}")
    assert differences == [], "\n".join(differences)
    assert unexpected == [], "\n".join(unexpected)


@pytest.mark.long
async def test_many_random_searches(servers: Both, request: pytest.FixtureRequest) -> None:
    await compare(servers, ON_MONGO if "mongodb" in request.node.name else LONG, SEED + 1)


@pytest.mark.long
async def test_many_page_walks(servers: Both) -> None:
    await walks(servers, WALKS_LONG, SEED + 1)


async def test_the_same_seed_asks_the_same(servers: Both) -> None:
    words = vocabulary(servers.server, servers.trees)
    first, second, other = Asking(words, SEED), Asking(words, SEED), Asking(words, SEED + 1)
    asked = [first.search() for _ in range(50)]
    assert asked == [second.search() for _ in range(50)]
    assert asked != [other.search() for _ in range(50)]
