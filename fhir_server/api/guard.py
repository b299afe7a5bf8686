"""What a web page of somebody else must not do: reach this server by another name, or change anything here.

Every page that is open on a machine may send requests to the programs of that machine. It reads the answers only where
the setting `cors_origins` lets it; but what a request changes is changed all the same, and for some the browser asks
nothing before (a POST of plain text, or without a body). Browsers say which page sends
(https://fetch.spec.whatwg.org/#origin-header, https://www.w3.org/TR/fetch-metadata/); other programs do not, and for
them nothing changes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import Any

from fhir_server.api.address import find_address, is_from_proxy, is_own_name, is_same_authority
from fhir_server.api.authorization import PAGES
from fhir_server.api.log import Log
from fhir_server.api.request import Receive, Scope, read_headers
from fhir_server.api.response import Send, Style, error_to_response, send
from fhir_server.fhir.outcome import FhirError, Forbidden, Misdirected
from fhir_server.requests.request import FHIR_JSON
from fhir_server.settings import Settings, split_list

Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_TRANSPORT_SECURITY = (b"strict-transport-security", b"max-age=31536000")
_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN_SITES = frozenset({"same-origin", "none"})
_OPEN_PATHS = frozenset({"/livez", "/readyz"})
"""What watches the server asks by whatever name it has."""


def guard(application: Application, settings: Settings, log: Log, new_request_id: Callable[[], str]) -> Application:
    """The application, of HTTP requests alone, behind the checks of this module."""

    is_https = bool(settings.tls_certificate) or settings.base_url.startswith("https:")

    def answer(scope: Scope, receive: Receive, send_message: Send) -> Awaitable[None]:
        if is_https:
            send_message = add_transport_security(send_message)
        if scope["path"] not in _OPEN_PATHS:
            try:
                headers = read_headers(scope)
                check_host(settings, scope, headers)
                check_origin(settings, scope, headers)
            except FhirError as error:
                return refuse(error, scope["method"], send_message)
        return application(scope, receive, send_message)

    async def refuse(error: FhirError, method: str, send_message: Send) -> None:
        request_id = new_request_id()
        log("warning", "refused", request_id=request_id, method=method, status=error.status)
        style = Style(FHIR_JSON, head=method == "HEAD")
        await send(error_to_response(error), style, request_id, send_message)

    return answer


def add_transport_security(send_message: Send) -> Send:
    """What sends a response that tells browsers to come by https alone from now on (RFC 6797)."""

    def send_with_header(message: dict[str, Any]) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], _TRANSPORT_SECURITY]}
        return send_message(message)

    return send_with_header


def check_host(settings: Settings, scope: Scope, headers: dict[str, str]) -> None:
    """Raise Misdirected when Host, or the one that a known proxy forwards, is no name of this server."""
    given, hosts = headers.get("host", ""), settings.hosts
    for host in (given, find_address(settings, scope, headers).host) if is_from_proxy(settings, scope) else (given,):
        if host and not is_own_name(hosts, settings.base_url, host):
            raise Misdirected(
                f"`{host}` is no name by which this server may be addressed. Those are IP addresses, `localhost`, the "
                "name of its machine, the host of the setting `base_url` and the names of the setting `hosts` "
                "(FHIR_HOSTS)."
            )


def check_origin(settings: Settings, scope: Scope, headers: dict[str, str]) -> None:
    """Raise Forbidden for a request that may change something and comes from a page of another origin."""
    if scope["method"] in _READING:
        return
    origin, site = headers.get("origin"), headers.get("sec-fetch-site", "none")
    allowed = split_list(settings.cors_origins)
    if "*" in allowed or origin in allowed:
        return
    if settings.authentication == "on" and scope["path"] not in _list_pages(settings.path):
        return  # what changes anything comes with a token; `cors.py` knows the pages of registered apps
    if origin is not None and not is_own_origin(settings, scope, headers, origin):
        raise _make_refusal(f"`{origin}`")
    if site not in _OWN_SITES:
        raise _make_refusal("another site")


@lru_cache(maxsize=4)
def _list_pages(root: str) -> frozenset[str]:
    return frozenset("/".join((root.rstrip("/"), *path)) for path in PAGES)


def is_own_origin(settings: Settings, scope: Scope, headers: dict[str, str], origin: str) -> bool:
    """Whether an origin is that of this server, by the address that the request names."""
    own = settings.base_url.lower()
    if own and (own == origin.lower() or own.startswith(f"{origin.lower()}/")):
        return True
    return is_same_authority(find_address(settings, scope, headers), origin)


def _make_refusal(page: str) -> Forbidden:
    return Forbidden(
        f"This request comes from a web page of {page}, which may change nothing here. The setting `cors_origins` "
        "lists the origins of the pages that may."
    )
