"""SMART App Launch for people: an authorization request, the code that it leads to, and the tokens for the code.

https://hl7.org/fhir/smart-app-launch/STU2.2/app-launch.html, RFC 6749, 7636 (PKCE, always S256), 9207 (`iss`).
What is given out is random and looked up by its hash: `code/`, `refresh/` and `access/<SHA-256>`. All of one consent
are a family (`family/<id>`): when a code or a refresh token comes a second time, the family ends, and all its tokens.
"""

from __future__ import annotations

import base64
import hmac
import re
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any
from urllib.parse import urlencode

import orjson

from fhir_server.fhir.outcome import Invalid
from fhir_server.security.clients import Client, find_client
from fhir_server.security.scopes import ResourceScope, WrongScope, parse_scopes
from fhir_server.security.token_endpoint import PREFIX, TokenRefused, intersect_scopes, name_access
from fhir_server.security.users import Roles, User, find_user
from fhir_server.store.protocol import Clock, Store

CODE_LIFETIME = 60
ACCESS_LIFETIME = 3600
REFRESH_LIFETIME = 90 * 24 * 3600
"""Seconds."""

_SECOND = 1_000_000
_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")
_KEPT = frozenset({"offline_access", "online_access"})
"""Scopes that lead to a refresh token."""


@dataclass(frozen=True, slots=True)
class LaunchRequest:
    """What an app asks for. `scope`: as it asked; `state`: what it gets back."""

    client: str
    redirect: str
    scope: str
    state: str
    challenge: str

    def list_scopes(self) -> tuple[ResourceScope, ...]:
        """The resource scopes among them."""
        return parse_scopes(self.scope)

    def make_redirect(self, **parameters: str) -> str:
        """The URL at which the app goes on."""
        separator = "&" if "?" in self.redirect else "?"
        given = {**parameters, **({"state": self.state} if self.state else {})}
        return f"{self.redirect}{separator}{urlencode(given)}"


class RequestRefused(Exception):
    """The app is told that its request cannot be granted: at `url`, its own."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.url = url


async def read_launch_request(store: Store, query: Mapping[str, str], base: str) -> LaunchRequest:
    """The request of a query to the authorization endpoint.

    Raises Invalid where the app or its URL are not known, so that nobody is sent there; RequestRefused for the rest.
    """
    client = await find_client(store, query.get("client_id", ""))
    redirect = query.get("redirect_uri", "")
    if client is None or redirect not in client.redirects:
        raise Invalid("This app is not known here, or not with this `redirect_uri`: ask who runs it.")
    asked = LaunchRequest(
        client.id, redirect, query.get("scope", ""), query.get("state", ""), query.get("code_challenge", "")
    )

    def refuse(error: str, sentence: str) -> RequestRefused:
        return RequestRefused(asked.make_redirect(error=error, error_description=sentence, iss=base))

    if query.get("response_type") != "code":
        raise refuse("unsupported_response_type", "response_type must be code.")
    if query.get("code_challenge_method") != "S256" or not _CHALLENGE.fullmatch(asked.challenge):
        raise refuse("invalid_request", "PKCE is needed: code_challenge with code_challenge_method S256.")
    if query.get("aud", "").rstrip("/") != base:
        raise refuse("invalid_request", f"aud must be {base}.")
    if not asked.state:
        raise refuse("invalid_request", "state is needed.")
    if "launch" in asked.scope.split() or query.get("launch"):
        raise refuse("invalid_scope", "A launch from an EHR is not possible here; launch standalone.")
    try:
        possible = intersect_scopes(asked.list_scopes(), parse_scopes(client.scopes))
    except WrongScope as error:
        raise refuse("invalid_scope", str(error)) from None
    if not possible:
        raise refuse("invalid_scope", "The app may have none of these scopes.")
    return asked


async def list_granted(store: Store, asked: LaunchRequest, user: User, roles: Roles) -> list[ResourceScope]:
    """What is asked, within what the app and the user's role may have now."""
    client = await find_client(store, asked.client)
    if client is None:
        return []
    within = intersect_scopes(asked.list_scopes(), parse_scopes(client.scopes))
    return intersect_scopes(within, user.list_scopes(roles))


@dataclass(frozen=True, slots=True)
class Consent:
    """What a user has allowed an app. `scope`: resource scopes and those of _KEPT; `patient`: an id, or ""."""

    client: str
    client_created: int
    user: str
    user_created: int
    scope: str
    patient: str
    family: str


async def make_code(store: Store, clock: Clock, asked: LaunchRequest, consent: Consent) -> str:
    """A code for what was allowed, good once and for CODE_LIFETIME seconds."""
    code, now = secrets.token_urlsafe(32), clock()
    content = orjson.dumps({**asdict(consent), "redirect": asked.redirect, "challenge": asked.challenge})
    await store.put_value_if(f"family/{consent.family}", b"1", None, now + REFRESH_LIFETIME * _SECOND)
    await store.put_value_if(f"code/{_hash(code)}", content, None, now + CODE_LIFETIME * _SECOND)
    return code


async def exchange_code(store: Store, clock: Clock, form: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
    """(who, the answer of the token endpoint) for a code. Raises TokenRefused."""
    digest = _hash(form.get("code", ""))
    value = await store.get_value(f"code/{digest}")
    content = await _spend(store, clock, f"code/{digest}", value)
    challenge, redirect = str(content.pop("challenge")), str(content.pop("redirect"))
    verifier = form.get("code_verifier", "")
    computed = base64.urlsafe_b64encode(sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    if (
        form.get("client_id") != content["client"]
        or form.get("redirect_uri") != redirect
        or not _VERIFIER.fullmatch(verifier)
        or not hmac.compare_digest(computed, challenge)
    ):
        raise TokenRefused("invalid_grant", "The code was made for another client, redirect_uri or code_verifier.")
    return await _give_tokens(store, clock, Consent(**content))


async def refresh_tokens(store: Store, clock: Clock, form: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
    """(who, the answer) for a refresh token, which is worthless then. Raises TokenRefused."""
    digest = _hash(form.get("refresh_token", ""))
    value = await store.get_value(f"refresh/{digest}")
    content = await _spend(store, clock, f"refresh/{digest}", value)
    if form.get("client_id") != content["client"]:
        raise TokenRefused("invalid_grant", "The refresh token was made for another client.")
    return await _give_tokens(store, clock, Consent(**content))


async def _spend(store: Store, clock: Clock, key: str, value: bytes | None) -> dict[str, Any]:
    """The content of a code or refresh token that comes for the first time. The second time, its family ends."""
    content: dict[str, Any] | None = None if value is None else orjson.loads(value)
    spent = f"spent/{key}"
    if content is not None:
        until = clock() + REFRESH_LIFETIME * _SECOND
        if await store.put_value_if(spent, content["family"].encode(), None, until):
            return content
    family = await store.get_value(spent)
    if family is not None:
        await _end_family(store, family.decode())
    raise TokenRefused("invalid_grant", "The code or refresh token is not good: expired, used before or mistyped.")


async def _end_family(store: Store, family: str) -> None:
    value = await store.get_value(f"family/{family}")
    if value is not None:
        await store.remove_value_if(f"family/{family}", value)


async def _give_tokens(store: Store, clock: Clock, consent: Consent) -> tuple[str, dict[str, Any]]:
    if not await is_alive(store, consent):
        raise TokenRefused("invalid_grant", "The app, the user or what it was allowed is no longer there.")
    now, token = clock(), PREFIX + secrets.token_urlsafe(32)
    content = orjson.dumps(asdict(consent))
    await store.put_value_if(name_access(token), content, None, now + ACCESS_LIFETIME * _SECOND)
    answer: dict[str, Any] = {
        "access_token": token,
        "token_type": "bearer",
        "expires_in": ACCESS_LIFETIME,
        "scope": consent.scope,
    }
    if consent.patient:
        answer["patient"] = consent.patient
    if _KEPT & set(consent.scope.split()):
        refresh = secrets.token_urlsafe(32)
        await store.put_value_if(f"refresh/{_hash(refresh)}", content, None, now + REFRESH_LIFETIME * _SECOND)
        answer["refresh_token"] = refresh
    return f"user:{consent.user}", answer


async def is_alive(store: Store, consent: Consent) -> bool:
    """Whether app, user and family of a consent are still the same and allowed."""
    client, user = await find_client(store, consent.client), await find_user(store, consent.user)
    return (
        _is_same(client, consent.client_created)
        and _is_same(user, consent.user_created)
        and user is not None
        and not user.disabled
        and await store.get_value(f"family/{consent.family}") is not None
    )


def _is_same(kept: Client | User | None, created: int) -> bool:
    return kept is not None and kept.created == created


def make_consent(
    client: Client, user: User, granted: list[ResourceScope], asked: LaunchRequest, patient: str
) -> Consent:
    """What a user allows by saying yes."""
    kept = [word for word in asked.scope.split() if word in _KEPT]
    if any(scope.level == "patient" for scope in granted) and "launch/patient" in asked.scope.split():
        kept.append("launch/patient")
    scope = " ".join([*map(str, granted), *kept])
    return Consent(client.id, client.created, user.name, user.created, scope, patient, secrets.token_urlsafe(16))


def _hash(text: str) -> str:
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
