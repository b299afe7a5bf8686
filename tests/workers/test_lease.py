"""A lease is held by one process at a time, whatever clocks do, and taken over after 60 seconds of silence."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.app import open_store
from fhir_server.store.memory import open_store as open_memory
from fhir_server.store.protocol import Store, StoreUnavailable
from fhir_server.workers.lease import HEARTBEAT, LOOK, Lease, LeaseLost
from tests.workers.clocks import Clock

pytestmark = pytest.mark.anyio

MINUTE = 60
YEAR = 365 * 24 * 3600


@pytest.fixture(params=["memory", "sqlite", "mongo"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    uri = {"memory": lambda: "memory://", "sqlite": lambda: f"sqlite:///{tmp_path}/fhir.db"}.get(request.param)
    new_uri: Callable[[], str] = uri or request.getfixturevalue("new_mongo_uri")
    opened = await open_store(new_uri(), create=True)
    yield opened
    await opened.close()


async def looks(lease: Lease, clock: Clock, seconds: float) -> bool:
    """Look every LOOK seconds for so long; whether the lease was taken."""
    for _ in range(int(seconds / LOOK)):
        if await lease.acquire():
            return True
        await clock.sleep(LOOK)
    return await lease.acquire()


async def test_one_of_two_holds_it_and_the_other_follows_after_silence(store: Store) -> None:
    clock = Clock()
    first, second = Lease(store, "w", "first", clock), Lease(store, "w", "second", clock)
    assert await first.acquire()
    assert not await looks(second, clock, MINUTE - LOOK)
    assert await looks(second, clock, LOOK)
    assert second.seen is not None and (second.seen.owner, second.seen.fence) == ("second", 2)
    with pytest.raises(LeaseLost, match="`w`"):
        await first.renew()
    await second.renew()


async def test_a_holder_that_renews_keeps_it(store: Store) -> None:
    clock = Clock()
    first, second = Lease(store, "w", "first", clock), Lease(store, "w", "second", clock)
    assert await first.acquire()
    for _ in range(20):
        assert not await looks(second, clock, HEARTBEAT)
        await first.renew()
    assert first.seen is not None and first.seen.fence == 1


async def test_a_lease_that_was_released_is_free_at_once(store: Store) -> None:
    clock = Clock()
    first, second = Lease(store, "w", "first", clock), Lease(store, "w", "second", clock)
    assert await first.acquire()
    await first.release()
    assert await second.acquire()
    with pytest.raises(LeaseLost):
        await first.check()
    await first.release()
    await second.renew()


async def test_leases_of_other_names_are_others(store: Store) -> None:
    clock = Clock()
    assert await Lease(store, "a", "first", clock).acquire()
    assert await Lease(store, "b", "second", clock).acquire()


@given(jumps=st.lists(st.integers(-YEAR, YEAR), min_size=1, max_size=20), seed=st.integers(0, 99))
async def test_no_jump_of_a_clock_takes_it_from_a_holder_that_renews(jumps: list[int], seed: int) -> None:
    """Both clocks jump between any two looks; in real time the holder renews every 15 s, the other looks every 5 s."""
    store = await open_memory("memory://", Clock())
    holders, watchers, roll = Clock(), Clock(), random.Random(seed)
    first, second = Lease(store, "w", "first", holders), Lease(store, "w", "second", watchers)
    assert await first.acquire()
    for jump in jumps:
        for _ in range(int(HEARTBEAT / LOOK)):
            watchers.now += roll.choice((jump, 0, -jump)) * 1_000_000
            assert not await second.acquire()
            await watchers.sleep(LOOK)
            await holders.sleep(LOOK)
        holders.now += jump * 1_000_000
        await first.check()


async def test_a_jump_of_its_clock_makes_the_holder_ask_the_store(store: Store) -> None:
    clock = Clock()
    first, second = Lease(store, "w", "first", clock), Lease(store, "w", "second", Clock())
    assert await first.acquire()
    count = first.seen.count if first.seen else None
    await clock.sleep(HEARTBEAT - 1)
    await first.check()
    assert first.seen is not None and first.seen.count == count, "not yet"
    for jump in (-1, YEAR):
        clock.now += jump * 1_000_000
        assert await looks(second, second._clock, 2 * MINUTE)  # type: ignore[arg-type]
        with pytest.raises(LeaseLost):
            await first.check() if jump > 0 else await first.renew()
        await second.release()
        assert await first.acquire()


async def test_a_write_whose_answer_was_lost_does_not_lose_the_lease(store: Store) -> None:
    class Deaf:
        """Writes, and then says that it could not."""

        deaf = True

        async def get_value(self, key: str) -> bytes | None:
            return await store.get_value(key)

        async def put_value_if(self, key: str, value: bytes, before: bytes | None) -> bool:
            done = await store.put_value_if(key, value, before)
            if self.deaf:
                raise StoreUnavailable("The answer was lost.")
            return done

    deaf = Deaf()
    deaf.deaf = False
    lease = Lease(deaf, "w", "first", Clock())  # type: ignore[arg-type]
    assert await lease.acquire()
    deaf.deaf = True
    with pytest.raises(StoreUnavailable):
        await lease.renew()
    deaf.deaf = False
    await lease.renew()
    assert await store.get_value("lease/w") is not None
