"""A small issuer of tokens, in the place of an authorization server somewhere else."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import orjson

from tests.security.smart import Key

ISSUER = "https://login.clinic.example"
AUDIENCE = "https://fhir.clinic.example/fhir"


@dataclass
class SmallIssuer:
    """What an issuer publishes, and how often it is asked."""

    keys: list[Key] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    is_down: bool = False
    issuer: str = ISSUER

    async def fetch(self, url: str) -> bytes:
        self.asked.append(url)
        await asyncio.sleep(0)
        if self.is_down:
            raise OSError("down")
        if url == f"{ISSUER}/.well-known/openid-configuration":
            return orjson.dumps({"issuer": self.issuer, "jwks_uri": f"{ISSUER}/keys"})
        assert url == f"{ISSUER}/keys"
        return orjson.dumps({"keys": [key.as_dict(private=False) for key in self.keys]})
