"""The `fhir-server` command."""

from __future__ import annotations

from typing import Annotated

import typer

from fhir_server import __version__
from fhir_server.commands.audit import audit
from fhir_server.commands.backup import backup
from fhir_server.commands.bases import bases
from fhir_server.commands.claims import claims
from fhir_server.commands.client import client
from fhir_server.commands.close import close
from fhir_server.commands.codes import codes
from fhir_server.commands.demo import demo
from fhir_server.commands.deposits import deposits
from fhir_server.commands.eligibility import eligibility
from fhir_server.commands.hl7v2 import hl7v2
from fhir_server.commands.key import key
from fhir_server.commands.load import load
from fhir_server.commands.messages import messages
from fhir_server.commands.partners import partners
from fhir_server.commands.reindex import reindex
from fhir_server.commands.report import report
from fhir_server.commands.schedule import schedule
from fhir_server.commands.serve import serve
from fhir_server.commands.token import token
from fhir_server.commands.user import user
from fhir_server.commands.verify import restore, verify
from fhir_server.commands.work import work
from fhir_server.commands.x12 import x12

cli = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,  # they hold resources
    help="A FHIR R4 server for clinics and their billing.",
)
for command in (serve, work, load, reindex, backup, restore, verify, schedule, close, demo, deposits, eligibility):
    cli.command()(command)
cli.add_typer(audit, name="audit")
cli.add_typer(claims, name="claims")
cli.add_typer(client, name="client")
cli.add_typer(codes, name="codes")
cli.add_typer(bases, name="bases")
cli.add_typer(hl7v2, name="hl7v2")
cli.add_typer(key, name="key")
cli.add_typer(messages, name="messages")
cli.add_typer(partners, name="partners")
cli.add_typer(report, name="report")
cli.add_typer(token, name="token")
cli.add_typer(user, name="user")
cli.add_typer(x12, name="x12")


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@cli.callback()
def _cli(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """A FHIR R4 server for clinics and their billing."""


@cli.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


def main() -> None:
    """Run the command line."""
    cli()


if __name__ == "__main__":
    main()
