"""Reads that show what was committed before them, also on a sharded cluster (docs/decisions/0019).

There a shard may apply its part of a transaction after `mongos` has answered the commit. Until then plain reads of the
shard pass over it, while those with `afterClusterTime` wait for it
(https://www.mongodb.com/docs/manual/core/read-isolation-consistency-recency/#causal-consistency).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from bson import Timestamp
from pymongo.asynchronous.client_session import AsyncClientSession

from fhir_server.store.mongo.indexes import Database


@asynccontextmanager
async def start_session_at(database: Database, time: Timestamp) -> AsyncIterator[AsyncClientSession]:
    """A session whose reads show all that was committed at that time of the database."""
    async with database.client.start_session(causal_consistency=True) as session:
        session.advance_operation_time(time)
        yield session


@asynccontextmanager
async def start_session_behind(database: Database, earlier: AsyncClientSession) -> AsyncIterator[AsyncClientSession]:
    """A session whose reads show all that was committed when `earlier` was last answered."""
    known = earlier.cluster_time
    async with database.client.start_session(causal_consistency=True) as session:
        if known is not None:
            session.advance_cluster_time(known)
            session.advance_operation_time(known["clusterTime"])
        yield session


async def wait_until_visible(
    database: Database, committed: AsyncClientSession, ids: Mapping[str, Sequence[str]], most_ms: int
) -> None:
    """Wait until every shard shows what the session committed: the documents with these `_id`s, by collection."""
    async with start_session_behind(database, committed) as session:
        for name, wanted in ids.items():
            cursor = database[name].find({"_id": {"$in": list(wanted)}}, {"_id": 1}, session=session)
            async with cursor.max_time_ms(most_ms):
                async for _ in cursor:
                    pass
