"""What commands share that change values of a store and serve nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated

import typer

from fhir_server.app import open_store
from fhir_server.settings import Settings, read_settings
from fhir_server.store.protocol import Store, StoreError

StoreOption = Annotated[str | None, typer.Option("--store", help="Store URI (FHIR_STORE).")]


def run_on_store(store: str | None, work: Callable[[Store, Settings], Awaitable[None]]) -> None:
    """Do something with a store, which is closed at the end; an error is a sentence and status 1."""

    async def with_store() -> None:
        settings = read_settings() if store is None else read_settings(store=store)
        opened = await open_store(settings.store)
        try:
            await work(opened, settings)
        finally:
            await opened.close()

    try:
        asyncio.run(with_store())
    except (StoreError, ValueError, OSError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
