"""Finds and reads the files that `fhir-server load` is given: JSON, NDJSON, either gzipped, and FHIR packages (https://hl7.org/fhir/R4/nd-json.html)."""

from __future__ import annotations

import codecs
import gzip
import re
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, cast

from fhir_server.fhir import package

LINES = (".ndjson", ".jsonl")
SUFFIXES = (".json", *LINES, package.SUFFIX)

# What others point to is loaded first; a file's name says what is in it (`Organization.ndjson`, `Patient-1.json`,
# Synthea's `hospitalInformation1559.json`). The rest, and what a name hides, is settled by the retry rounds.
FIRST = (
    "hospitalinformation",
    "organization",
    "location",
    "practitionerinformation",
    "practitioner",
    "practitionerrole",
    "medication",
    "device",
    "patient",
)


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file to load and its size in bytes, as it is on disk."""

    path: Path
    size: int


@dataclass(frozen=True, slots=True)
class Document:
    """One JSON text of a file; `line` counts from 1 in NDJSON. `weight`: bytes of the file read for it."""

    source: str
    line: int | None
    text: bytes
    weight: int


@dataclass(frozen=True, slots=True)
class Failure:
    """What was not loaded, and why.

    `entry`: `entry[3]`, `line 7` or "" for the whole file. `status`: of HTTP, None without an answer. `types`: of the
    resources that it kept out.
    """

    source: str
    entry: str
    status: int | None
    text: str
    types: tuple[str, ...] = ()
    weight: int = 0


@dataclass(frozen=True, slots=True)
class Found:
    """The files in the order to load them, what could not be found, and how many other files the folders hold."""

    files: tuple[InputFile, ...]
    failures: tuple[Failure, ...]
    left_aside: int


def find(paths: Iterable[Path]) -> Found:
    """All files at `paths`, folders to any depth: `.json`, `.ndjson`, `.jsonl`, each also with `.gz`, and `.tgz`."""
    files: dict[Path, InputFile] = {}
    failures: list[Failure] = []
    left_aside = 0
    for path in paths:
        for candidate in sorted(path.rglob("*")) if path.is_dir() else (path,):
            if candidate.is_dir():
                continue
            if candidate is not path and not _is_input(candidate.relative_to(path)):
                left_aside += 1
                continue
            try:
                files[candidate] = InputFile(candidate, candidate.stat().st_size)
            except OSError as error:
                failures.append(Failure(str(candidate), "", None, _unreadable(candidate, error)))
    ordered = sorted(files.values(), key=lambda file: (_rank(file.path), -file.size, str(file.path)))
    return Found(tuple(ordered), tuple(failures), left_aside)


def read(file: InputFile) -> Iterator[Document | Failure]:
    """The JSON texts of a file, NDJSON line by line, a package's one by one; what cannot be read ends as a Failure."""
    try:
        if file.path.suffix == package.SUFFIX:
            yield from _packed(file)
            return
        with file.path.open("rb") as raw:
            text = cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if file.path.suffix == ".gz" else raw
            if _is_lines(file.path):
                yield from _lines(str(file.path), text, raw)
            else:
                yield Document(str(file.path), None, text.read().removeprefix(codecs.BOM_UTF8), file.size)
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        yield Failure(str(file.path), "", None, _unreadable(file.path, error))


def _packed(file: InputFile) -> Iterator[Document]:
    """The resources of a package; all but the last carry no weight, since a member's share of the file is not known."""
    last: Document | None = None
    for name, text in package.resources(file.path):
        if last is not None:
            yield last
        last = Document(f"{file.path}:{name}", None, text, 0)
    if last is not None:
        yield replace(last, weight=file.size)


def _lines(source: str, text: BinaryIO, raw: BinaryIO) -> Iterator[Document]:
    before = 0
    for number, line in enumerate(text, 1):
        stripped = (line.removeprefix(codecs.BOM_UTF8) if number == 1 else line).strip()
        if stripped:
            position = raw.tell()
            yield Document(source, number, stripped, position - before)
            before = position


def _bare(path: Path) -> str:
    return path.name.lower().removesuffix(".gz")


def _is_input(path: Path) -> bool:
    return _bare(path).endswith(SUFFIXES) and not any(part.startswith(".") for part in path.parts)


def _is_lines(path: Path) -> bool:
    return _bare(path).endswith(LINES)


def _rank(path: Path) -> int:
    found = re.match("[a-z]+", _bare(path))
    return FIRST.index(found[0]) if found and found[0] in FIRST else len(FIRST)


def _unreadable(path: Path, error: Exception) -> str:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
    return f"`{path}` cannot be read: {reason}."
