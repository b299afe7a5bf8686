"""`fhir-server x12`: files of X12 taken in from the command line (docs/x12.md)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from fhir_server.commands.messages import run_with_store
from fhir_server.commands.terminal import make_printable
from fhir_server.fhir.outcome import FhirError
from fhir_server.requests.context import Context
from fhir_server.requests.request import Caller
from fhir_server.workers.x12_answers import answer_interchange
from fhir_server.workers.x12_files import MOST_PARTS, describe_faults
from fhir_server.workers.x12_intake import Source, TakenInterchange, read_file, take_interchange

x12 = typer.Typer(no_args_is_help=True, help="X12: take files of payers and clearinghouses in.")


@x12.callback()
def _group() -> None:
    """X12: take files of payers and clearinghouses in."""


@x12.command()
def post(
    files: Annotated[list[Path], typer.Argument(help="Files of interchanges.")],
    partner: Annotated[str, typer.Option(help="Name of the partner; else by ISA05 to ISA08.")] = "",
    answers: Annotated[bool, typer.Option("--answers", help="Print TA1 and 999 in place of the table.")] = False,
    store: Annotated[str | None, typer.Option(help="Store URI (FHIR_STORE).")] = None,
) -> None:
    """Take files in as `$x12` does, and print what came of each set; status 1 where something is refused."""

    async def take(context: Context, caller: Caller) -> None:
        known = context.partners.get(partner)
        if partner and (known is None or known.x12 is None):
            raise ValueError(f"No partner `{partner}` exchanges X12; `fhir-server partners check` lists them.")
        refused = False
        for path in files:
            text = path.read_bytes()
            try:
                found = await read_file(context, text, MOST_PARTS)
            except FhirError as error:
                raise ValueError(f"{path}: {error}") from None
            sentences = [each.sentence for each in found.outside]
            for interchange in found.interchanges:
                taken = await take_interchange(Source(context, caller.base, partner), text, interchange)
                sentences += describe_faults(taken)
                await _print(context, taken, answers)
            for sentence in sentences:
                typer.echo(f"{path}: {make_printable(sentence)}", err=True)
            refused = refused or bool(sentences)
        if refused:
            raise typer.Exit(1)

    run_with_store(store, take)


async def _print(context: Context, taken: TakenInterchange, answers: bool) -> None:
    if not answers:
        Console().print(make_table(taken))
        return
    answer = await answer_interchange(context, taken)
    if answer is not None:
        typer.echo(answer.text.decode("latin-1"))


def make_table(taken: TakenInterchange) -> Table:
    """What came of an interchange, a row for each set or TA1; an id stands on one line."""
    table = Table()
    for title in ("partner", "set", "number", "state"):
        table.add_column(title, overflow="fold")
    table.add_column("id", no_wrap=True)
    for row in _list_rows(taken):
        table.add_row(*map(make_printable, row))
    return table


def _list_rows(taken: TakenInterchange) -> Iterator[tuple[str, ...]]:
    partner = taken.partner or "unknown"
    for group in taken.groups:
        for each in group.sets:
            state = "accepted before" if each.received.repeated else each.received.state
            yield partner, each.set.code, each.set.control_number, state, f"Task/{each.received.id}"
    for ta1, received in zip(taken.interchange.answers, taken.answers, strict=True):
        yield partner, "TA1", ta1.at(1), received.state, f"Task/{received.id}"
