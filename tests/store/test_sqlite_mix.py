"""The plan of each search of the mix on SQLite: no step scans a table, and the work does not grow with the type.

`SEARCH … USING …` enters an index or reads it in order and stops when the page is full; `SCAN` of a table reads all
of it (https://www.sqlite.org/eqp.html). With eight times the data a search may take longer only where it finds more.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import orjson
import pytest

from fhir_server.app import Knowledge, now
from fhir_server.client.queries import MORE, QUERIES, Query
from fhir_server.search import query as tree
from fhir_server.search.parameters import Criteria
from fhir_server.search.parse import Options, parse
from fhir_server.store.sqlite.names import Names
from fhir_server.store.sqlite.plan import Sizes
from fhir_server.store.sqlite.schema import connect
from fhir_server.store.sqlite.search import Search
from tests.conftest import serving

MIX = (*QUERIES, *(query for query in MORE if not query.needs))
BUNDLES = 3
TIMES = 8
GROWTH = 3.5
"""How much more work eight times the data may make: indexes are deeper, and clauses are counted further."""

FEW_STEPS = 20_000
"""Steps of SQLite's machine below which nothing is said to grow: less than half a millisecond."""

TABLES = "resource|version|term|link|date|number|entries|words|gram"


@dataclass(frozen=True, slots=True)
class Asked:
    """How a search was answered: the plan of each statement, and the steps that all took."""

    plans: tuple[str, ...]
    steps: int


class Database:
    """One file, searched as a server's thread does it."""

    def __init__(self, known: Knowledge, path: Path) -> None:
        self._connection = connect(path, writer=False)
        names = Names()
        names.refresh(self._connection)
        self._search = Search(self._connection, names, Sizes())
        self._criteria = Criteria(registry=known.registry, base="http://test/fhir", now=now())

    def values(self) -> dict[str, str]:
        """Values of the data for the names in the queries."""
        person = self._first("Patient?_count=1")
        observation = self._first("Observation?value-quantity:missing=false&code=http://loinc.org|8302-2")
        condition = self._first("Condition?_count=1")
        family = person["name"][0]["family"]
        return {
            "gender": person["gender"],
            "birthdate": person["birthDate"],
            "prefix": family[:3],
            "middle": family[1:4],
            "city": person["address"][0]["city"][1:5],
            "id": person["id"],
            "patient": person["id"],
            "code": _token(condition["code"]),
            "observed": _token(observation["code"]),
            "value": str(observation["valueQuantity"]["value"]),
            "category": _token(observation["category"][0]),
            "date": observation["effectiveDateTime"][:10],
            "status": "active",
        }

    def _first(self, search: str) -> dict[str, Any]:
        (found, *_) = self._search.page(self._parsed(search)).matches
        resource: dict[str, Any] = orjson.loads(found.raw or b"")
        return resource

    def _parsed(self, search: str) -> tree.Query:
        type, _, pairs = search.partition("?")
        return parse((type,), parse_qsl(pairs), self._criteria, Options()).query

    def ask(self, query: Query, values: dict[str, str]) -> Asked:
        """Runs a search and listens."""
        if query.search.startswith("Observation"):
            values = values | {"code": values["observed"]}
        asked = self._parsed(query.search.format_map(values).replace("%7C", "|").replace("%24", "$"))
        run = self._search.count if "_summary=count" in query.search else self._search.page
        run(asked)  # counts that are remembered
        statements: list[str] = []
        self._connection.set_trace_callback(statements.append)
        run(asked)
        self._connection.set_trace_callback(None)
        selects = [text for text in dict.fromkeys(statements) if text.startswith(("SELECT", "WITH"))]
        plans = tuple(self._plan(text) for text in selects)
        return Asked(plans, sum(self._steps(text) for text in selects))

    def _plan(self, text: str) -> str:
        return "; ".join(row[3] for row in self._connection.execute(f"EXPLAIN QUERY PLAN {text}"))

    def _steps(self, text: str) -> int:
        steps = 0

        def count() -> bool:
            nonlocal steps
            steps += 100
            return False

        self._connection.set_progress_handler(count, 100)
        self._connection.execute(text).fetchall()
        self._connection.set_progress_handler(None, 0)
        return steps


def _token(concept: dict[str, Any]) -> str:
    return f"{concept['coding'][0]['system']}|{concept['coding'][0]['code']}"


@pytest.fixture(scope="module")
def databases(known: Knowledge, shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Database]]:
    """The smallest bundles once, and eight times with new ids."""
    files = sorted((shared / "data" / "synthea").glob("*.json"), key=lambda path: path.stat().st_size)
    bodies = [path.read_bytes() for path in files if b'"Patient"' in path.read_bytes()[:4000]][:BUNDLES]
    folder = tmp_path_factory.mktemp("mix")

    async def fill(path: Path, times: int) -> None:
        async with serving(known, store=f"sqlite:///{path}", references="allow") as client:
            for body in bodies * times:
                headers = {"Content-Type": "application/fhir+json"}
                response = await client.post("", content=body, headers=headers)
                assert response.status_code == 200, response.text[:300]

    paths = [folder / "once.db", folder / "often.db"]
    for path, times in zip(paths, (1, TIMES), strict=True):
        asyncio.run(fill(path, times))
    yield [Database(known, path) for path in paths]


@pytest.mark.parametrize("query", MIX, ids=lambda query: query.name)
def test_no_search_of_the_mix_scans(query: Query, databases: list[Database]) -> None:
    once, often = (database.ask(query, database.values()) for database in databases)
    for plan in (*once.plans, *often.plans):
        assert not re.search(rf"SCAN ({TABLES})\b", plan), plan
        # an alias of a table says which index it reads; what is read without one is a subquery or a list in JSON
        assert not re.search(r"SCAN \w+ USING", plan), plan
        assert "AUTOMATIC" not in plan, plan
    if "_summary=count" not in query.search:  # a count reads what it counts
        said = "\n".join((f"{once.steps} → {often.steps} steps", *often.plans))
        assert often.steps <= max(FEW_STEPS, GROWTH * once.steps), said
