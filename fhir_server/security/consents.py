"""What people have allowed apps: the code that it leads to, and the tokens for the code (RFC 6749, sections 4.1 and 6).

What is given out is random and looked up by its hash: `code/`, `refresh/` and `access/<SHA-256>`. All of one consent
are a family (`family/<id>`): when a code or a refresh token comes a second time, the family ends, and all its tokens.
"""

from __future__ import annotations

import base64
import hmac
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from typing import Any

import orjson

from fhir_server.security.clients import Client, find_client
from fhir_server.security.launch import OPENID, LaunchRequest
from fhir_server.security.scopes import ResourceScope
from fhir_server.security.token_endpoint import PREFIX, TokenRefused, name_access
from fhir_server.security.users import User, find_user
from fhir_server.store.protocol import Clock, Store

CODE_LIFETIME = 60
ONLINE_LIFETIME = 12 * 3600
ACCESS_LIFETIME = 3600
REFRESH_LIFETIME = 90 * 24 * 3600
"""Seconds."""

_SECOND = 1_000_000
_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")
_KEPT = frozenset({"offline_access", "online_access"})
"""Scopes that lead to a refresh token."""
_OTHERS = frozenset({*_KEPT, OPENID, "fhirUser", "launch", "launch/patient", "launch/encounter"})


@dataclass(frozen=True, slots=True)
class Consent:
    """What a user has allowed an app. `scope`: resource scopes and others; `patient`, `encounter`: an id, or "".

    `nonce`: the app's own, for its ID token; `logged_in`: µs; `banner`: see `EhrLaunch`.
    """

    client: str
    client_created: int
    user: str
    user_created: int
    scope: str
    patient: str
    family: str
    nonce: str = ""
    logged_in: int = 0
    encounter: str = ""
    banner: bool | None = None

    def list_other_scopes(self) -> list[str]:
        """The scopes that speak of no resources, such as `openid`."""
        return [word for word in self.scope.split() if word in _OTHERS]

    def add_context(self, asked: LaunchRequest, patient: str, encounter: str, banner: bool | None) -> Consent:
        """With what the app is launched with, and the scopes that say so."""
        has = {"launch": bool(asked.launch), "launch/patient": bool(patient), "launch/encounter": bool(encounter)}
        words = [self.scope, *(word for word, given in has.items() if given and asked.asks(word))]
        scope = " ".join(filter(None, words))
        return replace(self, scope=scope, patient=patient, encounter=encounter, banner=banner)

    def list_context(self) -> dict[str, Any]:
        """What the answer of the token endpoint says of it (SMART App Launch, launch context parameters)."""
        context: dict[str, Any] = {"patient": self.patient, "encounter": self.encounter}
        found = {name: value for name, value in context.items() if value}
        return found if self.banner is None else {**found, "need_patient_banner": self.banner}

    def count_lifetime(self) -> int:
        """Seconds for which tokens can be had for it, without another login."""
        return REFRESH_LIFETIME if "offline_access" in self.scope.split() else ONLINE_LIFETIME


async def make_code(store: Store, clock: Clock, asked: LaunchRequest, consent: Consent) -> str:
    """A code for what was allowed, good once and for CODE_LIFETIME seconds."""
    code, now = secrets.token_urlsafe(32), clock()
    content = orjson.dumps({**asdict(consent), "redirect": asked.redirect, "challenge": asked.challenge})
    ends = now + consent.count_lifetime() * _SECOND
    await store.put_value_if(f"family/{consent.family}", consent.client.encode(), None, ends)
    await store.put_value_if(f"code/{_hash(code)}", content, None, now + CODE_LIFETIME * _SECOND)
    return code


async def exchange_code(store: Store, clock: Clock, form: Mapping[str, str]) -> tuple[Consent, dict[str, Any]]:
    """(the consent, the answer of the token endpoint) for a code. Raises TokenRefused."""
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


async def refresh_tokens(store: Store, clock: Clock, form: Mapping[str, str]) -> tuple[Consent, dict[str, Any]]:
    """(the consent, the answer) for a refresh token, which is worthless then. Raises TokenRefused."""
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
        await end_family(store, family.decode())
    raise TokenRefused("invalid_grant", "The code or refresh token is not good: expired, used before or mistyped.")


async def end_family(store: Store, family: str) -> None:
    """Make all tokens of a consent worthless."""
    value = await store.get_value(f"family/{family}")
    if value is not None:
        await store.remove_value_if(f"family/{family}", value)


async def _give_tokens(store: Store, clock: Clock, consent: Consent) -> tuple[Consent, dict[str, Any]]:
    """(the consent, the answer of RFC 6749, section 5.1)."""
    if not await is_alive(store, consent):
        raise TokenRefused("invalid_grant", "The app, the user or what it was allowed is no longer there.")
    now, token = clock(), PREFIX + secrets.token_urlsafe(32)
    content, ends = asdict(consent), now + ACCESS_LIFETIME * _SECOND
    await store.put_value_if(name_access(token), orjson.dumps({**content, "ends": ends}), None, ends)
    answer: dict[str, Any] = {
        "access_token": token,
        "token_type": "bearer",
        "expires_in": ACCESS_LIFETIME,
        "scope": consent.scope,
    }
    answer |= consent.list_context()
    if _KEPT & set(consent.scope.split()):
        refresh = secrets.token_urlsafe(32)
        ends = now + consent.count_lifetime() * _SECOND
        await store.put_value_if(f"refresh/{_hash(refresh)}", orjson.dumps(content), None, ends)
        answer["refresh_token"] = refresh
    return consent, answer


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
    client: Client, user: User, granted: Iterable[ResourceScope], asked: LaunchRequest, logged_in: int
) -> Consent:
    """What a user allows by saying yes."""
    possible = {*_KEPT, OPENID}
    if user.fhir_user and asked.asks(OPENID):
        possible.add("fhirUser")
    kept = [word for word in dict.fromkeys(asked.scope.split()) if word in possible]
    scope, family = " ".join([*map(str, granted), *kept]), secrets.token_urlsafe(16)
    return Consent(client.id, client.created, user.name, user.created, scope, "", family, asked.nonce, logged_in)


async def find_refresh(store: Store, token: str) -> Consent | None:
    """What a refresh token that is good now was given out for."""
    digest = _hash(token)
    value = await store.get_value(f"refresh/{digest}")
    if value is None or await store.get_value(f"spent/refresh/{digest}") is not None:
        return None
    consent = Consent(**orjson.loads(value))
    return consent if await is_alive(store, consent) else None


async def find_family(store: Store, token: str) -> tuple[str, str] | None:
    """(family, client) of a refresh token, also of one that was used; None where there is none any more."""
    digest = _hash(token)
    value = await store.get_value(f"refresh/{digest}")
    spent = await store.get_value(f"spent/refresh/{digest}") if value is None else None
    family = orjson.loads(value)["family"] if value is not None else (spent or b"").decode()
    client = await store.get_value(f"family/{family}")
    return None if client is None else (family, client.decode())


def read_access(value: bytes) -> tuple[Consent, int]:
    """The consent that an access token was given out for, and when the token ends (µs)."""
    content: dict[str, Any] = orjson.loads(value)
    ends = content.pop("ends", 0)
    return Consent(**content), ends


def _hash(text: str) -> str:
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
