"""Each way round the door that issue writers and RFCs know of: the right error, nothing learned, and an audit event.

RFC 6749, 6750, 6819, 7515 (section 10), 7523, 7636, 8725, 9700; SMART App Launch 2.2. The tests of the parts try more
of each kind; here one of each comes by HTTP, and what is recorded of it is looked at.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import orjson
import pytest

from fhir_server.app import Knowledge
from tests.conftest import Client
from tests.security.forging import DEEP, encode, replace_header, sign_by_secret
from tests.security.issuer import AUDIENCE, ISSUER, SmallIssuer
from tests.security.smart import (
    APP,
    NOW,
    TOKEN_URL,
    VERIFIER,
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
    read_state,
    refresh,
    register_lab,
    sign,
)

pytestmark = pytest.mark.anyio

KEY, EVIL = make_key("one"), make_key("one")


@pytest.fixture
async def client(known: Knowledge, tmp_path: Path) -> AsyncIterator[Client]:
    async with open_clinic(known, "memory://", audit_folder=str(tmp_path / "audit")) as client:
        await register_lab(client, KEY)
        yield client


@pytest.fixture
async def trusting(known: Knowledge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Client]:
    """A server that takes the tokens of the small issuer, and gives none itself."""
    monkeypatch.setattr("fhir_server.access_control.fetch", SmallIssuer([KEY]).fetch)
    settings = {"issuers": ISSUER, "audience": AUDIENCE, "audit_folder": str(tmp_path / "audit")}
    async with open_clinic(known, "memory://", fill_it=False, **settings) as client:
        yield client


async def read_events(client: Client, folder: Path) -> list[dict[str, Any]]:
    audit = client.server.context.audit
    assert audit is not None
    await audit.settle()
    (file,) = (folder / "audit").iterdir()
    return [orjson.loads(line.rpartition(b"\t")[0]) for line in file.read_bytes().splitlines()]


async def check_event(client: Client, folder: Path, before: int, status: int, secret: str) -> None:
    """The last event says that it failed so, and none holds the secret."""
    events = await read_events(client, folder)
    assert len(events) > before
    assert (events[-1]["outcome"], events[-1]["outcomeDesc"]) == ("4", f"HTTP {status}")
    assert not secret or secret.encode() not in orjson.dumps(events)


CLAIMS: dict[str, Any] = {
    "iss": ISSUER,
    "aud": AUDIENCE,
    "sub": "quill",
    "exp": NOW + 300,
    "client_id": "app",
    "scope": "system/*.rs",
}
TOKENS: dict[str, str] = {
    "expired": sign({**CLAIMS, "exp": NOW - 61}, KEY, "RS256"),
    "not yet valid": sign({**CLAIMS, "nbf": NOW + 61}, KEY, "RS256"),
    "for another audience": sign({**CLAIMS, "aud": "https://other.example/fhir"}, KEY, "RS256"),
    "of another issuer": sign({**CLAIMS, "iss": "https://evil.example"}, KEY, "RS256"),
    "by a key that nobody knows": sign(CLAIMS, make_key("two"), "RS256"),
    "by another key of that name": sign(CLAIMS, EVIL, "RS256"),
    "by nobody": f"{encode({'alg': 'none', 'kid': 'one'})}.{encode(CLAIMS)}.",
    "by the public key as a secret": sign_by_secret(CLAIMS, KEY.as_pem(private=False)),
    "with crit": replace_header(sign(CLAIMS, KEY, "RS256"), {"alg": "RS256", "kid": "one", "crit": ["x"]}),
    "with jku": sign(CLAIMS, EVIL, "RS256", jku="https://evil.example/keys"),
    "with x5u": sign(CLAIMS, EVIL, "RS256", x5u="https://evil.example/certificate"),
    "with jwk": sign(CLAIMS, EVIL, "RS256", jwk=EVIL.as_dict(private=False)),
    "huge": f"{encode({'alg': 'RS256', 'kid': 'one'})}.{encode('x' * 40_000)}.x",
    "nested": f"{encode({'alg': 'RS256', 'kid': 'one', 'cty': 'JWT'})}.{encode(sign(CLAIMS, KEY, 'RS256'))}.x",
    "deep": f"{encode(DEEP)}.{encode(DEEP)}.x",
    "with a malformed scope": sign({**CLAIMS, "scope": "system/Patient.zz"}, KEY, "RS256"),
    "an ID token": sign({**CLAIMS, "aud": "app", "nonce": "n"}, KEY, "RS256", typ="JWT"),
}


@pytest.mark.parametrize("kind", TOKENS)
async def test_a_token_that_is_not_good_opens_nothing(trusting: Client, tmp_path: Path, kind: str) -> None:
    token = TOKENS[kind]
    answers = [
        await trusting.get(url, headers={"authorization": f"Bearer {token}"}) for url in ("Patient", "Patient/x")
    ]
    assert [answer.status_code for answer in answers] == [401, 401]
    assert answers[0].json() == answers[1].json()  # nothing of what was asked for
    assert 'error="inval' in answers[0].headers["www-authenticate"]
    await check_event(trusting, tmp_path, 1, 401, token)


async def test_a_good_token_of_the_issuer_is_taken(trusting: Client) -> None:
    """So that those above are refused for what is wrong with them."""
    headers = {"authorization": f"Bearer {sign(CLAIMS, KEY, 'RS256')}"}
    assert (await trusting.get("Patient", headers=headers)).status_code == 200


Attempt = Callable[[Client], Awaitable[tuple[httpx.Response, str]]]
"""What somebody tries → its last answer, and the secret that was shown to the server."""


async def send_two_tokens(client: Client) -> tuple[httpx.Response, str]:
    token = (await launch(client, "ada", "patient/*.rs"))["access_token"]
    headers = [("authorization", f"Bearer {token}"), ("authorization", "Bearer other")]
    return await client.get("Patient", headers=headers), token


async def put_token_in_query(client: Client) -> tuple[httpx.Response, str]:
    token = (await launch(client, "ada", "patient/*.rs"))["access_token"]
    return await client.get(f"Patient?access_token={token}"), token


async def put_token_in_query_and_header(client: Client) -> tuple[httpx.Response, str]:
    tokens = await launch(client, "ada", "patient/*.rs")
    answer = await client.get(f"Patient?access_token={tokens['access_token']}", headers=authorize(tokens))
    return answer, tokens["access_token"]


async def replay_code(client: Client) -> tuple[httpx.Response, str]:
    code = read_code(await allow(client, await log_in(client, "ada")))
    assert (await exchange(client, code)).status_code == 200
    return await exchange(client, code), code


async def replay_refresh_token(client: Client) -> tuple[httpx.Response, str]:
    tokens = await launch(client, "ada", "patient/*.rs offline_access")
    assert (await refresh(client, tokens)).status_code == 200
    return await refresh(client, tokens), tokens["refresh_token"]


async def send_assertion(client: Client, assertion: str) -> httpx.Response:
    form = {
        "grant_type": "client_credentials",
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "client_assertion": assertion,
        "scope": "system/*.rs",
    }
    return await client.post("auth/token", data=form)


async def replay_assertion(client: Client) -> tuple[httpx.Response, str]:
    assertion = sign(make_claims(), KEY)
    assert (await ask_by_assertion(client, assertion))[0] == 200
    return await send_assertion(client, assertion), assertion


async def replay_jti(client: Client) -> tuple[httpx.Response, str]:
    claims = make_claims()
    assert (await ask_by_assertion(client, sign(claims, KEY)))[0] == 200
    assertion = sign({**claims, "exp": NOW + 100}, KEY)
    return await send_assertion(client, assertion), assertion


async def address_assertion_to_two(client: Client) -> tuple[httpx.Response, str]:
    assertion = sign(make_claims(aud=[TOKEN_URL, "https://other.example/token"]), KEY)
    return await send_assertion(client, assertion), assertion


async def make_assertion_last(client: Client) -> tuple[httpx.Response, str]:
    assertion = sign(make_claims(exp=NOW + 300 + 61), KEY)
    return await send_assertion(client, assertion), assertion


async def bring_a_key(client: Client) -> tuple[httpx.Response, str]:
    assertion = sign(make_claims(), EVIL, jwk=EVIL.as_dict(private=False))
    return await send_assertion(client, assertion), assertion


async def go_on_elsewhere(client: Client) -> tuple[httpx.Response, str]:
    return await client.get("auth/authorize", params=make_request(redirect_uri=f"{APP}&x=1")), ""


async def take_another_port(client: Client) -> tuple[httpx.Response, str]:
    """The port is free for native apps alone, which this one is not."""
    return await client.get("auth/authorize", params=make_request(redirect_uri="http://127.0.0.1:7001/done")), ""


async def exchange_elsewhere(client: Client) -> tuple[httpx.Response, str]:
    code = read_code(await allow(client, await log_in(client, "ada")))
    return await exchange(client, code, redirect_uri="http://127.0.0.1:7000/done"), code


async def drop_the_challenge(client: Client) -> tuple[httpx.Response, str]:
    return await client.get("auth/authorize", params=make_request(code_challenge="", code_challenge_method="")), ""


async def weaken_the_challenge(client: Client) -> tuple[httpx.Response, str]:
    query = make_request(code_challenge=VERIFIER, code_challenge_method="plain")
    return await client.get("auth/authorize", params=query), ""


async def ask_for_malformed_scopes(client: Client) -> tuple[httpx.Response, str]:
    return await client.get("auth/authorize", params=make_request(scope="patient/Patient.zz")), ""


async def use_the_code_of_another_app(client: Client) -> tuple[httpx.Response, str]:
    code = read_code(await allow(client, await log_in(client, "ada")))
    return await exchange(client, code, client_id="other"), code


async def use_the_refresh_token_of_another_app(client: Client) -> tuple[httpx.Response, str]:
    tokens = await launch(client, "ada", "patient/*.rs offline_access")
    return await refresh(client, tokens, client_id="other"), tokens["refresh_token"]


async def follow_the_page_link_of_another(client: Client) -> tuple[httpx.Response, str]:
    quill = await launch(client, "quill", "user/*.rs")
    bundle = (await client.get("Patient?_count=1", headers=authorize(quill))).json()
    link = next(each["url"] for each in bundle["link"] if each["relation"] == "next")
    ada = await launch(client, "ada", "patient/*.rs")
    return await client.get(link, headers=authorize(ada)), parse_qs(urlsplit(link).query)["__page"][0]


async def send_the_form_of_another_browser(client: Client) -> tuple[httpx.Response, str]:
    page = await client.get("auth/authorize", params=make_request())
    client.cookies.clear()
    form = {"state": read_state(page), "username": "ada", "password": "a secret password"}
    return await client.post("auth/login", data=form), "a secret password"


async def guess_a_password(client: Client) -> tuple[httpx.Response, str]:
    page = await client.get("auth/authorize", params=make_request())
    form = {"state": read_state(page), "username": "ada", "password": "a wrong password"}
    return await client.post("auth/login", data=form), "a wrong password"


async def leave_the_role(client: Client) -> tuple[httpx.Response, str]:
    return await log_in(client, "desk", scope="patient/Observation.rs"), ""


async def send_json_for_a_form(client: Client) -> tuple[httpx.Response, str]:
    return await client.post("auth/token", json={"grant_type": "authorization_code"}), ""


async def send_a_parameter_twice(client: Client) -> tuple[httpx.Response, str]:
    headers = {"content-type": "application/x-www-form-urlencoded"}
    return await client.post("auth/token", content="grant_type=x&grant_type=y", headers=headers), ""


ATTEMPTS: dict[Attempt, tuple[int, int, str]] = {
    send_two_tokens: (401, 401, "Bearer"),
    put_token_in_query: (401, 401, "URL"),
    put_token_in_query_and_header: (401, 401, "URL"),
    replay_code: (400, 400, "invalid_grant"),
    replay_refresh_token: (400, 400, "invalid_grant"),
    replay_assertion: (401, 401, "invalid_client"),
    replay_jti: (401, 401, "invalid_client"),
    address_assertion_to_two: (401, 401, "invalid_client"),
    make_assertion_last: (401, 401, "invalid_client"),
    bring_a_key: (401, 401, "invalid_client"),
    go_on_elsewhere: (400, 400, "not known here"),
    take_another_port: (400, 400, "not known here"),
    exchange_elsewhere: (400, 400, "invalid_grant"),
    drop_the_challenge: (303, 400, "error=invalid_request"),
    weaken_the_challenge: (303, 400, "error=invalid_request"),
    ask_for_malformed_scopes: (303, 400, "error=invalid_scope"),
    use_the_code_of_another_app: (400, 400, "invalid_grant"),
    use_the_refresh_token_of_another_app: (400, 400, "invalid_grant"),
    follow_the_page_link_of_another: (400, 400, "another token"),
    send_the_form_of_another_browser: (403, 403, "another browser"),
    guess_a_password: (401, 401, "is wrong"),
    leave_the_role: (303, 403, "error=access_denied"),
    send_json_for_a_form: (415, 415, "application/x-www-form-urlencoded"),
    send_a_parameter_twice: (400, 400, "invalid_request"),
}
"""What is tried → the status of the answer, that of the record, and a word of the answer."""


@pytest.mark.parametrize("attempt", ATTEMPTS, ids=lambda attempt: attempt.__name__)
async def test_an_attempt_gets_its_error_and_is_recorded(client: Client, tmp_path: Path, attempt: Attempt) -> None:
    before = len(await read_events(client, tmp_path))
    answer, secret = await attempt(client)
    status, recorded, word = ATTEMPTS[attempt]
    assert answer.status_code == status, answer.text
    told = answer.headers.get("location", "") + answer.text
    assert word in told and "access_token" not in told
    await check_event(client, tmp_path, before, recorded, secret)


async def test_the_losers_of_a_race_for_a_code_are_recorded(client: Client, tmp_path: Path) -> None:
    code = read_code(await allow(client, await log_in(client, "ada")))
    before = len(await read_events(client, tmp_path))
    answers = await asyncio.gather(*(exchange(client, code) for _ in range(5)))
    outcomes = [event["outcome"] for event in (await read_events(client, tmp_path))[before:]]
    assert sorted(outcomes) == sorted("0" if answer.status_code == 200 else "4" for answer in answers)
    assert outcomes.count("4") >= 4
