"""Sends submissions in parallel and repeats what was refused only because its target had not come yet (https://hl7.org/fhir/R4/http.html#transaction)."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal

import orjson

from fhir_server.client.answers import Answer, Outcome, Sender, outcome_of, read_outcome
from fhir_server.client.inputs import Failure
from fhir_server.client.submissions import Submission, in_turns, regroup
from fhir_server.client.tally import Tally, result_of

# Servers differ in status and words for a missing target: 422 or 400 that speak of a reference, 404, or 412 when a
# conditional reference finds nothing. 409 and 503 ask for another try in any case.
_AGAIN = frozenset((404, 409, 412, 429, 503))
_MAYBE = frozenset((400, 422))
_DANGLING = re.compile(r"referenc|not found|does not exist|not known|unknown resource|unresolv", re.IGNORECASE)

_FAILING_ENTRY = re.compile(r"entry\[(\d+)\]")

# Servers that name one faulty entry at a time would have a group sent as often as it has entries.
MOST_SEPARATIONS = 8

OnDone = Callable[[int], None]
"""Called with the weight (bytes of input) that was dealt with."""


@dataclass(slots=True)
class _Load:
    sender: Sender
    tally: Tally
    started: datetime
    on_done: OnDone
    waiting: list[tuple[Submission, Failure]] = field(default_factory=list)


async def load(
    items: Iterable[Submission | Failure], sender: Sender, tally: Tally, concurrency: int, on_done: OnDone
) -> None:
    """Send all items, `concurrency` at a time, and repeat what waits for a target until a round brings nothing new.

    Results go to `tally`. Raises OSError when the server cannot be reached at all.
    """
    state = _Load(sender, tally, await _server_time(sender), on_done)
    await _round(state, items, concurrency)
    left = _size(state.waiting) + 1
    while state.waiting and _size(state.waiting) < left:
        left = _size(state.waiting)
        again, state.waiting = state.waiting, []
        await _round(state, regroup(submission for submission, _ in again), concurrency)
    for _, failure in state.waiting:
        tally.fail(failure)


def _size(waiting: list[tuple[Submission, Failure]]) -> int:
    return sum(len(submission.entries) for submission, _ in waiting)


async def _server_time(sender: Sender) -> datetime:
    """The server's clock before the first write; a server without a Date header runs on ours."""
    answer = await sender.send("GET", "metadata")
    try:
        return datetime.strptime(answer.header("date") or "", "%a, %d %b %Y %H:%M:%S %Z").replace(tzinfo=UTC)
    except ValueError:
        return datetime.now(UTC)


async def _round(state: _Load, items: Iterable[Submission | Failure], concurrency: int) -> None:
    shared = iter(items)
    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(_work(state, shared))


async def _work(state: _Load, shared: Iterator[Submission | Failure]) -> None:
    # The iterator is shared by all workers; it never awaits, so each item goes to exactly one of them.
    for item in shared:
        if isinstance(item, Failure):
            state.tally.fail(item)
        elif item.entries:
            for part in in_turns(item) if item.kind == "group" else (item,):
                await _deliver(state, part)
        state.on_done(item.weight)


async def _deliver(state: _Load, submission: Submission, separations: int = 0) -> None:
    if submission.kind == "batch" or (submission.kind == "group" and len(submission.entries) == 1):
        await _deliver_batch(state, submission)
        return
    answer = await _post(state, submission, "transaction")
    if answer is None:
        return
    if answer.status < 400:
        _take_entries(state, submission, answer)
    elif submission.kind == "group" and answer.status < 500:
        await _separate(state, submission, read_outcome(answer.body).text, separations)
    else:
        _refused(state, submission, answer.status, read_outcome(answer.body))


async def _separate(state: _Load, submission: Submission, text: str, separations: int) -> None:
    """Send the entries that a refusal names one by one and the rest together again, as it may hold together."""
    named = {int(index) for index in _FAILING_ENTRY.findall(text)}
    kept = tuple(entry for index, entry in enumerate(submission.entries) if index not in named)
    if separations == MOST_SEPARATIONS or len(kept) in (0, len(submission.entries)):
        await _deliver_batch(state, submission)
        return
    alone = tuple(entry for index, entry in enumerate(submission.entries) if index in named)
    await _deliver(state, replace(submission, entries=kept), separations + 1)
    await _deliver_batch(state, replace(submission, entries=alone))


async def _deliver_batch(state: _Load, submission: Submission) -> None:
    answer = await _post(state, submission, "batch")
    if answer is None:
        return
    if answer.status < 400:
        _take_entries(state, submission, answer)
    elif answer.status < 500 and len(submission.entries) > 1:
        # Some servers refuse a whole batch for one malformed entry.
        for entry in submission.entries:
            await _deliver_batch(state, replace(submission, entries=(entry,)))
    else:
        _refused(state, submission, answer.status, read_outcome(answer.body))


async def _post(state: _Load, submission: Submission, type: Literal["transaction", "batch"]) -> Answer | None:
    try:
        return await state.sender.send("POST", "", (("Prefer", "return=minimal"),), submission.bundle(type))
    except OSError as error:
        _failed(state, submission, None, f"No answer: {error or repr(error)}")
        return None


def _take_entries(state: _Load, submission: Submission, answer: Answer) -> None:
    """Count what each entry of an answered bundle did; the response has the entries in the request's order."""
    try:
        responses = [entry["response"] for entry in orjson.loads(answer.body)["entry"]]
        statuses = [int(response["status"][:3]) for response in responses]
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        responses, statuses = [], []
    if len(responses) != len(submission.entries):
        text = f"The answer is not a Bundle with {len(submission.entries)} responses, one for each entry."
        _failed(state, submission, answer.status, text)
        return
    for entry, response, status in zip(submission.entries, responses, statuses, strict=True):
        if status >= 400:
            _refused(state, replace(submission, entries=(entry,)), status, outcome_of(response.get("outcome") or {}))
            continue
        modified = _instant(response.get("lastModified"))
        state.tally.add(
            entry.type, result_of(entry.method, status, str(response.get("etag", "")), modified, state.started)
        )


def _refused(state: _Load, submission: Submission, status: int, outcome: Outcome) -> None:
    if status in _AGAIN or (status in _MAYBE and ("not-found" in outcome.codes or _DANGLING.search(outcome.text))):
        state.waiting.append((replace(submission, weight=0), _failure(submission, status, outcome.text)))
    else:
        _failed(state, submission, status, outcome.text)


def _failed(state: _Load, submission: Submission, status: int | None, text: str) -> None:
    """Report a transaction once, entries that do not depend on each other one by one."""
    parts = [submission]
    if submission.kind != "transaction":
        parts = [replace(submission, entries=(entry,)) for entry in submission.entries]
    for part in parts:
        state.tally.fail(_failure(part, status, text))


def _failure(submission: Submission, status: int | None, text: str) -> Failure:
    """The failure of a transaction at the entry that the text names, or of a single entry."""
    entries = submission.entries
    named = _FAILING_ENTRY.search(text)
    index = int(named[1]) if named else 0
    known = len(entries) == 1 or (named is not None and index < len(entries))
    entry = entries[index] if known and index < len(entries) else entries[0]
    types = tuple(entry.type for entry in entries)
    return Failure(entry.source, entry.place if known else "", status, text, types)


def _instant(text: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
