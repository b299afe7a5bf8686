"""`fhir-server reindex`: makes all index entries again, after search parameters or settings have changed."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fhir_server.app import open_server
from fhir_server.fhir.outcome import FhirError
from fhir_server.requests.context import Context
from fhir_server.settings import Settings, read_settings
from fhir_server.store.protocol import StoreError
from fhir_server.workers.lease import LeaseLost
from fhir_server.workers.reindexing import Job, begin, resume, run


def reindex(
    types: Annotated[list[str] | None, typer.Argument(help="Resource types; all when none is named.")] = None,
    store: Annotated[str | None, typer.Option(help="Store URI (FHIR_STORE).")] = None,
    rate: Annotated[int, typer.Option(min=0, help="Resources a second at most; 0 for as many as there can be.")] = 0,
) -> None:
    """Make the search index of stored resources anew; the server may go on reading and writing."""
    try:
        settings = read_settings() if store is None else read_settings(store=store)
        job = asyncio.run(_reindex(settings, types or [], rate))
    except (FhirError, StoreError, ValueError, OSError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    except LeaseLost:
        typer.echo("Another process has taken this reindex over; `GET $reindex` tells how far it is.", err=True)
        raise typer.Exit(1) from None
    if job.status == "failed":
        typer.echo(f"{job.done} resources indexed, then: {job.message}", err=True)
        raise typer.Exit(1)
    typer.echo(f"{job.done} resources indexed.")


async def _reindex(settings: Settings, types: list[str], rate: int) -> Job:
    async with open_server(settings) as server:
        context = server.context
        unknown = sorted(set(types) - context.types)
        if unknown:
            raise ValueError(f"{', '.join(unknown)}: no resource type of this server.")
        chosen = types or sorted(context.types)
        job = await resume(context)
        if job is not None:
            typer.echo("A reindex that was left is gone on with first.", err=True)
            job = await _run_with_progress(context, job)
            if job.status == "failed" or set(chosen) <= set(job.types):
                return job
        return await _run_with_progress(context, await begin(context, chosen, rate))


async def _run_with_progress(context: Context, job: Job) -> Job:
    """Run a job to its end, with a progress bar."""
    columns = TextColumn("resources"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("resources", total=None)
        return await run(
            context, job, lambda done, total: progress.update(task, completed=done, total=total), rests=job.rate > 0
        )
