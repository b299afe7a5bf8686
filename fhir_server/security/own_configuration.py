"""What the built-in authorization server says of itself; only what works is stated.

OpenID Connect Discovery, RFC 8414, and https://hl7.org/fhir/smart-app-launch/STU2.2/conformance.html.
"""

from __future__ import annotations

from typing import Any

from fhir_server.security import signing_keys, token_endpoint

_METHODS = ["private_key_jwt", "none"]
_ENDPOINTS = {
    "authorization_endpoint": "authorize",
    "token_endpoint": "token",
    "userinfo_endpoint": "userinfo",
    "introspection_endpoint": "introspect",
    "revocation_endpoint": "revoke",
    "jwks_uri": "jwks",
}
_OWN: dict[str, Any] = {
    "scopes_supported": [
        "openid",
        "fhirUser",
        "launch",
        "launch/patient",
        "launch/encounter",
        "offline_access",
        "online_access",
        "patient/*.cruds",
        "user/*.cruds",
        "system/*.cruds",
    ],
    "response_types_supported": ["code"],
    "response_modes_supported": ["query"],
    "grant_types_supported": ["authorization_code", "refresh_token", "client_credentials"],
    "code_challenge_methods_supported": ["S256"],
    "authorization_response_iss_parameter_supported": True,
    "token_endpoint_auth_methods_supported": _METHODS,
    "token_endpoint_auth_signing_alg_values_supported": list(token_endpoint.ALGORITHMS),
    "introspection_endpoint_auth_methods_supported": ["private_key_jwt"],
    "introspection_endpoint_auth_signing_alg_values_supported": list(token_endpoint.ALGORITHMS),
    "revocation_endpoint_auth_methods_supported": _METHODS,
    "revocation_endpoint_auth_signing_alg_values_supported": list(token_endpoint.ALGORITHMS),
    "subject_types_supported": ["public"],
    "id_token_signing_alg_values_supported": [signing_keys.ALGORITHM],
    "claims_supported": ["iss", "sub", "aud", "exp", "iat", "auth_time", "nonce", "fhirUser"],
    "request_parameter_supported": False,
    "request_uri_parameter_supported": False,
}
_CAPABILITIES = [
    "launch-ehr",
    "launch-standalone",
    "client-public",
    "client-confidential-asymmetric",
    "sso-openid-connect",
    "context-banner",
    "context-ehr-patient",
    "context-ehr-encounter",
    "context-standalone-patient",
    "context-standalone-encounter",
    "permission-offline",
    "permission-online",
    "permission-v1",
    "permission-v2",
    "permission-patient",
    "permission-user",
]


def build_own_configuration(base: str) -> dict[str, Any]:
    """`openid-configuration` and `oauth-authorization-server` of this server, whose issuer is its base URL."""
    return {"issuer": base, **{name: f"{base}/auth/{path}" for name, path in _ENDPOINTS.items()}, **_OWN}


def build_own_smart_configuration(base: str) -> dict[str, Any]:
    """`smart-configuration` of this server."""
    return {**build_own_configuration(base), "capabilities": _CAPABILITIES}
