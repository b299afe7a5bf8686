"""`fhir-server load`: files into a store or any FHIR server, repeatable without duplicates (https://hl7.org/fhir/R4/http.html#transaction)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TextIO

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from fhir_server.client.answers import Sender
from fhir_server.client.asgi import Application, AsgiSender
from fhir_server.client.http import HttpSender, target_of
from fhir_server.client.inputs import Found, find
from fhir_server.client.loading import load as load_all
from fhir_server.client.loop import run
from fhir_server.client.submissions import submissions
from fhir_server.client.tally import RESULTS, Tally
from fhir_server.settings import settings_of_environment
from fhir_server.store.protocol import StoreError

TIME_LIMIT = 600.0
"""Seconds that one bundle may take."""


@dataclass(frozen=True, slots=True)
class _Plan:
    found: Found
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
    plan = _Plan(find(paths), server, store, tuple(header or ()), concurrency, as_posted)
    console = Console(stderr=True)
    try:
        with _report_file(report) as lines:
            tally = run(_run(plan, Tally(lines), console))
    except (OSError, ValueError, StoreError) as error:
        console.print(f"Nothing more can be loaded: {error}", markup=False, style="red")
        raise typer.Exit(2) from None
    _summarise(plan, tally, Console(), report)
    if tally.failures:
        raise typer.Exit(1)


def _report_file(path: Path | None) -> AbstractContextManager[TextIO | None]:
    return path.open("w", encoding="utf-8") if path else nullcontext()


async def _run(plan: _Plan, tally: Tally, console: Console) -> Tally:
    for failure in plan.found.failures:
        tally.fail(failure)
    async with _sender(plan) as sender:
        with _progress(console) as progress:
            task = progress.add_task("load", total=sum(file.size for file in plan.found.files), resources=0, rate="")

            def on_done(weight: int) -> None:
                elapsed = progress.tasks[0].elapsed or 0
                rate = f"{tally.resources / elapsed:,.0f}/s" if elapsed > 0.5 else ""
                progress.update(task, advance=weight, resources=tally.resources, rate=rate)

            await load_all(submissions(plan.found.files, plan.as_posted), sender, tally, plan.concurrency, on_done)
    return tally


@asynccontextmanager
async def _sender(plan: _Plan) -> AsyncIterator[Sender]:
    if plan.store is not None:
        async with _application(plan.store) as (application, base):
            yield AsgiSender(application, base)
        return
    sender = HttpSender(target_of(plan.server or "", plan.headers), TIME_LIMIT)
    try:
        yield sender
    finally:
        sender.close()


@asynccontextmanager
async def _application(store: str) -> AsyncIterator[tuple[Application, str]]:
    """The server itself on that store, in this process."""
    # Loading into a server needs nothing of the server's own parts.
    from fhir_server.app import running

    settings = settings_of_environment(store=store, log_level="error", request_timeout=TIME_LIMIT)
    async with running(settings) as server:
        yield server.api, settings.path


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.fields[resources]:,} resources"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %  {task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
    )


def _summarise(plan: _Plan, tally: Tally, console: Console, report: Path | None) -> None:
    shown = [result for result in RESULTS if tally.total(result) or result in ("created", "updated", "failed")]
    table = Table("type", *shown)
    for column in table.columns[1:]:
        column.justify = "right"
    for type in sorted(tally.by_type):
        table.add_row(type, *(f"{tally.by_type[type][result]:,}" for result in shown))
    table.add_section()
    table.add_row("all", *(f"{tally.total(result):,}" for result in shown))
    console.print(table)
    if plan.found.left_aside:
        console.print(f"{plan.found.left_aside} files that are not JSON or NDJSON by name were left aside.")
    for failure in tally.first_failures:
        place = " ".join(filter(None, (failure.source, failure.entry, str(failure.status or ""))))
        console.print(f"{place}: {failure.text}", markup=False, highlight=False)
    _say_rest(tally, console, report)


def _say_rest(tally: Tally, console: Console, report: Path | None) -> None:
    more = tally.failures - len(tally.first_failures)
    if report:
        console.print(f"{tally.failures} failures are in {report}.", markup=False)
    elif more:
        console.print(f"{more} more failures; `--report FILE` keeps them all.", markup=False)
