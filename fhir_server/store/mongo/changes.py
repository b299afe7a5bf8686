"""The feed of committed versions: what is there by now, then the change stream (https://www.mongodb.com/docs/manual/changeStreams/).

From the beginning, `history` is walked by `order`, up to the newest at the first call; then the change stream takes
over at the database's time of that call, in commit order. A version that commits during the walk comes in the stream,
and in rare cases in both: readers tell it by its version. A token names the place in one of the two.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from typing import Any

from bson import Timestamp, decode, encode
from bson.errors import BSONError
from pymongo.errors import OperationFailure
from pymongo.read_concern import ReadConcern

from fhir_server.store.mongo.causal import start_session_at
from fhir_server.store.mongo.documents import parse_version
from fhir_server.store.mongo.indexes import HISTORY, Collection, Database
from fhir_server.store.protocol import Changes, Expired, Stored

AWAIT_MS = 20
"""How long the database waits for a change before it answers that there is none."""

_INSERTS: list[dict[str, Any]] = [{"$match": {"operationType": "insert"}}, {"$project": {"documentKey": 1}}]

# ChangeStreamHistoryLost, ChangeStreamFatalError, InvalidResumeToken, FailedToParse, TypeMismatch, BadValue, and
# the code that servers give for a token they cannot read.
_EXPIRED_CODES = frozenset({286, 280, 260, 9, 14, 2, 40647})

Position = dict[str, Any]
"""A decoded token: {walk: [order, _id], upto, time} in the walk; {time} or {resume} in the stream."""


async def read_changes(database: Database, after: str | None, limit: int) -> Changes:
    """Versions after a token. Raises Expired for one that this database cannot go on from."""
    position = await _start_position(database) if after is None else _parse_token(after)
    if "walk" in position:
        return await _walk_history(database, position, limit)
    while True:
        ids, position = await _read_stream(database, position, limit)
        versions = await _read_versions(database, ids)
        if versions or not ids:
            return Changes(versions, _format_token(position))


async def _start_position(database: Database) -> Position:
    now: Timestamp = (await database.command("ping"))["operationTime"]
    async with start_session_at(database, now) as session:
        newest = await _get_durable_history(database).find_one({}, {"order": 1}, sort=[("order", -1)], session=session)
    return {"walk": [0, ""], "upto": newest["order"] if newest else 0, "time": now}


def _get_durable_history(database: Database) -> Collection:
    """`history` without what a new primary may still take back."""
    return database[HISTORY].with_options(read_concern=ReadConcern("majority"))


async def _walk_history(database: Database, position: Position, limit: int) -> Changes:
    order, id = position["walk"]
    later = {"$or": [{"order": {"$gt": order}}, {"order": order, "_id": {"$gt": id}}]}
    wanted = {"order": {"$gte": order, "$lte": position["upto"]}, **later}
    async with start_session_at(database, position["time"]) as session:
        cursor = _get_durable_history(database).find(
            wanted, sort=[("order", 1), ("_id", 1)], limit=limit, session=session
        )
        async with cursor:
            found = [document async for document in cursor]
    # Events at that very time are of what the walk found.
    ended: Position = {"time": Timestamp(position["time"].time, position["time"].inc + 1)}
    if len(found) == limit and found:
        ended = {**position, "walk": [found[-1]["order"], found[-1]["_id"]]}
    return Changes(tuple(map(parse_version, found)), _format_token(ended))


async def _read_stream(database: Database, position: Position, limit: int) -> tuple[list[str], Position]:
    """The `_id`s of new versions, and where they end."""
    start: dict[str, Any] = (
        {"resume_after": position["resume"]} if "resume" in position else {"start_at_operation_time": position["time"]}
    )
    ids: list[str] = []
    try:
        async with await database[HISTORY].watch(_INSERTS, max_await_time_ms=AWAIT_MS, **start) as stream:
            while len(ids) < limit:
                change = await stream.try_next()
                if change is None:
                    break
                ids.append(change["documentKey"]["_id"])
            reached = stream.resume_token
    except OperationFailure as error:
        if error.code not in _EXPIRED_CODES:
            raise
        raise Expired(
            "The database no longer keeps the changes after this token (its oplog has moved on). Read the history "
            "anew: ask for changes from the beginning, and go on from the token given then."
        ) from error
    return ids, {"resume": dict(reached)} if reached else position


async def _read_versions(database: Database, ids: Sequence[str]) -> tuple[Stored, ...]:
    """The versions that were not purged since, in the order of the ids."""
    if not ids:
        return ()
    async with database[HISTORY].find({"_id": {"$in": list(ids)}}) as cursor:
        found = {document["_id"]: document async for document in cursor}
    return tuple([parse_version(found[id]) for id in ids if id in found])


def _format_token(position: Position) -> str:
    return urlsafe_b64encode(encode(position)).decode()


def _parse_token(token: str) -> Position:
    try:
        position = decode(urlsafe_b64decode(token.encode()))
        if "walk" in position:
            order, id = position["walk"]
            known = isinstance(order, int) and isinstance(id, str) and isinstance(position["upto"], int)
            known = known and isinstance(position["time"], Timestamp)
        else:
            known = "resume" in position or isinstance(position.get("time"), Timestamp)
    except (ValueError, BSONError, KeyError, TypeError):
        known = False
    if not known:
        raise Expired(f"`{token}` is not a change token of this database.")
    return position
