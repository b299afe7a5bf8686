"""HTTP clients of a FHIR server, on the network or in this process (https://hl7.org/fhir/R4/http.html)."""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from typing import Any

import httpx

TIME_LIMIT = 600.0
"""Seconds that one bundle may take."""

MOST_PORT = 65535

# Servers drop idle connections (uvicorn after 5 s): one that rested this long (s) is replaced before it is used.
KEEPALIVE = 2.0

HEADERS = {"Accept": "application/fhir+json", "Accept-Encoding": "identity", "Prefer": "return=minimal"}


def open_client(url: str, headers: Iterable[str] = (), time_limit: float = TIME_LIMIT) -> httpx.AsyncClient:
    """A client of the FHIR server at `url`, with extra headers written `Name: value`. Raises ValueError."""
    extra = [_parse_header(line) for line in headers]
    # Preferences add up; of every other header there is one.
    replaced = {name.decode().lower() for name, _ in extra} - {"prefer"}
    defaults = [(name.encode(), value.encode()) for name, value in HEADERS.items() if name.lower() not in replaced]
    return httpx.AsyncClient(
        base_url=_parse_url(url),
        headers=[*defaults, *extra],
        timeout=time_limit,
        limits=httpx.Limits(keepalive_expiry=KEEPALIVE),
        verify=ssl.create_default_context(),  # the certificates that other programs of this machine trust
        trust_env=False,
    )


def open_local_client(application: Any, path: str = "/fhir") -> httpx.AsyncClient:
    """A client of an ASGI application in this process whose FHIR base is `path`."""
    transport = LocalTransport(application)
    return httpx.AsyncClient(transport=transport, base_url=f"http://localhost{path}", headers=HEADERS)


class LocalTransport(httpx.ASGITransport):
    """Requests handed straight to an application; one that fails counts as a lost connection."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """See `httpx.AsyncBaseTransport`."""
        try:
            return await super().handle_async_request(request)
        except Exception as error:
            raise ConnectionError(f"The application failed: {error!r}.") from error


async def check_base(client: httpx.AsyncClient) -> None:
    """Raises ValueError where the URL is no FHIR base: it has no statement of what the server can do."""
    answer = await send(client, "GET", "metadata?_elements=fhirVersion")
    if answer.status_code in (404, 405) or (answer.is_success and b'"CapabilityStatement"' not in answer.content):
        base = str(client.base_url).rstrip("/")
        guess = "" if base.endswith("/fhir") else f" Did you mean `{base}/fhir`?"
        raise ValueError(f"`{base}` is no base URL of a FHIR server: it has no `metadata`.{guess}")


async def send(client: httpx.AsyncClient, method: str, path: str = "", body: bytes = b"") -> httpx.Response:
    """The answer; `path` is below the FHIR base ("" for the base itself). Raises OSError when there is none."""
    # httpx alone would take `/fhir/` for the base.
    url = str(client.base_url.join(path)).rstrip("/")
    headers = {"Content-Type": "application/fhir+json"} if body else {}
    try:
        return await client.request(method, url, content=body, headers=headers)
    except httpx.TimeoutException:
        raise TimeoutError(f"The server did not answer within {client.timeout.read:g} s.") from None
    except httpx.ConnectError as error:
        base = str(client.base_url).rstrip("/")
        raise ConnectionError(f"There is no connection to {base}: {_find_reason(error)}.") from error
    except httpx.HTTPError as error:
        raise ConnectionError(_find_reason(error)) from error


def _find_reason(error: BaseException) -> str:
    """The text of the innermost error that has one: the outer ones often say only that a connection failed."""
    cause = error.__cause__ or error.__context__
    return (_find_reason(cause) if cause else "") or str(error)


def _parse_url(url: str) -> httpx.URL:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        parsed = httpx.URL()
    is_http = parsed.scheme in ("http", "https") and parsed.host and (parsed.port or 0) <= MOST_PORT
    if not is_http or parsed.query or parsed.fragment:
        raise ValueError(f"`{url}` is not the URL of a FHIR server: write it as `http://127.0.0.1:8000/fhir`.")
    return parsed


def _parse_header(line: str) -> tuple[bytes, bytes]:
    name, colon, value = line.partition(":")
    try:
        header = name.strip().encode("ascii"), value.strip().encode("latin-1")
    except UnicodeEncodeError:
        header = b"", b""
    if not (header[0] and colon) or "\r" in line or "\n" in line:
        raise ValueError(f"`{line}` is not a header: write it as `Name: value`.")
    return header
