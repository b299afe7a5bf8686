"""Ways round the authorization server that the tests of its parts do not try: things in the wrong place, and junk.

RFC 6750, 6819, 7515 (section 10), 7636, 8725, 9700. What is not here stands in the tables of `test_launch.py`,
`test_token_endpoint.py`, `test_token_state.py`, `test_ehr_launch.py`, `test_jwt_tokens.py` and `test_tokens.py`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fhir_server.app import Knowledge
from fhir_server.security.launch_handles import EhrLaunch, make_handle
from fhir_server.security.static_tokens import StaticToken, create_token
from tests.conftest import Client
from tests.security.forging import DEEP, encode, replace_header, sign_by_secret
from tests.security.smart import (
    NOW,
    TOKEN_URL,
    allow,
    ask_by_assertion,
    authorize,
    exchange,
    launch,
    log_in,
    make_claims,
    make_key,
    make_request,
    open_clinic,
    read_code,
    refresh,
    register_lab,
    sign,
)

pytestmark = pytest.mark.anyio

KEY, EVIL = make_key("one"), make_key("one")


@pytest.fixture
async def client(known: Knowledge, store_uri: str) -> AsyncIterator[Client]:
    async with open_clinic(known, store_uri) as client:
        await register_lab(client, KEY)
        yield client


async def collect_secrets(client: Client) -> dict[str, str]:
    """One of each thing that opens something, all of them good."""
    context = client.server.context
    tokens = await launch(client, "ada", "openid patient/*.rs offline_access")
    made = StaticToken("engine", "system/*.rs", created=NOW, expires=(NOW + 600) * 1_000_000)
    _, system = await ask_by_assertion(client, sign(make_claims(), KEY))
    handle = await make_handle(context.unrestricted, context.clock, EhrLaunch("app", NOW, patient="ada"))
    return {
        "access": tokens["access_token"],
        "refresh": tokens["refresh_token"],
        "id": tokens["id_token"],
        "static": await create_token(context.unrestricted, made, context.roles),
        "system": system["access_token"],
        "assertion": sign(make_claims(), KEY),
        "handle": handle,
        "code": read_code(await allow(client, await log_in(client, "ada"))),
    }


async def test_each_secret_is_good_in_its_own_place_alone(client: Client) -> None:
    found = await collect_secrets(client)
    for kind, secret in found.items():
        if kind not in ("access", "static", "system"):
            answer = await client.get("Patient", headers={"authorization": f"Bearer {secret}"})
            assert answer.status_code == 401, kind
            assert 'error="invalid_token"' in answer.headers["www-authenticate"], kind
        if kind != "code":
            assert (await exchange(client, secret)).json()["error"] == "invalid_grant", kind
        if kind != "refresh":
            refused = await refresh(client, {"refresh_token": secret})
            assert refused.json()["error"] == "invalid_grant", kind
        if kind != "assertion":
            assert (await ask_by_assertion(client, secret))[0] == 401, kind
        if kind != "handle":
            query = make_request(scope="launch patient/*.rs", launch=secret)
            assert "error=invalid_request" in (await client.get("auth/authorize", params=query)).headers["location"]
    # none of that has used anything up
    assert (await client.get("Patient", headers={"authorization": f"Bearer {found['access']}"})).status_code == 200
    assert (await exchange(client, found["code"])).status_code == 200
    assert (await refresh(client, {"refresh_token": found["refresh"]})).status_code == 200


async def test_a_token_in_the_query_or_the_body_is_none(client: Client) -> None:
    token = (await launch(client, "ada", "openid patient/*.rs"))["access_token"]
    for method, url in (("GET", "Patient"), ("POST", "Patient/_search"), ("GET", "auth/userinfo")):
        for name in ("access_token", "token", "authorization"):
            answer = await client.request(method, f"{url}?{name}={token}")
            assert answer.status_code == 401 and token not in answer.text
            if method == "POST":
                assert (await client.post(url, data={name: token})).status_code == 401


@pytest.mark.parametrize("url", ["Patient", "auth/userinfo"])
async def test_two_authorization_headers_are_refused(client: Client, url: str) -> None:
    good = authorize(await launch(client, "ada", "openid patient/*.rs"))["authorization"]
    for headers in ([good, "Bearer x"], ["Bearer x", good], [good, good], [good, "Basic eDp5"]):
        answer = await client.get(url, headers=[("authorization", each) for each in headers])
        assert answer.status_code == 401, headers


CLAIMS = {"iss": "lab", "sub": "lab", "aud": TOKEN_URL, "exp": NOW + 100, "jti": "1"}
FORGED: dict[str, str] = {
    "signed by nobody": f"{encode({'alg': 'none', 'kid': 'one'})}.{encode(CLAIMS)}.",
    "signed with the public key as a secret": sign_by_secret(CLAIMS, KEY.as_pem(private=False)),
    "a certificate from elsewhere": sign(CLAIMS, EVIL, x5u="https://evil.example/cert"),
    "a certificate of its own": sign(CLAIMS, EVIL, x5c=["MIIB"]),
    "a key of its own": sign(CLAIMS, EVIL, jwk=EVIL.as_dict(private=False)),
    "keys from elsewhere": sign(CLAIMS, EVIL, jku="https://evil.example/keys"),
    "what must be understood": replace_header(sign(CLAIMS, KEY), {"alg": "RS384", "kid": "one", "crit": ["x"]}),
    "a kid that is a path": f"{encode({'alg': 'RS384', 'kid': '../../one'})}.{encode(CLAIMS)}.x",
    "a kid that is no text": f"{encode({'alg': 'RS384', 'kid': ['one']})}.{encode(CLAIMS)}.x",
    "an alg that is no text": f"{encode({'alg': ['RS384'], 'kid': 'one'})}.{encode(CLAIMS)}.x",
    "a deep header": f"{encode(DEEP)}.{encode(CLAIMS)}.x",
    "deep claims": f"{encode({'alg': 'RS384', 'kid': 'one'})}.{encode(DEEP)}.x",
    "a token in a token": f"{encode({'alg': 'RS384', 'kid': 'one', 'cty': 'JWT'})}.{encode(sign(CLAIMS, KEY))}.x",
    "encrypted": f"{encode({'alg': 'dir', 'enc': 'A128GCM'})}..x.x.x",
    "three dots alone": "..",
    "huge": f"{encode({'alg': 'RS384', 'kid': 'one'})}.{encode('x' * 40_000)}.x",
    "numbers as names": f"{encode({'alg': 'RS384', 'kid': 'one'})}.{encode({**CLAIMS, 'iss': 1})}.x",
    "an infinite time": ".".join((encode({"alg": "RS384", "kid": "one"}), encode('{"exp":1e400,"iss":"lab"}'), "x")),
}


@pytest.mark.parametrize("kind", FORGED)
async def test_a_forged_token_opens_nothing(client: Client, kind: str) -> None:
    status, answer = await ask_by_assertion(client, FORGED[kind])
    assert (status, answer["error"]) == (401, "invalid_client")
    refused = await client.get("Patient", headers={"authorization": f"Bearer {FORGED[kind]}"})
    assert refused.status_code == 401 and "www-authenticate" in refused.headers


TIMES: list[Any] = [True, "1795000100", 1e300, -1, None, [NOW + 100], float(NOW + 100)]


@pytest.mark.parametrize("exp", TIMES, ids=map(str, TIMES))
async def test_an_assertion_ends_at_a_number_soon(client: Client, exp: Any) -> None:
    status, _ = await ask_by_assertion(client, sign({**make_claims(), "exp": exp}, KEY))
    assert status == 401


async def test_a_code_without_a_challenge_cannot_come_to_be(client: Client) -> None:
    """PKCE downgrade (RFC 9700, section 2.1.1): neither dropping it, nor `plain`, nor an empty verifier."""
    for changes in ({"code_challenge": ""}, {"code_challenge_method": ""}, {"code_challenge_method": "plain"}):
        answer = await client.get("auth/authorize", params=make_request(**changes))
        assert "error=invalid_request" in answer.headers["location"]
    for verifier in ("", "x", "A" * 43, "\u00e9" * 43, "x" * 200):
        code = read_code(await allow(client, await log_in(client, "ada")))
        assert (await exchange(client, code, code_verifier=verifier)).json()["error"] == "invalid_grant"


async def test_what_is_refused_is_audited(known: Knowledge, tmp_path: Path) -> None:
    folder = tmp_path / "audit"
    async with open_clinic(known, "memory://", audit_folder=str(folder)) as client:
        before = sum(file.read_text().count("\n") for file in folder.iterdir())
        await client.get("auth/userinfo", headers={"authorization": "Bearer x"})
        await exchange(client, "guess")
        await ask_by_assertion(client, "a.b.c")
        for path in ("introspect", "revoke"):
            await client.post(f"auth/{path}", data={"token": "secret-token"})
        text = ""
    text = "".join(file.read_text() for file in folder.iterdir())
    assert text.count("\n") >= before + 5
    assert "secret-token" not in text and "a.b.c" not in text
