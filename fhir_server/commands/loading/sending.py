"""Sends submissions in parallel and repeats what was refused only because its target had not come yet (https://hl7.org/fhir/R4/http.html#transaction)."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal

import httpx
import orjson

from fhir_server.commands.loading.client import send
from fhir_server.commands.loading.inputs import Failure
from fhir_server.commands.loading.outcome import Outcome, parse_outcome, read_outcome
from fhir_server.commands.loading.submissions import Submission, regroup, split_repeats
from fhir_server.commands.loading.tally import Tally, find_result

# Servers differ in status and words for a missing target: 422 or 400 that speak of a reference, 404, or 412 when a
# conditional reference finds nothing. 409 and 503 ask for another try in any case.
_RETRY = frozenset((404, 409, 412, 429, 503))
_RETRY_FOR_REFERENCE = frozenset((400, 422))
_DANGLING = re.compile(r"referenc|not found|does not exist|not known|unknown resource|unresolv", re.IGNORECASE)

_FAILING_ENTRY = re.compile(r"entry\[(\d+)\]")

# Servers that name one faulty entry at a time would have a group sent as often as it has entries.
MOST_SEPARATIONS = 8

OnDone = Callable[[int], None]
"""Called with the weight (bytes of input) that was dealt with."""


@dataclass(slots=True)
class _Load:
    client: httpx.AsyncClient
    tally: Tally
    started: datetime
    on_done: OnDone
    waiting: list[tuple[Submission, Failure]] = field(default_factory=list)


async def load_submissions(
    items: Iterable[Submission | Failure], client: httpx.AsyncClient, tally: Tally, concurrency: int, on_done: OnDone
) -> None:
    """Send all items, `concurrency` at a time, and repeat what waits for a target until a round brings nothing new.

    Results go to `tally`. Raises OSError when the server cannot be reached at all.
    """
    state = _Load(client, tally, await _read_server_time(client), on_done)
    await _send_all(state, items, concurrency)
    previous = math.inf
    while 0 < (count := sum(len(submission.entries) for submission, _ in state.waiting)) < previous:
        previous = count
        waiting, state.waiting = state.waiting, []
        await _send_all(state, regroup(submission for submission, _ in waiting), concurrency)
    for _, failure in state.waiting:
        tally.fail(failure)


async def _read_server_time(client: httpx.AsyncClient) -> datetime:
    """The server's clock before the first write; a server without a Date header runs on ours."""
    answer = await send(client, "GET", "metadata")
    try:
        return datetime.strptime(answer.headers.get("date", ""), "%a, %d %b %Y %H:%M:%S %Z").replace(tzinfo=UTC)
    except ValueError:
        return datetime.now(UTC)


async def _send_all(state: _Load, items: Iterable[Submission | Failure], concurrency: int) -> None:
    shared = iter(items)
    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(_send_from(state, shared))


async def _send_from(state: _Load, shared: Iterator[Submission | Failure]) -> None:
    # The iterator is shared by all workers; it never awaits, so each item goes to exactly one of them.
    for item in shared:
        if isinstance(item, Failure):
            state.tally.fail(item)
        elif item.entries:
            for part in split_repeats(item) if item.kind == "group" else (item,):
                await _send(state, part)
        state.on_done(item.weight)


async def _send(state: _Load, submission: Submission, separations: int = 0) -> None:
    if submission.kind == "batch" or (submission.kind == "group" and len(submission.entries) == 1):
        await _send_batch(state, submission)
        return
    answer = await _post(state, submission, "transaction")
    if answer is None:
        return
    if answer.status_code < 400:
        _count_entries(state, submission, answer)
    elif submission.kind == "group" and answer.status_code < 500:
        await _separate(state, submission, read_outcome(answer.content).text, separations)
    else:
        _retry_or_fail(state, submission, answer.status_code, read_outcome(answer.content))


async def _separate(state: _Load, submission: Submission, text: str, separations: int) -> None:
    """Send the entries that a refusal names one by one and the rest together again, as it may hold together."""
    named = {int(index) for index in _FAILING_ENTRY.findall(text)}
    others = tuple(entry for index, entry in enumerate(submission.entries) if index not in named)
    if separations == MOST_SEPARATIONS or len(others) in (0, len(submission.entries)):
        await _send_batch(state, submission)
        return
    refused = tuple(entry for index, entry in enumerate(submission.entries) if index in named)
    await _send(state, replace(submission, entries=others), separations + 1)
    await _send_batch(state, replace(submission, entries=refused))


async def _send_batch(state: _Load, submission: Submission) -> None:
    answer = await _post(state, submission, "batch")
    if answer is None:
        return
    if answer.status_code < 400:
        _count_entries(state, submission, answer)
    elif answer.status_code < 500 and len(submission.entries) > 1:
        # Some servers refuse a whole batch for one malformed entry.
        for entry in submission.entries:
            await _send_batch(state, replace(submission, entries=(entry,)))
    else:
        _retry_or_fail(state, submission, answer.status_code, read_outcome(answer.content))


async def _post(state: _Load, submission: Submission, type: Literal["transaction", "batch"]) -> httpx.Response | None:
    try:
        return await send(state.client, "POST", body=submission.write_bundle(type))
    except OSError as error:
        _report(state, submission, None, f"No answer: {error or repr(error)}")
        return None


def _count_entries(state: _Load, submission: Submission, answer: httpx.Response) -> None:
    """Count what each entry of an answered bundle did; the response has the entries in the request's order."""
    try:
        responses = [entry["response"] for entry in orjson.loads(answer.content)["entry"]]
        statuses = [int(response["status"][:3]) for response in responses]
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        responses, statuses = [], []
    if len(responses) != len(submission.entries):
        text = f"The answer is not a Bundle with {len(submission.entries)} responses, one for each entry."
        _report(state, submission, answer.status_code, text)
        return
    for entry, response, status in zip(submission.entries, responses, statuses, strict=True):
        if status >= 400:
            outcome = parse_outcome(response.get("outcome") or {})
            _retry_or_fail(state, replace(submission, entries=(entry,)), status, outcome)
            continue
        etag, modified = str(response.get("etag", "")), _parse_instant(response.get("lastModified"))
        state.tally.add(entry.type, find_result(entry.method, status, etag, modified, state.started))


def _retry_or_fail(state: _Load, submission: Submission, status: int, outcome: Outcome) -> None:
    dangling = "not-found" in outcome.codes or _DANGLING.search(outcome.text)
    if status in _RETRY or (status in _RETRY_FOR_REFERENCE and dangling):
        state.waiting.append((replace(submission, weight=0), _make_failure(submission, status, outcome.text)))
    else:
        _report(state, submission, status, outcome.text)


def _report(state: _Load, submission: Submission, status: int | None, text: str) -> None:
    """Report a transaction once, entries that do not depend on each other one by one."""
    parts = [submission]
    if submission.kind != "transaction":
        parts = [replace(submission, entries=(entry,)) for entry in submission.entries]
    for part in parts:
        state.tally.fail(_make_failure(part, status, text))


def _make_failure(submission: Submission, status: int | None, text: str) -> Failure:
    """The failure of a transaction at the entry that the text names, or of a single entry."""
    entries = submission.entries
    match = _FAILING_ENTRY.search(text)
    named = [entry for index, entry in enumerate(entries) if match and index == int(match[1])]
    (entry, *_) = named or entries
    place = entry.place if named or len(entries) == 1 else ""
    return Failure(entry.source, place, status, text, tuple(entry.type for entry in entries))


def _parse_instant(text: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
