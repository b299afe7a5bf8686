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

NDJSON = (".ndjson", ".jsonl")
SUFFIXES = (".json", *NDJSON, package.SUFFIX)

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
class Inputs:
    """The files in the order to load them, those that are not there, and how many other files the folders hold."""

    files: tuple[InputFile, ...]
    failures: tuple[Failure, ...]
    ignored: int


def find_inputs(paths: Iterable[Path]) -> Inputs:
    """All files at `paths`, folders to any depth: `.json`, `.ndjson`, `.jsonl`, each also with `.gz`, and `.tgz`."""
    files: dict[Path, InputFile] = {}
    failures: list[Failure] = []
    ignored = 0
    for path in paths:
        for candidate in sorted(path.rglob("*")) if path.is_dir() else (path,):
            if candidate.is_dir():
                continue
            if candidate is not path and not _is_input(candidate.relative_to(path)):
                ignored += 1
                continue
            try:
                files[candidate] = InputFile(candidate, candidate.stat().st_size)
            except OSError as error:
                failures.append(Failure(str(candidate), "", None, _explain_error(candidate, error)))
    ordered = sorted(files.values(), key=lambda file: (_find_rank(file.path), -file.size, str(file.path)))
    return Inputs(tuple(ordered), tuple(failures), ignored)


def read_documents(file: InputFile) -> Iterator[Document | Failure]:
    """The JSON texts of a file, NDJSON line by line, a package's one by one; what cannot be read ends as a Failure."""
    try:
        if file.path.suffix == package.SUFFIX:
            yield from _read_package(file)
            return
        with file.path.open("rb") as raw:
            text = cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if file.path.suffix == ".gz" else raw
            if _is_ndjson(file.path):
                yield from _read_lines(str(file.path), text, raw)
            else:
                yield Document(str(file.path), None, text.read().removeprefix(codecs.BOM_UTF8), file.size)
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        yield Failure(str(file.path), "", None, _explain_error(file.path, error))


def _read_package(file: InputFile) -> Iterator[Document]:
    """The resources of a package; all but the last carry no weight, since a member's share of the file is not known."""
    last: Document | None = None
    for name, text in package.read_definitions(file.path):
        if last is not None:
            yield last
        last = Document(f"{file.path}:{name}", None, text, 0)
    if last is not None:
        yield replace(last, weight=file.size)


def _read_lines(source: str, text: BinaryIO, raw: BinaryIO) -> Iterator[Document]:
    start = 0
    for number, line in enumerate(text, 1):
        content = (line.removeprefix(codecs.BOM_UTF8) if number == 1 else line).strip()
        if content:
            position = raw.tell()
            yield Document(source, number, content, position - start)
            start = position


def _plain_name(path: Path) -> str:
    return path.name.lower().removesuffix(".gz")


def _is_input(path: Path) -> bool:
    return _plain_name(path).endswith(SUFFIXES) and not any(part.startswith(".") for part in path.parts)


def _is_ndjson(path: Path) -> bool:
    return _plain_name(path).endswith(NDJSON)


def _find_rank(path: Path) -> int:
    word = re.match("[a-z]*", _plain_name(path))
    return FIRST.index(word[0]) if word and word[0] in FIRST else len(FIRST)


def _explain_error(path: Path, error: Exception) -> str:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
    return f"`{path}` cannot be read: {reason}."
