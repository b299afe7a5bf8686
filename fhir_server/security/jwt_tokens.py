"""Access tokens of other issuers: JSON Web Tokens, checked with the keys that their issuer publishes (RFC 9068).

Keys are found by the issuer's own configuration (OpenID Connect Discovery, RFC 8414), never by what a token's header
names (`jku`, `x5u`, `jwk`). They are kept while the issuer does not answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, NamedTuple

import orjson
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from fhir_server.security.bearer import TokenSource, WrongToken
from fhir_server.security.bounded_cache import BoundedCache
from fhir_server.security.claims import Times, check_claims, make_principal
from fhir_server.security.issuer_configuration import Fetch, fetch_configuration
from fhir_server.security.policy import Principal
from fhir_server.security.unverified import read_unverified
from fhir_server.store.protocol import Clock

ALGORITHMS = ("RS256", "RS384", "PS256", "PS384", "ES256", "ES384")
KEYS_LIFETIME = 3600
"""Seconds after which keys are fetched again."""
RETRY_AFTER = 30
"""Seconds for which an issuer is not asked again, whatever key a token names."""

_SECOND = 1_000_000
_MOST_VERIFIED, _MOST_CHARACTERS = 10_000, 8_000_000
"""Tokens that are not verified again, and their characters together."""
_ASYMMETRIC = frozenset({"RSA", "EC"})


@dataclass(slots=True)
class Issuer:
    """One issuer and its keys, as far as they are known; times are µs."""

    url: str
    keys: KeySet | None = None
    fetched: int = 0
    asked: int = field(default=-(10**18))
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while its keys are fetched."""


class Verified(NamedTuple):
    """What a token was found to be, by which keys; `size`: its characters."""

    issuer: Issuer
    kid: str
    keys: KeySet
    times: Times
    principal: Principal
    size: int


def accept_issuers(urls: Sequence[str], audience: Sequence[str], clock: Clock, fetch: Fetch) -> TokenSource:
    """The source of the access tokens of some issuers for an audience; other tokens are none of its own."""
    issuers = {url: Issuer(url) for url in urls}
    # a signature is verified once, as long as the keys of its issuer are those by which it was
    verified = BoundedCache[Verified](_MOST_VERIFIED, _MOST_CHARACTERS, lambda known, _: known.size)

    async def find_principal(token: str) -> Principal | None:
        if token.count(".") != 2:
            return None
        digest = blake2b(token.encode("utf-8", "surrogateescape"), digest_size=32).digest()
        known = verified.recall(digest)
        if known is None or await _find_keys(known.issuer, known.kid, clock(), fetch) is not known.keys:
            known = await verify(token)
            verified.keep(digest, known)
        known.times.check(clock() // _SECOND)
        return known.principal

    async def verify(token: str) -> Verified:
        try:
            header, claims = read_unverified(token)
        except ValueError:
            raise WrongToken("The token is not a JSON Web Token.") from None
        issuer = issuers.get(str(claims.get("iss")))
        if issuer is None:
            raise WrongToken("The token's issuer (`iss`) is none of those that this server trusts.")
        _check_header(header)
        kid = str(header.get("kid", ""))
        keys = await _find_keys(issuer, kid, clock(), fetch)
        try:
            claims = jwt.decode(token, keys, algorithms=list(ALGORITHMS)).claims
        except (JoseError, ValueError, TypeError):
            raise WrongToken("The token's signature is not that of its issuer.") from None
        times = check_claims(claims, audience, clock() // _SECOND)
        return Verified(issuer, kid, keys, times, make_principal(issuer.url, claims), len(token))

    return find_principal


def _check_header(header: Mapping[str, Any]) -> None:
    if header.get("alg") not in ALGORITHMS:
        raise WrongToken(f"The token is not signed by one of {', '.join(ALGORITHMS)}.")
    if "crit" in header:
        raise WrongToken("The token's header has `crit`, which this server does not understand.")
    if str(header.get("typ", "JWT")).lower() not in ("jwt", "at+jwt", "application/at+jwt"):
        raise WrongToken("The token's type (`typ`) is not that of an access token.")


async def _find_keys(issuer: Issuer, kid: str, now: int, fetch: Fetch) -> KeySet:
    """The keys of an issuer, fetched when they are old or have none of this id, but not again and again."""
    is_old = now - issuer.fetched > KEYS_LIFETIME * _SECOND
    is_unknown = issuer.keys is None or (kid and all(key.kid != kid for key in issuer.keys.keys))
    if (is_old or is_unknown) and now - issuer.asked > RETRY_AFTER * _SECOND:
        issuer.asked = now
        async with issuer.asking:
            # where the issuer is down, what is known of it stays good
            with suppress(OSError, ValueError, TypeError, KeyError, JoseError):
                issuer.keys, issuer.fetched = await _fetch_keys(issuer.url, fetch), now
    elif is_unknown and issuer.asking.locked():
        async with issuer.asking:
            pass  # another request asks already: what it learns is for this one, too
    if issuer.keys is None:
        raise WrongToken("The keys of the token's issuer cannot be had now; try again in a minute.")
    return issuer.keys


async def _fetch_keys(url: str, fetch: Fetch) -> KeySet:
    """The keys that an issuer's configuration names. Raises OSError or ValueError."""
    configuration = await fetch_configuration(url, fetch)
    keys = orjson.loads(await fetch(configuration["jwks_uri"]))["keys"]
    public = [key for key in keys if key.get("kty") in _ASYMMETRIC and key.get("use", "sig") == "sig"]
    return KeySet.import_key_set({"keys": public})
