"""The plan of each search of the bench's mix on Synthea's patients: no scan, and few rows however much there is.

SQLite says SCAN for a table or index that is read from end to end, SEARCH for a range of it
(https://www.sqlite.org/eqp.html). A walk along an index is a SEARCH too, of a whole type, that ends when the page is
full: how far it goes is seen from the steps that SQLite's virtual machine takes on several times the data.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest

from bench import queries
from bench.queries import MORE, QUERIES
from fhir_server.app import Knowledge
from fhir_server.requests.request import parse_query
from fhir_server.search.parameters import Criteria, make_sort
from fhir_server.search.parse import parse
from fhir_server.search.query import Query, Scope
from fhir_server.search.result_parameters import Options
from fhir_server.search.sorts import SORTS
from fhir_server.store.sqlite import budget
from fhir_server.store.sqlite.cardinality import Sizes
from fhir_server.store.sqlite.interned_names import Names
from fhir_server.store.sqlite.schema import connect
from fhir_server.store.sqlite.search import Search
from tests.conftest import Client, serving
from tests.shared import shared_path

BUNDLES = slice(1, 16, 5)
"""Of Synthea's, by size: three that are not large, of both genders."""
COPIES = (1, 6)
BASE = "http://test/fhir"
FHIR_JSON = {"Content-Type": "application/fhir+json"}

MIX = {query.name: query for query in (*QUERIES, *MORE) if not query.needs}

# A count reads every index row that it counts, nothing else.
COUNTS = ("ExplanationOfBenefit _summary=count",)


@dataclass(frozen=True)
class Loaded:
    """A database, and the searches of the mix with values that occur in it, by name."""

    path: Path
    searches: dict[str, list[str]]


@dataclass(frozen=True)
class Ran:
    """What searches did: the texts of their plans, and the most steps that one took."""

    plans: tuple[str, ...]
    scans: tuple[str, ...]
    steps: int
    matches: int


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory, known: Knowledge) -> list[Loaded]:
    """The bundles once, and several times."""
    files = sorted(shared_path("data/synthea").glob("*.json"), key=lambda file: file.stat().st_size)[BUNDLES]
    folder = tmp_path_factory.mktemp("mix")
    return [asyncio.run(_load(known, folder / f"{copies}.db", files * copies)) for copies in COPIES]


async def _load(known: Knowledge, path: Path, files: list[Path]) -> Loaded:
    async with serving(known, store=f"sqlite:///{path}") as client:
        for file in files:
            response = await client.post("", content=file.read_bytes(), headers=FHIR_JSON)
            assert response.status_code == 200, response.text
        async with _answer_bench(client):
            pools = await queries.read_pools(None, list(MIX.values()))  # type: ignore[arg-type]
    return Loaded(path, {name: queries.write_paths(query, pools) for name, query in MIX.items()})


@asynccontextmanager
async def _answer_bench(client: Client) -> AsyncIterator[None]:
    """The bench reads from this client."""

    async def ask(lane: object, path: str) -> Any:
        response = await client.get(f"{BASE}/{path}")
        assert response.status_code == 200, response.text
        return response.json()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(queries, "ask_json", ask)
        yield


@pytest.fixture
def run(known: Knowledge, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Ran]]:
    """Runs searches on a file and tells what SQLite did."""
    monkeypatch.setattr(budget, "_STEPS_PER_CHECK", 50)
    opened: list[sqlite3.Connection] = []

    def run(path: Path, searches: list[Query], counts: bool = False) -> Ran:
        connection, names = connect(path, writer=False), Names()
        opened.append(connection)
        names.refresh(connection)
        search, statements = Search(connection, names, Sizes()), dict[str, None]()
        # a trial ends after as many steps as it should take in its time, however busy the machine is
        steps_per_second = budget.STEPS_PER_MICROSECOND * 1e6
        monkeypatch.setattr(time, "thread_time", lambda: search._meter._steps / steps_per_second)
        steps = matches = 0
        for query in searches:
            connection.set_trace_callback(lambda text: statements.setdefault(text))
            matches += search.count(query) if counts else len(search.find_page(query).matches)
            connection.set_trace_callback(None)
            steps = max(steps, search._meter._steps)
        read = [text for text in statements if text.startswith(("SELECT", "WITH"))]
        plans = [[row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {text}").fetchall()] for text in read]
        shown = dict.fromkeys(step for plan in plans for step in plan)
        return Ran(tuple(shown), tuple(step for plan in plans for step in _find_scans(plan)), steps, matches)

    yield run
    for connection in opened:
        connection.close()


def _parse_url(known: Knowledge, url: str) -> Query:
    type, _, pairs = url.partition("?")
    criteria = Criteria(zone=UTC, now=0, base=BASE, registry=known.registry)
    return parse((type,), parse_query(pairs), criteria, Options()).query


def _find_scans(plan: Sequence[str]) -> list[str]:
    """The steps of one statement that read a table or an index from end to end."""
    created = {step.split()[1] for step in plan if step.startswith(("CO-ROUTINE", "MATERIALIZE"))}
    scans = [step for step in plan if step.startswith("SCAN")]
    # Rows that the statement itself makes, and the elements of a JSON array, are no table's.
    own = ("CONSTANT ROW", "VIRTUAL TABLE", "(subquery", "SCAN found")
    return [step for step in scans if step.split()[1] not in created and not any(word in step for word in own)]


@pytest.mark.parametrize("name", MIX)
def test_a_search_of_the_mix_scans_nothing_and_needs_few_rows(
    loaded: list[Loaded], known: Knowledge, run: Callable[..., Ran], name: str
) -> None:
    few, many = (
        run(each.path, [_parse_url(known, url) for url in each.searches[name][:20]], name in COUNTS) for each in loaded
    )
    shown = "\n".join((name, loaded[0].searches[name][0], *many.plans))
    assert few.matches > 0, shown
    assert any(step.startswith("SEARCH") for step in many.plans), shown
    assert few.scans == many.scans == (), shown
    if name not in COUNTS:
        assert many.steps <= 2 * few.steps + 20_000, f"{few.steps} steps became {many.steps}\n{shown}"


@pytest.mark.parametrize("descending", [False, True], ids=["up", "down"])
@pytest.mark.parametrize("type", SORTS)
def test_a_declared_sort_walks_an_index(
    loaded: list[Loaded], known: Knowledge, run: Callable[..., Ran], type: str, descending: bool
) -> None:
    parameters = known.registry.parameters(type)
    for code in SORTS[type]:
        query = Query((Scope(type),), (make_sort(parameters[code], descending),))
        few, many = (run(each.path, [query]) for each in loaded)
        shown = "\n".join((f"{type}?_sort={'-' * descending}{code}", *many.plans))
        assert many.scans == (), shown
        if few.matches == query.count:
            assert many.steps <= 2 * few.steps + 20_000, f"{few.steps} steps became {many.steps}\n{shown}"


def test_scans_would_be_noticed(loaded: list[Loaded]) -> None:
    connection = connect(loaded[0].path, writer=False)
    for statement in ("SELECT rid FROM term WHERE value = 'x'", "SELECT r.rid FROM resource r WHERE r.deleted = 0"):
        assert _find_scans([row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}")]) != []
    connection.close()
