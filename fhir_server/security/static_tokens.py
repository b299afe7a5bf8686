"""Tokens that the site gives out itself, for interface engines and scripts: `fhir-server token` (docs/access.md).

The value `token/<SHA-256 of the token>` says what it allows; the token itself is printed once and kept nowhere.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256

import orjson

from fhir_server.security.bearer import TokenSource, WrongToken
from fhir_server.security.policy import Grant, Principal
from fhir_server.security.scopes import fill_scopes, parse_scopes
from fhir_server.security.users import check_organization
from fhir_server.store.protocol import Clock, Store

PREFIX = "fhs_"
MOST_TOKENS = 1000
"""Tokens that a store keeps, revoked ones aside."""
Roles = Mapping[str, Sequence[str]]
"""Name → scopes."""

_PLACE = "token/"
_USED_EVERY = 60 * 1_000_000
"""µs for which the last use of a token is not written again."""


@dataclass(frozen=True, slots=True)
class StaticToken:
    """What a token allows: `scopes` (a text) and those of a `role`, for a `patient` (an id) where they say `patient/`.

    Times are µs since 1970; `used` 0: never. `organization`: a reference that is filled in in the role's scopes.
    """

    name: str
    scopes: str
    role: str = ""
    patient: str = ""
    created: int = 0
    expires: int = 0
    used: int = 0
    organization: str = ""


async def create_token(store: Store, token: StaticToken, roles: Roles) -> str:
    """Keep a token under a new secret, which is returned. Raises ValueError for what cannot be."""
    if token.role and token.role not in roles:
        raise ValueError(f"There is no role `{token.role}`; roles are {', '.join(sorted(roles))}.")
    check_organization(token.organization)
    scopes = parse_scopes(" ".join(list_scopes(token, roles)))
    if not scopes:
        raise ValueError("The token would allow nothing; give it a scope such as `system/Observation.rs`, or a role.")
    if token.patient == "" and any(scope.level == "patient" for scope in scopes):
        raise ValueError("Scopes that begin with `patient/` need the patient's id (`--patient`).")
    known = await list_tokens(store)
    if any(each.name == token.name for each in known):
        raise ValueError(f"There is a token `{token.name}` already; revoke it first, or choose another name.")
    if len(known) >= MOST_TOKENS:
        raise ValueError(f"{MOST_TOKENS} tokens is the most; revoke those that nobody uses.")
    secret = PREFIX + secrets.token_urlsafe(32)
    await store.put_value_if(_name_place(secret), orjson.dumps(asdict(token)), None, token.expires)
    return secret


async def list_tokens(store: Store) -> list[StaticToken]:
    """The tokens that are good now, by name."""
    page = await store.list_values(_PLACE, limit=MOST_TOKENS)
    return sorted((_read(value) for _, value in page.values), key=lambda token: token.name)


async def revoke_token(store: Store, name: str) -> bool:
    """Forget a token; False when there is none."""
    page = await store.list_values(_PLACE, limit=MOST_TOKENS)
    for key, value in page.values:
        if _read(value).name == name:
            return await _remove(store, key, value)
    return False


async def _remove(store: Store, key: str, value: bytes | None) -> bool:
    """Remove what is there, also where its last use has been written in between."""
    while value is not None:
        if await store.remove_value_if(key, value):
            return True
        value = await store.get_value(key)
    return False


async def find_static_token(store: Store, secret: str) -> StaticToken | None:
    """The token of a secret, if it is good now."""
    value = await store.get_value(_name_place(secret)) if secret.startswith(PREFIX) else None
    return None if value is None else _read(value)


def accept_static_tokens(store: Store, clock: Clock, roles: Roles) -> TokenSource:
    """The source of the tokens in a store."""

    async def find_principal(secret: str) -> Principal | None:
        if not secret.startswith(PREFIX):
            return None
        key = _name_place(secret)
        value = await store.get_value(key)
        if value is None:
            raise WrongToken("The token is not known here: it is expired, revoked or mistyped.")
        token, now = _read(value), clock()
        if now - token.used > _USED_EVERY:
            # where another process writes it at the same moment, that one's is as good
            await store.put_value_if(key, orjson.dumps(asdict(replace(token, used=now))), value, token.expires)
        grant = Grant(parse_scopes(" ".join(list_scopes(token, roles))), token.patient, client=token.name)
        return Principal(f"token:{token.name}", grant=grant)

    return find_principal


def list_scopes(token: StaticToken, roles: Roles) -> list[str]:
    """The scopes of a token, those of its role included as it is now."""
    of_role = parse_scopes(" ".join(roles.get(token.role, ())))
    values = {"patient": token.patient, "organization": token.organization}
    return [*token.scopes.split(), *map(str, fill_scopes(of_role, values))]


def _name_place(secret: str) -> str:
    return _PLACE + sha256(secret.encode()).hexdigest()


def _read(value: bytes) -> StaticToken:
    return StaticToken(**orjson.loads(value))
