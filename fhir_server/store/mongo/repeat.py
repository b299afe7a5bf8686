"""Questions that may be asked twice, asked again while the database is away or busy with the same work.

https://www.mongodb.com/docs/manual/core/index-creation/ tells of index builds that others wait for.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from pymongo.errors import ConnectionFailure, OperationFailure, PyMongoError

from fhir_server.store.mongo.errors import BUSY

LONGEST_PAUSE = 0.2
"""Seconds until it is asked again, at most."""

Answer = TypeVar("Answer")


async def repeat(ask: Callable[[], Awaitable[Answer]], deadline: float) -> Answer:
    """The answer to what may be asked twice; the driver's last error after `deadline` (`time.monotonic`)."""
    while True:
        try:
            return await ask()
        except PyMongoError as error:
            if not _may_pass(error) or time.monotonic() > deadline:
                raise
            await asyncio.sleep(random.random() * LONGEST_PAUSE)


def _may_pass(error: PyMongoError) -> bool:
    return isinstance(error, ConnectionFailure) or (isinstance(error, OperationFailure) and error.code in BUSY)
