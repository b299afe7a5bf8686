"""Conditional creates of one transaction: their cost is linear, and near that of plain creates.

Ratios of times in one run, measured in turns.
"""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pytest

from fhir_server.app import Knowledge
from tests.conftest import Client, serving
from tests.cost.measuring import LONG_WAIT, Measure, check_ratio, measure_bundle

pytestmark = pytest.mark.anyio


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


def creates(client: Client, count: int, conditional: bool) -> Measure:
    """Measures bundles of resources that are new each time."""
    start = uuid.uuid4().hex
    return lambda number: measure_bundle(client, bundle(count, conditional, f"{start}-{number}"))


@pytest.mark.long
async def test_two_thousand_conditional_creates_cost_what_their_number_says(known: Knowledge, tmp_path: Path) -> None:
    async with serving(known, store=f"sqlite:///{tmp_path}/fhir.db", **LONG_WAIT) as client:
        await check_ratio(creates(client, 1000, True), creates(client, 2000, True), 2.5)
        await check_ratio(creates(client, 2000, False), creates(client, 2000, True), 2)
