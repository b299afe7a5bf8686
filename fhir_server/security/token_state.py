"""What becomes of tokens that were given out here: asked about (RFC 7662) and revoked (RFC 7009)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from fhir_server.security.access_tokens import find_consent
from fhir_server.security.clients import Client, find_client
from fhir_server.security.consents import Consent, end_family, find_family, find_refresh, read_access
from fhir_server.security.id_tokens import describe_user
from fhir_server.security.scopes import parse_scopes
from fhir_server.security.static_tokens import find_static_token, list_scopes
from fhir_server.security.token_endpoint import (
    PREFIX,
    TokenRefused,
    intersect_scopes,
    name_access,
    verify_client,
)
from fhir_server.security.users import Roles, find_user
from fhir_server.store.protocol import Store

_SECOND = 1_000_000
_INACTIVE = {"active": False}


async def describe_token(store: Store, roles: Roles, token: str, base: str) -> dict[str, Any]:
    """The answer of RFC 7662, section 2.2: `active`, and of a token that is good now what it allows."""
    static = await find_static_token(store, token)
    if static is not None:
        found = {"scope": " ".join(list_scopes(static, roles)), "client_id": static.name, "sub": static.name}
        return _complete(found, base, static.patient, static.expires)
    consent = await find_consent(store, token)
    if consent is not None:
        _, ends = read_access(await store.get_value(name_access(token)) or b"{}")
        return _complete(await _describe_consent(store, roles, consent, base), base, consent.patient, ends)
    consent = await find_refresh(store, token)
    if consent is not None:
        return _complete(await _describe_consent(store, roles, consent, base), base, consent.patient, 0)
    return await _describe_client_token(store, token, base)


def _complete(found: Mapping[str, Any], base: str, patient: str, ends: int) -> dict[str, Any]:
    answer = {"active": True, "token_type": "bearer", "iss": base, "aud": base, **found}
    if patient:
        answer["patient"] = patient
    if ends:
        answer["exp"] = ends // _SECOND
    return answer


async def _describe_consent(store: Store, roles: Roles, consent: Consent, base: str) -> dict[str, Any]:
    """What an app may do now for the person who allowed it: what was allowed, within the role as it is now."""
    user = await find_user(store, consent.user)
    most = user.list_scopes(roles) if user is not None else ()
    scopes = [*map(str, intersect_scopes(parse_scopes(consent.scope), most)), *consent.list_other_scopes()]
    return {"scope": " ".join(scopes), "client_id": consent.client, **await describe_user(store, consent, base)}


async def _describe_client_token(store: Store, token: str, base: str) -> dict[str, Any]:
    found = await _find_client_token(store, token)
    if found is None:
        return _INACTIVE
    client, content = found
    described = {"scope": content["scope"], "client_id": client.id, "sub": client.id}
    return _complete(described, base, "", content["ends"])


async def _find_client_token(store: Store, token: str) -> tuple[Client, dict[str, Any]] | None:
    """The system that an access token was given to, and what was kept of it."""
    value = await store.get_value(name_access(token)) if token.startswith(PREFIX) else None
    content: dict[str, Any] = orjson.loads(value or b"{}")
    client = await find_client(store, content["client"]) if content and "family" not in content else None
    return (client, content) if client is not None and client.created == content["created"] else None


async def revoke_given_token(store: Store, token: str, client: Client) -> None:
    """Make a token of a client worthless; one that is not known is already. A refresh token takes its family with it.

    Raises TokenRefused for one that was given to another client.
    """
    value = await store.get_value(name_access(token)) if token.startswith(PREFIX) else None
    if value is not None:
        _check_owner(orjson.loads(value)["client"], client)
        await store.remove_value_if(name_access(token), value)
        return
    family = await find_family(store, token)
    if family is not None:
        _check_owner(family[1], client)
        await end_family(store, family[0])


def _check_owner(owner: str, client: Client) -> None:
    if owner != client.id:
        raise TokenRefused("invalid_grant", "The token was given to another client.")


async def identify_client(store: Store, form: Mapping[str, str], url: str, now: int) -> Client:
    """Who asks to revoke: a system by its assertion, an app by its name alone. Raises TokenRefused. `now`: seconds."""
    if "client_assertion" in form:
        return await verify_client(store, form, url, now)
    client = await find_client(store, form.get("client_id", ""))
    if client is None or client.keys:
        raise TokenRefused("invalid_client", "An app gives its `client_id`, a system signs a `client_assertion`.")
    return client
