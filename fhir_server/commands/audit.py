"""`fhir-server audit`: what the files of events say, and whether they are as they were written (docs/audit.md)."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import orjson
import typer

from fhir_server.app import open_store
from fhir_server.security.audit_file import HEADS, find_faults, read_key
from fhir_server.settings import Settings, read_settings
from fhir_server.store.protocol import Store, StoreError

audit = typer.Typer(no_args_is_help=True, help="The record of who saw and changed what.")


@audit.callback()
def _audit() -> None:
    """The record of who saw and changed what."""


@audit.command()
def verify(
    folder: Annotated[str | None, typer.Option(help="Folder of the files (FHIR_AUDIT_FOLDER).")] = None,
    store: Annotated[str | None, typer.Option("--store", help="Store URI (FHIR_STORE).")] = None,
) -> None:
    """Compare every file with what the store knows of it; status 1 where something was changed or is missing."""
    try:
        settings = read_settings() if store is None else read_settings(store=store)
        count, faults = asyncio.run(_verify(settings, Path(folder or settings.audit_folder)))
    except (StoreError, ValueError, OSError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    for fault in faults:
        typer.echo(fault)
    typer.echo(f"{count} files, {len(faults)} with a fault.")
    raise typer.Exit(1 if faults else 0)


@audit.command(name="list")
def list_events(
    folder: Annotated[str | None, typer.Option(help="Folder of the files (FHIR_AUDIT_FOLDER).")] = None,
    break_glass: Annotated[
        bool, typer.Option("--break-glass", help="Only those of break-glass, refused ones too.")
    ] = False,
) -> None:
    """Print the events, a line each: when, who, what, of what, how it ended, and why the glass was broken."""
    place = Path(folder or read_settings().audit_folder)
    try:
        for path in sorted(place.glob("*.jsonl")):
            with path.open("rb") as lines:
                for line in lines:
                    _print_event(line.rpartition(b"\t")[0], break_glass)
    except OSError as error:
        typer.echo(f"The folder `{place}` cannot be read: {error.strerror}.", err=True)
        raise typer.Exit(1) from None


def _print_event(line: bytes, break_glass: bool) -> None:
    """One event of a file; a line that is none was changed, which `verify` tells."""
    try:
        event = orjson.loads(line)
    except orjson.JSONDecodeError:
        return
    codes = [each["code"] for each in event["subtype"]]
    if break_glass and not event.get("purposeOfEvent") and codes[0] != "break-glass":
        return
    about = [each.get("what", {}).get("reference") or each.get("name", "") for each in event["entity"]]
    why = [f"{each['coding'][0]['code']}: {each['text']}" for each in event.get("purposeOfEvent", ())]
    who = event["agent"][0]["who"]["identifier"]["value"]
    typer.echo("  ".join(filter(None, (event["recorded"], who, codes[0], *about, event["outcomeDesc"], *why))))


async def _verify(settings: Settings, folder: Path) -> tuple[int, list[str]]:
    """(files, what is wrong with them)."""
    store = await open_store(settings.store)
    try:
        key, heads = await read_key(store), await _read_heads(store)
    finally:
        await store.close()
    faults = [fault for name, head in heads.items() for fault in find_faults(folder / name, key, head)]
    strangers = sorted(path.name for path in folder.glob("*.jsonl") if path.name not in heads)
    faults += [f"`{name}` is not known to the store: it was not written by a server on it." for name in strangers]
    return len(heads) + len(strangers), faults


async def _read_heads(store: Store) -> dict[str, bytes]:
    """What the store knows, by name of the file."""
    heads: dict[str, bytes] = {}
    after: str | None = ""
    while after is not None:
        page = await store.list_values(HEADS, after)
        heads |= {key.removeprefix(HEADS): value for key, value in page.values}
        after = page.next
    return heads
