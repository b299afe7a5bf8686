"""`python -m bench`: the same work on one server or on two in turns (`docs/bench.md`, https://hl7.org/fhir/R4/http.html)."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console

from bench.http import Target, parse_target
from bench.ingest import read_folder
from bench.measuring import Limits
from bench.run import NEED_FOLDER, PHASES, Work, run_bench
from bench.summary import describe_machine, make_json_tree, print_tables

try:
    from uvloop import run
except ImportError:  # Windows
    from asyncio import run  # type: ignore[assignment]

DEFAULT_PHASES = "ingest,search,read,crud,transaction"


def bench(
    url: Annotated[str, typer.Option(help="Base URL of the server to measure; it is written to.")],
    against: Annotated[str | None, typer.Option(help="Base URL of a second server that takes turns.")] = None,
    phases: Annotated[str, typer.Option(help=f"Some of {', '.join(PHASES)}, in this order.")] = DEFAULT_PHASES,
    seconds: Annotated[float, typer.Option(min=0.1, max=3600, help="Length of a phase on each server.")] = 10.0,
    requests: Annotated[int | None, typer.Option(min=1, help="Most requests of a phase on each server.")] = None,
    connections: Annotated[int, typer.Option(min=1, max=256, help="Keep-alive connections.")] = 4,
    folder: Annotated[Path | None, typer.Option(help="Transaction bundles for ingest, search and scale.")] = None,
    passes: Annotated[int, typer.Option(min=1, max=1000, help="How often ingest posts the folder.")] = 2,
    copies: Annotated[int, typer.Option(min=1, max=1000, help="How often scale posts the folder.")] = 15,
    claims: Annotated[int, typer.Option(min=1, max=1_000_000, help="Claims that money posts.")] = 1_000,
    mllp: Annotated[list[int] | None, typer.Option(help="Port of `hl7v2 listen`; a second for --against.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 1,
    json: Annotated[Path | None, typer.Option(help="Write the results to this file.")] = None,
    header: Annotated[list[str] | None, typer.Option(help="Header for each request, as `Name: value`.")] = None,
    yes_remote: Annotated[bool, typer.Option("--yes-remote", help="Allow servers on other machines.")] = False,
) -> None:
    """Measure a server, or two side by side; exit status 1 when an answer was wrong."""
    console = Console()
    try:
        targets = [parse_target(one, header or ()) for one in (url, against) if one]
        _refuse_remote(targets, yes_remote)
        names = _parse_phases(phases, folder)
        if json is not None:
            json.touch()  # a file that cannot be written is better known before the work than after it
        bundles = read_folder(folder) if folder else None
        work = Work(Limits(seconds, requests), bundles, passes, copies, seed, claims, mllp or ())
        before = describe_machine()
        measured = run(run_bench(targets, names, work, connections, lambda name: console.print(f"{name} …")))
    except (OSError, ValueError) as error:
        console.print(f"The bench stopped: {error}", markup=False, style="red")
        raise typer.Exit(2) from None
    print_tables(measured, [target.url for target in targets], console)
    if json is not None:
        settings = {"seconds": seconds, "requests": requests, "connections": connections, "seed": seed}
        _write(json, {"machine": before, "settings": settings, "phases": make_json_tree(measured)})
    if any(one.samples.errors for one in measured):
        raise typer.Exit(1)


def _refuse_remote(targets: list[Target], allowed: bool) -> None:
    for target in targets:
        if not allowed and not _is_loopback(target.host):
            raise ValueError(
                f"`{target.url}` is on another machine, and the bench writes much and fast. "
                "If that server is yours to load, say `--yes-remote`."
            )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _parse_phases(phases: str, folder: Path | None) -> list[str]:
    names = [name.strip() for name in phases.split(",") if name.strip()]
    for name in names:
        if name not in PHASES:
            raise ValueError(f"There is no phase `{name}`; there are {', '.join(PHASES)}.")
        if name in NEED_FOLDER and folder is None:
            raise ValueError(f"The phase `{name}` posts a folder of bundles: give it with `--folder PATH`.")
    if not names:
        raise ValueError(f"`--phases` names none; there are {', '.join(PHASES)}.")
    return names


def _write(path: Path, tree: dict[str, object]) -> None:
    path.write_bytes(orjson.dumps(tree, option=orjson.OPT_INDENT_2))


cli = typer.Typer(add_completion=False)
cli.command()(bench)

if __name__ == "__main__":
    cli()
