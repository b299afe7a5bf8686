"""SMART App Launch with a person: from the app's request over login and consent to tokens, and the ways round it.

https://hl7.org/fhir/smart-app-launch/STU2.2/app-launch.html; RFC 6749, 7636, 9207.
"""

from __future__ import annotations

import asyncio
import base64
import re
from hashlib import sha256
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from fhir_server.security.clients import check_redirect, revoke_client
from fhir_server.security.consents import ACCESS_LIFETIME, CODE_LIFETIME
from fhir_server.security.logins import MOST_FAILURES, PAUSE
from fhir_server.security.users import change_user
from tests.conftest import Client
from tests.security.smart import (
    APP,
    CHALLENGE,
    PASSWORD,
    VERIFIER,
    allow,
    authorize,
    exchange,
    is_good,
    launch,
    log_in,
    make_request,
    read_code,
    read_state,
    refresh,
    wait,
)

pytestmark = pytest.mark.anyio


async def test_a_patient_launches_an_app_and_it_sees_that_patient_alone(client: Client) -> None:
    tokens = await launch(client, "ada", "openid launch/patient patient/*.rs offline_access")
    assert (tokens["patient"], tokens["expires_in"], tokens["token_type"]) == ("ada", ACCESS_LIFETIME, "bearer")
    assert set(tokens["scope"].split()) == {"patient/*.rs", "openid", "launch/patient", "offline_access"}
    found = (await client.get("Observation", headers=authorize(tokens))).json()
    assert [entry["resource"]["id"] for entry in found["entry"]] == ["ada"]
    assert (await client.get("Patient/bo", headers=authorize(tokens))).status_code == 404


async def test_a_clinician_chooses_the_patient(client: Client) -> None:
    page = await log_in(client, "quill", scope="launch/patient patient/Observation.rs")
    assert "For which patient?" in page.text and "read, search: Observation (of one patient)" in page.text
    listed = await client.post("auth/consent", data={"state": read_state(page), "action": "find", "name": "pine"})
    assert re.findall(r'name="patient" value="([^"]*)"', listed.text) == ["bo"]
    nobody = await allow(client, listed)
    assert "Choose a patient." in nobody.text
    tokens = (await exchange(client, read_code(await allow(client, nobody, patient="bo")))).json()
    assert tokens["patient"] == "bo"
    found = (await client.get("Observation", headers=authorize(tokens))).json()
    assert [entry["resource"]["id"] for entry in found["entry"]] == ["bo"]


async def test_an_app_of_many_patients_may_ask_for_one_to_begin_with(client: Client) -> None:
    page = await log_in(client, "quill", scope="launch/patient user/Observation.rs")
    tokens = (await exchange(client, read_code(await allow(client, page, patient="bo")))).json()
    assert (tokens["patient"], tokens["scope"]) == ("bo", "user/Observation.rs launch/patient")
    assert len((await client.get("Observation", headers=authorize(tokens))).json()["entry"]) == 2


async def test_the_role_limits_what_an_app_gets(client: Client) -> None:
    page = await log_in(client, "desk", scope="patient/Observation.rs patient/Patient.rs")
    assert "Observation" not in page.text
    refused = await log_in(client, "desk", scope="patient/Observation.rs")
    assert parse_qs(urlsplit(refused.headers["location"]).query)["error"] == ["access_denied"]
    ada = await launch(client, "ada", "user/*.cruds")
    assert ada["scope"] == "patient/*.rs patient/Appointment.cu"


async def test_refusing_leads_back_to_the_app(client: Client) -> None:
    page = await log_in(client, "ada")
    answer = await client.post("auth/consent", data={"state": read_state(page), "action": "deny"})
    assert answer.headers["location"].startswith("https://app.example/callback?tab=1&error=access_denied")


async def test_the_pages_run_no_script_and_stand_in_no_frame(client: Client) -> None:
    page = await client.get("auth/authorize", params=make_request())
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "script" not in policy
    assert "form-action 'self' https://app.example" in policy
    cookie = page.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
    assert page.headers["cache-control"] == "no-store"
    assert "<script" not in page.text


BAD_APPS = [{"client_id": "other"}, {"redirect_uri": "https://evil.example/"}, {"redirect_uri": APP + "x"}]
BAD_APPS += [{"redirect_uri": "https://app.example/callback"}, {"redirect_uri": "http://127.0.0.1:7001/done"}]


@pytest.mark.parametrize("changes", BAD_APPS)
async def test_nobody_is_sent_to_a_url_that_is_not_the_apps(client: Client, changes: dict[str, str]) -> None:
    answer = await client.get("auth/authorize", params=make_request(**changes))
    assert (answer.status_code, "location" in answer.headers) == (400, False)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"code_challenge": ""}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge_method": ""}, "invalid_request"),
        ({"aud": "https://other.example/fhir"}, "invalid_request"),
        ({"aud": ""}, "invalid_request"),
        ({"state": ""}, "invalid_request"),
        ({"scope": "system/*.rs"}, "invalid_scope"),
        ({"scope": "patient/Patient.zz"}, "invalid_scope"),
        ({"scope": "fhirUser"}, "invalid_scope"),
        ({"prompt": "none"}, "login_required"),
        ({"nonce": "n" * 501}, "invalid_request"),
        ({"response_mode": "fragment"}, "invalid_request"),
        ({"request": "e30.e30."}, "request_not_supported"),
        ({"request_uri": "https://evil.example/request"}, "request_uri_not_supported"),
        ({"launch": "x"}, "invalid_scope"),
        ({"scope": "launch patient/*.rs"}, "invalid_scope"),
    ],
)
async def test_a_request_that_cannot_be_granted_goes_back(client: Client, changes: dict[str, str], error: str) -> None:
    answer = await client.get("auth/authorize", params=make_request(**changes))
    assert (answer.status_code, parse_qs(urlsplit(answer.headers["location"]).query)["error"]) == (303, [error])


async def test_a_parameter_that_comes_twice_is_refused(client: Client) -> None:
    query = httpx.QueryParams(make_request()).add("redirect_uri", "https://evil.example/")
    assert (await client.get("auth/authorize", params=query)).status_code == 400


async def test_a_wrong_password_is_told_and_throttled(client: Client) -> None:
    for name in ("ada", "nobody"):
        page = await client.get("auth/authorize", params=make_request())
        form = {"state": read_state(page), "username": name, "password": "wrong"}
        texts = set()
        for _ in range(MOST_FAILURES):
            answer = await client.post("auth/login", data=form)
            texts.add((answer.status_code, re.sub(r'value="[^"]*"', "", answer.text)))
        assert len(texts) == 1 and next(iter(texts))[0] == 401
        right = await client.post("auth/login", data={**form, "password": PASSWORD})
        assert right.status_code == 401
    wait(client, PAUSE)
    assert (await log_in(client, "ada")).status_code == 200


async def test_a_form_of_another_browser_or_page_is_refused(client: Client) -> None:
    page = await client.get("auth/authorize", params=make_request())
    form = {"state": read_state(page), "username": "ada", "password": PASSWORD}
    mine = dict(client.cookies)
    client.cookies.clear()
    assert (await client.post("auth/login", data=form)).status_code == 403
    client.cookies.set("smart-launch", "guess")
    assert (await client.post("auth/login", data=form)).status_code == 403
    client.cookies.clear()
    client.cookies.update(mine)
    assert (await client.post("auth/consent", data={**form, "action": "allow"})).status_code == 400
    assert (await client.post("auth/login", data={**form, "state": "x"})).status_code == 400
    consent = await client.post("auth/login", data=form)
    assert (await client.post("auth/login", data={**form, "state": read_state(consent)})).status_code == 400
    wait(client, 601)
    assert (await allow(client, consent)).status_code == 400


async def test_a_page_link_is_no_form(client: Client) -> None:
    """Both are sealed with the same key."""
    tokens = await launch(client, "quill", "user/*.rs")
    bundle = (await client.get("Patient?_count=1", headers=authorize(tokens))).json()
    link = next(each["url"] for each in bundle["link"] if each["relation"] == "next")
    sealed = parse_qs(urlsplit(link).query)["__page"][0]
    await client.get("auth/authorize", params=make_request())
    assert (await client.post("auth/consent", data={"state": sealed, "action": "allow"})).status_code == 400


@pytest.mark.parametrize(
    "changes",
    [
        {"code_verifier": VERIFIER[:-1] + "l"},
        {"code_verifier": ""},
        {"code_verifier": CHALLENGE},
        {"redirect_uri": "http://127.0.0.1:7000/done"},
        {"client_id": "other"},
        {"code": "guess"},
    ],
)
async def test_a_code_with_anything_wrong_gets_nothing(client: Client, changes: dict[str, str]) -> None:
    code = read_code(await allow(client, await log_in(client, "ada")))
    answer = await exchange(client, code, **changes)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")
    if "code" not in changes:  # it was spent by that
        assert (await exchange(client, code)).status_code == 400


async def test_a_code_ends(client: Client) -> None:
    code = read_code(await allow(client, await log_in(client, "ada")))
    wait(client, CODE_LIFETIME)
    assert (await exchange(client, code)).json()["error"] == "invalid_grant"


async def test_a_code_that_comes_twice_ends_what_the_first_one_got(client: Client) -> None:
    code = read_code(await allow(client, await log_in(client, "ada")))
    tokens = (await exchange(client, code)).json()
    assert await is_good(client, tokens)
    assert (await exchange(client, code)).status_code == 400
    assert not await is_good(client, tokens)


async def test_in_a_race_for_a_code_at_most_one_gets_tokens_and_they_are_dead(client: Client) -> None:
    code = read_code(await allow(client, await log_in(client, "ada")))
    answers = await asyncio.gather(*(exchange(client, code) for _ in range(6)))
    given = [answer.json() for answer in answers if answer.status_code == 200]
    assert len(given) <= 1
    for tokens in given:
        assert not await is_good(client, tokens)


async def test_a_refresh_token_is_good_once_and_its_reuse_ends_the_family(client: Client) -> None:
    first = await launch(client, "ada", "patient/*.rs offline_access")
    second = (await refresh(client, first)).json()
    assert second["refresh_token"] != first["refresh_token"] and second["patient"] == "ada"
    assert await is_good(client, second)
    assert (await refresh(client, first)).json()["error"] == "invalid_grant"
    for tokens in (first, second):
        assert not await is_good(client, tokens)
    assert (await refresh(client, second)).status_code == 400


async def test_a_race_for_a_refresh_token_never_leaves_two_families(client: Client) -> None:
    first = await launch(client, "ada", "patient/*.rs offline_access")
    answers = await asyncio.gather(*(refresh(client, first) for _ in range(6)))
    given = [answer.json() for answer in answers if answer.status_code == 200]
    assert len(given) <= 1
    for tokens in (first, *given):
        assert not await is_good(client, tokens)


async def test_without_its_scope_there_is_no_refresh_token(client: Client) -> None:
    assert "refresh_token" not in await launch(client, "ada", "patient/*.rs")
    stolen = await launch(client, "ada", "patient/*.rs online_access")
    assert (await refresh(client, stolen, client_id="other")).status_code == 400


async def test_what_is_taken_away_is_gone_within_seconds(client: Client) -> None:
    store = client.server.context.unrestricted
    tokens = await launch(client, "ada", "patient/*.rs offline_access")
    assert await is_good(client, tokens)
    await change_user(store, "ada", disabled=True)
    assert not await is_good(client, tokens)
    assert (await refresh(client, tokens)).status_code == 400
    assert (await log_in(client, "ada")).status_code == 401
    await change_user(store, "ada", disabled=False, password="another long password")
    assert (await log_in(client, "ada")).status_code == 401
    other = await launch(client, "quill", "user/*.rs")
    assert await revoke_client(store, "app")
    assert not await is_good(client, other)


def test_the_challenge_is_the_one_of_the_rfc() -> None:
    assert base64.urlsafe_b64encode(sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode() == CHALLENGE


@pytest.mark.parametrize(
    "url",
    [
        "http://app.example/x",
        "https://app.example/#x",
        "javascript:alert(1)",
        "app:/x",
        "//app.example",
        "https://",
        "x",
    ],
)
def test_urls_at_which_no_app_goes_on(url: str) -> None:
    with pytest.raises(ValueError, match="cannot be an app's URL"):
        check_redirect(url)
