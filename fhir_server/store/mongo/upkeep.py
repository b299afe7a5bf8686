"""Work beside the interactions: reindex and purge (https://www.mongodb.com/docs/manual/reference/method/db.collection.bulkWrite/)."""

from __future__ import annotations

from collections.abc import Sequence

import bson
from bson import Int64
from pymongo import UpdateOne
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.write_concern import WriteConcern

from fhir_server.store import checks
from fhir_server.store.mongo.documents import build_entry_fields, match_versions
from fhir_server.store.mongo.indexes import ENTRY_FIELDS, HISTORY, META, WRITERS, Database, Document
from fhir_server.store.mongo.watermark import PURGED
from fhir_server.store.protocol import (
    REINDEXED_AT_ONCE,
    SEARCH_PARAMETER,
    Extract,
    Reindexed,
    Verified,
    describe_wrong_entries,
)


async def reindex(database: Database, type: str, extract: Extract, registry: int, after: str) -> Reindexed:
    """Make the entries of the next current resources of a type anew, by id."""
    batch = await _read_batch(database, type, after)
    await check_registry(database, registry)
    if batch:
        await _write_entries(database, type, batch, extract)
    return Reindexed(len(batch), batch[-1]["_id"] if len(batch) == REINDEXED_AT_ONCE else None)


async def verify(database: Database, type: str, extract: Extract, after: str) -> Verified:
    """Compare the entries of the next current resources of a type with what is made of their texts."""
    wanted, shown = {"_id": {"$gt": after}, "live": True}, {"raw": 1, **dict.fromkeys(ENTRY_FIELDS, 1)}
    cursor = database[type].find(wanted, shown, sort=[("_id", 1)], limit=REINDEXED_AT_ONCE)
    count, last, faults = 0, "", []
    async with cursor:
        async for document in cursor:
            count, last = count + 1, document["_id"]
            fields = build_entry_fields(type, extract(type, document["raw"]))
            if _encode_entries(fields) != _encode_entries(document):
                faults.append(describe_wrong_entries(f"{type}/{last}"))
    return Verified(count, last if count == REINDEXED_AT_ONCE else None, tuple(faults))


def _encode_entries(document: Document) -> dict[str, bytes]:
    """The entries as they are stored, whatever lists or tuples they were made of."""
    return {name: bson.encode({"": document[name]}) for name in ENTRY_FIELDS if name in document}


async def registry_version(database: Database, session: AsyncClientSession | None = None) -> int:
    """How often a SEARCH_PARAMETER resource was written or purged."""
    found = await database[META].find_one({"_id": "registry"}, session=session)
    return found["number"] if found else 0


async def check_registry(database: Database, number: int, session: AsyncClientSession | None = None) -> None:
    """Raises RegistryChanged unless the registry has that number."""
    checks.check_registry(number, await registry_version(database, session))


async def raise_registry(database: Database, session: AsyncClientSession) -> None:
    """Count one more change; of two transactions that do, one is tried again."""
    await database[META].update_one({"_id": "registry"}, {"$inc": {"number": 1}}, upsert=True, session=session)


async def _read_batch(database: Database, type: str, last: str) -> list[Document]:
    wanted, shown = {"_id": {"$gt": last}, "live": True}, {"raw": 1, "version": 1, "order": 1}
    cursor = database[type].find(wanted, shown, sort=[("_id", 1)], limit=REINDEXED_AT_ONCE)
    async with cursor:
        return [document async for document in cursor]


async def _write_entries(database: Database, type: str, batch: Sequence[Document], extract: Extract) -> None:
    changes: list[UpdateOne] = []
    for document in batch:
        fields = build_entry_fields(type, extract(type, document["raw"]))
        gone = dict.fromkeys(ENTRY_FIELDS - fields.keys(), "")
        # Only the version that was read: a newer one has its own entries. `order` tells a life after a purge.
        same = {name: document[name] for name in ("_id", "version", "order")}
        change: Document = {"$unset": gone} if gone else {}
        if fields:
            change["$set"] = fields
        changes.append(UpdateOne(same, change))
    majority = database[type].with_options(write_concern=WriteConcern("majority"))
    await majority.bulk_write(changes, ordered=False)


async def purge(database: Database, reference: str, session: AsyncClientSession) -> None:
    """Remove a resource and its versions, if it is there, and keep their newest time as a floor."""
    type, _, id = reference.partition("/")
    versions = match_versions(reference)
    newest = await database[HISTORY].find_one(versions, {"updated": 1}, sort=[("_id", -1)], session=session)
    if newest is None:
        return
    floor = {"$max": {"newest": Int64(newest["updated"])}}
    await database[WRITERS].update_one({"_id": PURGED}, floor, upsert=True, session=session)
    await database[type].delete_one({"_id": id}, session=session)
    await database[HISTORY].delete_many(versions, session=session)
    if type == SEARCH_PARAMETER:
        await raise_registry(database, session)
