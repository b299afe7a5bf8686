"""Access tokens of another issuer: a small one here, with its own keys, that can be turned off (RFC 7519, RFC 9068)."""

from __future__ import annotations

import asyncio
import base64
import hmac
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc import jwt

from fhir_server.security.bearer import WrongToken
from fhir_server.security.claims import SKEW
from fhir_server.security.jwt_tokens import KEYS_LIFETIME, RETRY_AFTER, accept_issuers
from fhir_server.security.policy import Principal
from tests.security.issuer import AUDIENCE, ISSUER, SmallIssuer
from tests.security.smart import NOW, Key, make_key

pytestmark = pytest.mark.anyio

CLAIMS: dict[str, Any] = {
    "iss": ISSUER,
    "aud": AUDIENCE,
    "sub": "quill",
    "exp": NOW + 300,
    "client_id": "app",
    "scope": "openid patient/Observation.rs",
    "patient": "ada",
    "fhirUser": "https://fhir.clinic.example/fhir/Practitioner/quill",
}


class Trust:
    """A source of tokens that trusts the small issuer, with a clock that can be set."""

    def __init__(self, *keys: Key) -> None:
        self.issuer, self.now = SmallIssuer(list(keys)), NOW
        self.find = accept_issuers([ISSUER], [AUDIENCE], lambda: self.now * 1_000_000, self.issuer.fetch)

    async def accept(self, token: str) -> Principal:
        principal = await self.find(token)
        assert principal is not None
        return principal

    async def refuse(self, token: str, word: str) -> None:
        with pytest.raises(WrongToken, match=word):
            await self.find(token)


KEY = make_key("one")


def sign(claims: dict[str, Any], key: Key = KEY, algorithm: str = "RS256", **header: Any) -> str:
    return jwt.encode({"alg": algorithm, "kid": key.kid, **header}, claims, key, algorithms=[algorithm])


async def test_a_good_token_is_who_it_says() -> None:
    principal = await Trust(KEY).accept(sign(CLAIMS))
    assert principal.name == f"{ISSUER}#quill"
    assert principal.grant is not None
    assert list(map(str, principal.grant.scopes)) == ["patient/Observation.rs"]
    assert (principal.grant.patient, principal.grant.client) == ("ada", "app")
    assert principal.grant.user == "Practitioner/quill"


@pytest.mark.parametrize(
    ("algorithm", "kind"),
    [("RS384", "RSA"), ("PS256", "RSA"), ("PS384", "RSA"), ("ES256", "P-256"), ("ES384", "P-384")],
)
async def test_each_algorithm_is_verified(algorithm: str, kind: str) -> None:
    key = make_key("k", kind)
    assert (await Trust(key).accept(sign(CLAIMS, key, algorithm))).grant is not None
    other = make_key("k", kind)
    await Trust(key).refuse(sign(CLAIMS, other, algorithm), "signature")


def change(**claims: Any) -> dict[str, Any]:
    return {name: value for name, value in (CLAIMS | claims).items() if value is not None}


@pytest.mark.parametrize(
    ("claims", "word"),
    [
        (change(iss="https://evil.example"), "iss"),
        (change(iss=None), "iss"),
        (change(aud="https://other.example/fhir"), "aud"),
        (change(aud=None), "aud"),
        (change(aud=[]), "aud"),
        (change(exp=NOW - SKEW), "expired"),
        (change(exp=None), "exp"),
        (change(exp="never"), "exp"),
        (change(nbf=NOW + SKEW + 1), "not valid yet"),
        (change(scope="patient/Observation.xyz"), "scope"),
    ],
)
async def test_claims_that_are_not_good_are_refused(claims: dict[str, Any], word: str) -> None:
    await Trust(KEY).refuse(sign(claims), word)


@pytest.mark.parametrize(
    "claims", [change(aud=["x", AUDIENCE]), change(exp=NOW - SKEW + 1), change(nbf=NOW + SKEW), change(scope=None)]
)
async def test_claims_at_the_edge_are_good(claims: dict[str, Any]) -> None:
    await Trust(KEY).accept(sign(claims))


async def test_a_token_without_scopes_allows_nothing() -> None:
    principal = await Trust(KEY).accept(sign(change(scope=None)))
    assert principal.grant is not None and principal.grant.scopes == ()


def encode(part: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(orjson.dumps(part)).rstrip(b"=").decode()


async def test_a_token_that_nobody_signed_is_refused() -> None:
    for header in ({"alg": "none"}, {"alg": "none", "kid": "one"}, {"alg": "NONE"}, {}):
        await Trust(KEY).refuse(f"{encode(header)}.{encode(CLAIMS)}.", "signed")


async def test_a_secret_made_of_the_public_key_is_refused() -> None:
    """The old confusion of HMAC and RSA: the public key, which everybody knows, taken for a secret."""
    text = f"{encode({'alg': 'HS256', 'kid': 'one'})}.{encode(CLAIMS)}"
    digest = hmac.new(KEY.as_pem(private=False), text.encode(), "sha256").digest()
    await Trust(KEY).refuse(f"{text}.{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}", "signed")


async def test_changed_claims_are_refused() -> None:
    header, _, signature = sign(CLAIMS).split(".")
    await Trust(KEY).refuse(f"{header}.{encode(change(patient='bo'))}.{signature}", "signature")


async def test_keys_that_the_token_brings_are_not_followed() -> None:
    evil = make_key("one")
    headers: list[dict[str, Any]] = [
        {"jwk": evil.as_dict(private=False)},
        {"jku": "https://evil.example/keys"},
        {"x5u": "https://evil.example/certificate"},
    ]
    for header in headers:
        trust = Trust(KEY)
        await trust.refuse(sign(CLAIMS, evil, **header), "signature")
        assert all(url.startswith(ISSUER) for url in trust.issuer.asked)


async def test_critical_headers_and_other_types_are_refused() -> None:
    part = sign(CLAIMS).split(".")[1]
    await Trust(KEY).refuse(f"{encode({'alg': 'RS256', 'kid': 'one', 'crit': ['exp']})}.{part}.x", "crit")
    await Trust(KEY).refuse(sign(CLAIMS, typ="dpop+jwt"), "typ")
    assert await Trust(KEY).accept(sign(CLAIMS, typ="at+jwt"))


@pytest.mark.parametrize("token", ["a.b.c", "..", "e30.e30.", "bnVsbA.bnVsbA.x", f"{'x' * 9000}.y.z", "é.é.é"])
async def test_junk_is_refused(token: str) -> None:
    await Trust(KEY).refuse(token, ".")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
NAMES = st.sampled_from(["alg", "kid", "typ", "crit", "b64", "zip", "jwk", "cty", "x5c", "p2c"])
CLAIM_NAMES = st.sampled_from(["aud", "exp", "nbf", "scope", "scp", "patient", "fhirUser", "sub", "client_id"])


@settings(max_examples=150)
@given(header=st.dictionaries(NAMES, JSON), algorithm=st.sampled_from([None, "RS256", "ES256", "none", "HS256"]))
async def test_a_header_of_anything_is_refused_and_no_fault(header: dict[str, Any], algorithm: str | None) -> None:
    chosen = header if algorithm is None else {**header, "alg": algorithm}
    with pytest.raises(WrongToken):
        await Trust(KEY).find(f"{encode(chosen)}.{encode(CLAIMS)}.AAAA")


@settings(max_examples=60)
@given(claims=st.dictionaries(CLAIM_NAMES, JSON))
async def test_claims_of_anything_that_are_signed_are_no_fault(claims: dict[str, Any]) -> None:
    try:
        principal = await Trust(KEY).find(sign(CLAIMS | claims))
    except WrongToken:
        return
    assert principal is not None and principal.grant is not None


async def test_what_is_no_such_token_is_left_to_others() -> None:
    assert await Trust(KEY).find("opaque") is None


async def test_a_new_key_is_found_and_an_unknown_one_is_not_asked_for_again_and_again() -> None:
    trust = Trust(KEY)
    await trust.accept(sign(CLAIMS))
    assert len(trust.issuer.asked) == 2
    new = make_key("two")
    await trust.refuse(sign(CLAIMS, new), "signature")
    assert len(trust.issuer.asked) == 2
    trust.issuer.keys = [new]
    trust.now += RETRY_AFTER + 1
    await trust.accept(sign(CLAIMS, new))
    await trust.refuse(sign(CLAIMS), "signature")
    assert len(trust.issuer.asked) == 4


async def test_tokens_that_come_while_keys_are_fetched_wait_for_them() -> None:
    trust = Trust(KEY)
    token = sign(CLAIMS)
    await asyncio.gather(*(trust.accept(token) for _ in range(6)))
    new = make_key("two")
    trust.issuer.keys.append(new)
    trust.now += RETRY_AFTER + 1
    tokens = [token if number % 2 else sign(CLAIMS, new) for number in range(6)]
    await asyncio.gather(*map(trust.accept, tokens))
    assert len(trust.issuer.asked) == 4


async def test_a_signature_is_verified_once_for_the_keys_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    trust, token = Trust(KEY), sign(CLAIMS)
    looks: list[Any] = []
    decode = jwt.decode

    def look(*arguments: Any, **options: Any) -> Any:
        looks.append(arguments)
        return decode(*arguments, **options)

    monkeypatch.setattr("fhir_server.security.jwt_tokens.jwt.decode", look)
    first = await trust.accept(token)
    assert await trust.accept(token) is first and len(looks) == 1
    # other claims, or another signature, are another token
    header, _, signature = token.split(".")
    await trust.refuse(f"{header}.{encode(change(patient='bo'))}.{signature}", "signature")
    # its time is looked at each time
    trust.now = NOW + 300 + SKEW
    await trust.refuse(token, "expired")
    # keys that were fetched again no longer have the one that signed it
    trust.now = NOW
    trust.issuer.keys = [make_key("two")]
    later = sign(change(exp=NOW + 2 * KEYS_LIFETIME))
    await trust.accept(later)
    trust.now += KEYS_LIFETIME + 1
    await trust.refuse(later, "signature")


async def test_keys_stay_good_while_the_issuer_is_down() -> None:
    trust = Trust(KEY)
    await trust.accept(sign(CLAIMS))
    trust.issuer.is_down = True
    trust.now += KEYS_LIFETIME + 1
    await trust.accept(sign(change(exp=trust.now + 300)))


async def test_an_issuer_that_was_never_reached_is_told() -> None:
    trust = Trust(KEY)
    trust.issuer.is_down = True
    await trust.refuse(sign(CLAIMS), "cannot be had")
    trust.issuer.is_down = False
    trust.now += RETRY_AFTER + 1
    await trust.accept(sign(CLAIMS))


async def test_the_configuration_of_another_issuer_is_not_taken() -> None:
    trust = Trust(KEY)
    trust.issuer.issuer = "https://evil.example"
    await trust.refuse(sign(CLAIMS), "cannot be had")
