"""For each type of search parameter: on random resources and searches the stores find what the store in memory finds.

The searches go through the parser, with the modifiers and prefixes of the type (https://hl7.org/fhir/R4/search.html#ptypes).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fhir_server.search.index import Index
from fhir_server.search.parameters import TYPES, Criteria
from fhir_server.search.parse import parse
from fhir_server.search.query import Query
from fhir_server.search.result_parameters import Options
from fhir_server.store import memory, mongo, sqlite
from fhir_server.store.operations import Content, Transaction, Write
from fhir_server.store.protocol import Store
from tests.differential.typed import KINDS, Asked, Json, Kind, populations, searches
from tests.r4 import R4, REGISTRY

BASE = "http://fhir.example"
NOW = 1_795_420_800_000_000  # 2026-11-23T08:00:00Z in µs
EXAMPLES, MANY, ON_MONGO = 15, 125, 25
SEARCHES = 12

INDEX = Index(REGISTRY, R4, UTC)
CRITERIA = Criteria(registry=REGISTRY, base=BASE, now=NOW, zone=UTC)

Open = Callable[[Callable[[], int]], Coroutine[Any, Any, Store]]


def _write(resource: Json) -> Write:
    text = json.dumps({**resource, "meta": {**resource.get("meta", {}), "at": 0}})
    head, _, tail = text.partition('"at": 0')
    entries = INDEX.make_entries(resource["resourceType"], resource, BASE)
    return Write("PUT", resource["resourceType"], resource["id"], Content(head.encode(), tail.encode()), entries)


def _query(asked: Asked) -> Query:
    return parse((asked.type,), asked.pairs(), CRITERIA, Options()).query


async def _walked(store: Store, query: Query) -> list[list[str]]:
    """The ids of each page."""
    page = await store.search(query)
    pages = [page]
    while page.next is not None:
        page = await store.search(replace(query, after=page.next))
        pages.append(page)
    return [[match.id for match in page.matches] for page in pages]


async def _compare(store: Store, oracle: Store, resources: list[Json], asked: list[Asked]) -> None:
    transaction = Transaction(writes=tuple(map(_write, resources)))
    await store.transact(transaction)
    await oracle.transact(transaction)
    for each in asked:
        query = _query(each)
        expected = await _walked(oracle, query)
        assert await _walked(store, query) == expected, each
        assert await store.count(query) == sum(map(len, expected)), each


def _explore(kind: Kind, open_store: Open, examples: int) -> None:
    """Every example replaces the resources of the one before: opening a store would take longer than all else."""
    with asyncio.Runner() as loop:
        store = loop.run(open_store(lambda: NOW))
        oracle = loop.run(memory.open_store("memory://", lambda: NOW))

        @settings(max_examples=examples, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
        @given(populations(kind), st.lists(searches(kind), min_size=SEARCHES, max_size=SEARCHES))
        def explore(resources: list[Json], asked: list[Asked]) -> None:
            loop.run(_compare(store, oracle, resources, asked))

        explore()
        loop.run(store.close())


def _sqlite(folder: Path) -> Open:
    return lambda clock: sqlite.open_store(f"sqlite:///{folder}/types.db", clock)


@pytest.mark.parametrize("type", KINDS)
def test_sqlite_finds_what_memory_finds(type: str, tmp_path: Path) -> None:
    _explore(KINDS[type], _sqlite(tmp_path), EXAMPLES)


@pytest.mark.long
@pytest.mark.parametrize("type", KINDS)
def test_sqlite_finds_what_memory_finds_at_length(type: str, tmp_path: Path) -> None:
    _explore(KINDS[type], _sqlite(tmp_path), MANY)


@pytest.mark.long
@pytest.mark.parametrize("type", KINDS)
def test_mongodb_finds_what_memory_finds(type: str, new_mongo_uri: Callable[[], str]) -> None:
    _explore(KINDS[type], lambda clock: mongo.open_store(new_mongo_uri(), clock), ON_MONGO)


def test_every_type_is_tried() -> None:
    assert set(KINDS) == set(TYPES) - {"special"}
