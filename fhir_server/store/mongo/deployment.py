"""Opening a database: the wait for the server, what the deployment must be able to do, schema version and secret.

Transactions need a replica set or a sharded cluster (https://www.mongodb.com/docs/manual/reference/command/hello/).
"""

from __future__ import annotations

import re
import secrets
from typing import Any

from bson import Binary
from pymongo import AsyncMongoClient
from pymongo.errors import ConfigurationError, InvalidURI, OperationFailure, PyMongoError, ServerSelectionTimeoutError

from fhir_server.store.mongo.errors import translate_error
from fhir_server.store.mongo.indexes import META, Database, Document
from fhir_server.store.protocol import StoreUnavailable

SCHEMA_VERSION = 2
"""2: references that a parameter holds have no term of their own (`referring.py`), texts in `history` are packed.

A database of 1 becomes one of 2 when it is opened, and holds documents of both.
"""

WAIT_MS = 15_000
"""How long a start waits for the server, an operation for a primary or a connection, unless the URI says otherwise."""

_CONNECT_MS = 5_000
_QUOTED = re.compile(r"""(["'`]).*\1""")
_UNLIMITED = 1_000
_DEFAULT_LIFETIME = 60.0


def connect(uri: str) -> tuple[AsyncMongoClient[Document], str]:
    """A client of `mongodb://…/DB` and the database's name; nothing is sent yet. Raises ValueError for another URI."""
    try:
        client: AsyncMongoClient[Document] = AsyncMongoClient(uri, **_build_defaults(uri), appname="fhir-server")
        return client, client.get_default_database().name
    except (ConfigurationError, InvalidURI, ValueError) as error:
        # Never the URI itself, nor what the driver quotes of it: it may hold a password.
        said = _QUOTED.sub("…", str(error)).rstrip(".")
        raise ValueError(
            f"The MongoDB URI cannot be used: {said}. Write `mongodb://HOST[:PORT][,HOST…]/DATABASE[?options]`."
        ) from error


def count_search_slots(client: AsyncMongoClient[Document]) -> int:
    """How many searches may have a connection: three in four, so that slow ones leave some to reads and writes."""
    connections = int(client.options.pool_options.max_pool_size or _UNLIMITED)
    return max(1, connections * 3 // 4)


def _build_defaults(uri: str) -> dict[str, Any]:
    """The options of ours that the URI does not set."""
    given = {option.partition("=")[0].lower() for option in uri.partition("?")[2].split("&")}
    wanted = {"serverSelectionTimeoutMS": WAIT_MS, "connectTimeoutMS": _CONNECT_MS, "waitQueueTimeoutMS": WAIT_MS}
    return {name: value for name, value in wanted.items() if name.lower() not in given}


async def check_deployment(client: AsyncMongoClient[Document]) -> bool:
    """Wait for the server, and refuse one that has no transactions, sessions or times; whether it is `mongos`.

    Raises StoreUnavailable.
    """
    try:
        hello = await client.admin.command("hello")
        ping = await client.admin.command("ping")
    except ServerSelectionTimeoutError as error:
        raise StoreUnavailable(f"No MongoDB server answers at the store's address: {_shorten(error)}.") from error
    except PyMongoError as error:
        raise translate_error(error) from error
    sharded = hello.get("msg") == "isdbgrid"
    if "setName" not in hello and not sharded:
        raise StoreUnavailable(
            "This MongoDB server is a standalone: it has no transactions, which this store needs. Make it a replica "
            "set, of one member if need be: start `mongod` with `--replSet rs0`, run `rs.initiate()` once in "
            "`mongosh`, and add `replicaSet=rs0` to the URI."
        )
    missing = [
        name
        for name, answer in (("logicalSessionTimeoutMinutes", hello), ("operationTime", ping))
        if answer.get(name) is None
    ]
    if missing:
        raise StoreUnavailable(
            f"This server does not tell what a MongoDB replica set tells (`{'`, `'.join(missing)}`), so that it has "
            "no sessions, or no times at which a reader of changes can begin. Use MongoDB 5.0 or later."
        )
    return sharded


def _shorten(error: PyMongoError) -> str:
    return str(error).partition(", Timeout:")[0].rstrip(".")


async def read_lifetime(client: AsyncMongoClient[Document]) -> float:
    """Seconds for which the database keeps a transaction open; its default where this user may not ask."""
    try:
        found = await client.admin.command({"getParameter": 1, "transactionLifetimeLimitSeconds": 1})
    except OperationFailure:
        return _DEFAULT_LIFETIME
    return float(found.get("transactionLifetimeLimitSeconds", _DEFAULT_LIFETIME))


async def check_schema(database: Database) -> None:
    """Note the schema version in a new or an earlier database; refuse a later one. Raises StoreUnavailable."""
    change = {"$max": {"version": SCHEMA_VERSION}}
    await database[META].update_one({"_id": "schema"}, change, upsert=True)
    found = await database[META].find_one({"_id": "schema"})
    version = found["version"] if found else None
    if version != SCHEMA_VERSION:
        raise StoreUnavailable(
            f"The database `{database.name}` has schema version {version}, which this server does not know (it knows "
            f"{SCHEMA_VERSION}). Start the server that made it, or restore a backup made before the upgrade."
        )


async def page_key(database: Database) -> bytes:
    """The database's 32 random bytes, made by the first process that asks."""
    change = {"$setOnInsert": {"value": Binary(secrets.token_bytes(32))}}
    await database[META].update_one({"_id": "secret"}, change, upsert=True)
    found = await database[META].find_one({"_id": "secret"})
    return bytes(found["value"]) if found else b""
