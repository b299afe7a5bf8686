"""MLLP as a transport: one message, its acknowledgement, and then the next, over a connection that is kept a while.

An answer counts only when its MSA-2 is the control number sent. After everything else that comes, or does not come in
time, the connection is closed before another message is sent: a late answer is never taken for that of another one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from typing import NamedTuple

from fhir_server.transports.acknowledged import describe_mismatch
from fhir_server.transports.client_tls import make_client_tls
from fhir_server.transports.mllp import BrokenFraming, Connection
from fhir_server.transports.protocol import DeliveryResult, Endpoint

CONNECT_SECONDS = 10.0
"""Seconds for a connection to be made."""

IDLE_SECONDS = 30.0
"""Seconds for which a connection is kept that carries nothing."""


class _Kept(NamedTuple):
    connection: Connection
    loop: asyncio.AbstractEventLoop
    timer: asyncio.TimerHandle


class Mllp:
    """`protocol.Transport` to a listener: `host`, `port`, `seconds` to wait for an answer, `tls` and its files."""

    repeats = True

    def __init__(self) -> None:
        self._kept: dict[Hashable, _Kept] = {}

    async def deliver(self, endpoint: Endpoint, control_number: str, payload: bytes) -> DeliveryResult:
        """Send the payload and wait for its acknowledgement."""
        place, seconds = f"{endpoint['host']}:{endpoint['port']}", float(endpoint.get("seconds", "30"))
        try:
            connection = await self._connect(endpoint)
        except (OSError, ValueError) as error:
            return DeliveryResult("unsent", reason=f"`{place}` cannot be reached: {_explain(error)}.")
        reason = "It was not waited for."
        try:
            answer = await connection.exchange(payload, seconds)
            reason = describe_mismatch(answer, control_number)
        except TimeoutError:
            reason = f"`{place}` gave no acknowledgement within {seconds:g} seconds."
        except (OSError, BrokenFraming) as error:
            reason = f"`{place}` gave no acknowledgement: {_explain(error)}."
        finally:
            if reason:
                connection.abort()
        if reason:
            return DeliveryResult("unanswered", reason=reason)
        self._keep(endpoint, connection)
        return DeliveryResult("delivered", answer)

    async def find_delivered(self, endpoint: Endpoint, control_number: str) -> bool:
        """Not known: a receiver tells nothing of what came before."""
        return False

    async def _connect(self, endpoint: Endpoint) -> Connection:
        """The connection that was kept, for this message alone, or a new one. Raises OSError."""
        kept = self._kept.pop(_name(endpoint), None)
        if kept is not None and kept.loop is asyncio.get_running_loop():
            kept.timer.cancel()
            if kept.connection.is_open:
                return kept.connection
            kept.connection.abort()
        tls = make_client_tls(endpoint) if "tls" in endpoint else None
        return await Connection.open(endpoint["host"], int(endpoint["port"]), tls, CONNECT_SECONDS)

    def _keep(self, endpoint: Endpoint, connection: Connection) -> None:
        name, loop = _name(endpoint), asyncio.get_running_loop()
        if name in self._kept:
            connection.abort()
            return
        self._kept[name] = _Kept(connection, loop, loop.call_later(IDLE_SECONDS, self._drop, name, connection))

    def close(self) -> None:
        """End the connections that are kept."""
        for name, kept in list(self._kept.items()):
            kept.timer.cancel()
            self._drop(name, kept.connection)

    def _drop(self, name: Hashable, connection: Connection) -> None:
        if name in self._kept and self._kept[name].connection is connection:
            del self._kept[name]
        connection.abort()


def _name(endpoint: Endpoint) -> Hashable:
    return tuple(sorted(endpoint.items()))


def _explain(error: Exception) -> str:
    """What the system says, without the full stop."""
    if isinstance(error, TimeoutError):
        return f"no connection within {CONNECT_SECONDS:g} seconds"
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).rstrip(".")
