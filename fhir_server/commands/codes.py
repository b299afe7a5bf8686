"""`fhir-server codes`: code sets compiled from their published files, and looked up (docs/code-sets.md)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from itertools import chain
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from fhir_server.settings import WrongSetting, read_settings
from mappers.billing.code_set_files import READERS, START, Period, Row
from mappers.billing.code_sets import OPEN_END, SETS, SortedFile, read_sorted_file, write_sorted_file

codes = typer.Typer(no_args_is_help=True, help="Code sets that claims are checked against.")

MOST_BYTES = 1024**3
_SHOWN = 20
_PACKED = (b"PK\x03\x04", b"\x1f\x8b")

Folder = Annotated[Path | None, typer.Option(help="Folder of the compiled sets (FHIR_CODE_SETS).")]
Kind = Annotated[str, typer.Argument(metavar="SET", help=f"One of {', '.join(SETS)}.")]


@codes.callback()
def _group() -> None:
    """Code sets that claims are checked against."""


@codes.command()
def load(
    kind: Kind,
    files: Annotated[list[Path], typer.Argument(help="The published files, unpacked.")],
    first: Annotated[str, typer.Option("--from", help="First day of files that state none.")] = START,
    last: Annotated[str, typer.Option("--to", help="Last day of files that state none.")] = OPEN_END,
    keep: Annotated[bool, typer.Option(help="Keep what was loaded before, such as an earlier year.")] = False,
    skip: Annotated[bool, typer.Option(help="Leave out lines that cannot be read; else nothing is loaded.")] = False,
    folder: Folder = None,
) -> None:
    """Compile published files into the set, which takes the place of the one before."""
    _check_set(kind)
    period, target = _read_period(first, last), _find_folder(folder)
    faults: list[str] = []
    rows = chain.from_iterable(_read_file(kind, path, period, faults) for path in files)
    try:
        target.mkdir(parents=True, exist_ok=True)
        unsure = target / f"{kind}.new"
        number = write_sorted_file(chain(rows, read_sorted_file(target / kind) if keep else ()), unsure)
        for fault in faults[:_SHOWN]:
            typer.echo(make_plain(fault), err=True)
        if not number or (faults and not skip):
            unsure.unlink()
            _refuse(_explain(kind, len(faults)))
        unsure.replace(target / kind)
    except OSError as error:
        _refuse(f"`{error.filename}` cannot be read or written: {error.strerror}.")
    left_out = f" {len(faults)} lines were left out." if faults else ""
    typer.echo(f"{number} rows of `{kind}` are in `{target / kind}`.{left_out}")


def make_plain(text: str) -> str:
    """A sentence without what would steer the terminal."""
    return "".join(each if each.isprintable() else " " for each in text)


@codes.command(name="list")
def list_sets(folder: Folder = None) -> None:
    """What is loaded: rows, the days that they cover, when it was loaded."""
    target, table = _find_folder(folder), Table()
    for title in ("set", "rows", "in force", "loaded"):
        table.add_column(title, overflow="fold")
    for name in SETS:
        table.add_row(name, *_describe(target / name))
    Console().print(table)


@codes.command()
def find(
    kind: Kind,
    key: Annotated[str, typer.Argument(help="A code; a pair as `99213+93000`.")],
    folder: Folder = None,
) -> None:
    """What the set has of a code or a pair."""
    _check_set(kind)
    path = _find_folder(folder) / kind
    if not path.exists():
        _refuse(f"The set `{kind}` is not loaded. Load it with `fhir-server codes load {kind} FILE`.")
    loaded = SortedFile(path)
    rows = loaded.find(key.replace(".", "") if kind == "icd-10-cm" else key)
    loaded.close()
    if not rows:
        _refuse(f"`{kind}` has no `{make_plain(key)}`.")
    for row in rows:
        typer.echo("\t".join(row))


def _check_set(kind: str) -> None:
    if kind not in SETS:
        typer.echo(f"There is no set `{make_plain(kind)}`; the sets are {', '.join(SETS)}.", err=True)
        raise typer.Exit(2)


def _find_folder(folder: Path | None) -> Path:
    try:
        named = folder or Path(read_settings().code_sets)
    except WrongSetting as error:
        _refuse(str(error))
    if not folder and not str(named).strip("."):
        typer.echo("Name the folder of the code sets with --folder or FHIR_CODE_SETS.", err=True)
        raise typer.Exit(2)
    return named


def _read_period(first: str, last: str) -> Period:
    try:
        if date.fromisoformat(first) > date.fromisoformat(last):
            raise ValueError
    except ValueError:
        typer.echo(f"`{first}` to `{last}` is no period; write days as `2026-01-01`.", err=True)
        raise typer.Exit(2) from None
    return Period(first, last)


def _read_file(kind: str, path: Path, period: Period, faults: list[str]) -> Iterator[Row]:
    """The rows of one published file; what cannot be read is added to the faults."""
    with path.open("rb") as file:
        if file.read(4).startswith(_PACKED):
            _refuse(f"`{path}` is packed or a spreadsheet. Unpack it and give its text or CSV file.")
    if path.stat().st_size > MOST_BYTES:
        _refuse(f"`{path}` has more than {MOST_BYTES // 1024**2} MB, which no code set has.")
    # Codes are ASCII and stand in columns of bytes; Latin-1 keeps them in place whatever the descriptions hold.
    with path.open(encoding="latin-1", newline="") as text:
        reading = READERS[kind](text, period)
    faults += [f"{path.name}: {fault}" for fault in reading.faults]
    yield from reading.rows


def _explain(kind: str, faults: int) -> str:
    if not faults:
        return f"The files have no row of `{kind}`. Nothing was loaded; see docs/code-sets.md for their form."
    return f"{faults} lines cannot be read, so nothing was loaded. Mend the file, or leave them out with --skip."


def _refuse(sentence: str) -> NoReturn:
    typer.echo(sentence, err=True)
    raise typer.Exit(1)


def _describe(path: Path) -> tuple[str, str, str]:
    if not path.exists():
        return "not loaded", "", ""
    number, first, last = 0, OPEN_END, START
    for row in read_sorted_file(path):
        number, first, last = number + 1, min(first, row[-2]), max(last, row[-1])
    loaded = datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="minutes")
    return str(number), f"{_tell(first)} to {_tell(last)}", loaded


def _tell(day: str) -> str:
    return "always" if day in (START, OPEN_END) else day
