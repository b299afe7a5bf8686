"""Whether others changed what a transaction changes, while the database kept refusing it for a write conflict.

With a fifth of its cache full of changes, MongoDB 5.0 answers WriteConflict although nobody else writes, and later
versions may say that the transaction is gone (https://www.mongodb.com/docs/manual/core/wiredtiger/). One that takes so
much would never be written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pymongo.errors import PyMongoError

from fhir_server.store.mongo.commit import Work, group_by_type
from fhir_server.store.mongo.indexes import LOCKS, Database
from fhir_server.store.mongo.locks import hash_name
from fhir_server.store.operations import Transaction

LEAST_LARGE = 1_000_000
"""Bytes of text below which no transaction fills a cache: of the smallest, of 256 MB, it takes a tenth of a fifth."""


def is_large(transaction: Transaction) -> bool:
    """Whether a transaction may be too large for the database's cache."""
    return sum(len(each.content.head) + len(each.content.tail) for each in transaction.writes if each.content) > (
        LEAST_LARGE
    )


@dataclass(frozen=True, slots=True)
class Marks:
    """What a transaction changes, as it stands: the versions of its resources, how often its locks were touched."""

    versions: Mapping[str, int]
    touches: Mapping[bytes, int]


async def read_marks(database: Database, work: Work) -> Marks | None:
    """The marks at this moment; None where the database does not tell them."""
    versions: dict[str, int] = {}
    touches: dict[bytes, int] = {}
    try:
        for type, ids in group_by_type(f"{write.type}/{write.id}" for write in work.transaction.writes).items():
            async with database[type].find({"_id": {"$in": ids}}, {"version": 1}) as cursor:
                versions.update({f"{type}/{found['_id']}": found["version"] async for found in cursor})
        names = [hash_name(name) for name in work.locks]
        async with database[LOCKS].find({"_id": {"$in": names}}, {"count": 1}) as cursor:
            touches.update({bytes(found["_id"]): found["count"] async for found in cursor})
    except PyMongoError:
        return None
    return Marks(versions, touches)
