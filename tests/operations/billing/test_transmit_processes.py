"""Two server processes on one store, SQLite and MongoDB: parallel `$transmit` of overlapping claims sends each once."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.faults.process import serving_process
from tests.operations.billing.claims_clinic import make_claims
from tests.operations.billing.test_transmit import ask, segments, told, write_partner

pytestmark = [pytest.mark.anyio, pytest.mark.long]

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
            numbers: Counter[str] = Counter()
            interchanges: Counter[str] = Counter()
            for transmission in {min(each) for each in sent.values()}:
                task = (await second.get(f"/{transmission}")).json()
                text = (await second.get(f"/{task['input'][0]['valueReference']['reference']}")).text
                numbers.update(each[1] for each in segments(text, "CLM"))
                interchanges.update(each[13] for each in segments(text, "ISA"))
            assert sorted(numbers.elements()) == [f"T{number:05}" for number in range(CLAIMS)]
            assert set(interchanges.values()) == {1}
            found = (await first.get("/Task", params={"code": "message-delivery", "_total": "accurate"})).json()
            assert found["total"] == len(interchanges)
