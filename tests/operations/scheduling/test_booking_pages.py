"""The walk-through of docs/scheduling.md and the README's commands work, in their order, on the sample clinic."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from fhir_server.app import Knowledge
from tests.conftest import serving
from tests.walk import follow

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def bundles() -> list[Path]:
    return sorted((ROOT / "examples").glob("*.json"))


async def test_the_walk_through_can_be_followed(known: Knowledge, store_uri: str, bundles: list[Path]) -> None:
    async with serving(known, store=store_uri) as client:
        for bundle in bundles:
            assert (await client.post("", json=orjson.loads(bundle.read_bytes()))).status_code == 200
        counts = {type: (await client.get(f"{type}?_summary=count")).json()["total"] for type in ("Slot", "Schedule")}
        assert counts == {"Slot": 28, "Schedule": 5}  # the rule of booking had nothing to add
        answers = await follow(client, "docs/scheduling.md", "A booking, step by step", "/Appointment")
        statuses = [each.status_code for each in answers]
        assert statuses == [200, 201, 409, 201, 201, 200, 409, 200], [each.text for each in answers]
        assert answers[0].json()["entry"][0]["resource"]["start"] == "2030-01-07T14:00:00.000Z"  # 09:00 in New York
        assert "Free instead: 2030-01-07T14:30:00.000Z" in answers[2].text
        starts = [each["resource"]["start"] for each in answers[4].json()["entry"]]
        assert starts[1:] == ["2030-03-12T15:00:00.000Z", "2030-03-19T15:00:00.000Z"]
        assert answers[6].json()["issue"][0]["expression"] == ["Appointment.participant[2]"]


async def test_the_sample_clinic_is_booked_from_the_readme(known: Knowledge, bundles: list[Path]) -> None:
    async with serving(known, store="memory://") as client:
        for bundle in bundles:
            assert (await client.post("", json=orjson.loads(bundle.read_bytes()))).status_code == 200
        answers = await follow(client, "README.md", about="/Appointment")
        found, booked = answers[-2:]
        assert len(found.json()["entry"]) == 13  # 09:00 to 12:00 every quarter of an hour
        assert (booked.status_code, booked.json()["status"]) == (201, "booked")
