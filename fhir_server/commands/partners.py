"""`fhir-server partners`: the files of partners checked before a start reads them (docs/partners.md)."""

from __future__ import annotations

from datetime import UTC
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from fhir_server.app import find_partner_folders, load_knowledge
from fhir_server.partners import Partner, Partners, WrongPartner, read_partners
from fhir_server.search.parameters import Criteria
from fhir_server.settings import Settings, WrongSetting, read_settings
from fhir_server.workers.hl7v2_partners import list_faults
from fhir_server.workers.hl7v2_sends import find_out_section, list_send_faults

partners = typer.Typer(no_args_is_help=True, help="With whom messages are exchanged.")


@partners.callback()
def _group() -> None:
    """With whom messages are exchanged."""


@partners.command()
def check(
    folder: Annotated[Path | None, typer.Argument(help="Folder of *.toml; else those that a start reads.")] = None,
) -> None:
    """Read the files of all partners and say what is wrong, with file and line."""
    if folder is not None and not folder.is_dir():
        typer.echo(f"The folder `{folder}` is not there.", err=True)
        raise typer.Exit(2)
    try:
        settings = read_settings()
        folders = [folder] if folder is not None else find_partner_folders(settings)
        found = read_partners(folders)
        if faults := find_faults(found, settings):
            raise WrongPartner("\n".join(faults))
    except (WrongPartner, WrongSetting) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    absent = [sentence for partner in found.values() for sentence in find_absent_folders(partner)]
    Console().print(make_table(found) if found else f"There is no partner in {', '.join(map(str, folders))}.")
    for sentence in absent:
        typer.echo(sentence, err=True)
    if absent:
        raise typer.Exit(1)


def find_faults(found: Partners, settings: Settings) -> list[str]:
    """What is wrong with the partners beyond the schema of their files; filters by the search parameters that ship."""
    faults = list_faults(found)
    if any(find_out_section(partner) for partner in found.values()):
        known = load_knowledge(settings)
        faults += list_send_faults(found, known.types, Criteria(known.registry, "", 0, UTC))
    return faults


def find_absent_folders(partner: Partner) -> list[str]:
    """A sentence for each folder of a partner that is not there on this machine."""
    folder = partner.transports.folder
    keys = ("in", "done", "failed", "out")
    endpoint = folder.to_endpoint() if folder is not None else {}
    return [
        f"The folder `{key}` of the partner `{partner.name}`, `{endpoint[key]}`, is not there; make it."
        for key in keys
        if key in endpoint and not Path(endpoint[key]).is_dir()
    ]


def make_table(found: Partners) -> Table:
    """The partners as a table."""
    table = Table()
    for title in ("partner", "formats", "transports", "zone", "same number again", "kept"):
        table.add_column(title, overflow="fold")
    for partner in found.values():
        transports = [name for name, endpoint in partner.transports if endpoint is not None]
        days = f"{partner.retention_days} days" if partner.retention_days else "for good"
        table.add_row(
            partner.name,
            ", ".join(partner.formats),
            ", ".join(transports) or "none",
            partner.zone,
            partner.duplicate_control_numbers,
            days,
        )
    return table
