"""SMART Backend Services at the token endpoint of this server, and every way to get round it that we know.

https://hl7.org/fhir/smart-app-launch/STU2.2/backend-services.html, client-confidential-asymmetric.html; RFC 6749, 7523.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from fhir_server.app import Knowledge, Seams
from fhir_server.security.clients import Client as Registered
from fhir_server.security.clients import add_client, read_public_keys, revoke_client
from fhir_server.security.scopes import parse_scopes
from fhir_server.security.token_endpoint import LIFETIME, LONGEST_ASSERTION, SKEW, intersect_scopes
from tests.conftest import Client, serving
from tests.security.smart import NOW, TOKEN_URL, Clock, Key, ask_by_assertion, make_claims, make_key, register_lab, sign

pytestmark = pytest.mark.anyio

FORM = {"content-type": "application/x-www-form-urlencoded"}
KEY, OTHER, CURVE = make_key("one"), make_key("one"), make_key("two", "P-384")


@pytest.fixture
async def client(known: Knowledge, any_store_uri: str) -> AsyncIterator[Client]:
    """A server with the client `lab`, which may read and search Observations and Patients."""
    seams = Seams(clock=Clock(), definitions=None)
    async with serving(known, seams, store=any_store_uri, authentication="on", audit_folder="") as client:
        await register_lab(client, KEY, CURVE, scopes="system/Observation.rs system/Patient.rs")
        yield client


@pytest.mark.parametrize(("key", "algorithm"), [(KEY, "RS384"), (CURVE, "ES384")])
async def test_an_assertion_becomes_a_token_that_works(client: Client, key: Key, algorithm: str) -> None:
    status, answer = await ask_by_assertion(client, sign(make_claims(), key, algorithm))
    assert (status, answer["token_type"], answer["expires_in"]) == (200, "bearer", LIFETIME)
    assert answer["scope"] == "system/Observation.rs system/Patient.rs"
    headers = {"authorization": f"Bearer {answer['access_token']}"}
    assert (await client.get("Observation", headers=headers)).status_code == 200
    assert (await client.get("Encounter", headers=headers)).status_code == 403


async def test_a_token_ends_by_itself_and_with_its_client(client: Client) -> None:
    _, answer = await ask_by_assertion(client, sign(make_claims(), KEY))
    headers = {"authorization": f"Bearer {answer['access_token']}"}
    assert (await client.get("Patient", headers=headers)).status_code == 200
    context = client.server.context
    clock = context.clock
    assert isinstance(clock, Clock)
    clock.now += LIFETIME * 1_000_000
    assert (await client.get("Patient", headers=headers)).status_code == 401
    clock.now = NOW * 1_000_000
    _, answer = await ask_by_assertion(client, sign(make_claims(), KEY))
    headers = {"authorization": f"Bearer {answer['access_token']}"}
    assert await revoke_client(context.unrestricted, "lab")
    assert (await client.get("Patient", headers=headers)).status_code == 401
    # another client of the same name does not wake the tokens of the one before
    keys = [KEY.as_dict(private=False)]
    await add_client(context.unrestricted, Registered("lab", "system/*.cruds", keys, NOW + 1))
    clock.now += 6_000_000
    assert (await client.get("Patient", headers=headers)).status_code == 401


BYPASSES: dict[str, tuple[str, str]] = {
    "another key under the same name": (sign(make_claims(), OTHER), "invalid_client"),
    "a key that is not the client's": (sign(make_claims(), make_key("three")), "invalid_client"),
    "an unknown client": (sign(make_claims(iss="x", sub="x"), KEY), "invalid_client"),
    "a client that speaks for another": (sign(make_claims(sub="other"), KEY), "invalid_client"),
    "for another server": (sign(make_claims(aud="https://other.example/token"), KEY), "invalid_client"),
    "for two servers": (sign(make_claims(aud=[TOKEN_URL, "https://other.example/token"]), KEY), "invalid_client"),
    "for the base TOKEN_URL": (sign(make_claims(aud="http://test/fhir"), KEY), "invalid_client"),
    "expired": (sign(make_claims(exp=NOW - SKEW), KEY), "invalid_client"),
    "for too long": (sign(make_claims(exp=NOW + LONGEST_ASSERTION + SKEW + 1), KEY), "invalid_client"),
    "without an end": (sign(make_claims(exp=None), KEY), "invalid_client"),
    "without a jti": (sign(make_claims(jti=None), KEY), "invalid_client"),
    "by another algorithm": (sign(make_claims(), KEY, "RS256"), "invalid_client"),
    "with a key of its own": (sign(make_claims(), OTHER, jwk=OTHER.as_dict(private=False)), "invalid_client"),
    "with a key from elsewhere": (sign(make_claims(), OTHER, jku="https://evil.example/keys"), "invalid_client"),
    "nothing": ("", "invalid_client"),
    "junk": ("a.b.c", "invalid_client"),
    "long junk": ("a." * 20_000, "invalid_client"),
}


@pytest.mark.parametrize("kind", BYPASSES)
async def test_an_assertion_that_is_not_good_gets_nothing(client: Client, kind: str) -> None:
    assertion, error = BYPASSES[kind]
    status, answer = await ask_by_assertion(client, assertion)
    assert (status, answer["error"], "access_token" in answer) == (401, error, False)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"grant_type": "password"}, "unsupported_grant_type"),
        ({"grant_type": ""}, "unsupported_grant_type"),
        ({"client_assertion_type": "x"}, "invalid_request"),
        ({"scope": "system/Encounter.rs"}, "invalid_scope"),
        ({"scope": "system/Patient.cud"}, "invalid_scope"),
        ({"scope": "user/Patient.rs"}, "invalid_scope"),
        ({"scope": "system/Patient.zz"}, "invalid_scope"),
        ({"scope": ""}, "invalid_scope"),
    ],
)
async def test_a_request_that_is_not_good_gets_nothing(client: Client, changes: dict[str, str], error: str) -> None:
    status, answer = await ask_by_assertion(client, sign(make_claims(), KEY), **changes)
    assert (status, answer["error"], "access_token" in answer) == (400, error, False)


async def test_an_assertion_is_good_once_however_many_send_it_at_once(client: Client) -> None:
    assertion = sign(make_claims(), KEY)
    answers = await asyncio.gather(*(ask_by_assertion(client, assertion) for _ in range(8)))
    assert sorted(status for status, _ in answers) == [200, *[401] * 7]
    # the same jti of another client is another one; of the same client in another assertion it is used up
    claims = make_claims()
    assert (await ask_by_assertion(client, sign(claims, KEY)))[0] == 200
    assert (await ask_by_assertion(client, sign({**claims, "exp": NOW + 100}, KEY)))[0] == 401


async def test_the_endpoint_takes_a_form_by_post_alone(client: Client) -> None:
    assert (await client.get("auth/token")).status_code == 405
    assert (await client.post("auth/token", json={"grant_type": "client_credentials"})).status_code == 415
    twice = "grant_type=client_credentials&grant_type=client_credentials"
    answer = await client.post("auth/token", content=twice, headers=FORM)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
    assert (await client.post("auth/token", content="a=" + "x" * 70_000, headers=FORM)).status_code == 413


async def test_where_issuers_are_set_this_server_gives_no_tokens(known: Knowledge) -> None:
    settings: dict[str, Any] = {"issuers": "https://login.example", "base_url": "https://fhir.example/fhir"}
    async with serving(known, authentication="on", audit_folder="", store="memory://", **settings) as client:
        assert (await client.post("auth/token", data={"grant_type": "x"})).status_code == 404


def test_granted_scopes_are_within_both() -> None:
    def intersect(wanted: str, most: str) -> str:
        return " ".join(map(str, intersect_scopes(parse_scopes(wanted), parse_scopes(most))))

    assert intersect("system/*.cruds", "system/Patient.rs") == "system/Patient.rs"
    assert intersect("system/Patient.cr", "system/*.rs") == "system/Patient.r"
    assert intersect("system/Patient.r", "user/Patient.r") == ""
    assert intersect("system/Patient.r", "system/Observation.r") == ""
    narrow = "system/Observation.rs?category=laboratory"
    assert intersect("system/Observation.rs", narrow) == narrow
    assert intersect("system/Observation.rs?status=final", narrow).endswith("?status=final&category=laboratory")


def test_what_one_side_lifts_stays() -> None:
    """Nobody gets labelled resources, or Provenances of what is hidden, by asking for them by name."""

    def intersect(wanted: str, most: str) -> str:
        return str(intersect_scopes(parse_scopes(wanted), parse_scopes(most))[0])

    label = "http://terminology.hl7.org/CodeSystem/v3-Confidentiality|"
    for wanted, most in ((f"?_security={label}R", ""), ("", f"?_security={label}R"), ("?_security:not=x", "")):
        granted = intersect(f"user/Observation.rs{wanted}", f"user/Observation.rs{most}")
        assert f"_security:not={label}R" in granted and f"_security:not={label}V" in granted
    free = "user/Provenance.rs?target:missing=false"
    assert intersect(free, "user/*.rs") == "user/Provenance.rs"
    assert intersect(free, free) == free


WRONG_KEYS: list[object] = [
    {},
    [],
    {"keys": []},
    {"keys": [{"kty": "oct", "kid": "a", "k": "x"}]},
    {"keys": [{"kty": "RSA"}]},
    {"keys": [KEY.as_dict(private=True)]},
    {"keys": [{"kty": "EC", "kid": str(each)} for each in range(11)]},
]


@pytest.mark.parametrize("document", WRONG_KEYS, ids=range(len(WRONG_KEYS)))
def test_keys_that_prove_nothing_are_refused(document: object) -> None:
    with pytest.raises(ValueError):
        read_public_keys(document)
