"""The keys with which this server signs ID tokens, kept in the store so that all workers agree (RFC 7517).

The value `signing-keys` lists them, the newest first: that one signs. Of an older one only the public part is kept, and
published until what it signed has ended.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass
from typing import Any

import orjson

from fhir_server.store.protocol import Clock, Store

ALGORITHM = "RS256"
"""What every OpenID Connect client can verify."""
BITS = 2048
PUBLISHED_AFTER = 3600 + 60
"""Seconds for which the public part of a replaced key is published: an ID token's time and what clocks may differ."""

_PLACE = "signing-keys"
_SECOND = 1_000_000


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One key as a JSON Web Key, with its private part while it signs. `ends`: µs; 0 while it signs."""

    jwk: dict[str, Any]
    ends: int = 0


async def find_signing_key(store: Store) -> dict[str, Any]:
    """The private key that signs now, as a JSON Web Key; made on first use."""
    while True:
        keys, value = await _read_keys(store)
        if keys:
            return keys[0].jwk
        await _put_keys(store, [SigningKey(await asyncio.to_thread(_make_key))], value)


async def list_public_keys(store: Store, clock: Clock) -> list[dict[str, Any]]:
    """The public parts of the key that signs and of those before it whose tokens may still be good."""
    await find_signing_key(store)
    keys, _ = await _read_keys(store)
    return [_drop_private_part(each.jwk) for each in keys if each.ends == 0 or each.ends > clock()]


async def rotate_signing_key(store: Store, clock: Clock) -> str:
    """Sign with a new key from now on; its id. The private part of the one before is forgotten."""
    made = await asyncio.to_thread(_make_key)
    while True:
        keys, value = await _read_keys(store)
        now = clock()
        ends = now + PUBLISHED_AFTER * _SECOND
        before = [SigningKey(_drop_private_part(each.jwk), each.ends or ends) for each in keys]
        if await _put_keys(store, [SigningKey(made), *(each for each in before if each.ends > now)], value):
            return str(made["kid"])


async def _read_keys(store: Store) -> tuple[list[SigningKey], bytes | None]:
    value = await store.get_value(_PLACE)
    return [SigningKey(**each) for each in orjson.loads(value or b"[]")], value


async def _put_keys(store: Store, keys: list[SigningKey], before: bytes | None) -> bool:
    return await store.put_value_if(_PLACE, orjson.dumps([asdict(each) for each in keys]), before)


def _make_key() -> dict[str, Any]:
    # Imported here, because the library costs a start 0.1 s.
    from joserfc.jwk import RSAKey

    key = RSAKey.generate_key(BITS, {"use": "sig", "alg": ALGORITHM})
    key.ensure_kid()
    return key.as_dict(private=True)


def _drop_private_part(jwk: dict[str, Any]) -> dict[str, Any]:
    return {name: jwk[name] for name in ("kty", "kid", "use", "alg", "n", "e")}
