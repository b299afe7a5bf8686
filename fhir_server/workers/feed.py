"""A reader of the feed of committed versions that goes on where it stopped, in whatever process.

Versions come in commit order, each at least once: the position is saved after the batch, so what is derived from a
version has to get an identifier that follows from it, and be created conditionally. Where the store no longer keeps
what followed the position, the current resources are read instead, and the deletions meanwhile are told afterwards.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, replace

import orjson

from fhir_server.requests.describe_error import describe_error
from fhir_server.search.query import Query, Scope, SortKey
from fhir_server.store.protocol import Clock, Expired, HistoryQuery, Store, Stored, StoreError
from fhir_server.workers.lease import LeaseLost
from fhir_server.workers.worker import Step, StepResult, Stopping, Turn

BATCH = 200
"""Versions handed over at once."""

RENEW_TOKEN = 60_000_000
"""µs after which the position is saved although nothing was read."""

MOST_PARKED = 1000
"""Parked versions that a feed keeps by name; the number of all is kept beside."""

Take = Callable[[Turn, Sequence[Stored]], Awaitable[None]]
"""Does what a batch asks for; called again with the same versions after a death, and one by one after an error."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where a feed is, as `feed/<name>` keeps it.

    `token`: of `changes`. `walk`: while current resources are read, the type and the key after which to go on.
    `mark` (µs): versions made before it are those that the walk shows. `saved`: when it was saved last (µs).
    `parked`: `Type/id/version`, the latest last.
    """

    token: str | None = None
    walk: tuple[str, SortKey | None] | None = None
    mark: int = 0
    saved: int = 0
    seen: int = 0
    parked: tuple[str, ...] = ()
    parked_count: int = 0


def read_feed(name: str, take: Take, take_current: Take | None = None) -> Step:
    """The step of a worker that hands the feed to `take`, batch by batch; current resources of a walk to another."""

    async def step(turn: Turn) -> StepResult:
        text = await turn.context.unrestricted.get_value(f"feed/{name}")
        before = _decode(text) if text else Position()
        try:
            read, versions, after = await _read_batch(turn, before)
        except Expired:
            turn.log("warning", "feed expired: current resources are read", worker=turn.lease.name, feed=name)
            read, versions, after = 1, (), await _begin_walk(turn, before)
        chosen = take if before.walk is None or take_current is None else take_current
        parked = await _hand_over(turn, chosen, versions)
        now = turn.context.clock()
        # a token that is never renewed grows too old even where nothing is written
        if read or (after != before and abs(now - before.saved) > RENEW_TOKEN):
            after = replace(
                after,
                saved=now,
                seen=before.seen + len(versions),
                parked=(*before.parked, *parked)[-MOST_PARKED:],
                parked_count=before.parked_count + len(parked),
            )
            await _save(turn, name, text, after)
        waits = f", {after.parked_count} parked" if after.parked_count else ""
        return StepResult(read, f"{after.seen} versions{waits}", _compute_lag(now, versions) if read else 0)

    return step


def _compute_lag(now: int, versions: Sequence[Stored]) -> int | None:
    """Seconds from the last version that was read to now; None where none was."""
    return max(0, now - versions[-1].last_updated) // 1_000_000 if versions else None


async def read_lag(store: Store, name: str, clock: Clock) -> int | None:
    """Seconds since the first version was written that the feed has not read, 0 for none; None where that is not known.

    It is not before the feed has begun, nor while it walks.
    """
    text = await store.get_value(f"feed/{name}")
    position = _decode(text) if text else Position()
    if position.token is None or position.walk is not None:
        return None
    try:
        changes = await store.read_changes(position.token, 1)
    except Expired:
        return None
    return max(0, clock() - changes.versions[0].last_updated) // 1_000_000 if changes.versions else 0


async def _read_batch(turn: Turn, before: Position) -> tuple[int, Sequence[Stored], Position]:
    """How much was read (0: the end), what of it to hand over, and the position after it."""
    if before.walk is not None:
        return await _walk(turn, before)
    changes = await turn.context.unrestricted.read_changes(before.token, BATCH)
    versions: Sequence[Stored] = changes.versions
    if before.mark:
        versions = await _leave_out_walked(turn, versions, before.mark)
    return len(changes.versions), versions, replace(before, token=changes.token)


async def _begin_walk(turn: Turn, before: Position) -> Position:
    """Mark and token are taken before the first resource is read: what commits later is in the feed after them."""
    store = turn.context.unrestricted
    horizon = (await store.history(HistoryQuery(count=1))).horizon
    # the version that this token passes over is the first of all: the walk shows that resource
    token = (await store.read_changes(None, 1)).token
    return replace(before, token=token, walk=(min(turn.context.types), None), mark=horizon)


async def _walk(turn: Turn, before: Position) -> tuple[int, Sequence[Stored], Position]:
    """The next current resources, type by type, by id. The end of a type is no end."""
    assert before.walk is not None
    type, after = before.walk
    page = await turn.context.unrestricted.search(Query((Scope(type),), count=BATCH, after=after))
    if page.next is not None:
        return 1, page.matches, replace(before, walk=(type, page.next))
    following = [other for other in sorted(turn.context.types) if other > type]
    return 1, page.matches, replace(before, walk=(following[0], None) if following else None)


async def _leave_out_walked(turn: Turn, versions: Sequence[Stored], mark: int) -> Sequence[Stored]:
    """Of the versions before the mark, only the deletions that still hold: the walk showed all others."""
    deleted = [version.reference for version in versions if version.raw is None and version.last_updated < mark]
    latest = await turn.context.unrestricted.read_many(deleted, deletions=True)

    def holds(version: Stored) -> bool:
        last = latest.get(version.reference) if version.raw is None else None
        return last is not None and last.version == version.version

    return [version for version in versions if version.last_updated >= mark or holds(version)]


async def _hand_over(turn: Turn, take: Take, versions: Sequence[Stored]) -> list[str]:
    """Give a batch to `take`; where it fails, version by version. Those that fail alone are parked."""
    if not versions:
        return []
    await turn.check()
    try:
        await take(turn, versions)
    except (StoreError, LeaseLost, Stopping):
        raise
    except Exception as error:
        if len(versions) > 1:
            return [name for version in versions for name in await _hand_over(turn, take, (version,))]
        parked = f"{versions[0].reference}/{versions[0].version}"
        turn.log("error", "item parked", worker=turn.lease.name, item=parked, error=describe_error(error))
        return [parked]
    return []


async def _save(turn: Turn, name: str, before: bytes | None, after: Position) -> None:
    if not await turn.context.unrestricted.put_value_if(f"feed/{name}", orjson.dumps(asdict(after)), before):
        raise LeaseLost(f"Another process has moved the position of the feed `{name}`.")


def _decode(text: bytes) -> Position:
    members = orjson.loads(text)
    walk = members["walk"]
    place = None if walk is None else (walk[0], None if walk[1] is None else tuple(walk[1]))
    return Position(**{**members, "walk": place, "parked": tuple(members["parked"])})
