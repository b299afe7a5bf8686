"""Lines packed into claims within the limits of an 837P: 50 lines and 12 diagnoses (loops 2400 and 2300 HI)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

MAX_LINES = 50
MAX_DIAGNOSES = 12

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Pack(Generic[T]):
    """Lines of one claim and its diagnosis keys in order of first use."""

    lines: tuple[T, ...]
    diagnoses: tuple[str, ...]


def pack_lines(lines: Iterable[tuple[T, Sequence[str]]]) -> list[Pack[T]]:
    """Each line with its diagnosis keys goes into the first claim that still has room for it.

    Nothing is dropped: a line whose own diagnoses exceed 12 gets a claim with all of them, in which only lines join it
    that add none. That claim is too large for an 837P, so that the scrub rule `diagnosis-count` holds it for a person.
    """
    packs: list[tuple[list[T], dict[str, None]]] = []
    for line, keys in lines:
        own = dict.fromkeys(keys)
        for members, keys_of_pack in packs:
            together = keys_of_pack.keys() | own.keys()
            if len(members) < MAX_LINES and len(together) <= max(MAX_DIAGNOSES, len(keys_of_pack)):
                members.append(line)
                keys_of_pack.update(own)
                break
        else:
            packs.append(([line], dict(own)))
    return [Pack(tuple(members), tuple(keys_of_pack)) for members, keys_of_pack in packs]
