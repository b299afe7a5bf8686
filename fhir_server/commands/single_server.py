"""A server in one process: it stops gracefully at the first signal, at once at the second, and watches its loop."""

from __future__ import annotations

import asyncio
import faulthandler
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

import uvicorn

from fhir_server.commands.certificate import CertificateWatch

TURN_SECONDS = 1.0
"""Seconds between two signs of life of an event loop."""


def watch_certificate(config: uvicorn.Config, warn: Callable[[str], None]) -> Callable[[], None]:
    """What looks whether the certificate of a server has changed; at RELOAD_SIGNAL it is loaded again anyway."""
    if config.ssl is None:
        return lambda: None
    files = (str(config.ssl_certfile), str(config.ssl_keyfile) if config.ssl_keyfile else None)
    watch = CertificateWatch(config.ssl, files, warn)
    watch.reload_at_signal()
    return watch.check


class StoppingServer(uvicorn.Server):
    """uvicorn's server; uvicorn itself ends at once only at a second SIGINT, and waits for ever at a second SIGTERM."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop gracefully; asked a second time, at once."""
        if self.should_exit:
            os._exit(128 + sig)
        super().handle_exit(sig, frame)


class SingleServer(StoppingServer):
    """A server whose store ends with its process: when its loop stands still this is told, and nothing is replaced."""

    def __init__(
        self, config: uvicorn.Config, say: Callable[[str], None], limit: float, announce: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._announce = announce
        self._say = say
        self._limit = limit
        self._turns = 0
        self._check_certificate: Callable[[], None] = lambda: None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application, and watch the loop from a thread."""
        await super().startup(sockets)
        self._check_certificate = watch_certificate(self.config, self._say)
        if self.started:
            self._announce()
        self._turn()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def _turn(self) -> None:
        self._turns += 1
        self._check_certificate()
        asyncio.get_running_loop().call_later(TURN_SECONDS, self._turn)

    def _watch(self) -> None:
        seen, silent = self._turns, 0.0
        while True:
            before = time.monotonic()
            time.sleep(TURN_SECONDS)
            # a suspended machine counts as one turn
            silent += min(time.monotonic() - before, 2 * TURN_SECONDS)
            if self._turns != seen:
                seen, silent = self._turns, 0.0
            elif silent > self._limit:
                self._say(f"The server stands still: no turn of its event loop for {self._limit:g} seconds.")
                faulthandler.dump_traceback(sys.stderr)
                silent = 0.0
