"""`fhir-server backup`: a consistent copy of an SQLite store while it is in use."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from fhir_server.app import STORES, hide_secrets, make_unknown_store_error, read_clock
from fhir_server.commands.verify import tell_findings, verify_store
from fhir_server.settings import read_settings
from fhir_server.store import sqlite
from fhir_server.store.protocol import StoreError


def backup(
    target: Annotated[Path, typer.Argument(help="The file to write; it must not exist.")],
    store: Annotated[str | None, typer.Option(help="Store URI: sqlite:///PATH (FHIR_STORE).")] = None,
) -> None:
    """Copy a store to a file and verify the copy; the server may go on reading and writing."""
    if target.exists():
        typer.echo(f"{target} exists; name a new file, or remove it first.", err=True)
        raise typer.Exit(2)
    try:
        uri = store or read_settings().store
        asyncio.run(_backup(uri, target))
        found = asyncio.run(verify_store(read_settings(store=f"sqlite:///{target}")))
    except (StoreError, ValueError, OSError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    tell_findings(found)
    typer.echo(f"{target} holds a complete copy of {hide_secrets(uri)}; serve it with --store sqlite:///{target}")


async def _backup(uri: str, target: Path) -> None:
    scheme = uri.partition(":")[0]
    if scheme not in STORES:
        raise make_unknown_store_error(uri)
    if scheme != "sqlite":
        raise ValueError(
            f"{hide_secrets(uri)} has its own way of backup, see its documentation page; "
            "this command copies SQLite stores."
        )
    store = await sqlite.open_store(uri, read_clock, create=False)
    try:
        with Progress() as progress:
            task = progress.add_task("pages", total=None)
            await store.backup(target, lambda done, total: progress.update(task, completed=done, total=total))
    finally:
        await store.close()
