"""Listens until it is killed: `python -m tests.workers.killed_listener DATABASE PROFILES`.

Prints its port. A message whose control number begins with `DIE` is stored, and the process killed before it answers.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys

from fhir_server.app import Seams, open_server
from fhir_server.commands.hl7v2_workers import make_taker, wait_for_end
from fhir_server.settings import Settings
from fhir_server.transports.mllp import Listener


async def main(database: str, profiles: str) -> None:
    settings = Settings(store=f"sqlite:///{database}", profiles=profiles)
    async with open_server(settings, log=lambda *_, **__: None, seams=Seams(definitions=None)) as server:
        take = make_taker(server.context, lambda *_, **__: None)

        async def store(message: bytes) -> list[bytes] | None:
            answers = await take(message)
            if b"|DIE" in message:
                os.kill(os.getpid(), signal.SIGKILL)
            return list(answers) if answers is not None else None

        bound = socket.create_server(("127.0.0.1", 0))
        listener = Listener(store, lambda *_, **__: None)
        await listener.start([bound])
        print(bound.getsockname()[1], flush=True)
        await wait_for_end(asyncio.Event())
        await listener.stop()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
