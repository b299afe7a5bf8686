"""The walk of docs/billing.md works, in its order, on the sample clinic."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fhir_server.app import Knowledge, Seams
from tests.conftest import serving
from tests.operations.charges.visits import write_clearinghouse
from tests.operations.scheduling.booking_clinic import Clock
from tests.walk import ROOT, follow

pytestmark = pytest.mark.anyio

Tree = dict[str, Any]


def rules(outcome: Tree) -> set[str]:
    """The rules that an OperationOutcome of `$scrub` names."""
    return {each["details"]["coding"][0]["code"] for each in outcome["issue"] if "details" in each}


async def test_the_walk_of_the_page_can_be_followed(known: Knowledge, store_uri: str, tmp_path: Path) -> None:
    seams = replace(Seams(), clock=Clock("2026-11-20T12:00:00Z"))
    profiles = str(write_clearinghouse(tmp_path))
    async with serving(known, seams, store=store_uri, time_zone="America/New_York", profiles=profiles) as client:
        for bundle in sorted((ROOT / "examples").glob("*.json")):
            loaded = await client.post(
                "", content=bundle.read_bytes(), headers={"content-type": "application/fhir+json"}
            )
            assert loaded.status_code == 200, loaded.text
        answers = await follow(client, "docs/billing.md", "From charge to claim, step by step")
        assert [each.status_code for each in answers] == [200] * 10, [each.text for each in answers]
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
        parts = [{each["name"]: each for each in part["part"]} for part in trees[8]["parameter"]]
        assert [each["state"]["valueCode"] for each in parts] == ["sent", "sent", "held"]
        assert rules(parts[2]["outcome"]["resource"]) == {"diagnosis-form", "place-missing"}
        focused = {each["resource"]["id"] for each in trees[9]["entry"] if each["search"]["mode"] == "include"}
        assert focused == {"6241af1283729d7db1b52d8db115cc31", "hannah-typed"}
        assert {each["transmission"]["valueReference"]["reference"] for each in parts[:2]} == {
            parts[0]["transmission"]["valueReference"]["reference"]
        }
        answers = await follow(client, "docs/billing.md", "From the answer to zero, step by step")
        assert [each.status_code for each in answers] == [201, 200, 200, 201, 200], [each.text for each in answers]
        posted, states, invoices, paid, balance = (each.json() for each in answers)
        assert (posted["status"], posted["paymentAmount"]["value"]) == ("active", 130)
        assert states["entry"][0]["resource"]["businessStatus"]["coding"][0]["code"] == "adjudicated"
        assert [each["resource"]["totalNet"]["value"] for each in invoices["entry"]] == [30]
        assert paid["paymentAmount"]["value"] == 30
        sums = {each["name"]: each["valueMoney"]["value"] for each in balance["parameter"] if "valueMoney" in each}
        assert (sums["charges"], sums["payments"], sums["adjustments"], sums["balance"]) == (190, 160, 30, 0)
