"""Results that are remembered as long as they are few and small together (docs/access.md)."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class BoundedCache(Generic[T]):
    """At most `count` results whose weights are at most `weight` together; the oldest is forgotten first.

    `weigh`: (result, enough) → how much it takes; beyond `enough` it need not be counted to the end. What takes more
    than a tenth of all is made each time.
    """

    def __init__(self, count: int, weight: int, weigh: Callable[[T, int], int]) -> None:
        self._count, self._most, self._weigh = count, weight, weigh
        self._kept: dict[Hashable, tuple[T, int]] = {}
        self.weight = 0
        """Of all that is remembered."""

    def recall(self, key: Hashable) -> T | None:
        """What is remembered under the key."""
        found = self._kept.get(key)
        return None if found is None else found[0]

    def keep(self, key: Hashable, made: T) -> None:
        """Remember a result, unless it is too large."""
        enough = self._most // 10
        weight = self._weigh(made, enough)
        if weight > enough:
            return
        self.weight += weight - self._kept.pop(key, (made, 0))[1]
        self._kept[key] = made, weight
        while len(self._kept) > self._count or self.weight > self._most:
            self.weight -= self._kept.pop(next(iter(self._kept)))[1]

    def find(self, key: Hashable, make: Callable[[], T]) -> T:
        """What is remembered under the key, or what `make` gives."""
        found = self._kept.get(key)
        if found is not None:
            return found[0]
        made = make()
        self.keep(key, made)
        return made
