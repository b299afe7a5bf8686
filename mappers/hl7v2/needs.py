"""What must be read before a message becomes a transaction, and the criteria that find it."""

from __future__ import annotations

from collections.abc import Mapping as Mapping_
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote

from mappers.hl7v2.changes import Identity, Resource
from mappers.hl7v2.mapping import Mapping
from mappers.hl7v2.patients import list_identities

REPOINTED_AT_ONCE = 500
"""References to the prior of a merge that its transaction changes."""


class Need(NamedTuple):
    """What must be read before the bundle can be built: resources of a type that have one of the identities."""

    key: str
    type: str
    identities: tuple[Identity, ...]

    @property
    def query(self) -> str:
        """The search criteria that find them."""
        return write_criteria(self.identities)


@dataclass(frozen=True, slots=True)
class State:
    """What the server holds: by key of a Need its matches; by reference of a prior what refers to it (up to one more
    than `REPOINTED_AT_ONCE`); and by reference of an Appointment its Slots.
    """

    matches: Mapping_[str, Sequence[Resource]] = field(default_factory=dict)
    referrers: Mapping_[str, Sequence[Resource]] = field(default_factory=dict)
    slots: Mapping_[str, Sequence[Resource]] = field(default_factory=dict)


def write_criteria(identities: Sequence[Identity]) -> str:
    """The search criteria that find a resource by any of its identities."""
    return "identifier=" + ",".join(f"{_quote(s)}%7C{_quote(v)}" for s, v in identities)


@lru_cache(maxsize=1024)
def _quote(text: str) -> str:
    for mark in ("\\", "|", ",", "$"):
        text = text.replace(mark, f"\\{mark}")
    return quote(text, safe="")


def find_needs(mapping: Mapping) -> tuple[Need, ...]:
    """What to read for `build_bundle`: each resource that has an identity, then the prior of each merge."""
    needs = []
    for change in mapping.changes:
        if change.identity:
            identities = [change.identity]
            if change.type in ("Patient", "Encounter", "Appointment"):
                identities += [each for each in list_identities(change.resource) if each not in identities]
            needs.append(Need(change.url, change.type, tuple(identities)))
    for index, merge in enumerate(mapping.merges):
        needs.append(Need(f"prior {index}", merge.type, merge.prior))
    return tuple(needs)
