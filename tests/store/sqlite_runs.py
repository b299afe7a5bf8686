"""Tests on one open SQLite store."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from fhir_server.store.contract.case import Ticks
from fhir_server.store.protocol import BUDGET, Budget, Clock
from fhir_server.store.sqlite import SqliteStore, open_store


def run_on_store(
    path: Path,
    test: Callable[[SqliteStore], Awaitable[None]],
    budget: Budget = BUDGET,
    options: str = "",
    clock: Clock | None = None,
) -> None:
    """Open the store of a file, run the test on it, close it."""

    async def run() -> None:
        store = await open_store(f"sqlite:///{path}{options}", clock or Ticks(), budget)
        try:
            async with asyncio.timeout(60):
                await test(store)
        finally:
            await store.close()

    asyncio.run(run())
