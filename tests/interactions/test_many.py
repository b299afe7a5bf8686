"""Searches with thousands of values, as they are sent by programs (https://hl7.org/fhir/R4/search.html#combining)."""

from __future__ import annotations

import uuid
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from tests.conftest import Client

pytestmark = pytest.mark.anyio

MANY = 5000


async def stored(client: Client) -> None:
    for number in range(40):
        observation = {
            "resourceType": "Observation",
            "id": f"o{number}",
            "status": "final",
            "code": {"coding": [{"system": "urn:s", "code": f"c{number * 200}"}]},
            "subject": {"reference": f"Patient/p{number % 2}"},
            "effectiveDateTime": f"{1000 + number * 20}",
            "valueQuantity": {"value": number * 100, "system": "http://unitsofmeasure.org", "code": "mg"},
        }
        made = await client.fhir("PUT", f"/Observation/o{number}", json=observation)
        assert made.status_code == 201, made.text


async def found(client: Client, **asked: str) -> dict[str, Any]:
    answer = await client.fhir("POST", "/Observation/_search", data={"_total": "accurate", "_count": "1000", **asked})
    assert answer.status_code == 200, answer.text
    bundle: dict[str, Any] = answer.json()
    assert len(bundle["entry"]) == bundle["total"]
    return bundle


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("code", lambda number: f"c{number}", 25),
        ("code", lambda number: f"urn:s|c{number}", 25),
        ("code:not", lambda number: f"c{number}", 15),
        ("date", lambda number: f"{1000 + number}", 40),
        ("value-quantity", lambda number: f"{number}", 40),
        ("value-quantity", lambda number: f"{number + 1000}000|http://unitsofmeasure.org|ug", 30),
        ("code-value-quantity", lambda number: f"c{number * 200}${number * 100}", 40),
        ("subject", lambda number: f"Patient/p{number + 1}", 20),
        ("patient", lambda number: f"p{number + 1}", 20),
        ("_id", lambda number: f"o{number + 10}", 30),
    ],
)
async def test_thousands_of_values(client: Client, name: str, value: Any, expected: int) -> None:
    """The numbers: codes c0, c200 … c7800, of which 25 are below c5000; values 0, 100 … 3900 mg; years 1000, 1020 …"""
    await _patients(client)
    await stored(client)
    text = ",".join(map(value, range(MANY)))
    bundle = await found(client, **{name: text})
    assert bundle["total"] == expected
    link = {each["relation"]: each["url"] for each in bundle["link"]}["self"]
    assert dict(parse_qsl(urlsplit(link).query))[name] == text


async def test_criteria_that_all_hold(client: Client) -> None:
    await _patients(client)
    await stored(client)
    others = [("code:not", f"c{number}") for number in range(1, 1400)]
    asked = _form([*others, ("_total", "accurate")])
    answer = await client.fhir("POST", "/Observation/_search", content=asked, headers=_FORM)
    assert answer.json()["total"] == 40 - 6  # c200 to c1200
    more = _form([*others, *[("code:not", f"d{number}") for number in range(200)]])
    answer = await client.fhir("POST", "/Observation/_search", content=more, headers=_FORM)
    assert answer.status_code == 413
    issue = answer.json()["issue"][0]
    assert issue["code"] == "too-costly"
    assert "1,599 criteria that must all hold; 1,500 are possible for a type" in issue["diagnostics"]


async def test_a_next_link_that_nobody_could_follow_is_refused(client: Client) -> None:
    await _patients(client)
    await stored(client)
    random = [uuid.UUID(int=number * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128).hex for number in range(MANY)]
    codes = ",".join([*random, "c0", "c200", "c400"])
    assert (await found(client, code=codes))["total"] == 3
    answer = await client.fhir("POST", "/Observation/_search", data={"code": codes, "_count": "2"})
    assert answer.status_code == 413
    assert "larger `_count`" in answer.json()["issue"][0]["diagnostics"]
    answer = await client.fhir("POST", "/Observation/_search", data={"code": codes[-500:], "_count": "2"})
    following = {each["relation"]: each["url"] for each in answer.json()["link"]}["next"]
    assert [entry["resource"]["id"] for entry in (await client.fhir("GET", following)).json()["entry"]] == ["o2"]


async def _patients(client: Client) -> None:
    for id in ("p0", "p1"):
        await client.fhir("PUT", f"/Patient/{id}", json={"resourceType": "Patient", "id": id})


_FORM = {"content-type": "application/x-www-form-urlencoded"}


def _form(pairs: list[tuple[str, str]]) -> str:
    return "&".join(f"{name}={value}" for name, value in pairs)
