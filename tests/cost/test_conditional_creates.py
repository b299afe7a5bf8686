"""Conditional creates of one transaction: their cost is linear, and near that of plain creates.

Ratios of times in one run; each is the best of some tries, so that what else the machine does counts little.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fhir_server.app import Knowledge
from tests.conftest import Client, serving
from tests.cost.measuring import measure_bundles

pytestmark = pytest.mark.anyio

JSON = {"content-type": "application/fhir+json"}
TRIES = 3


def bundle(count: int, conditional: bool, start: str) -> dict[str, Any]:
    entries = []
    for number in range(count):
        identifier = {"system": "urn:example:cost", "value": f"{start}-{number}"}
        asked = {"method": "POST", "url": "Observation"}
        if conditional:
            asked["ifNoneExist"] = f"identifier=urn:example:cost|{start}-{number}"
        resource = {
            "resourceType": "Observation",
            "status": "final",
            "code": {"text": "x"},
            "identifier": [identifier],
        }
        entries.append({"resource": resource, "request": asked})
    return {"resourceType": "Bundle", "type": "transaction", "entry": entries}


async def seconds(client: Client, count: int, conditional: bool) -> float:
    """The least CPU time of this process for a bundle of new resources."""
    names = (f"{count}-{conditional}-{attempt}" for attempt in range(TRIES))
    return await measure_bundles(client, *(bundle(count, conditional, name) for name in names))


@pytest.mark.long
async def test_two_thousand_conditional_creates_cost_what_their_number_says(known: Knowledge, tmp_path: Path) -> None:
    async with serving(known, store=f"sqlite:///{tmp_path}/fhir.db") as client:
        half, whole = await seconds(client, 1000, True), await seconds(client, 2000, True)
        plain = await seconds(client, 2000, False)
        assert whole <= 2.5 * half, (half, whole)
        assert whole <= 2 * plain, (whole, plain)
