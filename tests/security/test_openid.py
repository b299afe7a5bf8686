"""OpenID Connect at this server: configuration, keys, ID tokens and userinfo, checked by a library of somebody else.

https://openid.net/specs/openid-connect-core-1_0.html, openid-connect-discovery-1_0.html; RFC 8414, 7517;
https://hl7.org/fhir/smart-app-launch/STU2.2/scopes-and-launch-context.html#scopes-for-requesting-identity-data.
"""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

from fhir_server.security.signing_keys import (
    ALGORITHM,
    PUBLISHED_AFTER,
    find_signing_key,
    list_public_keys,
    rotate_signing_key,
)
from fhir_server.store.memory import open_store
from fhir_server.store.protocol import Store
from tests.conftest import Client
from tests.security.smart import (
    BASE,
    NOW,
    Clock,
    allow,
    ask_by_assertion,
    authorize,
    exchange,
    launch,
    log_in,
    make_claims,
    read_code,
    refresh,
    wait,
)

pytestmark = pytest.mark.anyio


async def verify(client: Client, token: str) -> dict[str, Any]:
    """The claims of an ID token, as an app checks it that knows the issuer alone."""
    configuration = (await client.get(".well-known/openid-configuration")).json()
    assert configuration["issuer"] == BASE
    keys = (await client.get(configuration["jwks_uri"])).json()
    algorithms = configuration["id_token_signing_alg_values_supported"]
    return jwt.decode(token, KeySet.import_key_set(keys), algorithms=algorithms).claims


async def test_an_id_token_says_who_logged_in(client: Client) -> None:
    page = await log_in(client, "quill", scope="openid fhirUser user/*.rs", nonce="n-1")
    assert "know who you are" in page.text
    tokens = (await exchange(client, read_code(await allow(client, page)))).json()
    claims = await verify(client, tokens["id_token"])
    assert (claims["iss"], claims["aud"], claims["nonce"]) == (BASE, "app", "n-1")
    assert claims["fhirUser"] == f"{BASE}/Practitioner/quill"
    assert claims["iat"] == claims["auth_time"] == NOW and NOW < claims["exp"] <= NOW + 3600
    assert len(claims["sub"]) == 32 and "quill" not in claims["sub"]
    info = await client.get("auth/userinfo", headers=authorize(tokens))
    assert info.json() == {"sub": claims["sub"], "fhirUser": claims["fhirUser"]}
    assert info.headers["cache-control"] == "no-store"


async def test_what_is_not_asked_for_is_not_told(client: Client) -> None:
    without = await launch(client, "quill", "user/*.rs fhirUser")
    assert "id_token" not in without and "fhirUser" not in without["scope"]
    alone = await launch(client, "ada", "openid")
    assert alone["scope"] == "openid" and "patient" not in alone
    assert "fhirUser" not in await verify(client, alone["id_token"])
    assert (await client.get("Patient/ada", headers=authorize(alone))).status_code == 403
    # who stands for nobody has no `fhirUser`
    desk = await launch(client, "desk", "openid fhirUser")
    assert desk["scope"] == "openid"


async def test_the_subject_is_the_same_for_one_person_alone(client: Client) -> None:
    first, second, other = [
        (await verify(client, (await launch(client, name, "openid"))["id_token"]))["sub"]
        for name in ("ada", "ada", "quill")
    ]
    assert first == second != other


async def test_a_refresh_brings_an_id_token_of_the_same_login(client: Client) -> None:
    """OpenID Connect Core, 12.2: issuer, subject and time of the login are those from before, and there is no nonce."""
    page = await log_in(client, "ada", scope="openid patient/*.rs offline_access", nonce="n-1")
    tokens = (await exchange(client, read_code(await allow(client, page)))).json()
    wait(client, 1000)
    again = (await refresh(client, tokens)).json()
    before, after = [await verify(client, each["id_token"]) for each in (tokens, again)]
    for name in ("iss", "sub", "aud", "auth_time"):
        assert before[name] == after[name]
    assert (after["iat"], before["iat"], "nonce" in after) == (NOW + 1000, NOW, False)
    without = await launch(client, "ada", "patient/*.rs offline_access")
    assert "id_token" not in (await refresh(client, without)).json()
    assert (await client.get("auth/userinfo", headers=authorize(again))).status_code == 200


async def test_userinfo_is_for_who_holds_a_token_of_a_login(client: Client) -> None:
    none = await client.get("auth/userinfo")
    assert (none.status_code, none.headers["www-authenticate"]) == (401, "Bearer")
    for token in ("guess", "fha_guess", "fhs_guess", "x" * 20_000):
        answer = await client.get("auth/userinfo", headers={"authorization": f"Bearer {token}"})
        assert answer.status_code == 401 and answer.json()["resourceType"] == "OperationOutcome"
    other = await client.get("auth/userinfo", headers=authorize(await launch(client, "ada", "patient/*.rs")))
    assert other.status_code == 403 and 'scope="openid"' in other.headers["www-authenticate"]
    tokens = await launch(client, "ada", "openid")
    for url in ("auth/userinfo?access_token=", "auth/userinfo?token="):
        assert (await client.get(url + tokens["access_token"])).status_code == 401
    id_token = {"authorization": f"Bearer {tokens['id_token']}"}
    assert (await client.get("auth/userinfo", headers=id_token)).status_code == 401
    assert (await client.get("Patient", headers=id_token)).status_code == 401
    assert (await client.post("auth/userinfo", headers=authorize(tokens))).status_code == 200
    wait(client, 3600)
    assert (await client.get("auth/userinfo", headers=authorize(tokens))).status_code == 401


async def test_an_id_token_proves_no_client(client: Client) -> None:
    tokens = await launch(client, "ada", "openid")
    status, answer = await ask_by_assertion(client, tokens["id_token"])
    assert (status, answer["error"]) == (401, "invalid_client")
    assert make_claims()["aud"] != BASE


async def test_what_it_says_of_itself_is_there(client: Client) -> None:
    documents = [
        (await client.get(f".well-known/{name}")).json()
        for name in ("openid-configuration", "oauth-authorization-server", "smart-configuration")
    ]
    for document in documents:
        for name, url in document.items():
            if name.endswith("_endpoint") or name == "jwks_uri":
                answer = await client.get(url)
                assert answer.status_code in (200, 400, 401, 405), (name, answer.text)
        assert (document["issuer"], document["subject_types_supported"]) == (BASE, ["public"])
    assert documents[0] == documents[1]
    assert (await client.post(".well-known/openid-configuration")).status_code == 405


async def test_a_key_is_replaced_and_its_tokens_stay_good(client: Client) -> None:
    store, clock = client.server.context.unrestricted, client.server.context.clock
    before = (await launch(client, "ada", "openid"))["id_token"]
    await rotate_signing_key(store, clock)
    after = (await launch(client, "ada", "openid"))["id_token"]
    assert (await verify(client, before))["sub"] == (await verify(client, after))["sub"]
    assert before.partition(".")[0] != after.partition(".")[0]
    wait(client, PUBLISHED_AFTER)
    published: httpx.Response = await client.get("auth/jwks")
    assert len(published.json()["keys"]) == 1
    await verify(client, after)


async def test_no_private_part_is_published_or_kept_longer_than_it_signs() -> None:
    store: Store = await open_store("memory://", Clock())
    clock = Clock()
    first = await find_signing_key(store)
    assert "d" in first
    await rotate_signing_key(store, clock)
    value = await store.get_value("signing-keys")
    assert value is not None and value.count(b'"d":') == 1 and first["d"].encode() not in value
    for key in await list_public_keys(store, clock):
        assert set(key) == {"kty", "kid", "use", "alg", "n", "e"} and key["alg"] == ALGORITHM


async def test_processes_that_begin_at_once_agree_on_one_key(any_store_uri: str) -> None:
    from fhir_server.app import open_store as open_any

    store = await open_any(any_store_uri, Clock(), create=True)
    try:
        made = await asyncio.gather(*(find_signing_key(store) for _ in range(4)))
        assert len({key["kid"] for key in made}) == 1
        await asyncio.gather(*(rotate_signing_key(store, Clock()) for _ in range(3)))
        keys = await list_public_keys(store, Clock())
        assert len({key["kid"] for key in keys}) == 4
        assert (await find_signing_key(store))["kid"] == keys[0]["kid"]
    finally:
        await store.close()
