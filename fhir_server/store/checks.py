"""The checks of a transaction that need nothing but the latest versions of the resources it names; all stores use them.

What they promise: `operations.Transaction`. A store makes them before it writes, so that a refused transaction has
changed nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from fhir_server.store.operations import Matches, Transaction, ValueIs, VersionIs, Write, Written
from fhir_server.store.protocol import (
    SEARCH_PARAMETER,
    AssertionFailed,
    Page,
    ReadFailed,
    RegistryChanged,
    StillReferenced,
    TargetsMissing,
)

SOURCES_SHOWN = 10
"""Sources of one target that StillReferenced names at most."""


class Latest(Protocol):
    """The latest version of a resource: its number (0: it never existed), and whether it is there and not deleted."""

    @property
    def version(self) -> int: ...

    @property
    def live(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Checks:
    """The checks of one transaction; `writes` are its writes by `Type/id`, `latest` is asked by `Type/id`."""

    transaction: Transaction
    writes: Mapping[str, Write]
    get_latest: Callable[[str], Latest]

    def check_version(self, assertion: VersionIs) -> None:
        """Raises AssertionFailed when the latest version is another."""
        if self.get_latest(f"{assertion.type}/{assertion.id}").version != assertion.version:
            raise AssertionFailed(assertion)

    def check_required(self) -> None:
        """Raises TargetsMissing for required references that are not there after the writes."""
        missing = [target for target in dict.fromkeys(self.transaction.required) if not self._exists(target)]
        if missing:
            raise TargetsMissing(missing)

    def check_reads(self) -> None:
        """Raises ReadFailed for the first read of what is not there after the writes."""
        for reference in self.transaction.reads:
            if not self._exists(reference):
                raise ReadFailed(reference, deleted=self.get_latest(reference).version > 0)

    def check_released(self, stored: Iterable[tuple[str, str]]) -> None:
        """Raises StillReferenced; `stored`: (target, source) of the current resources that are not written here."""
        sources: dict[str, list[str]] = {target: [] for target in self.transaction.released}
        for target, source in stored:
            sources[target].append(source)
        for source, write in self.writes.items():
            if write.content is not None and write.type not in self.transaction.exempt:
                for target in sources.keys() & set(write.entries.references):
                    sources[target].append(source)
        referenced = {target: sorted(each)[:SOURCES_SHOWN] for target, each in sources.items() if each}
        if referenced:
            raise StillReferenced(referenced)

    def _exists(self, reference: str) -> bool:
        """Whether the resource is there after the writes."""
        write = self.writes.get(reference)
        return self.get_latest(reference).live if write is None else write.content is not None


def check_distinct(writes: Sequence[Write]) -> None:
    """Raises ValueError when two writes are of one resource."""
    if len(writes) > 1 and len({(write.type, write.id) for write in writes}) < len(writes):
        raise ValueError("A transaction has at most one write per resource.")


def check_registry(expected: int | None, number: int) -> None:
    """Raises RegistryChanged when the registry's number is not the expected one (None: any)."""
    if expected not in (None, number):
        raise RegistryChanged(f"the registry is {number}, not {expected}")


def check_value(assertion: ValueIs, value: bytes | None) -> None:
    """Raises AssertionFailed when what is under the key is another value."""
    if value != assertion.value:
        raise AssertionFailed(assertion)


def check_matches(assertion: Matches, page: Page) -> None:
    """Raises AssertionFailed when the page that `assertion.first_page` asks for has other ids or versions."""
    if tuple([match.id for match in page.matches]) != assertion.ids:
        raise AssertionFailed(assertion)
    if assertion.versions not in (None, tuple([match.version for match in page.matches])):
        raise AssertionFailed(assertion)


def changes_registry(written: Iterable[Written]) -> bool:
    """Whether one of the writes raises the number of the registry; a purge does that by itself."""
    return any(each.type == SEARCH_PARAMETER and each.version for each in written)
