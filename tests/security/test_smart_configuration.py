"""`.well-known/smart-configuration` (https://hl7.org/fhir/smart-app-launch/STU2.2/conformance.html)."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from fhir_server.app import Knowledge, Seams
from fhir_server.fhir.outcome import Unavailable
from fhir_server.security.smart_configuration import LIFETIME, SmartConfiguration, build_smart_configuration
from tests.conftest import serving

pytestmark = pytest.mark.anyio

ISSUER = "https://login.clinic.example/realms/clinic"
# What Keycloak says of a realm, shortened.
CONFIGURATION: dict[str, Any] = {
    "issuer": ISSUER,
    "authorization_endpoint": f"{ISSUER}/protocol/openid-connect/auth",
    "token_endpoint": f"{ISSUER}/protocol/openid-connect/token",
    "jwks_uri": f"{ISSUER}/protocol/openid-connect/certs",
    "check_session_iframe": f"{ISSUER}/protocol/openid-connect/login-status-iframe.html",
    "grant_types_supported": ["authorization_code", "client_credentials"],
    "scopes_supported": ["openid", "offline_access"],
    "code_challenge_methods_supported": ["plain", "S256"],
    "token_endpoint_auth_methods_supported": ["private_key_jwt", "client_secret_basic"],
}


def test_it_states_what_the_issuer_does_and_what_this_server_does() -> None:
    document = build_smart_configuration(CONFIGURATION)
    assert document["token_endpoint"] == CONFIGURATION["token_endpoint"]
    assert "check_session_iframe" not in document
    # the specification: `plain` SHALL NOT be included
    assert document["code_challenge_methods_supported"] == ["S256"]
    assert document["capabilities"] == [
        "permission-v1",
        "permission-v2",
        "permission-patient",
        "permission-user",
        "client-confidential-asymmetric",
        "client-confidential-symmetric",
        "sso-openid-connect",
        "permission-offline",
    ]


class Clock:
    now = 1_795_000_000_000_000

    def __call__(self) -> int:
        return self.now


async def test_it_stays_while_the_issuer_is_down() -> None:
    clock, answers = Clock(), [orjson.dumps(CONFIGURATION)]

    async def fetch(url: str) -> bytes:
        if not answers:
            raise OSError("down")
        return answers.pop()

    source = SmartConfiguration([ISSUER], clock, fetch)
    first = await source.read("http://test/fhir")
    assert await source.read("http://test/fhir") == first
    clock.now += (LIFETIME + 1) * 1_000_000
    assert await source.read("http://test/fhir") == first
    with pytest.raises(Unavailable):
        await SmartConfiguration([ISSUER], clock, fetch).read("http://test/fhir")


async def test_it_is_answered_without_a_token(known: Knowledge) -> None:
    settings: dict[str, Any] = {"authentication": "on", "audit_folder": "", "store": "memory://"}
    settings |= {"issuers": ISSUER, "base_url": "https://fhir.clinic.example/fhir"}

    async def fetch(url: str) -> bytes:
        return orjson.dumps(CONFIGURATION)

    async with serving(known, Seams(definitions=None), **settings) as client:
        context = client.server.context
        assert context.smart is not None
        object.__setattr__(context, "smart", SmartConfiguration([ISSUER], context.clock, fetch))
        answer = await client.get("http://test/fhir/.well-known/smart-configuration")
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
        assert answer.json()["issuer"] == ISSUER
        statement = (await client.get("metadata")).json()
        assert statement["rest"][0]["security"]["service"][0]["coding"][0]["code"] == "SMART-on-FHIR"


async def test_without_an_issuer_the_server_gives_tokens_itself(known: Knowledge) -> None:
    async with serving(known, authentication="on", audit_folder="", store="memory://") as client:
        document = (await client.get(".well-known/smart-configuration")).json()
        assert document["token_endpoint"] == "http://test/fhir/auth/token"
        # SMART App Launch 2.2, conformance: what is required of a server for backend services
        assert "client_credentials" in document["grant_types_supported"]
        assert document["code_challenge_methods_supported"] == ["S256"]
        assert {"client-confidential-asymmetric", "launch-standalone", "permission-v2"} <= set(document["capabilities"])
        assert "sso-openid-connect" in document["capabilities"]
        assert (await client.post(".well-known/smart-configuration")).status_code == 405
        statement = (await client.get("metadata")).json()
        (uris,) = statement["rest"][0]["security"]["extension"]
        found = {each["url"]: each["valueUri"] for each in uris["extension"]}
        assert found["token"] == document["token_endpoint"] and found["authorize"] == document["authorization_endpoint"]
        assert found["revoke"] == document["revocation_endpoint"]
        assert found["introspect"] == document["introspection_endpoint"]


async def test_without_authentication_there_is_none(known: Knowledge) -> None:
    async with serving(known, authentication="off", store="memory://") as client:
        closed = [("GET", url) for url in (".well-known/smart-configuration", "auth/jwks", "auth/userinfo")]
        for method, url in (*closed, ("POST", "auth/token")):
            assert (await client.request(method, url)).status_code == 404
