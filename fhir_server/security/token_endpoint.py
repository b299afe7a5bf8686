"""The token endpoint of the built-in authorization server: a signed assertion becomes an access token.

https://hl7.org/fhir/smart-app-launch/STU2.2/client-confidential-asymmetric.html and RFC 7523. A token is random, looked
up by its hash (`access/<SHA-256>`), and good for LIFETIME seconds.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from hashlib import sha256
from typing import Any

import orjson

from fhir_server.security.clients import Client, find_client
from fhir_server.security.scope_policy import LABELS, WHATEVER_TARGET, Pairs, names_label
from fhir_server.security.scopes import ANY_TYPE, PERMISSIONS, ResourceScope, WrongScope, parse_scopes
from fhir_server.security.unverified import read_unverified
from fhir_server.store.protocol import Clock, Store

ALGORITHMS = ("RS384", "ES384")
LIFETIME = 300
"""Seconds of a token; the specification wants no more."""
LONGEST_ASSERTION = 300
"""Seconds from now to the end of an assertion."""
SKEW = 60
"""Seconds by which a client's clock may differ."""
PREFIX = "fha_"

_SECOND = 1_000_000
_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_LONGEST_TEXT = 16 * 1024


class TokenRefused(Exception):
    """No token is given out; `error` is the code of RFC 6749, section 5.2, and str says why."""

    def __init__(self, error: str, sentence: str) -> None:
        super().__init__(sentence)
        self.error = error


async def grant_token(store: Store, clock: Clock, form: Mapping[str, str], url: str) -> tuple[Client, dict[str, Any]]:
    """The client, and the answer of RFC 6749, section 5.1. `url`: that of the token endpoint. Raises TokenRefused."""
    if form.get("grant_type") != "client_credentials":
        raise TokenRefused("unsupported_grant_type", "`grant_type` must be `client_credentials`.")
    now = clock()
    client = await verify_client(store, form, url, now // _SECOND)
    try:
        wanted = parse_scopes(form.get("scope", ""))
    except WrongScope as error:
        raise TokenRefused("invalid_scope", str(error)) from None
    granted = intersect_scopes(wanted, parse_scopes(client.scopes))
    if not granted:
        raise TokenRefused(
            "invalid_scope", f"`{client.id}` may have none of these scopes; it may have {client.scopes}."
        )
    token, scope = PREFIX + secrets.token_urlsafe(32), " ".join(map(str, granted))
    ends = now + LIFETIME * _SECOND
    content = orjson.dumps({"client": client.id, "scope": scope, "created": client.created, "ends": ends})
    await store.put_value_if(name_access(token), content, None, ends)
    return client, {"access_token": token, "token_type": "bearer", "expires_in": LIFETIME, "scope": scope}


async def verify_client(store: Store, form: Mapping[str, str], url: str, now: int) -> Client:
    """The client that the assertion of a form proves. `url`: of the token endpoint; `now`: s. Raises TokenRefused."""
    if form.get("client_assertion_type") != _ASSERTION_TYPE:
        raise TokenRefused("invalid_request", f"`client_assertion_type` must be `{_ASSERTION_TYPE}`.")
    assertion = form.get("client_assertion", "")
    try:
        header, claims = read_unverified(assertion if len(assertion) <= _LONGEST_TEXT else "")
    except ValueError:
        raise TokenRefused("invalid_client", "`client_assertion` is no JSON Web Token.") from None
    client = await find_client(store, str(claims.get("iss")))
    kid = header.get("kid")
    keys = [key for key in client.keys if key["kid"] == kid] if client is not None else []
    if client is None or not keys or header.get("alg") not in ALGORITHMS or "crit" in header:
        raise TokenRefused(
            "invalid_client",
            f"The assertion needs the client's name as `iss`, one of its keys as `kid`, and {ALGORITHMS}.",
        )
    _verify_signature(assertion, keys)
    if claims.get("sub") != client.id:
        raise TokenRefused("invalid_client", "`iss` and `sub` of the assertion must both be the client's name.")
    if claims.get("aud") not in (url, [url]):
        raise TokenRefused("invalid_client", f"The assertion is for another server: its `aud` must be `{url}` alone.")
    expires = claims.get("exp")
    if not isinstance(expires, int) or not now - SKEW < expires <= now + LONGEST_ASSERTION + SKEW:
        raise TokenRefused(
            "invalid_client", f"`exp` of the assertion must be within the next {LONGEST_ASSERTION} seconds."
        )
    await _use_once(store, client, claims.get("jti"), expires)
    return client


async def _use_once(store: Store, client: Client, jti: object, expires: int) -> None:
    """Raise TokenRefused for an assertion that was used before, by whatever process."""
    if not isinstance(jti, str) or not jti:
        raise TokenRefused("invalid_client", "The assertion needs a `jti` of its own.")
    key = f"jti/{client.id}/{sha256(jti.encode('utf-8', 'surrogatepass')).hexdigest()}"
    if not await store.put_value_if(key, b"1", None, (expires + 2 * SKEW) * _SECOND):
        raise TokenRefused("invalid_client", "The assertion was used before; make a new one, with a `jti` of its own.")


def _verify_signature(assertion: str, keys: list[dict[str, Any]]) -> None:
    # Imported here, because the library costs a start 0.1 s.
    from joserfc import jwt
    from joserfc.errors import JoseError
    from joserfc.jwk import KeySet

    try:
        jwt.decode(assertion, KeySet.import_key_set({"keys": keys}), algorithms=list(ALGORITHMS))
    except (JoseError, ValueError, TypeError, KeyError):
        raise TokenRefused("invalid_client", "The assertion's signature is not that of the client's key.") from None


def intersect_scopes(wanted: Iterable[ResourceScope], most: Iterable[ResourceScope]) -> list[ResourceScope]:
    """What of the wanted scopes is within others: type, letters and search parameters of both.

    What a person may see of everybody may be asked for one patient, and is then of that patient alone; who may see one
    patient alone, and asks for everybody, gets that patient.
    """
    limits, within = list(most), []
    for each in wanted:
        same = list(_intersect(each, [limit for limit in limits if limit.level == each.level]))
        others = [limit for limit in limits if {limit.level, each.level} == {"patient", "user"}]
        if each.level == "patient" or not same:
            same += [replace(scope, level="patient") for scope in _intersect(each, others)]
        within += same
    return list(dict.fromkeys(within))


def _intersect(wanted: ResourceScope, limits: Iterable[ResourceScope]) -> Iterator[ResourceScope]:
    for limit in limits:
        letters = "".join(each for each in PERMISSIONS if each in wanted.permissions and each in limit.permissions)
        types = {wanted.type, limit.type} - {ANY_TYPE} or {ANY_TYPE}
        if letters and len(types) == 1:
            yield ResourceScope(wanted.level, types.pop(), letters, _join_queries(wanted.query, limit.query))


def _join_queries(one: Pairs, other: Pairs) -> Pairs:
    """The parameters of both; what only one of them lifts, restricted labels or hidden targets, stays as it is."""
    joined = dict.fromkeys((*one, *other))
    if names_label(one) != names_label(other):
        joined |= dict.fromkeys(LABELS)
    return tuple(pair for pair in joined if pair != WHATEVER_TARGET or (pair in one and pair in other))


def name_access(token: str) -> str:
    """The key of an access token's value."""
    return f"access/{sha256(token.encode()).hexdigest()}"
