"""A MongoDB database for a test, and what an SQLite store searches for."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fhir_server.search.query import Query
from fhir_server.store.sqlite.search import Search


@pytest.fixture
def mongo_uri(fresh_mongo_uri: Callable[[], str]) -> str:
    """The URI of a new database."""
    return fresh_mongo_uri()


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> list[Query]:
    """The pages that SQLite stores searched for."""
    asked: list[Query] = []
    find_page = Search.find_page

    def note(self: Search, query: Query) -> object:
        asked.append(query)
        return find_page(self, query)

    monkeypatch.setattr(Search, "find_page", note)
    return asked


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests of a contract that are slow on a store (`slow` of its class) are of the long run."""
    for item in items:
        if isinstance(item, pytest.Function) and item.originalname in getattr(item.cls, "slow", ()):
            item.add_marker(pytest.mark.long)
