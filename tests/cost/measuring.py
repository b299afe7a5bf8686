"""What a transaction of new resources costs, for tests that compare two sizes in one run."""

from __future__ import annotations

import time
from typing import Any

import httpx

from tests.conftest import Client

JSON = {"content-type": "application/fhir+json"}


async def measure_bundles(client: Client, *bundles: dict[str, Any]) -> float:
    """The least CPU time of this process (s) for one of the bundles, each of which creates all of its entries."""
    best = float("inf")
    for body in bundles:
        content = httpx.Request("POST", "http://x", json=body).content
        began = time.process_time()
        answer = await client.post("/", content=content, headers=JSON)
        best = min(best, time.process_time() - began)
        assert answer.status_code == 200, answer.text[:500]
        assert all(entry["response"]["status"] == "201 Created" for entry in answer.json()["entry"])
    return best
