"""The walk-through of docs/scheduling.md and the README's commands work, in their order, on the sample clinic."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import httpx
import orjson
import pytest

from fhir_server.app import Knowledge
from tests.conftest import Client, serving

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).resolve().parents[3]


async def follow(client: Client, page: str, title: str = "") -> list[httpx.Response]:
    """The answers to the commands of a page, or of one of its sections, that speak of Appointments."""
    text = (ROOT / page).read_text("utf-8")
    if title:
        text = text.split(f"## {title}\n")[1].split("\n## ")[0]
    answers = []
    for line in re.findall(r"^curl .*/Appointment.*$", text, re.MULTILINE):
        words = shlex.split(line)
        url = urlsplit(next(word for word in words if word.startswith("http")))
        method = words[words.index("-X") + 1] if "-X" in words else "GET"
        body = words[words.index("-d") + 1] if "-d" in words else ""
        answers.append(
            await client.request(
                method,
                url.path.removeprefix("/fhir/"),
                params=dict(parse_qsl(url.query)),
                content=body,
                headers={"content-type": "application/fhir+json"},
            )
        )
    return answers


@pytest.fixture
def bundles() -> list[Path]:
    return sorted((ROOT / "examples").glob("*.json"))


async def test_the_walk_through_can_be_followed(known: Knowledge, store_uri: str, bundles: list[Path]) -> None:
    async with serving(known, store=store_uri) as client:
        for bundle in bundles:
            assert (await client.post("", json=orjson.loads(bundle.read_bytes()))).status_code == 200
        counts = {type: (await client.get(f"{type}?_summary=count")).json()["total"] for type in ("Slot", "Schedule")}
        assert counts == {"Slot": 28, "Schedule": 5}  # the rule of booking had nothing to add
        answers = await follow(client, "docs/scheduling.md", "A booking, step by step")
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
        answers = await follow(client, "README.md")
        found, booked = answers[-2:]
        assert len(found.json()["entry"]) == 13  # 09:00 to 12:00 every quarter of an hour
        assert (booked.status_code, booked.json()["status"]) == (201, "booked")
