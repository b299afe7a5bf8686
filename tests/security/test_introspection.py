"""Opaque tokens, which the issuer is asked about (RFC 7662, section 2)."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest

from fhir_server.access_control import build_authentication
from fhir_server.security.bearer import WrongToken
from fhir_server.security.introspection import Credentials, Network, accept_opaque_tokens
from fhir_server.security.policy import Principal
from fhir_server.settings import Settings
from fhir_server.store import memory

pytestmark = pytest.mark.anyio

ISSUER = "https://login.clinic.example"
AUDIENCE = "https://fhir.clinic.example/fhir"
NOW = 1_795_000_000
# The shape of the example in RFC 7662, section 2.2.
ACTIVE: dict[str, Any] = {
    "active": True,
    "client_id": "l238j323ds-23ij4",
    "scope": "patient/Observation.read",
    "sub": "Z5O3upPC88QrAjx00dis",
    "aud": AUDIENCE,
    "exp": NOW + 60,
    "patient": "ada",
}


class SmallIssuer:
    """An issuer that knows one answer to everything, or is down."""

    def __init__(self, answer: object, is_down: bool = False) -> None:
        self.answer, self.is_down = answer, is_down
        self.asked: list[tuple[str, Mapping[str, str], str]] = []

    async def fetch(self, url: str) -> bytes:
        return orjson.dumps({"issuer": ISSUER, "introspection_endpoint": f"{ISSUER}/introspect"})

    async def post(self, url: str, form: Mapping[str, str], headers: Mapping[str, str]) -> bytes:
        if self.is_down:
            raise OSError("down")
        self.asked.append((url, form, headers["authorization"]))
        return orjson.dumps(self.answer)


async def ask(issuer: SmallIssuer) -> Principal | None:
    network = Network(issuer.fetch, issuer.post)
    credentials = Credentials("fhir server", "a:b")
    return await accept_opaque_tokens(ISSUER, credentials, [AUDIENCE], lambda: NOW * 1_000_000, network)("opaque")


async def test_an_active_token_is_who_the_issuer_says() -> None:
    issuer = SmallIssuer(ACTIVE)
    principal = await ask(issuer)
    assert principal is not None and principal.grant is not None
    assert principal.name == f"{ISSUER}#Z5O3upPC88QrAjx00dis"
    assert (str(principal.grant.scopes[0]), principal.grant.patient) == ("patient/Observation.rs", "ada")
    ((url, form, authorization),) = issuer.asked
    assert (url, form) == (f"{ISSUER}/introspect", {"token": "opaque"})
    # RFC 6749, section 2.3.1: both are form-encoded before they are joined
    assert base64.b64decode(authorization.removeprefix("Basic ")) == b"fhir%20server:a%3Ab"


@pytest.mark.parametrize(
    "answer",
    [
        {"active": False},
        {"active": "true", **{name: value for name, value in ACTIVE.items() if name != "active"}},
        {**ACTIVE, "exp": NOW - 60},
        {**ACTIVE, "aud": "https://other.example"},
        {name: value for name, value in ACTIVE.items() if name != "aud"},
        {name: value for name, value in ACTIVE.items() if name != "exp"},
        {**ACTIVE, "scope": "patient/Observation.zzz"},
        [],
        "yes",
        None,
    ],
)
async def test_what_is_not_active_and_for_us_is_refused(answer: object) -> None:
    with pytest.raises(WrongToken):
        await ask(SmallIssuer(answer))


async def test_an_issuer_that_is_down_is_told() -> None:
    with pytest.raises(WrongToken, match="cannot be asked"):
        await ask(SmallIssuer(ACTIVE, is_down=True))


async def test_the_secret_is_read_from_its_file(tmp_path: Path) -> None:
    store = await memory.open_store("memory://", lambda: NOW * 1_000_000)
    base: dict[str, Any] = {"issuers": ISSUER, "base_url": AUDIENCE, "introspection_client": "fhir"}
    file = tmp_path / "secret"
    for content in (None, " \n"):
        if content is not None:
            file.write_text(content)
        with pytest.raises(ValueError, match="secret"):
            build_authentication(Settings(**base, introspection_secret_file=str(file)), {}, store, lambda: 0)
    file.write_text("s3cret\n")
    build_authentication(Settings(**base, introspection_secret_file=str(file)), {}, store, lambda: 0)
