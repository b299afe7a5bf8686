"""`fhir-server reindex`: index entries made anew, after search parameters changed."""

from __future__ import annotations

import asyncio
from typing import Annotated

import orjson
import typer
from rich.progress import Progress

from fhir_server.app import running
from fhir_server.search.entries import Entries
from fhir_server.settings import Settings
from fhir_server.store.protocol import StoreError


def reindex(
    types: Annotated[list[str] | None, typer.Argument(help="Resource types; all when none is named.")] = None,
    store: Annotated[str | None, typer.Option(help="Store URI (FHIR_STORE).")] = None,
) -> None:
    """Make the search index of stored resources anew; the server may go on reading and writing."""
    settings = Settings() if store is None else Settings(store=store)
    try:
        done = asyncio.run(_reindex(settings, types or []))
    except (StoreError, ValueError, OSError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    typer.echo(f"{done} resources indexed.")


async def _reindex(settings: Settings, types: list[str]) -> int:
    async with running(settings) as server:
        context = server.context
        unknown = sorted(set(types) - context.types)
        if unknown:
            raise ValueError(f"{', '.join(unknown)}: no resource type of this server.")

        def extract(type: str, raw: bytes) -> Entries:
            return context.index.entries(type, orjson.loads(raw), settings.base_url)

        with Progress() as progress:
            task = progress.add_task("resources", total=None)
            return await context.store.reindex(
                types or sorted(context.types),
                extract,
                lambda done, total: progress.update(task, completed=done, total=total),
            )
