"""Several processes open a file that is not there yet, as the workers of one server do."""

from __future__ import annotations

import asyncio
import multiprocessing
from pathlib import Path

from fhir_server.app import read_clock
from fhir_server.store import sqlite

PROCESSES = 4
FILES = 12


def open_and_close(path: str) -> str:
    """What opening and closing the store says; runs in a process of its own."""

    async def run() -> None:
        store = await sqlite.open_store(f"sqlite:///{path}", read_clock)
        await store.check_ready()
        await store.close()

    try:
        asyncio.run(run())
    except Exception as error:
        return repr(error)
    return "open"


def test_processes_that_make_the_file_at_once(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:
        for number in range(FILES):
            answers = pool.map(open_and_close, [f"{tmp_path}/{number}.db"] * PROCESSES, chunksize=1)
            assert answers == ["open"] * PROCESSES
