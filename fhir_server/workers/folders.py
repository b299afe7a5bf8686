"""Takes in the files that partners put into their folders `in`, and sends what answers them (docs/partners.md)."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from fhir_server.fhir.outcome import FhirError
from fhir_server.partners import Partner
from fhir_server.requests.describe_error import describe_error
from fhir_server.requests.request import Caller
from fhir_server.security.policy import Principal
from fhir_server.store.protocol import StoreError
from fhir_server.transports.folder import (
    FileObservation,
    finish_file,
    iterate_file,
    observe_files,
    select_complete,
)
from fhir_server.transports.protocol import Endpoint
from fhir_server.workers.files import FileArrival, FileFormat, FileResult
from fhir_server.workers.lease import LeaseLost
from fhir_server.workers.message_codes import clean_text
from fhir_server.workers.message_deliveries import Delivery, make_delivery
from fhir_server.workers.worker import Step, StepResult, Stopping, Turn
from fhir_server.writes.action import Action
from fhir_server.writes.deciding import Decision, decide_and_commit
from fhir_server.writes.state import State

LISTED = 20
"""Sentences on one file; how many more there are is said."""


class _File(NamedTuple):
    """A complete file, as it was observed."""

    partner: Partner
    endpoint: Endpoint
    name: str
    observation: FileObservation

    @property
    def occasion(self) -> str:
        """The same for the same file, however often it is read."""
        return f"{self.name} {self.observation.size} {self.observation.modified}"


def watch_folders(formats: Mapping[str, FileFormat], now: Callable[[], float] = time.monotonic) -> Step:
    """The step of a worker that takes in every complete file of every partner; `now` in seconds, never going back."""
    watch = _Watch(formats, now)
    return watch.step


class _Watch:
    """What this process has seen in the folders, and what it has read and could not move away yet."""

    def __init__(self, formats: Mapping[str, FileFormat], now: Callable[[], float]) -> None:
        self._formats = formats
        self._now = now
        self._seen: dict[str, dict[str, FileObservation]] = {}
        self._reasons: dict[tuple[str, str], str] = {}
        self._told: dict[str, str] = {}

    async def step(self, turn: Turn) -> StepResult:
        """One look at every folder."""
        done = waiting = 0
        for partner in turn.context.partners.values():
            endpoint = partner.transports.find_endpoint("folder") or {}
            if "in" not in endpoint:
                continue
            for file in await self._find_complete(turn, partner, endpoint):
                await turn.check()
                done += await self._finish(turn, file)
            waiting += len(self._seen.get(partner.name, ()))
        return StepResult(done, f"{done} files", waiting)

    async def _find_complete(self, turn: Turn, partner: Partner, endpoint: Endpoint) -> list[_File]:
        before, now, quiet = self._seen.get(partner.name, {}), self._now(), 5.0
        if partner.transports.folder is not None:
            quiet = partner.transports.folder.quiet_seconds
        try:
            seen = await asyncio.to_thread(observe_files, Path(endpoint["in"]), before, now)
        except OSError as error:
            self._tell(turn, partner.name, f"The folder `in` cannot be read: {error.strerror}.")
            return []
        self._told.pop(partner.name, None)
        self._seen[partner.name] = seen
        return [_File(partner, endpoint, name, seen[name]) for name in select_complete(seen, now, quiet)]

    def _tell(self, turn: Turn, key: str, reason: str) -> None:
        """Into the log, once while it lasts."""
        if self._told.get(key) != reason:
            self._told[key] = reason
            turn.log("warning", "folder", worker=turn.lease.name, item=key, reason=reason)

    async def _finish(self, turn: Turn, file: _File) -> bool:
        """Read the file, unless that was done and it could only not be moved, and move it away. Whether it is gone."""
        key = (file.partner.name, file.occasion)
        try:
            if key not in self._reasons:
                self._reasons[key] = await self._read(turn, file)
            await asyncio.to_thread(finish_file, file.endpoint, file.name, self._reasons[key])
        except FileNotFoundError as error:
            if Path(file.endpoint["in"], file.name).exists():
                self._tell(
                    turn, file.name, f"The file cannot be moved: `{error.filename2 or error.filename}` is not there."
                )
                return False
        except OSError as error:
            self._tell(turn, file.name, f"The file cannot be moved: {error.strerror}.")
            return False
        turn.log("info", "file", worker=turn.lease.name, partner=file.partner.name, failed=bool(self._reasons.get(key)))
        self._reasons.pop(key, None)
        self._told.pop(file.name, None)
        self._seen[file.partner.name].pop(file.name, None)
        return True

    async def _read(self, turn: Turn, file: _File) -> str:
        """Give the file to its format; why it goes to `failed`, "" where all of it was accepted."""
        try:
            with closing(iterate_file(file.endpoint, file.name)) as pieces:
                return await self._take(turn, file, pieces)
        except (StoreError, LeaseLost, Stopping, FileNotFoundError):
            raise
        except OSError as error:
            return f"The file cannot be read: {error.strerror}."
        except FhirError as error:
            return str(error)
        except Exception as error:
            turn.log("error", "item parked", worker=turn.lease.name, item=file.name, error=describe_error(error))
            return (
                f"The file could not be read, by a fault of this server (`{type(error).__name__}`); its log has more."
            )

    async def _take(self, turn: Turn, file: _File, pieces: Iterator[bytes]) -> str:
        head = await asyncio.to_thread(next, pieces, b"")
        formats: tuple[str, ...] = file.partner.formats
        spoken = {name: self._formats[name] for name in formats if name in self._formats}
        spoken_format = next((name for name, each in spoken.items() if each.begins(head)), "")
        if not spoken_format:
            names = ", ".join(f"`{name}`" for name in spoken) or "none that can be read here"
            return f"The file is of no format of the partner `{file.partner.name}` ({names})."
        context, caller = turn.context, Caller(turn.caller.base, Principal(f"partner {file.partner.name}"))
        arrival = FileArrival(context, caller, file.partner, itertools.chain((head,), pieces), turn.check)
        result = await spoken[spoken_format].take(arrival)
        await _send_answers(arrival, file, spoken_format, result)
        if not result.refused and not result.accepted:
            return "The file holds no message."
        return describe_refusals(result)


async def _send_answers(arrival: FileArrival, file: _File, name: str, result: FileResult) -> None:
    """A delivery for each answer, once for each file."""
    if not result.answers:
        return

    async def decide(state: State) -> Decision[None]:
        task = await state.read("Task", result.task) if result.task else None
        about = (f"Task/{result.task}", task.version) if task is not None else ("", 0)
        actions: list[Action] = []
        for place, answer in enumerate(result.answers):
            actions += await make_delivery(
                state,
                Delivery(
                    file.partner.name,
                    name,
                    "folder",
                    *about,
                    answer.control_number,
                    answer.text,
                    answer.content_type,
                    occasion=f"{file.occasion} {place}",
                ),
            )
        return Decision(None, actions)

    await decide_and_commit(arrival.context, arrival.caller, decide)


def describe_refusals(result: FileResult) -> str:
    """Why a file goes to `failed`; "" where nothing was refused."""
    if not result.refused:
        return ""
    counts = f"Messages that were accepted: {result.accepted}. Faults: {len(result.refused)}."
    lines = [clean_text(each) for each in result.refused[:LISTED]]
    more = len(result.refused) - len(lines)
    return "\n".join([counts, *lines, *([f"and {more} more."] if more else [])])
