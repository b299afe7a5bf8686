"""The store protocol: all that the server asks of a database; `contract.py` tests every promise made here.

All methods are async; all errors are the ones below. `last_updated` is an int in µs since 1970 UTC, always a whole
number of milliseconds. A store is shared by many tasks at once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import NamedTuple, Protocol

from fhir_server.search.entries import Entries
from fhir_server.search.query import Clause, Query, SortKey
from fhir_server.store.operations import Assertion, Method, Transaction, Written


class StoreError(Exception):
    """Base of the errors a store raises on purpose."""


class AssertionFailed(StoreError):
    """An assertion of the plan no longer holds; nothing was written. The interaction plans again."""

    def __init__(self, assertion: Assertion) -> None:
        super().__init__(f"{assertion} no longer holds")
        self.assertion = assertion


class RegistryChanged(StoreError):
    """Search parameters were written since the plan was made; nothing was written. The interaction plans again."""


class TargetsMissing(StoreError):
    """References that must exist do not (or are deleted); nothing was written. `references` holds each `Type/id`."""

    def __init__(self, references: Sequence[str]) -> None:
        super().__init__(f"no current {', '.join(references)}")
        self.references = tuple(references)


class StillReferenced(StoreError):
    """A deleted resource is still referred to; nothing was written. Maps each target to some of its sources."""

    def __init__(self, sources: Mapping[str, Sequence[str]]) -> None:
        super().__init__(", ".join(sources))
        self.sources = {target: tuple(found) for target, found in sources.items()}


class ReadFailed(StoreError):
    """A read inside a transaction found nothing (`deleted`: a deletion); nothing was written."""

    def __init__(self, reference: str, deleted: bool) -> None:
        super().__init__(reference)
        self.reference = reference
        self.deleted = deleted


class WriteConflict(StoreError):
    """Another transaction won; nothing was written and the same transaction may be tried again."""


class LastingConflict(WriteConflict):
    """Others won for as long as the store tries a transaction by itself: to try it at once again is of no use."""


class TooLargeForStore(StoreError):
    """More than the database takes in one document or transaction; nothing was written."""


class StoreUnavailable(StoreError):
    """The database cannot do it now (disk full, read-only, no primary): nothing was written. Str is a full sentence."""


class BudgetExceeded(StoreError):
    """A search would need too much; it was stopped. Str is a full sentence that names the limit."""


class Expired(StoreError):
    """The token of `read_changes` is older than what the store keeps."""


class Stored(NamedTuple):
    """One version of a resource; `raw` is the complete JSON text, None for a deletion."""

    type: str
    id: str
    version: int
    last_updated: int
    method: Method
    raw: bytes | None

    @property
    def reference(self) -> str:
        """`Type/id`."""
        return f"{self.type}/{self.id}"


class Page(NamedTuple):
    """Matches in order; `next` is the position of the last one when more follow (`Query.after` of the next page).

    `seen`: a number of the store's for the state that it looked at, for `operations.Matches`; None where it has none.
    """

    matches: tuple[Stored, ...]
    next: SortKey | None
    seen: int | None = None


def cut_page(found: Sequence[tuple[SortKey, Stored]], query: Query) -> Page:
    """The page of a query from its matches in order, one more than it wants if there are more.

    Matches without text are those that a store did not read because the texts before them are large enough.
    """
    page: list[Stored] = []
    size = 0
    for position, (_, match) in enumerate(found[: query.count]):
        size += len(match.raw or b"")
        if page and (match.raw is None or (query.most_bytes is not None and size > query.most_bytes)):
            return Page(tuple(page), found[position - 1][0])
        page.append(match)
    return Page(tuple(page), found[query.count - 1][0] if len(found) > query.count else None)


class Committed(NamedTuple):
    """What `transact` did, each in the order of the transaction's writes, reads and queries."""

    written: tuple[Written, ...]
    found: tuple[Stored, ...] = ()
    pages: tuple[Page, ...] = ()


HistoryKey = tuple[int, str, int]
"""(last_updated, `Type/id`, version) of the last version of a history page."""


@dataclass(frozen=True, slots=True)
class HistoryQuery:
    """Versions newest first: by lastUpdated descending, then `Type/id` ascending, then version descending.

    `types`: () for the whole system; `id` only with one type. `since` (µs, inclusive): versions made at or after it.
    `at` (closed interval, µs): versions that were current at some moment in it. `before` continues after that key.
    `most_bytes`, `brief`: as in `search.query.Query`.
    """

    types: tuple[str, ...] = ()
    id: str | None = None
    since: int | None = None
    at: tuple[int, int] | None = None
    count: int = 20
    before: HistoryKey | None = None
    most_bytes: int | None = None
    brief: bool = False


def cut_history(found: Iterable[Stored], query: HistoryQuery) -> tuple[tuple[Stored, ...], bool]:
    """The versions of a page from those that were found, and whether more follow; reads no further than it must."""
    page: list[Stored] = []
    size = 0
    for version in found:
        size += len(version.raw or b"")
        if len(page) == query.count or (page and query.most_bytes is not None and size > query.most_bytes):
            return tuple(page), bool(page)
        page.append(version)
    return tuple(page), False


class HistoryPage(NamedTuple):
    """Versions and, when more follow, the key to continue from.

    `horizon` (µs): every version that commits after this page was read has `last_updated >= horizon`; what the page
    or its successors do not show at or before it does not exist. It is a safe `since`.
    """

    versions: tuple[Stored, ...]
    next: HistoryKey | None
    horizon: int


@dataclass(frozen=True, slots=True)
class Changes:
    """Committed versions in the store's commit order, and the opaque token to continue from."""

    versions: tuple[Stored, ...]
    token: str


Extract = Callable[[str, bytes], Entries]
"""(type, raw) → index entries; pure."""

Progress = Callable[[int, int], None]
"""(done, in all) → None."""

SEARCH_PARAMETER = "SearchParameter"
"""The resource type whose writes and purges raise the number of the registry."""

REINDEXED_AT_ONCE = 200
"""Resources in a batch of `Store.reindex`."""


@dataclass(frozen=True, slots=True)
class Reindexed:
    """A batch of `Store.reindex`: how many resources, and the position to go on from (None: the type is done)."""

    count: int
    next: str | None


@dataclass(frozen=True, slots=True)
class Verified:
    """A batch of `Store.verify`: how many resources, the position to go on from (None: the type is done), faults.

    A fault is a sentence that names the resource.
    """

    count: int
    next: str | None
    faults: tuple[str, ...]


def describe_wrong_entries(reference: str) -> str:
    """The fault of a resource that is indexed otherwise than by its text."""
    return f"The index entries of `{reference}` are not those of its text."


VALUES_PER_PAGE = 100
"""Values in a page of `Store.list_values` by default."""


@dataclass(frozen=True, slots=True)
class ValuePage:
    """(key, value) by key, and when more follow the last key (`after` of the next page)."""

    values: tuple[tuple[str, bytes], ...]
    next: str | None

    @classmethod
    def from_rows(cls, rows: Iterable[tuple[str, bytes]], prefix: str, limit: int) -> ValuePage:
        """From up to `limit + 1` rows by key, those beyond the prefix included."""
        values = tuple(takewhile(lambda row: row[0].startswith(prefix), rows))
        return cls(values[:limit], values[limit - 1][0] if len(values) > limit else None)


class Store(Protocol):
    """Where resources live. See `operations.Transaction` for what `transact` promises."""

    async def transact(self, transaction: Transaction) -> Committed:
        """Apply all writes or none. Durable when it returns.

        Per resource `version` goes up by one (deletions are versions too) and `last_updated` rises strictly.
        Raises AssertionFailed, RegistryChanged, TargetsMissing, StillReferenced, ReadFailed, WriteConflict,
        TooLargeForStore, StoreUnavailable.
        """
        ...

    async def read(self, type: str, id: str) -> Stored | None:
        """The current version (a deletion has raw None), or None if it never existed."""
        ...

    async def vread(self, type: str, id: str, version: int) -> Stored | None:
        """That version (a deletion has raw None), or None."""
        ...

    async def read_many(self, references: Iterable[str], deletions: bool = False) -> Mapping[str, Stored]:
        """The current resources among `Type/id` references, by reference; with `deletions` also the deleted ones."""
        ...

    async def search(self, query: Query) -> Page:
        """Current resources that match. Raises BudgetExceeded."""
        ...

    async def count(self, query: Query) -> int:
        """How many resources match, whatever `query.count` and `query.after`. Raises BudgetExceeded."""
        ...

    async def explain(self, query: Query) -> tuple[str, ...]:
        """Sentences: plan, indexes in their order, rows examined, time. May run the search. Raises BudgetExceeded."""
        ...

    async def find_matching(self, references: Sequence[str], where: Clause) -> frozenset[str]:
        """Those of the given current resources (`Type/id`, one type) that match `where`."""
        ...

    async def history(self, query: HistoryQuery) -> HistoryPage:
        """A page of versions."""
        ...

    async def read_changes(self, after: str | None, limit: int = 1000) -> Changes:
        """Versions committed after the token (None: from the beginning). Raises Expired."""
        ...

    async def reindex(self, type: str, extract: Extract, registry: int, after: str | None = None) -> Reindexed:
        """Make the index entries of the next current resources of a type anew, in an order that stands still.

        Never overwrites the entries of a newer version. Raises RegistryChanged when the registry has another number.
        """
        ...

    async def verify(self, type: str, extract: Extract, after: str | None = None) -> Verified:
        """Compare the index entries of the next current resources of a type with what `extract` makes of their texts.

        In the order of `reindex`; changes nothing.
        """
        ...

    async def verify_database(self) -> tuple[str, ...]:
        """Faults of the database as a whole, a sentence each; none where it looks after itself."""
        ...

    async def registry_version(self) -> int:
        """A number that rises, in the same transaction, with every write or purge of a SEARCH_PARAMETER resource."""
        ...

    async def wait_for_open_transactions(self) -> None:
        """Return when every transaction that had begun before the call, in whatever process, has ended."""
        ...

    async def get_value(self, key: str) -> bytes | None:
        """The value under a key; None where there is none or it has expired."""
        ...

    async def put_value_if(self, key: str, value: bytes, before: bytes | None, expires: int | None = None) -> bool:
        """Put a value under a key if `before` is what is there (None: nothing); durable. False when it is not.

        From `expires` on (µs since 1970 by the store's clock; None: never) the value counts as absent everywhere.
        A key has at least one character.
        """
        ...

    async def remove_value_if(self, key: str, before: bytes) -> bool:
        """Remove the value under a key if it is `before`; durable. False when it is not."""
        ...

    async def list_values(self, prefix: str, after: str = "", limit: int = VALUES_PER_PAGE) -> ValuePage:
        """The values under keys that begin with `prefix` and come after `after`, in the order of code points."""
        ...

    async def page_key(self) -> bytes:
        """32 random bytes, made once per database: the key of page links, shared by all processes."""
        ...

    async def check_ready(self) -> None:
        """Return if the store can answer now; raise StoreUnavailable otherwise."""
        ...

    async def check_writable(self) -> None:
        """Return if a write is possible now, as far as can be told; raise StoreUnavailable with the cause otherwise."""
        ...

    async def check_full_text(self) -> None:
        """Return if the store keeps the texts of entries; raise StoreUnavailable where its surroundings forbid it."""
        ...

    async def close(self) -> None:
        """Finish what is queued and release everything."""
        ...


@dataclass(frozen=True, slots=True)
class Budget:
    """What one question to the store may take, beyond which it is stopped with BudgetExceeded.

    `seconds`; `rows`: index rows and resources looked at, as the store counts or estimates them.
    """

    seconds: float = 20.0
    rows: int = 1_000_000

    def build_time_error(self) -> BudgetExceeded:
        """The error of a search that takes longer."""
        return BudgetExceeded(
            f"The search was stopped after {self.seconds:g} seconds, the longest that one search may take."
        )

    def build_rows_error(self) -> BudgetExceeded:
        """The error of a search that looks at more."""
        return BudgetExceeded(
            f"The search was stopped after about {self.rows:,} rows of the index, the most that one search may look at."
        )


BUDGET = Budget()
"""What a search may take by default."""


Clock = Callable[[], int]
"""The time now, µs since 1970 UTC."""


class Opener(Protocol):
    """Opens a store: (store URI, clock, what a search may take, whether a file may be made) → the open store."""

    def __call__(self, uri: str, clock: Clock, budget: Budget = BUDGET, create: bool = True, /) -> Awaitable[Store]: ...
