"""What a message says of resources: for each its identity, the values that it sets, and the paths that it deletes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha1
from typing import Any, NamedTuple
from uuid import UUID

Resource = dict[str, Any]

NAMESPACE = UUID("6b1f3a3e-5f0e-5c59-9d5b-0a2a60f1e2a7")


MENTIONED = frozenset({"Practitioner", "Organization", "Location"})
"""Types that fields mention again and again: the first mention of an element stands."""


CHOICE = re.compile(
    "(allowed|collected|deceased|effective|medication|multipleBirth|occurrence|onset|performed|value)[A-Z].*"
)
"""Elements of which one type at a time may be there."""


class Identity(NamedTuple):
    """The identifier that a resource is known by: value and assigning authority, never the value alone."""

    system: str
    value: str


@dataclass(slots=True)
class Change:
    """One resource of the message. `url` is its fullUrl in the bundle; without identity it is always created.

    `delete` names paths to take away (`telecom|source` for the entries of one source); `sources` the fields that
    the message speaks of; `on_create` what is set only where the resource is not known yet, and `required` what it
    must have then. `lists` says of a list whether the message's entries are added to it (`add`), taken out of it
    (`remove`) or stand for all of it. A `credit` undoes a charge.
    """

    type: str
    url: str
    identity: Identity | None
    resource: Resource
    delete: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    on_create: Resource = field(default_factory=dict)
    create_only: bool = False
    lists: dict[str, str] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    credit: bool = False

    @property
    def reference(self) -> dict[str, str]:
        return {"reference": self.url}


class Changes:
    """The changes of one message in the order of their first mention; one for each identity."""

    __slots__ = ("_by_key", "_by_url", "_counts", "seed")

    def __init__(self, seed: str) -> None:
        """`seed` tells the message from others: resources without identity get their URL by it."""
        self._by_key: dict[tuple[str, str, str], Change] = {}
        self._by_url: dict[str, Change] = {}
        self._counts: Counter[tuple[str, ...]] = Counter()
        self.seed = seed

    def __iter__(self) -> Iterator[Change]:
        return iter(self._by_key.values())

    def add(self, resource: Resource, identity: Identity | None, *, create_only: bool = False) -> Change:
        """Adds a resource or completes the one of the same identity; the first value of an element wins.

        `create_only` marks a resource that is only mentioned: it is created where it is not known.
        """
        type_ = resource["resourceType"]
        if identity:
            key = (type_, *identity)
        else:
            key = (type_, self.seed, str(len(self._by_key)))
        known = self._by_key.get(key)
        if known:
            if type_ in MENTIONED:
                known.resource |= {name: value for name, value in resource.items() if name not in known.resource}
            else:
                complete(known.resource, resource)
            known.create_only = known.create_only and create_only
            return known
        url = f"urn:uuid:{derive_uuid('|'.join(key))}"
        change = self._by_key[key] = Change(type_, url, identity, resource, create_only=create_only)
        self._by_url[url] = change
        return change

    def find(self, reference: Mapping[str, Any] | None) -> Change | None:
        """The change that a reference leads to."""
        return self._by_url.get(str(reference.get("reference"))) if reference else None

    def count(self, *key: str) -> int:
        """How often this was called with a key, this time included: the ordinal of what has no number."""
        self._counts[key] += 1
        return self._counts[key]

    def of_type(self, resource_type: str) -> list[Change]:
        """The changes of a type."""
        return [change for change in self if change.type == resource_type]


def derive_uuid(name: str) -> str:
    """The UUID of version 5 (https://www.rfc-editor.org/rfc/rfc9562#section-5.5) of a name.

    As `uuid.uuid5` has it, in half the time: a message derives twenty.
    """
    octets = bytearray(sha1(NAMESPACE.bytes + name.encode(), usedforsecurity=False).digest()[:16])
    octets[6], octets[8] = octets[6] & 0x0F | 0x50, octets[8] & 0x3F | 0x80
    text = octets.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def complete(target: Resource, addition: Resource) -> None:
    """Adds what the target lacks: elements, and entries of its lists that are not there yet."""
    for name, value in addition.items():
        present = target.get(name)
        if present is None:
            choice = find_choice(name)  # `valueString` has no room beside `valueQuantity`
            if not choice or all(find_choice(each) != choice for each in target):
                target[name] = value
        elif isinstance(present, list) and isinstance(value, list):
            present.extend(each for each in value if each not in present)
        elif isinstance(present, dict) and isinstance(value, dict):
            complete(present, value)


@lru_cache(maxsize=1024)
def find_choice(name: str) -> str:
    """`value` of `valueString`: the element of which this is one type; "" for an element of one type alone."""
    found = CHOICE.fullmatch(name)
    return found[1] if found else ""
