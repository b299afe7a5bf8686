"""Takes a file of 835s in and posts it: `python -m tests.workers.posting_memory STORE PROFILES FILE`.

As `fhir-server x12 post` and the worker `postings` do; prints, as JSON, the bytes in memory after each set.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

from fhir_server.app import Seams, open_server
from fhir_server.settings import Settings
from fhir_server.workers.lease import Lease
from fhir_server.workers.postings import step_postings
from fhir_server.workers.worker import Turn
from fhir_server.workers.x12_intake import Source, read_file, take_interchange
from tests.workers.clocks import FastClock
from tests.workers.killed_postings import MARCH


def read_resident() -> int:
    """Bytes of this process that are in memory (Linux)."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def main(store: str, profiles: str, path: str) -> None:
    seams = replace(Seams(), clock=FastClock(MARCH))
    async with open_server(Settings(store=store, profiles=profiles), lambda *_, **__: None, seams=seams) as server:
        context, text = server.context, Path(path).read_bytes()
        found = await read_file(context, text)
        for each in found.interchanges:
            await take_interchange(Source(context, "http://test/fhir"), text, each)
        del found, text, each
        lease = Lease(context.unrestricted, "postings", "test", context.clock)
        assert await lease.acquire()
        turn, sizes = Turn(context, lease, lambda *_, **__: None, asyncio.sleep), []
        while (await step_postings(turn)).done:
            sizes.append(read_resident())
        print(json.dumps(sizes))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
