"""The feed reader hands over each version at least once, in order, and finds its way after what it missed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import orjson
import pytest

from fhir_server.app import Knowledge
from fhir_server.store.protocol import Changes, Expired, Stored
from fhir_server.workers import feed
from fhir_server.workers.feed import read_feed
from fhir_server.workers.lease import LeaseLost
from fhir_server.workers.worker import StepResult, Turn
from tests.conftest import Client, serving
from tests.workers.teams import Failing, Killed, Lines, take_turn

pytestmark = pytest.mark.anyio


class Reader:
    """Notes what it is given as `Type/id/version`; `failing` ids make it fail."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.failing: set[str] = set()

    async def take(self, turn: Turn, versions: Sequence[Stored]) -> None:
        if {version.id for version in versions} & self.failing:
            raise ValueError("cannot be read")
        self.taken += [f"{version.reference}/{version.version}" for version in versions if version.type == "Patient"]


async def read(
    client: Client, reader: Reader, owner: str = "a", store: Any = None, lines: Lines | None = None
) -> StepResult:
    """Step until nothing is left."""
    context = client.server.context
    if store is not None:
        context = dataclasses.replace(context, unrestricted=store)
    turn, step = await take_turn(context, "w", owner, lines), read_feed("f", reader.take)
    while (result := await step(turn)).done:
        pass
    return result


async def put(client: Client, *ids: str, active: bool = True) -> None:
    for id in ids:
        await client.fhir("PUT", f"Patient/{id}", json={"resourceType": "Patient", "id": id, "active": active})


async def test_it_goes_on_where_it_stopped(client: Client) -> None:
    reader = Reader()
    await put(client, "a", "b")
    result = await read(client, reader)
    assert reader.taken == ["Patient/a/1", "Patient/b/1"] and result.lag == 0
    await put(client, "a", active=False)
    await client.delete("Patient/b")
    await read(client, reader, "b")
    assert reader.taken[2:] == ["Patient/a/2", "Patient/b/2"]


async def test_an_item_that_fails_is_parked_alone(client: Client) -> None:
    reader, lines = Reader(), Lines()
    reader.failing = {"b"}
    await put(client, "a", "b", "c")
    result = await read(client, reader, lines=lines)
    assert reader.taken == ["Patient/a/1", "Patient/c/1"] and "1 parked" in result.position
    assert [fields["item"] for _, message, fields in lines if message == "item parked"] == ["Patient/b/1"]
    position = orjson.loads(await client.server.context.unrestricted.get_value("feed/f") or b"")
    assert position["parked"] == ["Patient/b/1"]


async def test_a_position_that_another_process_has_moved_is_not_overwritten(client: Client) -> None:
    await put(client, "a")
    context = client.server.context

    async def take(turn: Turn, versions: Sequence[Stored]) -> None:
        before = await context.unrestricted.get_value("feed/f")
        assert await context.unrestricted.put_value_if("feed/f", b"moved", before)

    with pytest.raises(LeaseLost, match="feed `f`"):
        await read_feed("f", take)(await take_turn(context, "w", "a"))
    assert await context.unrestricted.get_value("feed/f") == b"moved"


@pytest.mark.parametrize("after", [False, True])
async def test_killed_at_any_call_nothing_is_missed(
    known: Knowledge, after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "BATCH", 2)
    at, reached = 1, True
    while reached:
        async with serving(known, store="memory://") as client:
            reader = Reader()
            await put(client, *"abcde")
            failing = Failing(client.server.context.unrestricted, at, after)
            try:
                await read(client, reader, "a", failing)
            except Killed:
                await read(client, reader, "b")
            assert list(dict.fromkeys(reader.taken)) == [f"Patient/{id}/1" for id in "abcde"]
            reached, at = failing.reached, at + 1
    assert at > 8


class Forgetful:
    """A store that gives up its token once, as an oplog that has moved on does; `meanwhile` is done in the walk."""

    def __init__(self, store: Any, client: Client) -> None:
        self._store = store
        self._client = client
        self.expires = True
        self.searches = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def read_changes(self, after: str | None, limit: int = 1000) -> Changes:
        if after is not None and self.expires:
            self.expires = False
            raise Expired("The oplog has moved on.")
        return await self._store.read_changes(after, limit)  # type: ignore[no-any-return]

    async def search(self, query: Any) -> Any:
        page = await self._store.search(query)
        if query.scopes[0].type == "Patient":
            self.searches += 1
            if self.searches == 1:
                await put(self._client, "a", active=False)
                await put(self._client, "new")
        return page


async def test_after_expiry_current_resources_are_walked_and_nothing_is_missed(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Current ones once in the walk, then what was written during it, and the deletions that it could not show."""
    monkeypatch.setattr(feed, "BATCH", 2)
    reader, lines = Reader(), Lines()
    await put(client, "a", "b", "c", "d")
    await read(client, reader)
    reader.taken.clear()
    await put(client, "b", active=False)
    await client.delete("Patient/c")
    await client.delete("Patient/d")
    await put(client, "d")
    store = Forgetful(client.server.context.unrestricted, client)
    await read(client, reader, "b", store, lines)
    assert [message for _, message, _ in lines] == ["feed expired: current resources are read"]
    assert set(reader.taken[:3]) == {"Patient/a/1", "Patient/b/2", "Patient/d/3"}
    # a version of the very moment of the mark may come again, and one that the walk already showed
    again = {"Patient/d/3", "Patient/new/1"}
    assert [each for each in reader.taken[3:] if each not in again] == ["Patient/c/2", "Patient/a/2"]
    assert reader.taken[-1] == "Patient/new/1" and set(reader.taken[3:]) <= {"Patient/c/2", "Patient/a/2", *again}


async def test_a_walk_that_was_killed_goes_on(known: Knowledge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "BATCH", 2)
    async with serving(known, store="memory://") as client:
        reader, kills = Reader(), 0
        await put(client, *"abcde")
        await read(client, reader)
        store = Forgetful(client.server.context.unrestricted, client)
        reader.taken.clear()
        for at in range(3, 400, 37):
            try:
                await read(client, reader, f"owner {at}", Failing(store, at, True))
            except Killed:
                kills += 1
        await read(client, reader, "last", store)
        assert kills > 3
        assert set(reader.taken) == {*(f"Patient/{id}/1" for id in "abcde"), "Patient/a/2", "Patient/new/1"}
