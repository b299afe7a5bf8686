"""The access tokens that this server gives out, to systems and to the apps of people."""

from __future__ import annotations

from typing import Any

import orjson

from fhir_server.security.bearer import TokenSource, WrongToken
from fhir_server.security.clients import find_client
from fhir_server.security.consents import Consent, is_alive, read_access
from fhir_server.security.policy import Grant, Principal
from fhir_server.security.scopes import parse_scopes
from fhir_server.security.token_endpoint import PREFIX, intersect_scopes, name_access
from fhir_server.security.users import Roles, find_user
from fhir_server.store.protocol import Store

_WORTHLESS = "The token is not known here: it is expired, revoked or mistyped."


def accept_access_tokens(store: Store, roles: Roles) -> TokenSource:
    """The source of these tokens; worthless once the client or the user is gone, or the consent has ended."""

    async def find_principal(token: str) -> Principal | None:
        if not token.startswith(PREFIX):
            return None
        value = await store.get_value(name_access(token))
        if value is None:
            raise WrongToken(_WORTHLESS)
        content: dict[str, Any] = orjson.loads(value)
        if "family" in content:
            return await _find_user_principal(store, read_access(value)[0], roles)
        client = await find_client(store, content["client"])
        if client is None or client.created != content["created"]:
            raise WrongToken(_WORTHLESS)
        return Principal(f"client:{client.id}", grant=Grant(parse_scopes(content["scope"]), client=client.id))

    return find_principal


async def find_consent(store: Store, token: str) -> Consent | None:
    """What the access token of a person's app was given out for; None for every other token, and once it has ended."""
    value = await store.get_value(name_access(token)) if token.startswith(PREFIX) else None
    if value is None or "family" not in orjson.loads(value):
        return None
    consent, _ = read_access(value)
    return consent if await is_alive(store, consent) else None


async def _find_user_principal(store: Store, consent: Consent, roles: Roles) -> Principal:
    """The user by what the app was allowed, within what the user's role allows now."""
    user = await find_user(store, consent.user)
    if user is None or not await is_alive(store, consent):
        raise WrongToken(_WORTHLESS)
    scopes = intersect_scopes(parse_scopes(consent.scope), user.list_scopes(roles))
    grant = Grant(tuple(scopes), consent.patient, user.fhir_user, consent.client)
    return Principal(f"user:{user.name}", grant=grant)
