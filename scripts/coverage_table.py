"""Prints how much of each package the tests ran, lines and branches, from what coverage.py measured.

    python -m scripts.coverage_table .venv/coverage

A branch is a way from one line to another: https://coverage.readthedocs.io/en/latest/branch.html
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from coverage import Coverage

SUMMARY = ("num_statements", "covered_lines", "num_branches", "covered_branches")
"""The members of a file's summary that `Counts` holds."""


class Counts(NamedTuple):
    """Lines and branches of a package, and how many of each were run."""

    lines: int = 0
    run_lines: int = 0
    branches: int = 0
    run_branches: int = 0

    def add(self, other: Counts) -> Counts:
        """The counts of both."""
        return Counts(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


def find_package(path: Path) -> str:
    """The folder of a module below the first: `fhir_server/store`, `mappers`, and `fhir_server` for its own modules."""
    return "/".join(path.parts[:-1][:2])


def count_by_package(report: dict[str, Any]) -> dict[str, Counts]:
    """The counts of each package in the JSON report of coverage.py."""
    packages: defaultdict[str, Counts] = defaultdict(Counts)
    for name, found in report["files"].items():
        summary = found["summary"]
        counts = Counts(*(summary[key] for key in SUMMARY))
        package = find_package(Path(name))
        packages[package] = packages[package].add(counts)
    return dict(packages)


def format_percent(run: int, whole: int) -> str:
    """A share in percent, rounded down: 100 says that nothing is left."""
    return f"{100 * run // whole if whole else 100} %"


def write_table(packages: dict[str, Counts]) -> Iterator[str]:
    """The lines of the table, the sum last."""
    total = Counts()
    for counts in packages.values():
        total = total.add(counts)
    rows: Iterable[tuple[str, Counts]] = [*sorted(packages.items()), ("all", total)]
    yield f"{'package':<28}{'lines':>8}{'run':>8}{'branches':>10}{'run':>8}"
    for name, counts in rows:
        lines = f"{counts.lines:>8}{format_percent(counts.run_lines, counts.lines):>8}"
        yield f"{name:<28}{lines}{counts.branches:>10}{format_percent(counts.run_branches, counts.branches):>8}"


def main(data_file: str) -> None:
    """Print the table of a data file."""
    measured = Coverage(data_file=data_file)
    measured.load()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "report.json"
        measured.json_report(outfile=str(path))
        report = json.loads(path.read_text(encoding="utf-8"))
    print("\n".join(write_table(count_by_package(report))))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("Say which file coverage.py wrote: coverage_table .venv/coverage")
    main(sys.argv[1])
