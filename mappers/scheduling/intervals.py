"""Half-open intervals of time in µs since 1970 UTC, and the set operations on sorted lists of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 1440 * MINUTE


class Interval(NamedTuple):
    """From `start` up to but without `end`."""

    start: int
    end: int

    def overlaps(self, other: Interval) -> bool:
        """Whether the two have an instant in common."""
        return self.start < other.end and other.start < self.end


def unite(intervals: Iterable[Interval]) -> list[Interval]:
    """The same instants as sorted intervals that neither overlap nor touch; empty ones vanish."""
    united: list[Interval] = []
    for start, end in sorted(intervals):
        if end <= start:
            continue
        if united and start <= united[-1].end:
            if end > united[-1].end:
                united[-1] = Interval(united[-1].start, end)
        else:
            united.append(Interval(start, end))
    return united


def intersect(left: Sequence[Interval], right: Sequence[Interval]) -> list[Interval]:
    """The instants in both of two united lists."""
    common: list[Interval] = []
    i = j = 0
    while i < len(left) and j < len(right):
        start, end = max(left[i].start, right[j].start), min(left[i].end, right[j].end)
        if start < end:
            common.append(Interval(start, end))
        if left[i].end < right[j].end:
            i += 1
        else:
            j += 1
    return common


def subtract(left: Sequence[Interval], right: Sequence[Interval]) -> list[Interval]:
    """The instants of a united list that are not in another united list."""
    rest: list[Interval] = []
    j = 0
    for start, end in left:
        while j < len(right) and right[j].end <= start:
            j += 1
        i = j
        while i < len(right) and right[i].start < end:
            if right[i].start > start:
                rest.append(Interval(start, right[i].start))
            start = max(start, right[i].end)
            i += 1
        if start < end:
            rest.append(Interval(start, end))
    return rest
