"""The SQLite store keeps the store contract (fhir_server/store/protocol.py) and compares with the in-memory oracle."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fhir_server.store.contract import Differential, DurableContract, StoreContract
from fhir_server.store.protocol import Clock, Store
from fhir_server.store.sqlite import open_store, search
from fhir_server.store.sqlite.clauses import has_index
from fhir_server.store.sqlite.plan import plan


class _OpensSqlite:
    @pytest.fixture(autouse=True)
    def _folder(self) -> Iterator[None]:
        self.folder = Path(tempfile.mkdtemp())
        self.opened = 0
        yield
        shutil.rmtree(self.folder)

    async def open_store(self, clock: Clock) -> Store:
        self.opened += 1
        return await self.open_again(clock)

    async def open_again(self, clock: Clock) -> Store:
        return await open_store(f"sqlite:///{self.folder}/{self.opened}.db", clock)


class TestSqlite(_OpensSqlite, StoreContract, DurableContract, Differential):
    examples = 40


class TestAnyPlan(_OpensSqlite, Differential):
    """Whatever way a search is found by, it finds the same: a small database would always choose the same one."""

    examples = 25
    many = 100

    @pytest.fixture(autouse=True)
    def _choose_any_plan(self, monkeypatch: pytest.MonkeyPatch) -> None:
        chance, choose = random.Random(7), plan

        def change_plan(*arguments: Any) -> Any:
            chosen = choose(*arguments)
            entry = chance.choice([part for part in chosen.parts if has_index(part)] or [None])
            read_whole = frozenset(
                part for part in chosen.parts if has_index(part) and part != entry and chance.random() < 0.5
            )
            return replace(
                chosen,
                entry=entry,
                walks=entry is None or chance.random() < 0.7,
                cost=chance.choice([0.0, 1e9]),  # a walk that gives up at once, and one that never does
                context=replace(chosen.context, read_whole=read_whole),
            )

        monkeypatch.setattr(search, "plan", change_plan)
