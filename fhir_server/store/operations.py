"""What a write consists of: the plan that the interactions hand to `store.transact`.

Create, update, patch, delete, batch entries and transaction bundles all become one `Transaction`. The plan was made
outside the store's transaction; whatever it relied on travels with it as assertions and is checked again inside.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from fhir_server.fhir.datetimes import format_instant
from fhir_server.fhir.resource import write_version_members
from fhir_server.search.entries import NO_ENTRIES, Entries
from fhir_server.search.query import Query

Method = Literal["POST", "PUT", "PATCH", "DELETE"]


class Content(NamedTuple):
    """A resource's text around the members that only the commit knows."""

    head: bytes
    tail: bytes

    def build_text(self, version: int, last_updated: int) -> bytes:
        """`head + b'"versionId":"3","lastUpdated":"2026-11-23T08:00:00.000Z"' + tail`; `last_updated` is in µs."""
        return b"".join((self.head, write_version_members(version, format_instant(last_updated)), self.tail))


class Write(NamedTuple):
    """One new version of `type`/`id`; `content` None is a deletion (nothing is written where nothing is there)."""

    method: Method
    type: str
    id: str
    content: Content | None = None
    entries: Entries = NO_ENTRIES


@dataclass(frozen=True, slots=True)
class VersionIs:
    """The latest version of `type`/`id` (a deletion counts as one) is `version`; 0: it never existed."""

    type: str
    id: str
    version: int


class Matches(NamedTuple):
    """The first `len(ids) + 1` ids that `query` (unsorted, one scope) finds are exactly `ids`; () asserts no match.

    `seen`: `Page.seen` of the page that found all of them; the store may look at what was written since alone.
    `versions`: those of the ids, where these have to be as they were found.
    """

    query: Query
    ids: tuple[str, ...]
    seen: int | None = None
    versions: tuple[int, ...] | None = None

    @property
    def first_page(self) -> Query:
        """The query of those `len(ids) + 1` ids."""
        return replace(self.query, sort=(), after=None, count=len(self.ids) + 1)


@dataclass(frozen=True, slots=True)
class ValueIs:
    """The value under `key` (`Store.get_value`) is `value`; None: there is none.

    On a store with snapshot isolation a value that is put while the transaction runs is not seen by it: who puts one
    waits for open transactions then.
    """

    key: str
    value: bytes | None


Assertion = VersionIs | Matches | ValueIs


@dataclass(frozen=True, slots=True)
class Transaction:
    """An all-or-nothing list of writes, at most one per resource.

    - `assertions` hold before the first write; `required` (references `Type/id`) exist and are not deleted after the
      last one; `released` (references `Type/id`, deleted here) are referred to by no current resource after the last
      one, types in `exempt` (AuditEvent, Provenance) aside.
    - `purged` (references `Type/id`) are removed physically with their histories, after everything else; what is not
      there needs no removal.
    - `reads` and `queries` are answered from the state after the writes, inside the transaction. A read of what is
      absent or deleted fails the transaction.
    - `registry`, when given, is what `Store.registry_version` answered when the entries of the writes were made; the
      search parameters in force must not have changed since.
    - `locks` are names that other transactions with overlapping criteria also carry; a store that serialises all
      writes may ignore them.
    """

    writes: tuple[Write, ...] = ()
    assertions: tuple[Assertion, ...] = ()
    required: tuple[str, ...] = ()
    released: tuple[str, ...] = ()
    exempt: frozenset[str] = frozenset()
    purged: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    queries: tuple[Query, ...] = ()
    locks: tuple[str, ...] = ()
    registry: int | None = None


class Written(NamedTuple):
    """What a write made: version 0 when there was nothing to delete; `created` when none was current before."""

    type: str
    id: str
    version: int
    last_updated: int
    created: bool
