"""Values under keys: documents of `meta` that change by compare-and-set (https://www.mongodb.com/docs/manual/core/index-ttl/).

    _id `kept KEY`, value, expires (µs by the clock of the store; absent: never), removable (date)

What has expired is left out by every filter. The TTL index on `removable` only frees its space, and later than any
clock could mind.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from bson import Binary, Int64
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import DuplicateKeyError

from fhir_server.store.mongo.indexes import META, Database, Document
from fhir_server.store.protocol import ValuePage

_PREFIX, _END = "kept ", "kept!"  # the sign after a blank: all keys are below it
_LONGEST = timedelta(days=36_500)


async def get_value(database: Database, key: str, now: int, session: AsyncClientSession | None = None) -> bytes | None:
    """What is under a key; in the state that a session's transaction sees, where one is given."""
    found = await database[META].find_one({"_id": f"{_PREFIX}{key}", **_match_unexpired(now)}, session=session)
    return bytes(found["value"]) if found else None


async def put_value_if(
    database: Database, key: str, value: bytes, before: bytes | None, expires: int | None, now: int
) -> bool:
    """Put a value under a key if `before` is there; False if not."""
    document: Document = {"value": Binary(value)}
    if expires is not None:
        remaining = min(timedelta(microseconds=max(0, expires - now)), _LONGEST)
        document |= {"expires": Int64(expires), "removable": datetime.now(UTC) + remaining}
    if before is not None:
        return (await database[META].replace_one(_match_holding(key, before, now), document)).matched_count == 1
    try:
        expired = {"_id": f"{_PREFIX}{key}", "expires": {"$lte": Int64(now)}}
        await database[META].replace_one(expired, document, upsert=True)
    except DuplicateKeyError:  # there, and not expired
        return False
    return True


async def remove_value_if(database: Database, key: str, before: bytes, now: int) -> bool:
    """Remove what is under a key if it is `before`; False if not."""
    return (await database[META].delete_one(_match_holding(key, before, now))).deleted_count == 1


async def list_values(database: Database, prefix: str, after: str, limit: int, now: int) -> ValuePage:
    """The values under the keys that begin with a prefix, by key."""
    keys = {"$gte": f"{_PREFIX}{prefix}", "$gt": f"{_PREFIX}{after}", "$lt": _END}
    cursor = database[META].find({"_id": keys, **_match_unexpired(now)}, sort=[("_id", 1)], limit=limit + 1)
    async with cursor:
        rows = [(document["_id"].removeprefix(_PREFIX), bytes(document["value"])) async for document in cursor]
    return ValuePage.from_rows(rows, prefix, limit)


def _match_unexpired(now: int) -> dict[str, Any]:
    return {"expires": {"$not": {"$lte": Int64(now)}}}


def _match_holding(key: str, value: bytes, now: int) -> dict[str, Any]:
    return {"_id": f"{_PREFIX}{key}", "value": Binary(value), **_match_unexpired(now)}
