"""`fhir-server verify` and `restore`: a store looked through for faults, and a backup put in place (docs/verify.md)."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from fhir_server.app import Seams, build_context, load_knowledge, open_store, read_clock
from fhir_server.fhir.outcome import FhirError
from fhir_server.settings import Settings, read_settings
from fhir_server.store import sqlite
from fhir_server.store.protocol import StoreError
from fhir_server.workers.verifying import Findings
from fhir_server.workers.verifying import verify as look_through

MOST_SHOWN = 100
"""Faults that are printed; all are counted."""


def verify(store: Annotated[str | None, typer.Option(help="Store URI (FHIR_STORE).")] = None) -> None:
    """Look through a store: its file, every index entry, every reference. Status 1 when there is a fault."""
    try:
        settings = read_settings() if store is None else read_settings(store=store)
        found = asyncio.run(verify_store(settings))
    except (FhirError, StoreError, ValueError, OSError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    tell_findings(found)


def restore(
    source: Annotated[Path, typer.Argument(help="A file that `backup` wrote.")],
    store: Annotated[str | None, typer.Option(help="Store URI: sqlite:///PATH (FHIR_STORE).")] = None,
) -> None:
    """Copy a backup to where a store is to be, and verify both; nothing may be there yet."""
    try:
        settings = read_settings() if store is None else read_settings(store=store)
        found = asyncio.run(_restore(settings, source))
    except (FhirError, StoreError, ValueError, OSError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    tell_findings(found)


def tell_findings(found: Findings) -> None:
    """Print what was found; exits with status 1 when there is a fault."""
    for fault in found.faults[:MOST_SHOWN]:
        typer.echo(fault, err=True)
    if found.faults:
        typer.echo(f"{len(found.faults):,} faults in {found.resources:,} resources.", err=True)
        raise typer.Exit(1)
    typer.echo(f"{found.resources:,} resources: every index entry is that of its text, and no reference dangles.")


async def verify_store(settings: Settings) -> Findings:
    """Look through the store of the settings. Raises StoreError."""
    if settings.store.startswith("memory:"):
        raise ValueError("A memory:// store lives in the process that made it; name a file or a database.")
    store = await open_store(settings.store)
    try:
        context = build_context(settings, load_knowledge(settings), store, await store.page_key(), Seams())
        await context.bases.reload()
        await context.parameters.reload()
        try:
            return await look_through(context, sorted(context.types))
        finally:
            context.long_work.close()
    finally:
        await store.close()


async def _restore(settings: Settings, source: Path) -> Findings:
    target = sqlite.find_file(settings.store)
    for name in (Path(f"{target}{ending}") for ending in sqlite.DATABASE_FILES):
        if name.exists():
            raise ValueError(f"`{name}` is there; stop the server and move the old database's files away first.")
    before = await verify_store(settings.model_copy(update={"store": f"sqlite:///{source}"}))
    if before.faults:
        return before
    copied = await sqlite.open_store(f"sqlite:///{source}", read_clock, create=False)
    try:
        with Progress() as progress:
            task = progress.add_task("pages", total=None)
            await copied.backup(target, lambda done, total: progress.update(task, completed=done, total=total))
    finally:
        await copied.close()
    return await verify_store(settings)
