"""SMART App Launch for people: the authorization request of an app, and what of it can be granted.

https://hl7.org/fhir/smart-app-launch/STU2.2/app-launch.html, RFC 6749, 7636 (PKCE, always S256), 9207 (`iss`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

from fhir_server.fhir.outcome import Invalid
from fhir_server.security.clients import Client, find_client
from fhir_server.security.launch_handles import find_launch
from fhir_server.security.scopes import ResourceScope, WrongScope, parse_scopes
from fhir_server.security.token_endpoint import intersect_scopes
from fhir_server.security.users import Roles, User
from fhir_server.store.protocol import Store

LONGEST_NONCE = 500
"""Characters."""
OPENID = "openid"

_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
_NOT_SUPPORTED = {"request": "request_not_supported", "request_uri": "request_uri_not_supported"}
"""Parameters of OpenID Connect that are refused → with which error."""


@dataclass(frozen=True, slots=True)
class LaunchRequest:
    """What an app asks for. `scope`: as it asked; `state`: what it gets back; `nonce`: what its ID token holds.

    `launch`: the handle of the EHR that began it; "" for a standalone launch.
    """

    client: str
    redirect: str
    scope: str
    state: str
    challenge: str
    nonce: str = ""
    launch: str = ""

    def list_scopes(self) -> tuple[ResourceScope, ...]:
        """The resource scopes among them."""
        return parse_scopes(self.scope)

    def asks(self, word: str) -> bool:
        """Whether a scope that is no resource scope is among them, such as `openid`."""
        return word in self.scope.split()

    def make_redirect(self, **parameters: str) -> str:
        """The URL at which the app goes on."""
        separator = "&" if "?" in self.redirect else "?"
        given = {**parameters, **({"state": self.state} if self.state else {})}
        return f"{self.redirect}{separator}{urlencode(given)}"


class RequestRefused(Exception):
    """The app of the name `client` is told that its request cannot be granted: at `url`, its own."""

    def __init__(self, url: str, client: str) -> None:
        super().__init__(url)
        self.url, self.client = url, client


class _Fault(Exception):
    """A request cannot be granted; `error` is a code of RFC 6749, section 4.1.2.1, or of OpenID Connect."""

    def __init__(self, error: str, sentence: str) -> None:
        super().__init__(sentence)
        self.error = error


async def read_launch_request(store: Store, query: Mapping[str, str], base: str) -> LaunchRequest:
    """The request of a query to the authorization endpoint.

    Raises Invalid where the app or its URL are not known, so that nobody is sent there; RequestRefused for the rest.
    """
    client = await find_client(store, query.get("client_id", ""))
    redirect = query.get("redirect_uri", "")
    if client is None or not client.may_go_on_at(redirect):
        raise Invalid("This app is not known here, or not with this `redirect_uri`: ask who runs it.")
    names = ("scope", "state", "code_challenge", "nonce", "launch")
    asked = LaunchRequest(client.id, redirect, *(query.get(name, "") for name in names))
    try:
        _check_form(query, asked, base)
        _check_scopes(asked, client.scopes)
        await _check_launch(store, asked, client)
    except _Fault as fault:
        url = asked.make_redirect(error=fault.error, error_description=str(fault), iss=base)
        raise RequestRefused(url, client.id) from None
    return asked


def _check_form(query: Mapping[str, str], asked: LaunchRequest, base: str) -> None:
    """Raise _Fault for parameters that this server cannot follow."""
    for name, error in _NOT_SUPPORTED.items():
        if name in query:
            raise _Fault(error, f"{name} is not supported.")
    if query.get("response_type") != "code":
        raise _Fault("unsupported_response_type", "response_type must be code.")
    if query.get("response_mode", "query") != "query":
        raise _Fault("invalid_request", "response_mode must be query.")
    if query.get("code_challenge_method") != "S256" or not _CHALLENGE.fullmatch(asked.challenge):
        raise _Fault("invalid_request", "PKCE is needed: code_challenge with code_challenge_method S256.")
    if query.get("aud", "").rstrip("/") != base:
        raise _Fault("invalid_request", f"aud must be {base}.")
    if not asked.state:
        raise _Fault("invalid_request", "state is needed.")
    if len(asked.nonce) > LONGEST_NONCE:
        raise _Fault("invalid_request", f"nonce has at most {LONGEST_NONCE} characters.")
    if query.get("prompt") == "none":  # nobody stays logged in here
        raise _Fault("login_required", "Each launch needs a login.")


def _check_scopes(asked: LaunchRequest, limits: str) -> None:
    """Raise _Fault where the app could get nothing of what it asks."""
    try:
        possible = intersect_scopes(asked.list_scopes(), parse_scopes(limits))
    except WrongScope as error:
        raise _Fault("invalid_scope", str(error)) from None
    if not possible and not asked.asks(OPENID):
        raise _Fault("invalid_scope", "The app may have none of these scopes.")


async def _check_launch(store: Store, asked: LaunchRequest, client: Client) -> None:
    """Raise _Fault for a handle that no EHR got for this app, or whose time is over."""
    if asked.asks("launch") != bool(asked.launch):
        raise _Fault("invalid_scope", "A launch from an EHR needs both the scope launch and the parameter launch.")
    if not asked.launch:
        return
    begun = await find_launch(store, asked.launch)
    if begun is None or (begun.client, begun.created) != (client.id, client.created):
        raise _Fault("invalid_request", "The launch is not known: it is expired, was used before or is of another app.")


async def list_granted(store: Store, asked: LaunchRequest, user: User, roles: Roles) -> list[ResourceScope]:
    """What is asked, within what the app and the user's role may have now."""
    client = await find_client(store, asked.client)
    if client is None:
        return []
    within = intersect_scopes(asked.list_scopes(), parse_scopes(client.scopes))
    return intersect_scopes(within, user.list_scopes(roles))
