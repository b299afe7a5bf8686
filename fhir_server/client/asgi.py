"""Requests handed straight to an ASGI application in this process, without a network (https://asgi.readthedocs.io/en/stable/specs/www.html)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from fhir_server.client.answers import Answer, Headers

Message = MutableMapping[str, Any]
Application = Callable[
    [Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]
]


class AsgiSender:
    """A Sender that calls `application`, whose FHIR base is the path `base`."""

    def __init__(self, application: Application, base: str = "/fhir") -> None:
        self._application = application
        self._base = base

    async def send(self, method: str, path: str, headers: Headers = (), body: bytes = b"") -> Answer:
        """See `Sender.send`; an application that fails without an answer counts as a lost connection."""
        messages = iter(({"type": "http.request", "body": body, "more_body": False},))
        starts: list[Message] = []
        parts: list[bytes] = []

        async def receive() -> Message:
            return next(messages, {"type": "http.disconnect"})

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                starts.append(message)
            elif message["type"] == "http.response.body":
                parts.append(message.get("body", b""))

        try:
            await self._application(self._scope(method, path, headers, len(body)), receive, answer)
        except Exception as error:
            # Starlette raises again after it has answered 500.
            if not starts:
                raise ConnectionError(f"The application failed: {error!r}.") from error
        if not starts:
            raise ConnectionError("The application ended without an answer.")
        lines = b"".join(b"%b: %b\r\n" % (name, value) for name, value in starts[0].get("headers", ()))
        return Answer(starts[0]["status"], lines, b"".join(parts))

    def _scope(self, method: str, path: str, headers: Headers, length: int) -> Message:
        location, _, query = path.partition("?")
        whole = f"{self._base}/{location}" if location else self._base or "/"
        given = {"accept": "application/fhir+json", "host": "localhost"}
        if length:
            given |= {"content-type": "application/fhir+json", "content-length": str(length)}
        given |= {name.lower(): value for name, value in headers}
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": whole,
            "raw_path": whole.encode("ascii", "replace"),
            "query_string": query.encode("ascii", "replace"),
            "root_path": "",
            "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in given.items()],
            "client": ("127.0.0.1", 0),
            "server": ("localhost", 80),
        }
