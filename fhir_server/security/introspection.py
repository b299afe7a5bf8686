"""Opaque access tokens of other issuers: the issuer is asked about each (RFC 7662)."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import orjson

from fhir_server.security.bearer import TokenSource, WrongToken
from fhir_server.security.claims import check_claims, make_principal
from fhir_server.security.issuer_configuration import Fetch, fetch_configuration
from fhir_server.security.policy import Principal
from fhir_server.store.protocol import Clock

_SECOND = 1_000_000

Post = Callable[[str, Mapping[str, str], Mapping[str, str]], Awaitable[bytes]]
"""(URL, form, headers) → the body of its answer; raises OSError."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """By which this server asks the issuer."""

    client: str
    secret: str

    def to_header(self) -> str:
        """HTTP Basic, both parts form-encoded first (RFC 6749, section 2.3.1)."""
        text = f"{quote(self.client, safe='')}:{quote(self.secret, safe='')}"
        return f"Basic {base64.b64encode(text.encode()).decode()}"


@dataclass(frozen=True, slots=True)
class Network:
    """How the issuer is reached."""

    fetch: Fetch
    post: Post


def accept_opaque_tokens(
    issuer: str, credentials: Credentials, audience: Sequence[str], clock: Clock, network: Network
) -> TokenSource:
    """The source of the opaque tokens of one issuer: every token that no other source takes for its own."""

    async def find_principal(token: str) -> Principal | None:
        try:
            endpoint = (await fetch_configuration(issuer, network.fetch))["introspection_endpoint"]
            headers = {"authorization": credentials.to_header(), "accept": "application/json"}
            answer: Any = orjson.loads(await network.post(str(endpoint), {"token": token}, headers))
        except (OSError, ValueError, KeyError):
            raise WrongToken("The token's issuer cannot be asked about it now; try again in a minute.") from None
        if not isinstance(answer, dict) or answer.get("active") is not True:
            raise WrongToken("The token is not known here: it is expired, revoked or mistyped.")
        check_claims(answer, audience, clock() // _SECOND)
        return make_principal(issuer, answer)

    return find_principal
