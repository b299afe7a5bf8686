"""Histories: versions newest first, along one index each (https://hl7.org/fhir/R4/http.html#history)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fhir_server.store.mongo.compile import Filter, match_all, match_one_of
from fhir_server.store.mongo.documents import build_version_id, match_versions, parse_version
from fhir_server.store.mongo.indexes import HISTORY, Database, is_type
from fhir_server.store.mongo.watermark import CommitWatermark
from fhir_server.store.protocol import HistoryKey, HistoryPage, HistoryQuery, Stored, cut_history

_AT_ONCE = 100
"""Versions that are read before their size is looked at."""


async def history(database: Database, watermark: CommitWatermark, query: HistoryQuery) -> HistoryPage:
    """A page of versions. The horizon is read first: what commits below it is on the page already."""
    horizon = await watermark.read_horizon()
    if not query.types:
        # Each type is read along its part of the index, and the parts are merged: no index has the times of all.
        query = replace(query, types=tuple(sorted(filter(is_type, await database.list_collection_names()))))
    found: list[Stored] = []
    before = query.before
    while query.count and len(found) <= query.count:
        wanted = min(query.count + 1 - len(found), _AT_ONCE)
        batch = await _read_batch(database, query, before, wanted)
        found += batch if query.at is None else await _select_current(database, batch, query.at[0])
        if len(batch) < wanted:
            break
        before = _build_key(batch[-1])
        if cut_history(found, query)[1]:
            break
    page, more = cut_history(found, query)
    return HistoryPage(page, _build_key(page[-1]) if more else None, horizon)


def _build_key(version: Stored) -> HistoryKey:
    return version.last_updated, version.reference, version.version


async def _read_batch(database: Database, query: HistoryQuery, before: HistoryKey | None, limit: int) -> list[Stored]:
    wanted = match_all((_match_scope(query), _match_times(query), _match_after(before)))
    # Within a resource newer versions have later times: its range of `_id`, backwards, is in the order asked for.
    order = [("_id", -1)] if query.id is not None else [("updated", -1), ("_id", 1)]
    cursor = database[HISTORY].find(wanted, {"order": 0, "transaction": 0}, sort=order, limit=limit)
    async with cursor:
        return [parse_version(document) async for document in cursor]


def _match_scope(query: HistoryQuery) -> Filter:
    if query.id is not None:
        return match_versions(f"{query.types[0]}/{query.id}")
    return match_one_of("type", query.types)


def _match_times(query: HistoryQuery) -> Filter:
    bounds = {}
    if query.since is not None:
        bounds["$gte"] = query.since
    if query.at is not None:
        bounds["$lte"] = query.at[1]
    return {"updated": bounds} if bounds else {}


def _match_after(before: HistoryKey | None) -> Filter:
    """What follows a key; a resource has one version at a time, so that its `_id` decides between equal times."""
    if before is None:
        return {}
    updated, reference, version = before
    beyond = {"updated": updated, "_id": {"$gt": build_version_id(reference, version)}}
    return {"updated": {"$lte": updated}, "$or": [{"updated": {"$lt": updated}}, beyond]}


async def _select_current(database: Database, versions: Sequence[Stored], start: int) -> list[Stored]:
    """Those that were still current at `start` or later: the successor, if any, came after it."""
    successors = [build_version_id(version.reference, version.version + 1) for version in versions]
    wanted = {"_id": {"$in": successors}, "updated": {"$lte": start}}
    async with database[HISTORY].find(wanted, {"_id": 1}) as cursor:
        early = {document["_id"] async for document in cursor}
    return [version for version, successor in zip(versions, successors, strict=True) if successor not in early]
