"""Reading all of a type, as reports do: a page is one statement, and a report reads each resource once."""

from __future__ import annotations

from pathlib import Path

import pytest

from fhir_server.app import Knowledge
from fhir_server.requests.request import Caller
from fhir_server.search.query import Query, Scope
from fhir_server.store.contract.case import Ticks, put, write
from fhir_server.store.sqlite import open_store
from fhir_server.store.sqlite.cardinality import Sizes
from fhir_server.store.sqlite.interned_names import Names
from fhir_server.store.sqlite.schema import connect
from fhir_server.store.sqlite.search import Search
from fhir_server.workers.posting import reading
from fhir_server.workers.posting.practice import read_practice
from mappers.billing.book_elements import BookReader
from tests.mappers.billing.histories import day
from tests.operations.payments.money_clinic import bill, practice

pytestmark = pytest.mark.anyio

SIZES = [50] * 40
"""Bytes of resources, more of them than are read without a look at their sizes."""


async def count_statements(folder: Path, sizes: list[int]) -> int:
    """The statements that read texts for one page of resources of these sizes."""
    store = await open_store(f"sqlite:///{folder}/fhir.db", Ticks())
    await write(store, *(put(f"Basic/{n:03}", text="x" * size) for n, size in enumerate(sizes)))
    await store.close()
    connection = connect(folder / "fhir.db", writer=False)
    names = Names()
    names.refresh(connection)
    told: list[str] = []
    search = Search(connection, names, Sizes())
    connection.set_trace_callback(told.append)
    page = search.find_page(Query((Scope("Basic"),), count=100, most_bytes=10**6))
    assert [len(each.raw or b"") >= size for each, size in zip(page.matches, sizes, strict=True)]
    connection.close()
    return sum("v.raw" in each for each in told)


async def test_a_page_of_small_resources_is_read_by_one_statement(tmp_path: Path) -> None:
    assert await count_statements(tmp_path, SIZES) == 1


async def test_all_large_resources_of_a_page_are_read_by_one_more(tmp_path: Path) -> None:
    assert await count_statements(tmp_path, [*SIZES, 20_000, 50, 30_000, 40_000]) == 2


async def test_a_report_reads_each_resource_once(
    known: Knowledge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with practice(known, f"sqlite:///{tmp_path}/fhir.db") as client:
        for n in range(30):
            await bill(client, "03-01", f"A{n}", "100", "50")
        monkeypatch.setattr(reading, "PAGE", 7)
        texts: list[bytes] = []
        whole = BookReader.read_all

        def read_all(self: BookReader, type: str, found: list[bytes]) -> None:
            texts.extend(found)
            whole(self, type, found)

        monkeypatch.setattr(BookReader, "read_all", read_all)
        found = await read_practice(client.server.context, Caller("http://test/fhir"), day("03-31"))
        assert len(texts) == len(set(texts)) == found.rows.count() > 90
