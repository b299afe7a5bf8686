"""A clinic that gives out tokens itself, and what apps, people and systems do there: shared by the tests of it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from html import unescape
from itertools import count
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
from joserfc import jwt
from joserfc.jwk import ECKey, KeyParameters, RSAKey

from fhir_server.app import Knowledge, Seams
from fhir_server.security.bearer import REMEMBERED
from fhir_server.security.clients import Client as App
from fhir_server.security.clients import add_client
from fhir_server.security.users import User, add_user
from tests.conftest import Client, serving

NOW = 1_795_000_000
BASE = "http://test/fhir"
APP = "https://app.example/callback?tab=1"
PASSWORD = "correct horse battery"
# The example of RFC 7636, appendix B.
VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
TOKEN_URL = f"{BASE}/auth/token"

Key = RSAKey | ECKey


def make_key(kid: str, kind: str = "RSA") -> Key:
    """`kind`: RSA, or the name of a curve."""
    parameters: KeyParameters = {"kid": kid, "use": "sig"}
    return RSAKey.generate_key(2048, parameters) if kind == "RSA" else ECKey.generate_key(kind, parameters)


class Clock:
    now = NOW * 1_000_000

    def __call__(self) -> int:
        return self.now


def wait(client: Client, seconds: int) -> None:
    """Let time pass for the server."""
    clock = client.server.context.clock
    assert isinstance(clock, Clock)
    clock.now += seconds * 1_000_000


@asynccontextmanager
async def open_clinic(known: Knowledge, uri: str, fill_it: bool = True, **settings: object) -> AsyncIterator[Client]:
    """Two patients with an Observation each, an app, the patient Ada, a clinician and a front desk.

    `fill_it` False: another process of a clinic that is there already.
    """
    seams = Seams(clock=Clock(), definitions=None)
    chosen = {"authentication": "on", "audit_folder": "", **settings}
    async with serving(known, seams, store=uri, **chosen) as client:
        if fill_it:
            await fill(client)
        yield client


async def fill(client: Client) -> None:
    """What the clinic has; the resources are written by the clinician, over a token that was got as every other."""
    context = client.server.context
    store, roles = context.unrestricted, context.roles
    scopes = "patient/*.rs user/*.cruds"
    await add_client(store, App("app", scopes, [], NOW, [APP, "http://127.0.0.1:7000/done"]))
    for name, role, person in (
        ("ada", "patient", "Patient/ada"),
        ("quill", "clinician", "Practitioner/quill"),
        ("desk", "front-desk", ""),
    ):
        await add_user(store, User(name, role, "", NOW, person), PASSWORD, roles)
    tokens = await launch(client, "quill", "user/*.cruds")
    headers = authorize(tokens)
    for id, family in (("ada", "Quill"), ("bo", "Pine")):
        patient = {"resourceType": "Patient", "id": id, "name": [{"family": family, "given": [id.title()]}]}
        observation = {
            "resourceType": "Observation",
            "id": id,
            "status": "final",
            "code": {"text": "x"},
            "subject": {"reference": f"Patient/{id}"},
        }
        for resource in (patient, observation):
            answer = await client.put(f"{resource['resourceType']}/{id}", json=resource, headers=headers)
            assert answer.status_code == 201, answer.text


async def register_lab(client: Client, *keys: Key, scopes: str = "system/*.rs") -> None:
    """A system that proves who it is by one of the keys."""
    public = [key.as_dict(private=False) for key in keys]
    await add_client(client.server.context.unrestricted, App("lab", scopes, public, NOW))


def authorize(tokens: dict[str, Any]) -> dict[str, str]:
    return {"authorization": f"Bearer {tokens['access_token']}"}


def make_request(**changes: str) -> dict[str, str]:
    request = {
        "response_type": "code",
        "client_id": "app",
        "redirect_uri": APP,
        "scope": "patient/*.rs",
        "state": "s 1&2",
        "aud": BASE,
        "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
        **changes,
    }
    return {name: value for name, value in request.items() if value}


def read_state(page: httpx.Response) -> str:
    (state,) = re.findall(r'name="state" value="([^"]*)"', page.text)
    return unescape(state)


async def log_in(client: Client, name: str, **changes: str) -> httpx.Response:
    """The answer to the login form: the page of consent."""
    client.cookies.clear()
    page = await client.get("auth/authorize", params=make_request(**changes))
    assert page.status_code == 200, page.text
    form = {"state": read_state(page), "username": name, "password": PASSWORD}
    return await client.post("auth/login", data=form)


async def allow(client: Client, page: httpx.Response, **form: str) -> httpx.Response:
    assert page.status_code == 200, page.text
    return await client.post("auth/consent", data={"state": read_state(page), "action": "allow", **form})


def read_code(answer: httpx.Response) -> str:
    assert answer.status_code == 303, answer.text
    given = parse_qs(urlsplit(answer.headers["location"]).query)
    assert (given["state"], given["iss"]) == (["s 1&2"], [BASE])
    return given["code"][0]


async def exchange(client: Client, given: str, **changes: str) -> httpx.Response:
    form = {"grant_type": "authorization_code", "code": given, "redirect_uri": APP, "client_id": "app"}
    return await client.post("auth/token", data={**form, "code_verifier": VERIFIER, **changes})


async def launch(client: Client, name: str, scope: str, **consent: str) -> dict[str, Any]:
    code = read_code(await allow(client, await log_in(client, name, scope=scope), **consent))
    answer = await exchange(client, code)
    assert answer.status_code == 200, answer.text
    tokens: dict[str, Any] = answer.json()
    return tokens


async def is_good(client: Client, tokens: dict[str, Any]) -> bool:
    """Whether a token is taken, once what is remembered of it is old."""
    wait(client, REMEMBERED + 1)
    return (await client.get("Patient", headers=authorize(tokens))).status_code == 200


async def refresh(client: Client, tokens: dict[str, Any], client_id: str = "app") -> httpx.Response:
    form = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"], "client_id": client_id}
    return await client.post("auth/token", data=form)


_jti = count()


def make_claims(**changes: Any) -> dict[str, Any]:
    claims = {"iss": "lab", "sub": "lab", "aud": TOKEN_URL, "exp": NOW + 240, "jti": f"jti-{next(_jti)}", **changes}
    return {name: value for name, value in claims.items() if value is not None}


def sign(claims: dict[str, Any], key: Key, algorithm: str = "RS384", **header: Any) -> str:
    return jwt.encode({"alg": algorithm, "kid": key.kid, **header}, claims, key, algorithms=[algorithm])


async def ask_by_assertion(client: Client, assertion: str, **changes: str) -> tuple[int, dict[str, Any]]:
    form = {
        "grant_type": "client_credentials",
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "client_assertion": assertion,
        "scope": "system/*.rs",
        **changes,
    }
    answer = await client.post("auth/token", data=form)
    assert answer.headers["cache-control"] == "no-store"
    return answer.status_code, answer.json()
