"""The SQLite store keeps the store contract (fhir_server/store/protocol.py) and compares with the in-memory oracle."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fhir_server.store.contract import Differential, DurableContract, StoreContract
from fhir_server.store.protocol import Clock, Store
from fhir_server.store.sqlite import open_store


class TestSqlite(StoreContract, DurableContract, Differential):
    @pytest.fixture(autouse=True)
    def _folder(self) -> Iterator[None]:
        self.folder = Path(tempfile.mkdtemp())
        yield
        shutil.rmtree(self.folder)

    async def open_store(self, clock: Clock) -> Store:
        name = tempfile.mktemp(suffix=".db", dir=self.folder)
        self.uri = f"sqlite:///{name}"
        return await open_store(self.uri, clock)

    async def open_again(self, clock: Clock) -> Store:
        return await open_store(self.uri, clock)
