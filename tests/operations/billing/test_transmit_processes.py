"""`$transmit` by server processes: two on one store send each claim once, and one that is killed sends none twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from mappers.billing.claim_states import make_task_id
from tests.faults.process import serving_process
from tests.operations.billing.claims_clinic import make_claims
from tests.operations.billing.test_transmit import ask, segments, told, write_partner

pytestmark = [pytest.mark.anyio, pytest.mark.external, pytest.mark.long]

Tree = dict[str, Any]
CLAIMS = 12


async def furnish(client: httpx.AsyncClient) -> list[str]:
    claims, others = make_claims(CLAIMS)
    for resources in (others, claims):
        entries = [
            {"resource": each, "request": {"method": "PUT", "url": f"{each['resourceType']}/{each['id']}"}}
            for each in resources
        ]
        bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
        answer = await client.post("/", json=bundle)
        assert answer.status_code == 200, answer.text
    return [f"Claim/{each['id']}" for each in claims]


async def count_deliveries(client: httpx.AsyncClient) -> int:
    found = await client.get("/Task", params={"code": "message-delivery", "_total": "accurate"})
    return int(found.json()["total"])


async def list_sent(client: httpx.AsyncClient) -> list[str]:
    """The patient control numbers in all deliveries, each as often as it is sent; each interchange has its number."""
    page = (await client.get("/Task", params={"code": "message-delivery", "_count": "500"})).json()
    numbers: Counter[str] = Counter()
    interchanges: Counter[str] = Counter()
    for entry in page.get("entry", ()):
        text = (await client.get(f"/{entry['resource']['input'][0]['valueReference']['reference']}")).text
        numbers.update(each[1] for each in segments(text, "CLM"))
        interchanges.update(each[13] for each in segments(text, "ISA"))
    assert set(interchanges.values()) <= {1}
    return sorted(numbers.elements())


@pytest.mark.parametrize("store", ["sqlite", "mongo"])
async def test_two_processes_send_each_claim_once(store: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    write_partner(tmp_path, "house", [])
    options = ("--store", request.getfixturevalue("new_mongo_uri")()) if store == "mongo" else ()
    path, settings = tmp_path / "fhir.db", {"profiles": str(tmp_path), "workers": "off"}
    with serving_process(path, *options, **settings) as one, serving_process(path, *options, **settings) as two:
        async with one.client() as first, two.client() as second:
            names = await furnish(first)
            calls = [
                (first, second)[number % 2].post("/Claim/$transmit", json=ask(*names[start : start + 2 + number]))
                for number, start in enumerate((0, 1, 3, 0, 5, 7))
            ]
            sent: dict[str, set[str]] = {}
            for answer in await asyncio.gather(*calls):
                for case in told(answer):
                    assert case["state"] == "sent", case
                    sent.setdefault(case["reference"], set()).add(case["transmission"])
            assert sorted(sent) == names and all(len(each) == 1 for each in sent.values())
            assert await count_deliveries(second) == len({min(each) for each in sent.values()})
            assert await list_sent(second) == [f"T{number:05}" for number in range(CLAIMS)]


async def test_a_server_killed_while_it_sends_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """Killed three times amid requests; after each start, what is sent is in one interchange, all else goes then."""
    write_partner(tmp_path, "house", [])
    path, settings = tmp_path / "fhir.db", {"profiles": str(tmp_path), "workers": "off"}
    names: list[str] = []
    for delay in (0.15, 0.4, 0.8):
        with serving_process(path, **settings) as process:
            async with process.client() as client:
                names = names or await furnish(client)
                calls = [
                    asyncio.create_task(client.post("/Claim/$transmit", json=ask(*names[start : start + 3])))
                    for start in range(0, CLAIMS, 2)
                ]
                await asyncio.sleep(delay)
                process.kill()
                await asyncio.gather(*calls, return_exceptions=True)
        with serving_process(path, **settings) as process:
            async with process.client() as client:
                sent = [name for name in names if await read_state(client, name) == "sent"]
                assert await list_sent(client) == sorted(f"T{name[-5:]}" for name in sent)
    with serving_process(path, **settings) as process:
        async with process.client() as client:
            assert {case["state"] for case in told(await client.post("/Claim/$transmit", json=ask(*names)))} == {"sent"}
            assert await list_sent(client) == [f"T{number:05}" for number in range(CLAIMS)]


async def read_state(client: httpx.AsyncClient, claim: str) -> str:
    task = (await client.get(f"/Task/{make_task_id(claim)}")).json()
    return str(task["businessStatus"]["coding"][0]["code"])
