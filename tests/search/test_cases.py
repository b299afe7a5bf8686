"""The rows of `cases/*.yaml`, each derived from the specification by hand, on every store (https://hl7.org/fhir/R4/search.html).

A file has `resources`, stored an hour apart in the order given, and `rules`: a rule of the specification in a sentence,
with rows `search: expected`; `full_text: true` switches that setting on. SearchParameters among the resources are in
force. Expected is the list of ids in order
(`Type/id` when several types are searched, or with contained resources), or

    finds, includes, unordered   the matches; the included resources as `Type/id`, in any order if so said
    pages                        the ids of each page, following `next`
    applied, warnings, lenient   the pairs in force (all, when not said) and the beginnings of the warnings
    error                        a part of the sentence with which the search is refused
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC
from functools import cache, partial
from pathlib import Path
from textwrap import dedent
from typing import Any
from urllib.parse import parse_qsl

import pytest
import yaml

from fhir_server.fhir.outcome import FhirError
from fhir_server.interactions.contained import ContainedPage, ContainerReading, search_contained
from fhir_server.requests.long_work import LongWork
from fhir_server.search.compartment import build_compartment_clause
from fhir_server.search.contained import Contained
from fhir_server.search.custom import read_facts
from fhir_server.search.entries import Entries
from fhir_server.search.include import Limits, find_includes
from fhir_server.search.index import Index
from fhir_server.search.parameters import Criteria
from fhir_server.search.parse import NOT_SEARCHED, Search, list_system_types, parse
from fhir_server.search.query import And, Scope
from fhir_server.search.registry import CustomParameter, Registry, add_custom
from fhir_server.search.result_parameters import Options
from fhir_server.search.terminology import Name, Terminology
from fhir_server.security.access import Reader
from fhir_server.store import memory, mongo, sqlite
from fhir_server.store.operations import Content, Transaction, Write
from fhir_server.store.protocol import Clock, Page, Store, Stored
from tests.r4 import R4, REGISTRY

# the parser in C, where PyYAML has it: ten times as fast
LOADER: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

START = 1_795_420_800_000_000  # 2026-11-23T08:00:00Z in µs
HOUR = 3_600_000_000
BASE = "http://fhir.example"

FILES = sorted((Path(__file__).parent / "cases").glob("*.yaml"))
INDEX = Index(REGISTRY, R4, UTC, full_text=True)

Opener = Callable[[pytest.FixtureRequest, Clock], Awaitable[Store]]
STORES: dict[str, Opener] = {
    "memory": lambda request, clock: memory.open_store("memory://", clock),
    "sqlite": lambda request, clock: sqlite.open_store(f"sqlite:///{_folder(request)}/cases.db", clock),
    "mongodb": lambda request, clock: mongo.open_store(request.getfixturevalue("fresh_mongo_uri")(), clock),
}


def _folder(request: pytest.FixtureRequest) -> Path:
    factory: pytest.TempPathFactory = request.getfixturevalue("tmp_path_factory")
    return factory.mktemp("cases")


@dataclass(frozen=True, slots=True)
class Row:
    """One search of a file and what it should find."""

    file: Path
    rule: str
    search: str
    expected: dict[str, Any]


@cache
def _content(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.load(file.read_text(encoding="utf-8"), Loader=LOADER)
    return content


def _rows(file: Path) -> Iterator[Row]:
    for rule in _content(file)["rules"]:
        for search, expected in rule["rows"].items():
            yield Row(file, rule["rule"], search, expected if isinstance(expected, dict) else {"finds": expected})


ROWS = tuple(row for file in FILES for row in _rows(file))


@cache
def _registry(file: Path) -> Registry:
    """R4's search parameters, and those among the resources of a file."""
    own = [read_facts(each) for each in _content(file)["resources"] if each["resourceType"] == "SearchParameter"]
    indexed = {type: {facts.code: "1" for facts in own if type in facts.base} for type in REGISTRY.types}
    return add_custom(REGISTRY, R4, [CustomParameter(facts, "1") for facts in own], indexed) if own else REGISTRY


@cache
def _index(file: Path) -> Index:
    registry = _registry(file)
    return INDEX if registry is REGISTRY else Index(registry, R4, UTC, full_text=True)


class Loaded:
    """The stores that hold the resources of each file, opened when first used, all on one event loop."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._request = request
        self._stores: dict[tuple[str, Path], Store] = {}
        self.loop = asyncio.Runner()

    def store(self, name: str, file: Path) -> Store:
        """The store of that kind with the resources of the file."""
        if (name, file) not in self._stores:
            self._stores[name, file] = self.loop.run(self._load(name, file))
        return self._stores[name, file]

    async def _load(self, name: str, file: Path) -> Store:
        now = [START - HOUR]
        store = await STORES[name](self._request, lambda: now[0])
        for resource in _content(file)["resources"]:
            now[0] += HOUR
            await store.transact(Transaction(writes=(_write(resource, file),)))
        return store

    def close(self) -> None:
        """Closes every store."""
        for store in self._stores.values():
            self.loop.run(store.close())
        self.loop.close()


def _full_text(file: Path) -> bool:
    return bool(_content(file).get("full_text"))


def _write(resource: dict[str, Any], file: Path) -> Write:
    meta = json.dumps(resource.get("meta", {}))[1:-1]
    rest = json.dumps({name: value for name, value in resource.items() if name != "meta"})[1:-1]
    content = Content(f'{{{rest},"meta":{{{meta + "," if meta else ""}'.encode(), b"}}")
    entries = _index(file).make_entries(resource["resourceType"], resource, BASE)
    if not _full_text(file):
        entries = replace(entries, texts={})
    return Write("PUT", resource["resourceType"], resource["id"], content, entries)


@pytest.fixture(scope="module")
def loaded(request: pytest.FixtureRequest) -> Iterator[Loaded]:
    loaded = Loaded(request)
    yield loaded
    loaded.close()


@pytest.mark.parametrize("name", STORES)
@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.file.stem}-{row.search}")
def test_row(row: Row, name: str, loaded: Loaded) -> None:
    store = loaded.store(name, row.file)
    if "error" in row.expected:
        with pytest.raises(FhirError) as refused:
            _search(row)
        assert row.expected["error"] in str(refused.value), row.rule
        assert refused.value.status in (400, 404)
        return
    search, pairs = _search(row)
    applied = [tuple(pair) for pair in row.expected.get("applied", pairs)]
    assert [*search.applied] == applied
    warnings = row.expected.get("warnings", [])
    assert [
        issue.diagnostics[: len(warning)] for issue, warning in zip(search.issues, warnings, strict=True)
    ] == warnings
    pages, extra = loaded.loop.run(_run(store, search, row.file))
    assert pages == row.expected.get("pages", [row.expected.get("finds")]), row.rule
    if "includes" in row.expected:
        order: Callable[[Sequence[str]], list[str]] = sorted if row.expected.get("unordered") else list
        assert order(extra) == order(row.expected["includes"]), row.rule


@cache
def _terminology(file: Path) -> Terminology:
    """The value sets and code systems among the resources of a file."""
    stored: dict[Name, tuple[Any, ...]] = {}
    for resource in _content(file)["resources"]:
        kind = resource["resourceType"]
        if kind in ("ValueSet", "CodeSystem") and "url" in resource:
            stored[kind, resource["url"]] = stored[kind, f"{kind}/{resource['id']}"] = (resource,)
    return Terminology(stored)


def _search(row: Row) -> tuple[Search, list[tuple[str, str]]]:
    path, _, text = row.search.partition("?")
    pairs = parse_qsl(text, keep_blank_values=True)
    segments = path.split("/")
    registry = _registry(row.file)
    types = (segments[-1],) if path else list_system_types(pairs, registry)
    criteria = Criteria(registry, BASE, START, UTC, _terminology(row.file), _full_text(row.file))
    search = parse(types, pairs, criteria, Options(lenient=row.expected.get("lenient", False)))
    if len(segments) == 3:
        (scope,) = search.query.scopes
        where = And((build_compartment_clause(R4, segments[0], segments[1], scope.type), scope.where))
        search = replace(search, query=replace(search.query, scopes=(Scope(scope.type, where),)))
    return search, [pair for pair in pairs if pair[0] not in NOT_SEARCHED]


async def _run(store: Store, search: Search, file: Path) -> tuple[list[list[str]], list[str]]:
    """The ids of each page, and what the first page includes."""
    reading = ContainerReading(partial(_index(file).make_entries, base=BASE), REGISTRY.types, LongWork())
    page = await _page(store, search, reading)
    entries = partial(LongWork().run_each, partial(_entries, _index(file)))
    extra = await find_includes(store, entries, page.matches, search.includes, _registry(file), Limits(100))
    several = len(search.query.scopes) > 1 or search.contained
    pages = [page]
    while page.next is not None:
        page = await _page(store, replace(search, query=replace(search.query, after=page.next)), reading)
        pages.append(page)
    named = [[match.reference if several else match.id for match in page.matches] for page in pages]
    return named, [resource.reference for resource in extra]


async def _page(store: Store, search: Search, reading: ContainerReading) -> Page | ContainedPage:
    if search.contained:
        return await search_contained(Reader(store, None), search.query, search.contained, reading)
    return await store.search(search.query)


def _entries(index: Index, stored: Stored | Contained) -> Entries:
    return index.make_entries(stored.type, json.loads(stored.raw or b"{}"), BASE)


def test_there_are_rows_for_every_part_of_search() -> None:
    assert len(ROWS) >= 200
    assert len({(row.file, row.search, "lenient" in row.expected) for row in ROWS}) == len(ROWS)
    assert {file.stem for file in FILES} >= {
        *("string", "token", "reference", "date", "number", "quantity", "uri", "composite"),
        *("chain", "has", "missing", "include", "sort", "paging", "compartment", "result"),
    }


def test_the_page_on_adding_a_parameter_can_be_followed(tmp_path: Path, loaded: Loaded) -> None:
    """Its resource is the one that its file of rows begins with, and every row holds."""
    page = Path(__file__).resolve().parents[2] / "docs/adding/a-search-parameter.md"
    blocks = dict(re.findall(r"```(json|yaml)\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL))
    file = tmp_path / "birth-order.yaml"
    file.write_text(dedent(blocks["yaml"]), encoding="utf-8")
    assert json.loads(blocks["json"]) in _content(file)["resources"]
    rows = list(_rows(file))
    assert rows
    for row in rows:
        test_row(row, "memory", loaded)
