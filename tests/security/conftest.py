"""Fixtures of the tests of access."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fhir_server.app import Knowledge
from tests.conftest import Client
from tests.security.smart import open_clinic


@pytest.fixture(params=["memory", "sqlite", "mongodb"])
def any_store_uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh store of each kind, the one on MongoDB among them."""
    if request.param == "mongodb":
        return str(request.getfixturevalue("new_mongo_uri")())
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/fhir.db"


@pytest.fixture
async def client(known: Knowledge, any_store_uri: str) -> AsyncIterator[Client]:
    """The clinic that gives out tokens itself, on each store; a module may have another one."""
    async with open_clinic(known, any_store_uri) as client:
        yield client
