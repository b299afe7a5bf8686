"""A MongoDB database for a test."""

from __future__ import annotations

from collections.abc import Callable

import pytest


@pytest.fixture
def mongo_uri(new_mongo_uri: Callable[[], str]) -> str:
    """The URI of a new database."""
    return new_mongo_uri()
