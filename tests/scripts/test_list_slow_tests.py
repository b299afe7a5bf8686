"""The list of slow tests: the slowest first, until the rest fits; and each file keeps one that is not large."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from scripts.list_slow_tests import Meter, find_slow

SECONDS = {"a.py::one": 5.0, "a.py::two": 3.0, "b.py::three": 9.0, "c.py::four": 1.0, "c.py::five": 0.5}


@pytest.mark.parametrize(
    ("most", "slow"),
    [
        (18.5, []),
        (14.0, ["b.py::three"]),
        (9.0, ["a.py::one", "b.py::three"]),
        (0.0, ["a.py::one", "a.py::two", "b.py::three", "c.py::four"]),
    ],
)
def test_the_slowest_are_listed_until_the_rest_fits(most: float, slow: list[str]) -> None:
    assert find_slow(SECONDS, most) == slow


def spend(seconds: float) -> None:
    began = time.process_time()
    while time.process_time() - began < seconds:
        pass


def finish(wrapper: Any) -> None:
    with pytest.raises(StopIteration):
        next(wrapper)


def test_a_shared_fixture_is_no_time_of_the_test_that_is_the_first_to_use_it() -> None:
    meter: Any = Meter()
    test = meter.pytest_runtest_protocol(SimpleNamespace(nodeid="tests/test_x.py::test_it[a]"))
    next(test)
    for scope, seconds in (("session", 0.3), ("function", 0.1)):
        fixture = meter.pytest_fixture_setup(SimpleNamespace(scope=scope))
        next(fixture)
        spend(seconds)
        finish(fixture)
    finish(test)
    assert list(meter.seconds) == ["tests/test_x.py::test_it"]
    assert 0.1 <= meter.seconds["tests/test_x.py::test_it"] < 0.3
