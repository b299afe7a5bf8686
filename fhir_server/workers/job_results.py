"""The results of jobs, kept beside them in parts, since a report may be larger than one value of a store.

`job-result/<id>/<part>` is compressed. A result goes when its job's place is taken or it is cancelled, else after DAYS.
"""

from __future__ import annotations

import zlib

from fhir_server.fhir.outcome import TooCostly
from fhir_server.requests.context import Context

PART = 4 * 1024 * 1024
MOST = 64 * 1024 * 1024
"""Bytes of a result."""

DAYS = 7
_DAY = 86_400_000_000


async def keep_result(context: Context, id: str, body: bytes) -> int:
    """Keep the result of the job with this id, and return its parts. Raises TooCostly for more than MOST bytes."""
    if len(body) > MOST:
        raise TooCostly(f"The answer has more than {MOST:,} bytes. Narrow the request, or run it on the server.")
    store, text = context.unrestricted, zlib.compress(body, 6)
    parts = [text[start : start + PART] for start in range(0, len(text), PART)]
    expires = context.clock() + DAYS * _DAY
    for number, part in enumerate(parts):
        key = _name(id, number)
        while not await store.put_value_if(key, part, await store.get_value(key), expires):
            pass
    return len(parts)


async def read_result(context: Context, id: str, parts: int) -> bytes | None:
    """The result of a job; None where it is gone."""
    found = [await context.unrestricted.get_value(_name(id, number)) for number in range(parts)]
    texts = [each for each in found if each is not None]
    return zlib.decompress(b"".join(texts)) if len(texts) == parts else None


async def forget_result(context: Context, id: str, parts: int) -> None:
    """Remove the result of a job."""
    for number in range(parts):
        value = await context.unrestricted.get_value(_name(id, number))
        if value is not None:
            await context.unrestricted.remove_value_if(_name(id, number), value)


def _name(id: str, number: int) -> str:
    return f"job-result/{id}/{number:06}"
