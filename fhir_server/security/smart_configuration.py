"""`.well-known/smart-configuration`: where apps get their tokens, as the authorization server says itself.

https://hl7.org/fhir/smart-app-launch/STU2.2/conformance.html; only what works with this server is stated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from fhir_server.fhir.outcome import Unavailable
from fhir_server.security.issuer_configuration import Fetch, fetch_configuration
from fhir_server.security.own_configuration import build_own_smart_configuration
from fhir_server.store.protocol import Clock

PATH = (".well-known", "smart-configuration")
LIFETIME = 3600
"""Seconds for which what the authorization server said is good."""

_SECOND = 1_000_000
_COPIED = (
    "issuer",
    "jwks_uri",
    "authorization_endpoint",
    "token_endpoint",
    "introspection_endpoint",
    "revocation_endpoint",
    "userinfo_endpoint",
    "registration_endpoint",
    "grant_types_supported",
    "response_types_supported",
    "scopes_supported",
    "token_endpoint_auth_methods_supported",
    "token_endpoint_auth_signing_alg_values_supported",
)
_OF_THIS_SERVER = ("permission-v1", "permission-v2", "permission-patient", "permission-user")
_BY_METHOD: Mapping[str, str] = {
    "none": "client-public",
    "client_secret_basic": "client-confidential-symmetric",
    "client_secret_post": "client-confidential-symmetric",
    "private_key_jwt": "client-confidential-asymmetric",
}


class SmartConfiguration:
    """The document: for the first of the issuers, which is the one that apps are sent to, or for this server."""

    def __init__(self, issuers: Sequence[str], clock: Clock, fetch: Fetch) -> None:
        self._issuers, self._clock, self._fetch = issuers, clock, fetch
        self._document, self._made = b"", 0

    @property
    def gives_tokens(self) -> bool:
        """Whether this server gives out tokens itself: where no issuer is set."""
        return not self._issuers

    async def read(self, base: str) -> bytes:
        """The document. Raises Unavailable where the issuer never answered."""
        if not self._issuers:
            return orjson.dumps(build_own_smart_configuration(base))
        now = self._clock()
        if not self._document or now - self._made > LIFETIME * _SECOND:
            try:
                configuration = await fetch_configuration(self._issuers[0], self._fetch)
            except (OSError, ValueError) as error:
                if not self._document:
                    raise Unavailable("The authorization server does not answer; try again in a minute.") from error
            else:
                self._document, self._made = orjson.dumps(build_smart_configuration(configuration)), now
        return self._document


def build_smart_configuration(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """The SMART document of an authorization server's own configuration."""
    document = {name: configuration[name] for name in _COPIED if name in configuration}
    if "S256" in configuration.get("code_challenge_methods_supported", ()):
        document["code_challenge_methods_supported"] = ["S256"]
    document["capabilities"] = list(dict.fromkeys((*_OF_THIS_SERVER, *_list_capabilities(configuration))))
    return document


def _list_capabilities(configuration: Mapping[str, Any]) -> Iterator[str]:
    """What the authorization server says that it can do, in SMART's words."""
    for method in configuration.get("token_endpoint_auth_methods_supported", ()):
        if method in _BY_METHOD:
            yield _BY_METHOD[method]
    if "openid" in configuration.get("scopes_supported", ()):
        yield "sso-openid-connect"
    if "offline_access" in configuration.get("scopes_supported", ()):
        yield "permission-offline"
    yield from (each for each in configuration.get("capabilities", ()) if isinstance(each, str))
