"""Which web pages may read what this server answers (https://fetch.spec.whatwg.org/#http-cors-protocol).

Without authentication those of the setting `cors_origins`. With it every page may read what says how to get a token;
the pages of registered apps, and of the setting, may ask for tokens and use the API, never with cookies; none may read
the pages on which people log in.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.middleware.cors import CORSMiddleware

from fhir_server.api.authorization import DOCUMENTS, PAGES
from fhir_server.api.guard import is_own_origin
from fhir_server.api.request import Receive, Scope, read_headers, split_path, strip_root
from fhir_server.api.response import Send, Style, error_to_response, send
from fhir_server.fhir.outcome import FhirError, Forbidden
from fhir_server.requests.request import FHIR_JSON
from fhir_server.security.clients import list_clients
from fhir_server.settings import Settings, split_list
from fhir_server.store.protocol import Clock, Store

Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]
_EXPOSED = ["ETag", "Location", "Last-Modified", "X-Request-Id"]
_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_ANY = "*"
_REMEMBERED = 5_000_000
"""µs for which the origins of clients are not read again."""


def add_cors(api: Application, settings: Settings, store: Store, clock: Clock) -> Application:
    """The API with what lets web pages read its answers."""
    if settings.authentication == "on":
        return _guard_origins(api, settings, store, clock)
    origins = split_list(settings.cors_origins)
    if not origins:
        return api
    cors: Application = CORSMiddleware(  # type: ignore[assignment]
        api, allow_origins=origins, allow_methods=_METHODS, allow_headers=["*"], expose_headers=_EXPOSED
    )

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        is_cross_origin = any(name == b"origin" for name, _ in scope["headers"])
        await (cors if is_cross_origin else api)(scope, receive, send)

    return answer


def _guard_origins(api: Application, settings: Settings, store: Store, clock: Clock) -> Application:
    allowed = _Origins(settings, store, clock)
    root = settings.path.rstrip("/")

    def answer(scope: Scope, receive: Receive, send_message: Send) -> Awaitable[None]:
        origin = read_headers(scope).get("origin")
        if origin is None:
            return api(scope, receive, send_message)
        return answer_page(scope, receive, send_message, origin)

    async def answer_page(scope: Scope, receive: Receive, send_message: Send, origin: str) -> None:
        headers = read_headers(scope)
        shown = await _choose_origin(scope, root, origin, allowed)
        if scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
            await _answer_preflight(shown, headers, send_message)
        elif shown is not None:
            await api(scope, receive, _add_headers(send_message, _list_headers(shown)))
        elif scope["method"] in _READING or is_own_origin(settings, scope, headers, origin):
            await api(scope, receive, send_message)
        else:
            error = Forbidden(
                f"This request comes from a web page of `{origin[:200]}`, which may change nothing here: no client has "
                "been registered with that origin (`fhir-server client add --origin`)."
            )
            await send(error_to_response(error), Style(FHIR_JSON), "-", send_message)

    return answer


async def _choose_origin(scope: Scope, root: str, origin: str, allowed: _Origins) -> str | None:
    """The origin whose pages may read the answer, `*` for all; None for none."""
    try:
        path = strip_root(split_path(scope["path"], scope.get("raw_path")), root)
    except FhirError:
        return None
    if path in DOCUMENTS:
        return _ANY
    return origin if path not in PAGES and await allowed.include(origin) else None


class _Origins:
    """Those of the setting, and of the clients that are registered now."""

    def __init__(self, settings: Settings, store: Store, clock: Clock) -> None:
        self._named = frozenset(split_list(settings.cors_origins))
        self._store, self._clock = store, clock
        self._of_clients: frozenset[str] = frozenset()
        self._read = -(10**18)

    async def include(self, origin: str) -> bool:
        """Whether pages of an origin may use the API."""
        if origin in self._named or _ANY in self._named:
            return True
        now = self._clock()
        if not 0 <= now - self._read < _REMEMBERED:
            clients = await list_clients(self._store)
            self._of_clients, self._read = frozenset(each for client in clients for each in client.origins), now
        return origin in self._of_clients


def _list_headers(origin: str) -> list[tuple[bytes, bytes]]:
    headers = [(b"access-control-allow-origin", origin.encode("latin-1"))]
    headers.append((b"access-control-expose-headers", ", ".join(_EXPOSED).encode()))
    return headers if origin == _ANY else [*headers, (b"vary", b"origin")]


def _add_headers(send_message: Send, added: list[tuple[bytes, bytes]]) -> Send:
    def send_with_headers(message: dict[str, Any]) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], *added]}
        return send_message(message)

    return send_with_headers


async def _answer_preflight(shown: str | None, headers: dict[str, str], send_message: Send) -> None:
    """What a browser asks before it sends another page's request."""
    answer: list[tuple[bytes, bytes]] = [(b"content-length", b"0")]
    if shown is not None:
        wanted = headers.get("access-control-request-headers", "authorization, content-type")[:1000]
        answer += [
            *_list_headers(shown),
            (b"access-control-allow-methods", ", ".join(_METHODS).encode()),
            (b"access-control-allow-headers", wanted.encode("latin-1", "replace")),
            (b"access-control-max-age", b"600"),
        ]
    await send_message({"type": "http.response.start", "status": 200 if shown is not None else 403, "headers": answer})
    await send_message({"type": "http.response.body", "body": b""})
