"""A practice over HTTP whose claims pass every rule: those of `tests/mappers/billing/valid_claims.py`."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from fhir_server.app import Knowledge, Seams
from mappers.billing.claim_states import make_task_id
from tests.conftest import Client, serving
from tests.mappers.billing.valid_claims import TODAY, Maker
from tests.operations.payments.money_clinic import plain, store
from tests.operations.scheduling.booking_clinic import Clock

Tree = dict[str, Any]


def make_claims(count: int, seed: int = 1) -> tuple[list[Tree], list[Tree]]:
    """Valid draft claims of one patient each, and all that they refer to."""
    maker = Maker(seed)
    claims: list[Tree] = []
    resources: dict[str, Tree] = {}
    for number in range(count):
        claim, others = maker.claim(number)
        claims.append(plain(claim))
        resources |= others
    return claims, [plain(each) for each in resources.values()]


@asynccontextmanager
async def claims_clinic(
    known: Knowledge, uri: str = "memory://", count: int = 1, **settings: Any
) -> AsyncIterator[tuple[Client, list[Tree]]]:
    """A server with valid claims c00000, c00001 … stored."""
    clock = Clock(f"{TODAY}T12:00:00Z")
    async with serving(known, replace(Seams(), clock=clock), store=uri, **settings) as client:
        claims, others = make_claims(count)
        await store(client, others)
        await store(client, claims)
        yield client, claims


def make_library(id: str, kind: str, content: Tree, **more: Any) -> Tree:
    """A Library of ours with a JSON attachment, its kind told by the text of its type alone."""
    data = base64.b64encode(json.dumps(content).encode()).decode()
    return {
        "resourceType": "Library",
        "id": id,
        "status": "active",
        "name": id,
        "version": "1",
        "type": {"text": kind},
        "content": [{"contentType": "application/json", "data": data}],
        **more,
    }


async def put(client: Client, resource: Tree) -> Tree:
    """Store a resource under its id."""
    answer = await client.fhir("PUT", f"{resource['resourceType']}/{resource['id']}", json=resource)
    assert answer.status_code in (200, 201), answer.text
    return answer.json()  # type: ignore[no-any-return]


async def read(client: Client, reference: str) -> Tree:
    """A resource as it is stored."""
    answer = await client.fhir("GET", reference)
    assert answer.status_code == 200, answer.text
    return answer.json()  # type: ignore[no-any-return]


async def read_task(client: Client, claim: str) -> Tree:
    """The Task of `Claim/id`."""
    return await read(client, f"Task/{make_task_id(claim)}")


async def read_state(client: Client, claim: str) -> str:
    """The state of `Claim/id`."""
    return (await read_task(client, claim))["businessStatus"]["coding"][0]["code"]  # type: ignore[no-any-return]


def rules_of(outcome: Tree) -> list[str]:
    """The rule ids of an OperationOutcome's findings."""
    return [each["details"]["coding"][0]["code"] for each in outcome["issue"] if "details" in each]
