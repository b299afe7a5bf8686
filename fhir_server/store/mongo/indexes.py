"""The one table of indexes, and what creates and verifies them (https://www.mongodb.com/docs/manual/core/indexes/index-types/index-multikey/).

At most one array path an index: MongoDB refuses two. Sparse where many resources have no such entry.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pymongo import IndexModel
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import OperationFailure

from fhir_server.store.mongo.referring import LOOSE
from fhir_server.store.mongo.sortkeys import FIELD, build_path, list_sorts
from fhir_server.store.protocol import StoreUnavailable

Document = dict[str, Any]
Collection = AsyncCollection[Document]
Database = AsyncDatabase[Document]

HISTORY, LOCKS, META, WRITERS = "history", "locks", "meta", "writers"
"""The collections beside those of the types, which are named like the type; a type begins with a capital letter."""

LOCK_SECONDS = 600
"""How long a lock document outlives the last transaction that touched it; it needs to outlive none."""

LEASE_SECONDS = 300
"""How long a writer's floor outlives its renewal: longer than `watermark.RENEWED_WITHIN` and a transaction's life."""

VALUE_SECONDS = 3600
"""How long an expired value stays at least: longer than the clocks of a process and the database may differ."""


@dataclass(frozen=True, slots=True)
class Index:
    """An index: its name, keys with their direction, what it leaves out, and its TTL in s.

    `sparse`: documents without the keys; `live`: deletions, so that only a filter by `live` can use it.
    """

    name: str
    keys: tuple[tuple[str, int], ...]
    sparse: bool = False
    live: bool = False
    expires: int | None = None

    def build_model(self) -> IndexModel:
        """For the driver."""
        options: dict[str, Any] = {"name": self.name}
        if self.sparse:
            options["sparse"] = True
        if self.live:
            options["partialFilterExpression"] = {"live": True}
        if self.expires is not None:
            options["expireAfterSeconds"] = self.expires
        return IndexModel(list(self.keys), **options)


TYPE_INDEXES = (
    Index("terms_id", (("terms", 1), ("_id", 1))),
    Index("dates_low", (("dates.p", 1), ("dates.l", 1), ("dates.h", 1)), sparse=True),
    Index("dates_high", (("dates.p", 1), ("dates.h", 1), ("dates.l", 1)), sparse=True),
    Index("numbers", (("numbers.p", 1), ("numbers.k", 1), ("numbers.l", 1), ("numbers.h", 1)), sparse=True),
    Index("updated", (("live", 1), ("updated", 1), ("_id", 1))),
    Index("updated_down", (("live", 1), ("updated", -1), ("_id", 1))),
)
"""Of the collection of each resource type; `_id` is the order of a search without `_sort`, also within one term."""


def list_indexes(type: str) -> tuple[Index, ...]:
    """All of the collection of a resource type: two more for each sort that has keys, for it alone."""
    sorts = [
        Index(f"sort_{parameter}{end}", ((build_path(parameter, bool(end)), direction), ("_id", 1)), live=True)
        for parameter in list_sorts(type)
        for end, direction in (("", 1), ("_down", -1))
    ]
    return (*TYPE_INDEXES, *sorts)


FIXED_INDEXES: Mapping[str, tuple[Index, ...]] = {
    HISTORY: (
        Index("type", (("type", 1), ("updated", -1), ("_id", 1))),
        Index("order", (("order", 1), ("_id", 1))),
    ),
    LOCKS: (Index("expiry", (("touched", 1),), expires=LOCK_SECONDS),),
    WRITERS: (Index("expiry", (("renewed", 1),), expires=LEASE_SECONDS),),
    META: (Index("expiry", (("removable", 1),), expires=VALUE_SECONDS),),
}

ARRAY_FIELDS = frozenset({"terms", "dates", "numbers"})
"""The fields of a current document that are arrays."""

ENTRY_FIELDS = ARRAY_FIELDS | {FIELD, LOOSE, "texts"}
"""The fields of a current document that its index entries make."""


def is_type(collection: str) -> bool:
    """Whether a collection holds the current resources of a type."""
    return collection[:1].isupper()


class Collections:
    """The collections of a database that are known to be there with their indexes."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._verified: set[str] = set()

    async def prepare(self) -> None:
        """Make or verify the indexes of the collections that every database has and of the types it holds by now.

        Raises StoreUnavailable when an index of that name is there with other keys.
        """
        existing = filter(is_type, await self._database.list_collection_names())
        await self.ensure([*FIXED_INDEXES, *existing])

    async def ensure(self, names: Iterable[str]) -> None:
        """Make or verify those that this process has not seen; outside of any transaction."""
        for name in names:
            if name not in self._verified:
                await _create_indexes(self._database[name], FIXED_INDEXES.get(name) or list_indexes(name))
                self._verified.add(name)


_CONFLICTS = frozenset({85, 86})
"""IndexOptionsConflict, IndexKeySpecsConflict."""


async def _create_indexes(collection: Collection, indexes: tuple[Index, ...]) -> None:
    try:
        await collection.create_indexes([index.build_model() for index in indexes])
    except OperationFailure as error:
        if error.code not in _CONFLICTS:
            raise
        raise StoreUnavailable(
            f"An index of the collection `{collection.name}` is not the one that this server needs "
            f"({(error.details or {}).get('errmsg', error)}). Drop it, then start again: the server makes its own."
        ) from error
