"""`fhir-server hl7v2`: messages taken by MLLP, sent, and converted without a server (docs/mappers/hl7v2.md)."""

from __future__ import annotations

import asyncio
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from fhir_server.app import find_partner_folders
from fhir_server.commands.certificate import make_tls_context
from fhir_server.commands.hl7v2_workers import Listening, listen_with_workers
from fhir_server.commands.serve import choose_worker_count, open_listeners
from fhir_server.partners import Partners, read_partners
from fhir_server.settings import read_settings
from fhir_server.store.protocol import StoreError
from fhir_server.transports.mllp import BrokenFraming, Connection, Limits
from fhir_server.workers.hl7v2_intake import split_messages
from fhir_server.workers.hl7v2_interpreter import read_answer, read_message
from fhir_server.workers.hl7v2_partners import FORMAT, choose_partner, list_faults, to_mapper_partner
from mappers.hl7v2.bundle import build_bundle, write_bundle
from mappers.hl7v2.coverage import write_coverage
from mappers.hl7v2.mapping import map_message
from mappers.hl7v2.partner import Partner

hl7v2 = typer.Typer(no_args_is_help=True, help="HL7 v2: take messages by MLLP, send them, convert them.")

Files = Annotated[list[Path], typer.Argument(help="Files of messages, batch files too; `-` reads standard input.")]


@hl7v2.command()
def listen(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")] = 2575,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    store: Annotated[str | None, typer.Option(help="Store URI (FHIR_STORE).")] = None,
    certificate: Annotated[Path | None, typer.Option(help="Certificate chain (PEM); with it, TLS alone.")] = None,
    key: Annotated[Path | None, typer.Option(help="Private key (PEM) of the certificate.")] = None,
    authorities: Annotated[
        Path | None, typer.Option(help="Certificates (PEM) of who may connect: senders then need one.")
    ] = None,
    connections: Annotated[int, typer.Option(min=1, max=10_000, help="Most connections at once.")] = 256,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Worker processes on the one store.", show_default="one a core, at most 4")
    ] = None,
) -> None:
    """Take messages by MLLP until SIGTERM or Ctrl-C; what is acknowledged with AA is stored."""
    try:
        settings = read_settings() if store is None else read_settings(store=store)
        if settings.store.startswith("memory:"):
            raise ValueError("A memory:// store lives in one process; name a file or a database.")
        check_partners(read_partners(find_partner_folders(settings)))
        tls = make_tls_context(certificate, key, authorities)
        files = None if certificate is None else (certificate, key)
        listening = Listening(settings, Limits(connections=connections), tls, files)
        number = choose_worker_count(settings.store, workers)
        status = listen_with_workers(listening, open_listeners(host, port), number)
    except (StoreError, ValueError, OSError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    raise typer.Exit(status)


def check_partners(partners: Partners) -> None:
    """Raise ValueError with what is wrong with the partners of HL7 v2, or where there is none."""
    if not any(FORMAT in each.formats for each in partners.values()):
        raise ValueError('No partner speaks HL7 v2: add a file with `formats = ["hl7v2"]` (docs/partners.md).')
    faults = list_faults(partners)
    if faults:
        raise ValueError("\n".join(faults))


@hl7v2.command()
def send(
    files: Files,
    host: Annotated[str, typer.Option(help="Where the receiver is.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Its port.")] = 2575,
    authorities: Annotated[Path | None, typer.Option(help="Certificates (PEM) that it is checked by: TLS.")] = None,
    seconds: Annotated[float, typer.Option(min=0.1, max=3600, help="Longest wait for an acknowledgement.")] = 30.0,
) -> None:
    """Send the messages of files by MLLP, one after the other, and print what answers each; status 1 if one refuses."""
    tls = None if authorities is None else ssl.create_default_context(cafile=str(authorities))
    try:
        refused = asyncio.run(_send(list(read_files(files)), (host, port, tls), seconds))
    except (OSError, BrokenFraming) as error:
        typer.echo(f"{host}:{port}: {error or 'No acknowledgement came in time.'}", err=True)
        raise typer.Exit(1) from None
    if refused:
        raise typer.Exit(1)


async def _send(messages: list[bytes], receiver: tuple[str, int, ssl.SSLContext | None], seconds: float) -> int:
    connection = await Connection.open(*receiver)
    refused = 0
    try:
        for message in messages:
            answer = await connection.exchange(message, seconds)
            typer.echo(answer.decode("utf-8", "replace").replace("\r", "\n"))
            refused += bool(read_answer(answer))
    finally:
        await connection.close()
    return refused


@hl7v2.command()
def convert(
    files: Annotated[list[Path] | None, typer.Argument(help="Files of messages, batch files too; `-`: input.")] = None,
    partner: Annotated[str, typer.Option(help="Name of the partner; else by MSH-3 and MSH-4.")] = "",
    coverage: Annotated[bool, typer.Option(help="Print how much of HL7's official tables is mapped.")] = False,
) -> None:
    """Print the bundle and the issues of each message, as on an empty server; nothing is sent or stored."""
    if coverage:
        typer.echo(write_coverage())
    elif not files:
        typer.echo("Name a file of messages, or --coverage.", err=True)
        raise typer.Exit(2)
    try:
        partners = read_partners(find_partner_folders(read_settings()))
        if partner and partner not in partners:
            raise ValueError(f"There is no partner `{partner}`.")
        wrong = sum(not _convert(each, partner, partners) for each in read_files(files or []))
    except (OSError, ValueError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    if wrong:
        raise typer.Exit(1)


def _convert(raw: bytes, name: str, partners: Partners) -> bool:
    """Print one message as a bundle, its issues on the other stream; False where it cannot be stored."""
    message, issues = read_message(raw)
    stored = False
    if message is not None:
        name = name or choose_partner(partners, message.header)
        known = to_mapper_partner(partners[name]) if name else Partner(processing=frozenset({"P", "T", "D", ""}))
        built = build_bundle(map_message(message, known))
        issues = (*(each for each in issues if each not in built.issues), *built.issues)
        stored = built.bundle is not None
        if built.bundle is not None:
            typer.echo(write_bundle(built.bundle, indent=True).decode())
    for issue in issues:
        typer.echo(f"{issue.severity} {issue.condition} {issue.location}: {issue.text}", err=True)
    return stored


def read_files(files: list[Path]) -> Iterator[bytes]:
    """The messages of files, or of standard input."""
    for path in files:
        raw = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
        yield from split_messages(raw)
