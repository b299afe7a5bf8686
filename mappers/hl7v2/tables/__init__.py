"""The tables of the HL7 v2 mapper, one tab-separated file each, read once."""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def read_table(name: str) -> tuple[tuple[str, ...], ...]:
    """The rows of a table without its header line; lines that begin with `#` are comments. Cells may be missing."""
    text = files(__name__).joinpath(name).read_text(encoding="utf-8")
    lines = [line for line in text.split("\n") if line.strip() and not line.startswith("#")]
    width = len(lines[0].split("\t"))
    rows = ([cell.strip() for cell in line.split("\t")] for line in lines[1:])
    return tuple((*row, *[""] * (width - len(row))) for row in rows)
