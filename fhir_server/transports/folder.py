"""Folders as a transport: messages go out as files that appear whole, and come in from files that are complete.

`out`: a file has a temporary name until its bytes are on the disk, and is never appended to or overwritten. `in`: a
file that still changes is left alone; what was taken is moved to `done` or, with its reason beside it, to `failed`.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import stat
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from fhir_server.transports.protocol import DeliveryResult, Endpoint

LONGEST_NAME = 200
"""Bytes of a file's name, so that a temporary name fits beside it."""

PIECE = 64 * 1024
"""Bytes of a file that are read at a time."""

ABANDONED = 3600.0
"""Seconds after which a file with a temporary name is taken for left behind."""

REASON = ".reason.txt"
"""What is added to the name of a file in `failed`, for the text with the reason."""

_UNFINISHED = (".part", ".tmp", ".filepart", ".crdownload")


class FileObservation(NamedTuple):
    """What a file looked like: its size, when it was changed (ns), and since when it looks so (s, our own clock)."""

    size: int
    modified: int
    since: float


class Folder:
    """`protocol.Transport` over the folder `out` of an endpoint; `suffix` (such as `.hl7`) ends the names."""

    repeats = False

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._swept: set[str] = set()

    async def deliver(self, endpoint: Endpoint, control_number: str, payload: bytes) -> DeliveryResult:
        """Write the payload as a file whose name carries the control number."""
        if endpoint["out"] not in self._swept:
            self._swept.add(endpoint["out"])
            await asyncio.to_thread(remove_unfinished, Path(endpoint["out"]), self._clock() - ABANDONED)
        return await asyncio.to_thread(write_file, _locate(endpoint, control_number), payload)

    async def find_delivered(self, endpoint: Endpoint, control_number: str) -> bool:
        """Whether the file of the control number is there; not where the partner has taken it away."""
        return await asyncio.to_thread(os.path.lexists, _locate(endpoint, control_number))


def name_file(control_number: str, suffix: str) -> str:
    """The file name of a control number: letters, digits and `-._~` stand for themselves, all else as in `%2F`."""
    name = quote(control_number, safe="")
    return (f"%2E{name[1:]}" if name.startswith(".") else name) + suffix


def _locate(endpoint: Endpoint, control_number: str) -> Path:
    return Path(endpoint["out"]) / name_file(control_number, endpoint.get("suffix", ".txt"))


def write_file(path: Path, payload: bytes) -> DeliveryResult:
    """Let the file appear whole or not at all. What is there with the same bytes is delivered already."""
    if len(path.name.encode()) > LONGEST_NAME or path.name.startswith("."):
        return DeliveryResult(
            "refused", reason=f"`{path.name}` cannot be a file's name: the control number is too long or empty."
        )
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    try:
        _write_durably(temporary, payload)
        os.link(temporary, path, follow_symlinks=False)
    except FileExistsError:
        return _compare(path, payload)
    except OSError as error:
        return DeliveryResult("unsent", reason=f"`{path}` could not be written: {_explain(error)}.")
    finally:
        with suppress(OSError):
            temporary.unlink()
    try:
        sync_folder(path.parent)
    except OSError as error:
        return DeliveryResult("unanswered", reason=f"`{path}` may not outlast a power cut: {_explain(error)}.")
    return DeliveryResult("delivered")


def remove_unfinished(folder: Path, before: float) -> None:
    """Remove what processes that died have left under temporary names, last written before a time (s since 1970)."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") and entry.name.endswith(".part"):
                with suppress(OSError):
                    if entry.stat(follow_symlinks=False).st_mtime < before:
                        os.unlink(entry)


def _write_durably(path: Path, payload: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
    try:
        rest = memoryview(payload)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _compare(path: Path, payload: bytes) -> DeliveryResult:
    """The result where a file of this name is there: it is the same one, or the number was used for another."""
    try:
        same = path.stat().st_size == len(payload) and path.read_bytes() == payload
    except OSError as error:
        return DeliveryResult("unanswered", reason=f"`{path}` is there and cannot be read: {_explain(error)}.")
    if same:
        return DeliveryResult("delivered")
    return DeliveryResult(
        "refused", reason=f"`{path}` is there with other bytes, and a file is never overwritten; look at both."
    )


def sync_folder(folder: Path) -> None:
    """Make names durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def observe_files(folder: Path, before: Mapping[str, FileObservation], now: float) -> dict[str, FileObservation]:
    """What the files of a folder look like now, by name; hidden files, links and names of unfinished files left out.

    `before`: what the last look gave; `now`: seconds of a clock that never goes back. Raises OSError.
    """
    seen = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or entry.name.lower().endswith(_UNFINISHED):
                continue
            with suppress(FileNotFoundError):
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(status.st_mode):
                    last = before.get(entry.name)
                    same = last is not None and last[:2] == (status.st_size, status.st_mtime_ns)
                    since = last.since if last is not None and same else now
                    seen[entry.name] = FileObservation(status.st_size, status.st_mtime_ns, since)
    return seen


def select_complete(seen: Mapping[str, FileObservation], now: float, seconds: float) -> list[str]:
    """The names of files that have looked the same for so many seconds, oldest first."""
    complete = [name for name, each in seen.items() if now - each.since >= seconds]
    return sorted(complete, key=lambda name: (seen[name].modified, name))


def read_file(endpoint: Endpoint, name: str, most: int) -> bytes:
    """The bytes of a file in `in`; of a larger one, `most` and one more. Raises OSError; never follows a link."""
    descriptor = os.open(Path(endpoint["in"]) / name, os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(descriptor, "rb") as file:
        return file.read(most + 1)


def iterate_file(endpoint: Endpoint, name: str) -> Generator[bytes]:
    """The bytes of a file in `in`, in pieces. Raises OSError; never follows a link."""
    descriptor = os.open(Path(endpoint["in"]) / name, os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(descriptor, "rb") as file:
        while piece := file.read(PIECE):
            yield piece


def finish_file(endpoint: Endpoint, name: str, reason: str = "") -> Path:
    """Move a file from `in` to `done`, or with a reason to `failed`, where the reason stands beside it. Its new place.

    A name that is taken there gets a number: nothing is overwritten. Raises OSError.
    """
    source, folder = Path(endpoint["in"]) / name, Path(endpoint["failed" if reason else "done"])
    for number in range(10_000):
        target = folder / (f"{name}.{number}" if number else name)
        try:
            os.link(source, target, follow_symlinks=False)
        except FileExistsError:
            if not target.samefile(source):  # else a process died after the link was made
                continue
        if reason:
            target.with_name(target.name + REASON).write_text(reason + "\n", encoding="utf-8")
        sync_folder(folder)
        source.unlink()
        return target
    raise FileExistsError(f"`{folder}` has ten thousand files of the name `{name}`; clear it.")


def _explain(error: OSError) -> str:
    """What the system says, and what to do where folder and file system are not as they have to be."""
    if isinstance(error, FileNotFoundError):
        return "the folder is not there"
    return (error.strerror or str(error)).lower()
