"""Tokens that were given out here are asked about (RFC 7662) and revoked (RFC 7009), by whom that is for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from fhir_server.app import Knowledge
from fhir_server.security.bearer import REMEMBERED
from fhir_server.security.clients import Client as Registered
from fhir_server.security.clients import add_client
from fhir_server.security.consents import ACCESS_LIFETIME, ONLINE_LIFETIME
from fhir_server.security.static_tokens import StaticToken, create_token
from fhir_server.security.users import change_user
from tests.conftest import Client
from tests.security.smart import (
    APP,
    BASE,
    NOW,
    ask_by_assertion,
    authorize,
    is_good,
    launch,
    make_claims,
    make_key,
    open_clinic,
    refresh,
    sign,
    wait,
)

pytestmark = pytest.mark.anyio

KEY, OTHER = make_key("one"), make_key("one")
ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


async def register(client: Client) -> None:
    """Two systems with keys, and an app beside the one of the clinic."""
    store = client.server.context.unrestricted
    for name, key in (("lab", KEY), ("other-lab", OTHER)):
        await add_client(store, Registered(name, "system/*.rs", [key.as_dict(private=False)], NOW))
    await add_client(store, Registered("other-app", "patient/*.rs", [], NOW, [APP]))


@pytest.fixture
async def client(known: Knowledge, any_store_uri: str) -> AsyncIterator[Client]:
    async with open_clinic(known, any_store_uri) as client:
        await register(client)
        yield client


def prove(**changes: Any) -> dict[str, str]:
    """The form by which the lab proves who it is."""
    return {"client_assertion_type": ASSERTION, "client_assertion": sign(make_claims(**changes), KEY)}


async def introspect(client: Client, token: str, **form: str) -> dict[str, Any]:
    answer = await client.post("auth/introspect", data={"token": token, **(form or prove())})
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    found: dict[str, Any] = answer.json()
    return found


async def revoke(client: Client, token: str, **form: str) -> httpx.Response:
    return await client.post("auth/revoke", data={"token": token, **(form or {"client_id": "app"})})


async def test_a_system_learns_what_a_token_of_a_person_allows(client: Client) -> None:
    tokens = await launch(client, "ada", "openid fhirUser launch/patient patient/*.rs offline_access")
    found = await introspect(client, tokens["access_token"])
    assert found["active"] is True and set(found["scope"].split()) == set(tokens["scope"].split())
    assert (found["client_id"], found["patient"], found["iss"], found["aud"]) == ("app", "ada", BASE, BASE)
    assert (found["exp"], found["fhirUser"]) == (NOW + ACCESS_LIFETIME, f"{BASE}/Patient/ada")
    assert (await introspect(client, tokens["refresh_token"]))["active"] is True
    # what a role loses, its tokens lose
    await change_user(client.server.context.unrestricted, "ada", disabled=True)
    for token in (tokens["access_token"], tokens["refresh_token"]):
        assert await introspect(client, token) == {"active": False}


async def test_tokens_of_systems_and_of_the_site_are_known_too(client: Client) -> None:
    context = client.server.context
    _, given = await ask_by_assertion(client, sign(make_claims(), KEY))
    found = await introspect(client, given["access_token"])
    assert (found["active"], found["client_id"], found["scope"]) == (True, "lab", "system/*.rs")
    assert found["exp"] == NOW + given["expires_in"]
    made = StaticToken("engine", "system/Task.c", created=NOW, expires=(NOW + 60) * 1_000_000)
    secret = await create_token(context.unrestricted, made, context.roles)
    found = await introspect(client, secret)
    assert (found["client_id"], found["scope"], found["exp"]) == ("engine", "system/Task.c", NOW + 60)
    wait(client, 300)
    claims = {"exp": NOW + 500}
    for token in (secret, given["access_token"]):
        assert await introspect(client, token, **prove(**claims)) == {"active": False}


@pytest.mark.parametrize("token", ["", "guess", "fha_guess", "fhs_guess", "a.b.c", "x" * 60_000, "\u0100"])
async def test_of_what_is_no_token_it_says_no_more_than_that(client: Client, token: str) -> None:
    assert await introspect(client, token) == {"active": False}


async def test_who_does_not_prove_to_be_a_system_learns_nothing(client: Client) -> None:
    tokens = await launch(client, "ada", "patient/*.rs")
    wrong: list[dict[str, str]] = [
        {},
        {"client_id": "app"},
        {"client_id": "lab"},
        {"client_assertion_type": ASSERTION, "client_assertion": sign(make_claims(), OTHER)},
        prove(aud=f"{BASE}/auth/introspect"),
    ]
    for form in wrong:
        answer = await client.post("auth/introspect", data={"token": tokens["access_token"], **form})
        assert answer.status_code in (400, 401) and "active" not in answer.json()
    bearer = authorize(tokens)
    answer = await client.post("auth/introspect", data={"token": tokens["access_token"]}, headers=bearer)
    assert answer.status_code == 400
    used = prove()
    await introspect(client, "guess", **used)
    assert (await client.post("auth/introspect", data={"token": "x", **used})).status_code == 401
    assert (await client.get("auth/introspect")).status_code == 405


async def test_an_app_ends_its_own_tokens(client: Client) -> None:
    tokens = await launch(client, "ada", "patient/*.rs offline_access")
    assert await is_good(client, tokens)
    answer = await revoke(client, tokens["access_token"], client_id="app", token_type_hint="refresh_token")
    assert answer.status_code == 200
    assert not await is_good(client, tokens)
    again = (await refresh(client, tokens)).json()
    assert await is_good(client, again)
    assert (await revoke(client, again["refresh_token"])).status_code == 200
    assert not await is_good(client, again)
    assert (await refresh(client, again)).json()["error"] == "invalid_grant"
    # what is worthless already is no error
    for token in (again["refresh_token"], tokens["access_token"], "guess"):
        assert (await revoke(client, token)).status_code == 200


async def test_a_refresh_token_that_was_used_ends_its_family_too(client: Client) -> None:
    first = await launch(client, "ada", "patient/*.rs offline_access")
    second = (await refresh(client, first)).json()
    assert (await revoke(client, first["refresh_token"])).status_code == 200
    assert not await is_good(client, second)


async def test_nobody_ends_the_tokens_of_another_client(client: Client) -> None:
    tokens = await launch(client, "ada", "patient/*.rs offline_access")
    _, given = await ask_by_assertion(client, sign(make_claims(), KEY))
    for token in (tokens["access_token"], tokens["refresh_token"], given["access_token"]):
        answer = await revoke(client, token, client_id="other-app")
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")
    for form in ({"client_id": "nobody"}, {"client_id": "lab"}, {"client_id": ""}, {"client_assertion": "x"}):
        assert (await revoke(client, given["access_token"], **form)).status_code in (400, 401)
    assert await is_good(client, tokens) and await is_good(client, given)
    assert (await revoke(client, given["access_token"], **prove())).status_code == 200
    assert not await is_good(client, given)
    assert (await client.post("auth/revoke", data={"client_id": "app"})).json()["error"] == "invalid_request"


async def test_a_race_of_refreshing_and_revoking_leaves_no_live_token(client: Client) -> None:
    first = await launch(client, "ada", "patient/*.rs offline_access")
    other = await launch(client, "ada", "patient/*.rs offline_access")
    answers = await asyncio.gather(
        refresh(client, first), revoke(client, first["refresh_token"]), revoke(client, first["refresh_token"])
    )
    given = [answer.json() for answer in answers if "access_token" in answer.json()]
    for tokens in (first, *given):
        assert not await is_good(client, tokens)
    assert await is_good(client, other)


async def test_online_access_ends_with_the_day(client: Client) -> None:
    tokens = await launch(client, "ada", "patient/*.rs online_access")
    for _ in range(2):
        wait(client, ONLINE_LIFETIME // 2 - 60)
        tokens = (await refresh(client, tokens)).json()
    wait(client, 120)
    assert not await is_good(client, tokens)
    assert (await refresh(client, tokens)).json()["error"] == "invalid_grant"


async def test_another_process_sees_a_revocation_within_seconds(known: Knowledge, tmp_path: Any) -> None:
    uri = f"sqlite:///{tmp_path}/fhir.db"
    async with open_clinic(known, uri) as here, open_clinic(known, uri, fill_it=False) as there:
        tokens = await launch(here, "ada", "patient/*.rs offline_access")
        for each in (here, there):
            assert (await each.get("Patient", headers=authorize(tokens))).status_code == 200
        assert (await revoke(here, tokens["refresh_token"])).status_code == 200
        wait(there, REMEMBERED)
        assert (await there.get("Patient", headers=authorize(tokens))).status_code == 401
