"""Time limits of requests, all on one timer (`requests/time_limit.py`): who is ended, when, and with which error."""

from __future__ import annotations

import asyncio

import pytest

from fhir_server.fhir.outcome import TimedOut
from fhir_server.requests.time_limit import TimeLimits, lift

pytestmark = pytest.mark.anyio

LONG = 30.0


async def wait(limits: TimeLimits, seconds: float, ended: list[float]) -> None:
    try:
        with limits.end_after(seconds):
            await asyncio.sleep(LONG)
    except TimedOut as error:
        assert f"{seconds:g} seconds" in error.issues[0].diagnostics
        ended.append(seconds)


async def test_each_limit_ends_at_its_own_time_whatever_the_order_of_their_begin() -> None:
    limits, ended = TimeLimits(), list[float]()
    seconds = (0.2, 0.1, 0.3, 0.15, 0.25)
    await asyncio.wait_for(asyncio.gather(*(wait(limits, each, ended) for each in seconds)), LONG / 2)
    assert ended == sorted(seconds)


async def test_a_limit_that_begins_when_others_are_over_ends_as_well() -> None:
    limits, ended = TimeLimits(), list[float]()
    for seconds in (0.05, 0.02, 0.04):
        with limits.end_after(seconds):
            await asyncio.sleep(0)
        await asyncio.wait_for(wait(limits, seconds, ended), LONG / 2)
    assert ended == [0.05, 0.02, 0.04]


async def test_the_inner_one_of_two_ends_alone() -> None:
    limits = TimeLimits()
    with limits.end_after(LONG):
        with pytest.raises(TimedOut), limits.end_after(0.01):
            await asyncio.sleep(LONG)
        await asyncio.sleep(0)


async def test_the_outer_one_ends_through_the_inner_one() -> None:
    limits = TimeLimits()
    with pytest.raises(TimedOut, match=r"0\.01 seconds"), limits.end_after(0.01), limits.end_after(LONG):
        await asyncio.sleep(LONG)


async def test_a_deadline_that_has_passed_ends_at_the_first_wait() -> None:
    limits = TimeLimits()
    passed = asyncio.get_running_loop().time() - 1
    with pytest.raises(TimedOut), limits.end_after(LONG, passed):
        await asyncio.sleep(LONG)


async def test_what_is_lifted_does_not_end() -> None:
    limits = TimeLimits()
    with limits.end_after(0.01):
        assert lift() is not None
        assert lift() is None
        await asyncio.sleep(0.1)
    assert lift() is None


async def test_a_cancellation_by_somebody_else_stays_one() -> None:
    limits, ended = TimeLimits(), list[float]()
    task = asyncio.create_task(wait(limits, LONG, ended))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == []


async def test_who_finishes_although_the_time_is_over_is_not_cancelled_later() -> None:
    """As a commit does that was handed to the store: its answer is told."""
    with TimeLimits().end_after(0.01), pytest.raises(asyncio.CancelledError):
        await asyncio.sleep(LONG)
    await asyncio.sleep(0.05)


async def test_another_timeout_is_an_error_of_its_own() -> None:
    with pytest.raises(TimeoutError), TimeLimits().end_after(LONG):
        raise TimeoutError
