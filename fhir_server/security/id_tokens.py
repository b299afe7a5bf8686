"""ID tokens: who logged in, signed for one app (https://openid.net/specs/openid-connect-core-1_0.html#IDToken)."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from fhir_server.security.consents import Consent
from fhir_server.security.signing_keys import ALGORITHM, find_signing_key
from fhir_server.security.users import find_user
from fhir_server.store.protocol import Store

LIFETIME = 3600
"""Seconds."""

_SECOND = 1_000_000


async def make_id_token(store: Store, now: int, consent: Consent, base: str) -> str:
    """The signed token for the app of a consent. `now`: µs; `base`: the issuer."""
    # Imported here, because the library costs a start 0.1 s.
    from joserfc import jwt
    from joserfc.jwk import RSAKey

    seconds = now // _SECOND
    claims = {
        "iss": base,
        "aud": consent.client,
        "iat": seconds,
        "exp": seconds + LIFETIME,
        "auth_time": consent.logged_in // _SECOND,
        **({"nonce": consent.nonce} if consent.nonce else {}),
        **await describe_user(store, consent, base),
    }
    key = RSAKey.import_key(await find_signing_key(store))
    return jwt.encode({"alg": ALGORITHM, "kid": key.kid, "typ": "JWT"}, claims, key, algorithms=[ALGORITHM])


async def describe_user(store: Store, consent: Consent, base: str) -> dict[str, Any]:
    """`sub`, and where the app was allowed it `fhirUser`, the URL of the person's resource (SMART, 3.0.7)."""
    claims = {"sub": name_subject(consent.user, consent.user_created)}
    user = await find_user(store, consent.user)
    if user is not None and user.fhir_user and "fhirUser" in consent.scope.split():
        claims["fhirUser"] = f"{base}/{user.fhir_user}"
    return claims


def name_subject(name: str, created: int) -> str:
    """The `sub` of a user: of no other one, also where a name is given a second time."""
    return sha256(f"{name}\n{created}".encode()).hexdigest()[:32]
