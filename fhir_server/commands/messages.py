"""`fhir-server messages`: the message log listed, shown, replayed and closed (docs/messages.md)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fhir_server.app import open_server
from fhir_server.fhir.outcome import FhirError
from fhir_server.requests.context import Context
from fhir_server.requests.request import Caller
from fhir_server.settings import read_settings
from fhir_server.store.protocol import StoreError
from fhir_server.workers import message_log
from fhir_server.workers.formats import INTERPRETERS
from fhir_server.workers.interpreters import Refusal
from fhir_server.workers.message_codes import (
    CONTROL_SYSTEM,
    PARTNER_SYSTEM,
    find_parts,
    read_acknowledgement,
    read_identifier,
)
from fhir_server.workers.message_log import Filters, Task, is_intake
from fhir_server.workers.message_queue import COUNTED, read_feed_lag, read_queue
from fhir_server.workers.message_states import STATES, read_state
from fhir_server.workers.messages import Received
from fhir_server.workers.partner_pauses import pause, resume

LONGEST_SHOWN = 4000
"""Bytes of a text that `show` prints unless it is asked for all."""

messages = typer.Typer(no_args_is_help=True, help="The log of messages that came in and went out.")

Store = Annotated[str | None, typer.Option(help="Store URI (FHIR_STORE).")]
Id = Annotated[str, typer.Argument(help="Id of the message's Task, as `list` shows it.")]


@messages.command("list")
def list_messages(
    store: Store = None,
    partner: Annotated[str, typer.Option(help="Name of a partner.")] = "",
    state: Annotated[str, typer.Option(help="State, such as `refused` or `parked`.")] = "",
    since: Annotated[str, typer.Option(help="First arrival at this date or time, or later.")] = "",
    until: Annotated[str, typer.Option(help="First arrival at this date or time, or before.")] = "",
    number: Annotated[str, typer.Option(help="Control number.")] = "",
    patient: Annotated[str, typer.Option(help="Patient, such as `Patient/1`.")] = "",
    count: Annotated[int, typer.Option(min=1, max=1000, help="Most messages that are listed.")] = 50,
) -> None:
    """List messages, newest first."""
    if state and state not in STATES:
        typer.echo(f"`{state}` is no state; states are {', '.join(STATES)}.", err=True)
        raise typer.Exit(2)
    filters = Filters(partner, state, since, until, number, patient)

    async def find(context: Context, caller: Caller) -> None:
        tasks, more = await message_log.find_messages(context, caller, filters, count)
        Console().print(make_table(tasks) if tasks else "No message is like that.")
        if more:
            typer.echo(f"There are more than {count}; ask for more with --count, or for less with a filter.", err=True)

    run_with_store(store, find)


@messages.command()
def show(
    id: Id, store: Store = None, whole: Annotated[bool, typer.Option(help="Print a long text to its end.")] = False
) -> None:
    """Show a message: its state, what it made, its acknowledgement and its text."""

    async def print_message(context: Context, caller: Caller) -> None:
        task = await message_log.read_message(context, caller, id)
        console = Console()
        console.print(make_table([task]))
        _print_reason(task)
        for part in find_parts(task, "result"):
            typer.echo(f"made: {part['valueReference']['reference']}")
        for part in find_parts(task, "deletion"):
            typer.echo(f"made: {part['valueString']}")
        acknowledgement = read_acknowledgement(task)
        if acknowledgement:
            typer.echo(f"acknowledgement:\n{_to_lines(acknowledgement)}")
        text, _ = await message_log.read_text(context, caller, task)
        shown = text if whole else text[:LONGEST_SHOWN]
        typer.echo(f"text ({len(text)} bytes):\n{_to_lines(shown)}")
        if len(shown) < len(text):
            typer.echo(f"The first {LONGEST_SHOWN} bytes are shown; --whole shows all of it.", err=True)

    run_with_store(store, print_message)


@messages.command()
def replay(
    id: Annotated[str, typer.Argument(help="Id of the message's Task; left out: those that the filters select.")] = "",
    store: Store = None,
    dry_run: Annotated[bool, typer.Option(help="Say what would be stored or sent, and write nothing.")] = False,
    again: Annotated[bool, typer.Option(help="Also what was accepted already.")] = False,
    partner: Annotated[str, typer.Option(help="Name of a partner.")] = "",
    state: Annotated[str, typer.Option(help="State, such as `parked`.")] = "",
    since: Annotated[str, typer.Option(help="First arrival at this date or time, or later.")] = "",
    until: Annotated[str, typer.Option(help="First arrival at this date or time, or before.")] = "",
    patient: Annotated[str, typer.Option(help="Patient, such as `Patient/1`.")] = "",
    count: Annotated[int, typer.Option(min=1, max=1000, help="Most messages of the filters.")] = 1000,
) -> None:
    """Interpret again what came in; let deliveries that were refused, parked or closed wait again."""
    filters = Filters(partner, state, since, until, "", patient)
    if bool(id) == (filters != Filters()) or (state and state not in STATES):
        typer.echo(f"Name one message, or filters; states are {', '.join(STATES)}.", err=True)
        raise typer.Exit(2)
    if id:
        run_with_store(store, lambda context, caller: _replay_one(context, caller, id, dry_run, again))
        return

    async def replay_many(context: Context, caller: Caller) -> None:
        tasks, more = await message_log.find_messages(context, caller, filters, count)
        await _replay_many(context, caller, tasks[::-1], dry_run, again)
        if more:
            typer.echo(f"There are more than {count}; run it again for the others.", err=True)

    run_with_store(store, replay_many)


async def _replay_one(context: Context, caller: Caller, id: str, dry_run: bool, again: bool) -> None:
    task = await message_log.read_message(context, caller, id)
    if dry_run:
        _print_preview(await message_log.preview(context, caller, task, INTERPRETERS))
        return
    done = await message_log.replay(context, caller, task, INTERPRETERS, again)
    if not isinstance(done, Received):
        typer.echo(f"Task/{id} is {read_state(done)}.")
        return
    typer.echo(f"Task/{id} is {done.state}.")
    for issue in done.issues:
        typer.echo(f"{issue.severity}: {issue.diagnostics}")
    if done.state == "refused":
        typer.echo(done.reason, err=True)
        raise typer.Exit(1)


async def _replay_many(context: Context, caller: Caller, tasks: list[Task], dry_run: bool, again: bool) -> None:
    """Replay each, oldest first; what fails is said and stops no other."""
    chosen = [task for task in tasks if message_log.is_replayable(task, again)]
    if dry_run:
        Console().print(make_table(chosen) if chosen else "No message is like that.")
        typer.echo(f"{len(chosen)} would be replayed.")
        return
    failed = 0
    for task in chosen:
        try:
            done = await message_log.replay(context, caller, task, INTERPRETERS, again)
            state = done.state if isinstance(done, Received) else read_state(done)
            typer.echo(f"Task/{task['id']} is {state}.")
        except FhirError as error:
            failed += 1
            typer.echo(f"Task/{task['id']}: {error}", err=True)
    typer.echo(f"{len(chosen) - failed} replayed, {failed} failed.")
    if failed:
        raise typer.Exit(1)


@messages.command()
def queue(store: Store = None) -> None:
    """Show what waits to go to each partner, and how far behind the queue is."""

    async def print_queue(context: Context, caller: Caller) -> None:
        rows = await read_queue(context, caller)
        table = Table()
        for title in ("partner", "paused since", *COUNTED):
            table.add_column(title, overflow="fold")
        for row in rows:
            table.add_row(row.partner, row.paused, *(str(row.counts[state]) for state in COUNTED))
        Console().print(table if rows else "There is no partner.")
        lag = await read_feed_lag(context)
        typer.echo(
            "It is not known how far behind the queue is: the worker `sending` has not begun, or walks."
            if lag is None
            else f"The queue is {lag} seconds behind what is written."
        )

    run_with_store(store, print_queue)


Name = Annotated[str, typer.Argument(help="Name of the partner.")]


@messages.command("pause")
def pause_partner(partner: Name, store: Store = None) -> None:
    """Send nothing to a partner; what is on its way is finished, and what is made meanwhile waits."""

    async def pause_it(context: Context, caller: Caller) -> None:
        await pause(context, partner)
        typer.echo(f"`{partner}` is paused.")

    run_with_store(store, pause_it)


@messages.command("resume")
def resume_partner(partner: Name, store: Store = None) -> None:
    """Send to a partner again."""

    async def resume_it(context: Context, caller: Caller) -> None:
        was = await resume(context, partner)
        typer.echo(f"`{partner}` is resumed." if was else f"`{partner}` was not paused.")

    run_with_store(store, resume_it)


@messages.command()
def close(
    id: Id, reason: Annotated[str, typer.Option(help="Why nothing more is to be done.")], store: Store = None
) -> None:
    """Close a message that was refused or parked, or a delivery that waits, so that retention may remove it."""

    async def close_message(context: Context, caller: Caller) -> None:
        await message_log.read_message(context, caller, id)
        await message_log.close(context, caller, id, reason)
        typer.echo(f"Task/{id} is closed.")

    run_with_store(store, close_message)


def make_table(tasks: list[Task]) -> Table:
    """Messages as a table; nothing is cut, and an id stands on one line."""
    table = Table()
    reasons = [task.get("statusReason", {}).get("text", "") for task in tasks]
    for title in ("first", "way", "partner", "number", "state", "patient", *(("reason",) if any(reasons) else ())):
        table.add_column(title, overflow="fold")
    table.add_column("id", no_wrap=True)
    for task, reason in zip(tasks, reasons, strict=True):
        way = "in" if is_intake(task) else "out"
        partner, number = read_identifier(task, PARTNER_SYSTEM), read_identifier(task, CONTROL_SYSTEM)
        patient = task.get("for", {}).get("reference", "")
        told = (escape(reason),) if any(reasons) else ()
        row = (task["authoredOn"], way, partner, number, read_state(task) or "unknown", patient, *told)
        table.add_row(*row, task["id"])
    return table


def _print_reason(task: Task) -> None:
    reason = task.get("statusReason", {}).get("text", "")
    if reason:
        typer.echo(f"reason: {reason}")
    for contained in task.get("contained", ()):
        for issue in contained.get("issue", ()):
            typer.echo(f"{issue['severity']}: {issue.get('diagnostics', '')}")


def _print_preview(said: Any) -> None:
    if isinstance(said, Refusal):
        typer.echo(f"It would be refused: {said.reason}")
        return
    for entry in said.entries:
        typer.echo(f"{entry['request']['method']} {entry['request']['url']}")
    for issue in said.issues:
        typer.echo(f"{issue.severity}: {issue.diagnostics}")


def _to_lines(text: bytes) -> str:
    """A text for a terminal: segments on lines, and nothing that would steer the terminal."""
    lines = text.decode("utf-8", "backslashreplace").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return "\n".join("".join(each if each.isprintable() else f"\\x{ord(each):02x}" for each in line) for line in lines)


def run_with_store(store: str | None, work: Callable[[Context, Caller], Awaitable[None]]) -> None:
    """Do something with the store of a setting; an error is a sentence and status 1."""

    async def with_store() -> None:
        settings = read_settings() if store is None else read_settings(store=store)
        async with open_server(settings) as server:
            await work(server.context, Caller(settings.base_url))

    try:
        asyncio.run(with_store())
    except (FhirError, StoreError, ValueError, OSError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
