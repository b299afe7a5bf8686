"""Work beside the interactions: reindex and purge (https://www.mongodb.com/docs/manual/reference/method/db.collection.bulkWrite/)."""

from __future__ import annotations

from collections.abc import Sequence

from bson import Int64
from pymongo import AsyncMongoClient, UpdateOne
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from fhir_server.store.mongo.documents import entry_fields, versions_of
from fhir_server.store.mongo.floor import PURGED
from fhir_server.store.mongo.indexes import ARRAYS, HISTORY, WRITERS, Database, Document
from fhir_server.store.protocol import Extract, Progress

_BATCH = 200


async def reindex(database: Database, types: Sequence[str], extract: Extract, progress: Progress) -> int:
    """Make the entries of all current resources of the types anew, a batch at a time; returns how many."""
    total = 0
    for type in set(types):
        total += await database[type].count_documents({"live": True})
    done = 0
    for type in dict.fromkeys(types):
        last = ""
        while batch := await _batch(database, type, last):
            last = batch[-1]["_id"]
            await _renew(database, type, batch, extract)
            done += len(batch)
            progress(done, max(done, total))
    return done


async def _batch(database: Database, type: str, last: str) -> list[Document]:
    wanted = {"_id": {"$gt": last}, "live": True}
    cursor = database[type].find(wanted, {"raw": 1, "version": 1, "order": 1}, sort=[("_id", 1)], limit=_BATCH)
    async with cursor:
        return [document async for document in cursor]


async def _renew(database: Database, type: str, batch: Sequence[Document], extract: Extract) -> None:
    changes: list[UpdateOne] = []
    for document in batch:
        fields = entry_fields(extract(type, document["raw"]))
        gone = dict.fromkeys(ARRAYS - fields.keys(), "")
        # Only the version that was read: a newer one has its own entries. `order` tells a life after a purge.
        same = {name: document[name] for name in ("_id", "version", "order")}
        change: Document = {"$unset": gone} if gone else {}
        if fields:
            change["$set"] = fields
        changes.append(UpdateOne(same, change))
    majority = database[type].with_options(write_concern=WriteConcern("majority"))
    await majority.bulk_write(changes, ordered=False)


async def purge(client: AsyncMongoClient[Document], database: Database, type: str, id: str) -> bool:
    """Remove the resource and its versions, and keep the newest time of them as a floor; False if it was not there."""

    async def forget(session: AsyncClientSession) -> bool:
        versions = versions_of(f"{type}/{id}")
        newest = await database[HISTORY].find_one(versions, {"updated": 1}, sort=[("_id", -1)], session=session)
        if newest is None:
            return False
        floor = {"$max": {"newest": Int64(newest["updated"])}}
        await database[WRITERS].update_one({"_id": PURGED}, floor, upsert=True, session=session)
        await database[type].delete_one({"_id": id}, session=session)
        await database[HISTORY].delete_many(versions, session=session)
        return True

    async with client.start_session() as session:
        return await session.with_transaction(
            forget, read_concern=ReadConcern("snapshot"), write_concern=WriteConcern("majority")
        )
