"""Writes `tests/slow_tests.txt`: what `make check` leaves to `make test`, so that the rest takes a certain time.

    python -m scripts.list_slow_tests --seconds 15

Runs the tests that are neither long nor external in this process, some minutes, and adds up the processor time of each
function and its fixtures; what fixtures of a module or of the whole run take is no test's. The slowest functions are
listed until the others together take no more than the seconds given; each file keeps one, unless that takes more than
a second. To run on an idle machine.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter, defaultdict
from collections.abc import Generator, Mapping
from pathlib import Path

import pytest

LARGE = 1.0
"""Seconds of processor time that the one function that a file keeps may take."""

LIST = Path(__file__).parent.parent / "tests" / "slow_tests.txt"


def find_slow(seconds: Mapping[str, float], most: float) -> list[str]:
    """The names, `file::function`, of the slowest, so that the others together take no more than `most` seconds."""
    left, slow = sum(seconds.values()), []
    in_file = Counter(name.partition("::")[0] for name in seconds)
    for name, spent in sorted(seconds.items(), key=lambda item: -item[1]):
        file = name.partition("::")[0]
        if left > most and (in_file[file] > 1 or spent > LARGE):
            left -= spent
            in_file[file] -= 1
            slow.append(name)
    return sorted(slow)


class Meter:
    """A pytest plugin that adds up the processor time (s) of each test function, shared fixtures aside."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._shared = 0.0
        self._is_in_shared = False

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        self._shared, began = 0.0, time.process_time()
        result = yield
        self.seconds[item.nodeid.partition("[")[0]] += time.process_time() - began - self._shared
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[object]) -> Generator[None, object, object]:
        if fixturedef.scope == "function" or self._is_in_shared:
            return (yield)
        self._is_in_shared, began = True, time.process_time()
        try:
            return (yield)
        finally:
            self._is_in_shared = False
            self._shared += time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=15.0, help="processor time of what make check runs")
    most, meter, before = parser.parse_args().seconds, Meter(), LIST.read_text(encoding="utf-8")
    LIST.write_text("", encoding="utf-8")
    if pytest.main(["-n", "0", "-p", "no:cacheprovider", "-m", "not long and not external"], [meter]):
        LIST.write_text(before, encoding="utf-8")
        raise SystemExit("A test fails: the list stays as it was.")
    slow = find_slow(meter.seconds, most)
    LIST.write_text("".join(f"{name}\n" for name in slow), encoding="utf-8")
    whole = sum(meter.seconds.values())
    print(f"{len(slow)} of {len(meter.seconds)} functions are slow: {whole:.0f} s of processor time in all,")
    print(f"{whole - sum(meter.seconds[name] for name in slow):.0f} s without them.")


if __name__ == "__main__":
    main()
