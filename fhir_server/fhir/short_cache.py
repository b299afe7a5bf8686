"""Results that are kept for short texts: thousands of long ones fill the memory, and few are asked for twice."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import TypeVar

T = TypeVar("T")

LONGEST = 256
"""Characters of a text whose result is kept."""


def cache_short(size: int) -> Callable[[Callable[[str], T]], Callable[[str], T]]:
    """Keep the results of the last `size` texts that are short."""

    def decorate(function: Callable[[str], T]) -> Callable[[str], T]:
        cached = lru_cache(size)(function)

        @wraps(function)
        def find(text: str) -> T:
            return cached(text) if len(text) <= LONGEST else function(text)

        return find

    return decorate
