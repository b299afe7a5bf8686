"""The walk of docs/billing.md works, in its order, on the sample clinic."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fhir_server.app import Knowledge, Seams
from tests.conftest import serving
from tests.operations.scheduling.booking_clinic import Clock
from tests.walk import ROOT, follow

pytestmark = pytest.mark.anyio

Tree = dict[str, Any]


def rules(outcome: Tree) -> set[str]:
    """The rules that an OperationOutcome of `$scrub` names."""
    return {each["details"]["coding"][0]["code"] for each in outcome["issue"] if "details" in each}


async def test_the_walk_of_the_page_can_be_followed(known: Knowledge, store_uri: str) -> None:
    seams = replace(Seams(), clock=Clock("2026-11-20T12:00:00Z"))
    async with serving(known, seams, store=store_uri, time_zone="America/New_York") as client:
        for bundle in sorted((ROOT / "examples").glob("*.json")):
            loaded = await client.post(
                "", content=bundle.read_bytes(), headers={"content-type": "application/fhir+json"}
            )
            assert loaded.status_code == 200, loaded.text
        answers = await follow(client, "docs/billing.md", "From charge to claim, step by step")
        assert [each.status_code for each in answers] == [200] * 8, [each.text for each in answers]
        trees = [each.json() for each in answers]
        # By hand: 165.00 + 2 × 12.50, and 95.00 + 38.00.
        totals = [each["resource"]["total"]["value"] for tree in (trees[0], trees[2]) for each in tree["parameter"]]
        assert totals == [190.0, 133.0]
        assert {each["resource"]["status"] for each in trees[1]["entry"]} == {"billed"}
        assert rules(trees[3]) == set()
        (task,) = trees[4]["entry"]
        assert task["resource"]["businessStatus"]["coding"][0]["code"] == "ready"
        assert rules(trees[5]) == {"total", "pointer-missing"}
        assert rules(trees[7]) == set()
