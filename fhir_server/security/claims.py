"""What an access token says, however it was verified: its time, for whom it is, and what it allows (RFC 9068)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from fhir_server.security.bearer import WrongToken
from fhir_server.security.policy import Grant, Principal
from fhir_server.security.scopes import WrongScope, parse_scopes

SKEW = 60
"""Seconds by which the clock of an issuer may differ from ours."""


class Times(NamedTuple):
    """From when to when a token is good: seconds since 1970."""

    begins: float
    expires: float

    def check(self, now: int) -> None:
        """Raise WrongToken for a token that is expired or not valid yet. `now`: seconds."""
        if now >= self.expires + SKEW:
            raise WrongToken("The token has expired.")
        if now < self.begins - SKEW:
            raise WrongToken("The token is not valid yet.")


def check_claims(claims: Mapping[str, Any], audience: Sequence[str], now: int) -> Times:
    """Raise WrongToken for a token that is expired, not valid yet or for another audience. `now`: seconds."""
    expires, begins = claims.get("exp"), claims.get("nbf", 0)
    if not isinstance(expires, int | float) or not isinstance(begins, int | float):
        raise WrongToken("The token has no time at which it expires (`exp`), or its times are no numbers.")
    times = Times(begins, expires)
    times.check(now)
    given = claims.get("aud")
    if not any(each in audience for each in (given if isinstance(given, list) else [given])):
        raise WrongToken("The token is for another server (`aud`).")
    return times


def make_principal(issuer: str, claims: Mapping[str, Any]) -> Principal:
    """Whose token it is, and what it allows. Raises WrongToken for scopes that are none."""
    scope = claims.get("scope", claims.get("scp", ""))
    try:
        scopes = parse_scopes(" ".join(map(str, scope)) if isinstance(scope, list) else str(scope))
    except WrongScope as error:
        raise WrongToken(f"The token has a wrong scope. {error}") from None
    client = str(claims.get("client_id") or claims.get("azp") or "")
    subject = str(claims.get("sub") or client)
    user = urlsplit(str(claims.get("fhirUser", ""))).path.strip("/")
    grant = Grant(scopes, str(claims.get("patient", "")), "/".join(user.split("/")[-2:]), client)
    return Principal(f"{issuer}#{subject}", grant=grant)
