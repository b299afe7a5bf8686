"""`fhir-server load`: files into a store or any FHIR server, repeatable without duplicates (https://hl7.org/fhir/R4/http.html#transaction)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from fhir_server.app import open_server
from fhir_server.commands.loading.inputs import Inputs, find_inputs
from fhir_server.commands.loading.submissions import read_submissions
from fhir_server.commands.loading.tally import RESULTS, Tally
from fhir_server.settings import read_settings
from fhir_server.store.protocol import StoreError

if TYPE_CHECKING:
    import httpx


@dataclass(frozen=True, slots=True)
class _Options:
    """What to load, where to, and how."""

    inputs: Inputs
    server: str | None
    store: str | None
    headers: tuple[str, ...]
    concurrency: int
    as_posted: bool


def load(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH…", help="Files and folders: JSON, NDJSON, .gz, packages (.tgz).")
    ],
    server: Annotated[str | None, typer.Option(help="Base URL of the FHIR server to load into.")] = None,
    store: Annotated[str | None, typer.Option(help="Store to load straight into, such as sqlite:///fhir.db.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, max=64, help="Requests under way at the same time.")] = 4,
    report: Annotated[Path | None, typer.Option(help="Write each failure to this file, as NDJSON.")] = None,
    as_posted: Annotated[bool, typer.Option("--as-posted", help="Keep the bundles' own verbs.")] = False,
    header: Annotated[list[str] | None, typer.Option(help="Header for each request, as `Name: value`.")] = None,
) -> None:
    """Load bundles, single resources and NDJSON; exit status 1 when something failed."""
    if (server is None) == (store is None):
        raise typer.BadParameter("Say where to load: either `--server URL` or `--store URI`.")
    options = _Options(find_inputs(paths), server, store, tuple(header or ()), concurrency, as_posted)
    console = Console(stderr=True)
    try:
        with _open_report(report) as lines:
            tally = asyncio.run(_run(options, Tally(lines), console))
    except (OSError, ValueError, StoreError) as error:
        console.print(f"Nothing more can be loaded: {error}", markup=False, style="red")
        raise typer.Exit(2) from None
    _print_summary(options, tally, Console(), report)
    if tally.failures:
        raise typer.Exit(1)


def _open_report(path: Path | None) -> AbstractContextManager[TextIO | None]:
    return path.open("w", encoding="utf-8") if path else nullcontext()


async def _run(options: _Options, tally: Tally, console: Console) -> Tally:
    # Imported here, since every command imports this module and only this one needs an HTTP client.
    from fhir_server.commands.loading.sending import load_submissions

    for failure in options.inputs.failures:
        tally.fail(failure)
    async with _open_client(options) as client:
        with _show_progress(console) as progress:
            task = progress.add_task(
                "load", total=sum(file.size for file in options.inputs.files), resources=0, rate=""
            )

            def on_done(weight: int) -> None:
                elapsed = progress.tasks[0].elapsed or 0
                rate = f"{tally.resources / elapsed:,.0f}/s" if elapsed > 0.5 else ""
                progress.update(task, advance=weight, resources=tally.resources, rate=rate)

            items = read_submissions(options.inputs.files, options.as_posted)
            await load_submissions(items, client, tally, options.concurrency, on_done)
    return tally


@asynccontextmanager
async def _open_client(options: _Options) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the server, or of a server in this process on the store."""
    from fhir_server.commands.loading.client import TIME_LIMIT, check_base, open_client, open_local_client

    if options.store is None:
        async with open_client(options.server or "", options.headers) as client:
            await check_base(client)
            yield client
        return
    settings = read_settings(store=options.store, log_level="error", request_timeout=TIME_LIMIT)
    async with open_server(settings, create=True) as server, open_local_client(server.api, settings.path) as client:
        yield client


def _show_progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.fields[resources]:,} resources"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %  {task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
    )


def _print_summary(options: _Options, tally: Tally, console: Console, report: Path | None) -> None:
    shown = [result for result in RESULTS if tally.total(result) or result in ("created", "updated", "failed")]
    table = Table("type", *shown)
    for column in table.columns[1:]:
        column.justify = "right"
    for type in sorted(tally.by_type):
        table.add_row(type, *(f"{tally.by_type[type][result]:,}" for result in shown))
    table.add_section()
    table.add_row("all", *(f"{tally.total(result):,}" for result in shown))
    console.print(table)
    if options.inputs.ignored:
        console.print(f"{options.inputs.ignored} files that are not JSON or NDJSON by name were left aside.")
    for failure in tally.first_failures:
        place = " ".join(filter(None, (failure.source, failure.entry, str(failure.status or ""))))
        console.print(f"{place}: {failure.text}", markup=False, highlight=False)
    _print_rest(tally, console, report)


def _print_rest(tally: Tally, console: Console, report: Path | None) -> None:
    more = tally.failures - len(tally.first_failures)
    if report:
        console.print(f"{tally.failures} failures are in {report}.", markup=False)
    elif more:
        console.print(f"{more} more failures; `--report FILE` keeps them all.", markup=False)
