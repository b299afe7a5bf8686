"""A MongoDB database for a test."""

from __future__ import annotations

from collections.abc import Callable

import pytest


@pytest.fixture
def mongo_uri(new_mongo_uri: Callable[[], str]) -> str:
    """The URI of a new database."""
    return new_mongo_uri()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests of a contract that are slow on a store (`slow` of its class) are of the long run."""
    for item in items:
        if isinstance(item, pytest.Function) and item.originalname in getattr(item.cls, "slow", ()):
            item.add_marker(pytest.mark.long)
