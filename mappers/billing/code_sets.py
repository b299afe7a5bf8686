"""Code sets of a site in sorted read-only files, looked up by bisection without loading them.

A file is UTF-8 lines `key⇥field⇥field…` sorted by their bytes; NCCI PTP is keyed `column1+column2`. The published
files it is compiled from are named in `code_set_files`.
"""

from __future__ import annotations

import heapq
import mmap
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

OPEN_END = "9999-12-31"
SETS = ("ptp", "mue", "icd-10-cm", "hcpcs")
"""The names of the sets, which their files have."""

_RUN = 500_000


class CodeSet(Protocol):
    """A code set: the rows of a key, each a tuple of its fields without the key."""

    def find(self, key: str) -> list[tuple[str, ...]]:
        """All rows of a key, none where the set lacks it."""
        ...


@dataclass(frozen=True, slots=True)
class CodeSets:
    """The code sets that a site has loaded; what is None is not checked.

    Rows: `icd_10_cm` and `hcpcs` (`1` where it may be billed, first day, last day); `ptp` (modifier indicator 0, 1, 9,
    first day, last day); `mue` (units, adjudication indicator 1, 2 or 3, first day, last day). Days are ISO dates.
    """

    icd_10_cm: CodeSet | None = None
    hcpcs: CodeSet | None = None
    ptp: CodeSet | None = None
    mue: CodeSet | None = None


class SortedRows:
    """A code set in memory, for tests and small sites."""

    def __init__(self, rows: Iterable[tuple[str, ...]]) -> None:
        self._rows: dict[str, list[tuple[str, ...]]] = {}
        for key, *fields in rows:
            self._rows.setdefault(key, []).append(tuple(fields))

    def find(self, key: str) -> list[tuple[str, ...]]:
        """All rows of a key."""
        return self._rows.get(key, [])


class SortedFile:
    """A code set in a sorted file, mapped into memory by the operating system page by page. `close` releases it."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            empty = path.stat().st_size == 0
            self._text: mmap.mmap | bytes = b"" if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def find(self, key: str) -> list[tuple[str, ...]]:
        """All rows of a key, in O(log size) page reads."""
        prefix = key.encode() + b"\t"
        position, rows = self._lower_bound(prefix), []
        while position < len(self._text):
            end = self._text.find(b"\n", position)
            line = self._text[position:end]
            if not line.startswith(prefix):
                break
            rows.append(tuple(line[len(prefix) :].decode().split("\t")))
            position = end + 1
        return rows

    def close(self) -> None:
        """Unmap the file."""
        if isinstance(self._text, mmap.mmap):
            self._text.close()

    def _lower_bound(self, prefix: bytes) -> int:
        """Where the first line begins that is not less than the prefix."""
        low, high = 0, len(self._text)
        while low < high:
            middle = (low + high) // 2
            start = self._text.rfind(b"\n", 0, middle) + 1
            end = self._text.find(b"\n", start)
            if self._text[start:end] < prefix:
                low = end + 1
            else:
                high = start
        return low


def open_code_sets(folder: Path) -> CodeSets:
    """The code sets that a site has compiled into a folder, a file each by the names of `SETS`."""
    names = {name.replace("-", "_"): folder / name for name in SETS}
    return CodeSets(**{field: SortedFile(path) for field, path in names.items() if path.exists()})


def write_sorted_file(rows: Iterable[tuple[str, ...]], path: Path) -> int:
    """Rows sorted into a file that replaces the old one in one step; gives their number. Tabs become blanks.

    Half a million rows at a time are sorted in memory, however many there are.
    """
    lines = ("\t".join(" ".join(field.split()) for field in row).encode() + b"\n" for row in rows)
    number, last = 0, b""
    with TemporaryDirectory(dir=path.parent) as folder:
        runs, merged = _write_runs(lines, Path(folder)), Path(folder) / "rows"
        with ExitStack() as stack, merged.open("wb") as file:
            for line in heapq.merge(*(stack.enter_context(each.open("rb")) for each in runs)):
                if line != last:
                    file.write(line)
                    number, last = number + 1, line
        merged.replace(path)
    return number


def _write_runs(lines: Iterator[bytes], folder: Path) -> list[Path]:
    """Files of sorted lines."""
    paths: list[Path] = []
    while part := sorted(islice(lines, _RUN)):
        paths.append(folder / str(len(paths)))
        paths[-1].write_bytes(b"".join(part))
    return paths


def read_sorted_file(path: Path) -> Iterator[tuple[str, ...]]:
    """The rows of a file that was written so, key first; none where it is not there."""
    if path.exists():
        with path.open(encoding="utf-8") as file:
            for line in file:
                yield tuple(line.rstrip("\n").split("\t"))


def find_rows(code_set: CodeSet | None, key: str, day: date) -> Iterator[tuple[str, ...]]:
    """The rows of a key that are in force on a day; a row ends with its first and last day."""
    for row in code_set.find(key) if code_set else ():
        if row[-2] <= day.isoformat() <= row[-1]:
            yield row
