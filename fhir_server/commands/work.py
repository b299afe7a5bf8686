"""`fhir-server work`: the workers in a process of their own."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Annotated

import typer

from fhir_server.api.log import make_log
from fhir_server.app import open_server, spare_collections
from fhir_server.settings import Settings, read_settings
from fhir_server.store.protocol import StoreError
from fhir_server.workers.running import Team, run_workers, select_workers
from fhir_server.workers.table import WORKERS
from fhir_server.workers.worker import Worker


def work(
    names: Annotated[list[str] | None, typer.Argument(help="Workers; all that are on when none is named.")] = None,
    store: Annotated[str | None, typer.Option(help="Store URI (FHIR_STORE).")] = None,
) -> None:
    """Run the workers until SIGTERM or Ctrl-C; a second one ends them at once."""
    try:
        settings = read_settings() if store is None else read_settings(store=store)
        asyncio.run(_work(settings, _choose(settings, names or [])))
    except (StoreError, ValueError, OSError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None


def _choose(settings: Settings, names: list[str]) -> tuple[Worker, ...]:
    """The workers with these names. Raises ValueError with a sentence."""
    switched = {worker.name: worker for worker in select_workers(settings, WORKERS.values())}
    for name in names:
        if name not in switched:
            cause = f"is switched off (setting `{WORKERS[name].setting}`)" if name in WORKERS else "is no worker"
            raise ValueError(f"`{name}` {cause}; workers are {', '.join(f'`{each}`' for each in switched)}.")
    return tuple(switched[name] for name in dict.fromkeys(names or switched))


async def _work(settings: Settings, workers: tuple[Worker, ...]) -> None:
    if settings.store.startswith("memory:"):
        raise ValueError("A memory:// store lives in one process, whose own workers `serve` runs.")
    async with open_server(settings) as server:
        spare_collections()
        team = Team(server.context, make_log(sys.stderr.buffer, settings.log_level))
        team.log("info", "workers start", workers=[worker.name for worker in workers], owner=team.owner)
        task = asyncio.create_task(run_workers(team, workers))
        loop = asyncio.get_running_loop()

        def stop(number: int) -> None:
            loop.remove_signal_handler(number)
            for each in (signal.SIGTERM, signal.SIGINT):
                signal.signal(each, signal.SIG_DFL)
            task.cancel()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop, number)
        await asyncio.wait({task})
        if not task.cancelled():
            task.result()
