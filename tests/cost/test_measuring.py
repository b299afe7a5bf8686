"""What the measuring of costs forgives, and what not."""

from __future__ import annotations

import time
from collections.abc import Iterable

import httpx
import pytest

from tests.cost import measuring
from tests.cost.measuring import REPEATS, Measure, check_loop_turns, check_ratio, check_ratio_of_calls

pytestmark = pytest.mark.anyio

TRIES = 4


def replay(seconds: Iterable[float]) -> Measure:
    """A measurement that gives these times, one after the other."""
    given = iter(seconds)

    async def measure(number: int) -> float:
        return next(given)

    return measure


async def test_a_square_is_refused_in_every_comparison() -> None:
    with pytest.raises(AssertionError, match="more than 3 times"):
        await check_ratio(replay([1.0] * REPEATS * TRIES), replay([4.0] * REPEATS * TRIES), 3, TRIES)

    def repeat(size: int) -> int:
        return sum(1 for first in range(size) for second in range(size))

    with pytest.raises(AssertionError, match="more than 3 times"):
        await check_ratio_of_calls(lambda: repeat(300), lambda: repeat(600), 3, TRIES)


async def test_noise_in_some_tries_or_in_a_whole_comparison_is_forgiven() -> None:
    await check_ratio(replay([1.0] * TRIES), replay([9.0, 8.0, 2.1, 7.0]), 3, TRIES)
    await check_ratio(replay([1.0] * 2 * TRIES), replay([9.0] * TRIES + [2.1] * TRIES), 3, TRIES)


async def test_a_loop_that_stands_each_time_is_refused_and_one_that_stood_once_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(measuring, "measure_call", lambda work: 0.01)

    async def stand(numbers: range, number: int) -> httpx.Response:
        began = time.process_time()
        while number in numbers and time.process_time() - began < 0.2:
            pass
        return httpx.Response(200)

    assert (await check_loop_turns(lambda number: stand(range(1), number))).status_code == 200
    with pytest.raises(AssertionError, match="each time"):
        await check_loop_turns(lambda number: stand(range(REPEATS), number))
