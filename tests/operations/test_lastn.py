"""`Observation/$lastn` (https://hl7.org/fhir/R4/observation-operation-lastn.html)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import Client

pytestmark = pytest.mark.anyio

LOINC = "http://loinc.org"
VITAL = [{"coding": [{"code": "vital-signs"}]}]


def observation(id: str, date: str | None, *codes: str, **more: Any) -> dict[str, Any]:
    made: dict[str, Any] = {
        "resourceType": "Observation",
        "id": id,
        "status": "final",
        "category": VITAL,
        "code": {"coding": [{"system": LOINC, "code": code} for code in codes]},
        "subject": {"reference": "Patient/p"},
    }
    if date is not None:
        made["effectiveDateTime"] = date
    return {**made, **more}


@pytest.fixture
async def chart(client: Client) -> Client:
    for id in ("p", "q"):
        await client.fhir("PUT", f"/Patient/{id}", json={"resourceType": "Patient", "id": id})
    for made in (
        observation("pulse1", "2026-01-01", "8867-4"),
        observation("pulse2", "2026-01-02", "8867-4"),
        observation("pulse3", "2026-01-03", "8867-4", status="entered-in-error"),
        observation("heat1", "2026-01-01T08:00:00Z", "8310-5"),
        observation("heat2", None, "8310-5", effectivePeriod={"start": "2026-01-01", "end": "2026-02-01"}),
        observation("others", "2026-09-09", "8867-4", subject={"reference": "Patient/q"}),
    ):
        stored = await client.fhir("PUT", f"/Observation/{made['id']}", json=made)
        assert stored.status_code == 201, stored.text
    return client


async def ids(client: Client, query: str) -> list[str]:
    response = await client.fhir("GET", f"/Observation/$lastn?{query}")
    assert response.status_code == 200, response.text
    return [entry["resource"]["id"] for entry in response.json().get("entry", ())]


async def test_the_most_recent_of_each_code(chart: Client) -> None:
    """Without `max` one of each; statuses are not filtered unless asked for."""
    assert await ids(chart, "patient=p&category=vital-signs") == ["heat2", "pulse3"]
    assert await ids(chart, "subject=Patient/p&category=vital-signs&status=final") == ["heat2", "pulse2"]


async def test_max(chart: Client) -> None:
    assert await ids(chart, "patient=p&category=vital-signs&max=2") == ["heat2", "pulse3", "pulse2", "heat1"]
    assert await ids(chart, "patient=p&code=8867-4&max=9") == ["pulse3", "pulse2", "pulse1"]


async def test_a_tie_gives_more_than_max(chart: Client) -> None:
    """R4: 4 instead of 3 when the 3rd and the 4th have the same effective time."""
    for id in ("tie1", "tie2"):
        await chart.fhir("PUT", f"/Observation/{id}", json=observation(id, "2026-01-02", "8867-4"))
    assert await ids(chart, "patient=p&code=8867-4&max=2") == ["pulse3", "pulse2", "tie1", "tie2"]
    assert await ids(chart, "patient=p&code=8867-4&max=1") == ["pulse3"]


async def test_translations_make_one_group(client: Client) -> None:
    """R4's table: codes a, b and then a with b are one group; transitively."""
    await client.fhir("PUT", "/Patient/p", json={"resourceType": "Patient", "id": "p"})
    for made in (
        observation("1", "2026-01-01", "a"),
        observation("2", "2026-01-02", "b"),
        observation("3", "2026-01-03", "c"),
    ):
        await client.fhir("PUT", f"/Observation/{made['id']}", json=made)
    assert await ids(client, "patient=p&category=vital-signs") == ["3", "2", "1"]
    await client.fhir("PUT", "/Observation/3", json=observation("3", "2026-01-03", "a", "c"))
    assert await ids(client, "patient=p&category=vital-signs") == ["3", "2"]
    await client.fhir("PUT", "/Observation/4", json=observation("4", "2020-01-01", "c", "b"))
    assert await ids(client, "patient=p&category=vital-signs") == ["3"]


async def test_text_alone_is_compared_as_written(client: Client) -> None:
    """R4's table: `textM`, `Text` and `t e x t` are three groups."""
    await client.fhir("PUT", "/Patient/p", json={"resourceType": "Patient", "id": "p"})
    for number, text in enumerate(("textM", "Text", "t e x t", "Text")):
        made = {**observation(f"o{number}", f"2026-01-0{number + 1}"), "code": {"text": text}}
        await client.fhir("PUT", f"/Observation/o{number}", json=made)
    assert await ids(client, "patient=p&category=vital-signs") == ["o3", "o2", "o0"]


async def test_the_answer_is_a_searchset(chart: Client) -> None:
    response = await chart.fhir(
        "GET", "/Observation/$lastn?patient=p&category=vital-signs&max=1&_include=Observation:patient"
    )
    bundle = response.json()
    assert (bundle["type"], bundle["total"]) == ("searchset", 2)
    assert [entry["search"]["mode"] for entry in bundle["entry"]] == ["match", "match", "include"]
    (own,) = [link["url"] for link in bundle["link"] if link["relation"] == "self"]
    assert own.endswith("/Observation/$lastn?max=1&patient=p&category=vital-signs&_include=Observation:patient")
    assert await ids(chart, "patient=nobody&code=1") == []


async def test_parameters_in_a_body(chart: Client) -> None:
    named = [("patient", "valueString", "p"), ("code", "valueString", "8867-4"), ("max", "valuePositiveInt", 2)]
    body = {"resourceType": "Parameters", "parameter": [{"name": name, kind: value} for name, kind, value in named]}
    response = await chart.fhir("POST", "/Observation/$lastn", json=body)
    assert [entry["resource"]["id"] for entry in response.json()["entry"]] == ["pulse3", "pulse2"]


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("category=vital-signs", "`$lastn` needs a subject: give `patient` or `subject`."),
        ("patient=p", "`$lastn` needs `category` or a parameter with a code, such as `code`."),
        ("patient=p&code=1&max=0", "`max` must be a whole number of at least 1, not `0`."),
        ("patient=p&code=1&max=1&max=2", "`max` is given more than once; give one value."),
        ("patient=p&code=1&_sort=date", "`$lastn` gives its own order, groups and number"),
        ("patient=p&code=1&colour=red", "`Observation` has no search parameter `colour`."),
    ],
)
async def test_what_is_refused(client: Client, query: str, sentence: str) -> None:
    response = await client.fhir("GET", f"/Observation/$lastn?{query}")
    assert response.status_code == 400
    assert response.json()["issue"][0]["diagnostics"].startswith(sentence)


async def test_it_is_an_operation_of_the_type_observation(client: Client) -> None:
    assert (await client.fhir("GET", "/Patient/$lastn?patient=p&code=1")).status_code == 404
    assert (await client.fhir("GET", "/Observation/1/$lastn?patient=p&code=1")).status_code == 404
