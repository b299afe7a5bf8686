"""Random full-text searches, of words that the data holds, are answered alike by every store: https://hl7.org/fhir/R4/search.html#content."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator

import pytest

from fhir_server.app import Knowledge
from tests.differential.both import IN_THE_LONG_RUN, Ask, Both, answer, both, compared, matches, uri_of

pytestmark = pytest.mark.anyio

SEED = 20260107
FEW, MANY = 60, 150
"""Searches of the fast run, and of the long one."""


@pytest.fixture(scope="module", params=IN_THE_LONG_RUN)
async def servers(request: pytest.FixtureRequest, known: Knowledge) -> AsyncIterator[Both]:
    async with both(known, uri_of(request), bundles=0, full_text=True) as servers:
        yield servers


class Asking:
    """Searches for words of one resource at a time; the same seed gives the same."""

    def __init__(self, servers: Both, seed: int) -> None:
        index = servers.server.context.index
        self._texts = {reference: index.make_texts(tree) for reference, tree in sorted(servers.trees.items())}
        self._random = random.Random(seed)

    def search(self) -> tuple[str, Ask]:
        """A resource, and a search that it matches."""
        roll = self._random
        reference = roll.choice([reference for reference, texts in self._texts.items() if texts])
        parameter = roll.choice(sorted(self._texts[reference]))
        words = self._texts[reference][parameter].split()
        wanted = roll.choice((" ", " AND ", " and ")).join(self._leaf(words) for _ in range(roll.randint(1, 3)))
        form = roll.random()
        if form < 0.2:
            wanted = f"({wanted}) OR {self._leaf(words)}"
        elif form < 0.3:
            wanted = f"{self._word(words)},absentword"
        elif form < 0.4:
            wanted = f"{wanted} NOT (absentword OR otherword)"
        path = roll.choice((f"/{reference.partition('/')[0]}", "/"))
        pairs = [(parameter, wanted), ("_count", "5000")]
        if roll.random() < 0.5:
            pairs.append(("_sort", roll.choice(("_score", "-_score", "_score,-_lastUpdated", "-_lastUpdated,_score"))))
        return reference, Ask(path, tuple(pairs), form=path != "/" and roll.random() < 0.1)

    def _leaf(self, words: list[str]) -> str:
        start = self._random.randrange(len(words))
        phrase = words[start : start + self._random.choice((1, 1, 2, 3))]
        kind = self._random.random()
        if kind < 0.2:
            return f'"{" ".join(phrase)[: self._random.randint(-4, -1) or None] or phrase[0]}"*'
        if kind < 0.5:
            return f'"{" ".join(phrase)}"'
        return self._word(words)

    def _word(self, words: list[str]) -> str:
        word = self._random.choice(words)
        return f'"{word.upper()}"' if word in ("and", "or", "not") else word


async def test_random_full_text(servers: Both) -> None:
    await compare(servers, SEED, FEW)


@pytest.mark.long
async def test_much_random_full_text(servers: Both) -> None:
    await compare(servers, SEED + 2, MANY)


async def compare(servers: Both, seed: int, count: int) -> None:
    """Every search is answered alike, and finds the resource whose words it has."""
    asking, differences = Asking(servers, seed), []
    for _ in range(count):
        reference, ask = asking.search()
        response, found = await compared(servers, ask)
        if found:
            differences.append(found)
        assert response.status_code == 200, (str(ask), response.text)
        assert reference in matches(response.json()), str(ask)
    assert differences == [], "\n".join(differences[:20])


async def test_scores_fall(servers: Both) -> None:
    """In the order of the score, whatever the store, and within 0 to 1."""
    asking = Asking(servers, SEED + 1)
    for _ in range(20):
        _, ask = asking.search()
        pairs = tuple(pair for pair in ask.pairs if pair[0] != "_sort")
        page = (await answer(servers.other, Ask(ask.path, (*pairs, ("_sort", "_score"))))).json()
        scores = [each["search"]["score"] for each in page["entry"]]
        assert scores == sorted(scores, reverse=True)
        assert all(0 < score < 1 for score in scores)
