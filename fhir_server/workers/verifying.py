"""A store looked through for faults: its file, the index entries of every current resource, and what they refer to.

It reads while others write: what differs is looked at again, and only what differs twice is a fault.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import orjson

from fhir_server.requests.context import Context
from fhir_server.search.entries import Entries
from fhir_server.store.protocol import Verified
from fhir_server.writes.plan import REFERENCE_EXEMPT


@dataclass(slots=True)
class Findings:
    """What was looked at, and a sentence for each fault."""

    resources: int = 0
    faults: list[str] = field(default_factory=list)


async def verify(context: Context, types: Sequence[str]) -> Findings:
    """Look through the whole store, and through the resources of these types. Raises StoreError."""
    found = Findings(faults=list(await context.unrestricted.verify_database()))
    for type in types:
        after: str | None = None
        while True:
            batch = await _verify_batch(context, type, after)
            if batch.faults:
                again = await _verify_batch(context, type, after)
                found.faults += [fault for fault in batch.faults if fault in again.faults]
            found.resources += batch.count
            after = batch.next
            if after is None:
                break
    return found


async def _verify_batch(context: Context, type: str, after: str | None) -> Verified:
    """The next resources of a type, with what they refer to in vain among the faults."""
    sources: defaultdict[str, list[str]] = defaultdict(list)

    def extract(type: str, raw: bytes) -> Entries:
        tree = orjson.loads(raw)
        entries = context.index.make_entries(type, tree)
        for reference in entries.references:
            sources[reference].append(f"{type}/{tree['id']}")
        return entries

    batch = await context.unrestricted.verify(type, extract, after)
    if context.settings.references != "enforce" or type in REFERENCE_EXEMPT:
        return batch
    there = await context.unrestricted.read_many(sources)
    dangling = [
        f"`{source}` refers to `{target}`, which is not there."
        for target in sorted(sources.keys() - there.keys())
        for source in sources[target]
    ]
    return Verified(batch.count, batch.next, (*batch.faults, *dangling))
