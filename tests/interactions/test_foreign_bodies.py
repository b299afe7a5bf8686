"""Bodies that other programs sent and that once broke the server or were misread; each answer follows R4."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.conftest import Client

pytestmark = pytest.mark.anyio

JSON = {"content-type": "application/fhir+json"}
DEPTHS = [101, 254, 255, 260, 600, 1022, 1023, 1024, 50_000]


def nest(depth: int) -> str:
    """A Basic whose JSON nests to about this depth."""
    return '{"resourceType":"Basic","code":{"text":"x"},"extension":' + "[" * depth + "]" * depth + "}"


@pytest.mark.parametrize("depth", DEPTHS)
async def test_deep_json_is_a_400_at_every_door(client: Client, depth: int) -> None:
    body = nest(depth)
    assert (await client.put("Basic/b", json={"resourceType": "Basic", "id": "b", "code": {"text": "x"}})).is_success
    deep = "[" * depth + "]" * depth
    parameters = '{"resourceType":"Parameters","parameter":[{"name":"meta","valueMeta":' + deep + "}]}"
    doors = [
        ("POST", "Basic", body, "application/fhir+json"),
        ("PUT", "Basic/b", body[:-1] + ',"id":"b"}', "application/fhir+json"),
        ("PATCH", "Basic/b", '[{"op":"add","path":"/extension","value":' + deep + "}]", "application/json-patch+json"),
        ("POST", "Basic/b/$meta-add", parameters, "application/fhir+json"),
        ("POST", "Observation/$lastn", parameters, "application/fhir+json"),
    ]
    for method, url, text, media in doors:
        answer = await client.fhir(method, url, content=text, headers={"content-type": media})
        assert answer.status_code in (400, 422), (url, answer.text)
    assert (await client.get("Basic/b")).json()["meta"]["versionId"] == "1"


@pytest.mark.parametrize("depth", [1022, 1023, 1024, 50_000])
async def test_a_batch_that_no_parser_reads_is_a_400(client: Client, depth: int) -> None:
    text = (
        '{"resourceType":"Bundle","type":"batch","entry":[{"resource":%s,"request":{"method":"POST","url":"Basic"}}]}'
    )
    answer = await client.fhir("POST", "", content=text % nest(depth), headers=JSON)
    assert answer.status_code == 400 and ("nest" in answer.text or "ecursion" in answer.text)


@pytest.mark.parametrize("depth", DEPTHS[:5])
async def test_a_deep_entry_of_a_batch_stays_alone(client: Client, depth: int) -> None:
    good = '{"resource":{"resourceType":"Basic","code":{"text":"x"}},"request":{"method":"POST","url":"Basic"}}'
    bad = '{"resource":' + nest(depth) + ',"request":{"method":"POST","url":"Basic"}}'
    text = '{"resourceType":"Bundle","type":"batch","entry":[' + f"{good},{bad},{good}" + "]}"
    answer = await client.fhir("POST", "", content=text, headers=JSON)
    assert [entry["response"]["status"][:3] for entry in answer.json()["entry"]] == ["201", "400", "201"]


async def test_long_integers_beside_a_repeated_key_are_a_400(client: Client) -> None:
    digits = "7" * 5000
    text = '{"resourceType":"Bundle","type":"batch","type":"batch","entry":[{"resource":' + (
        '{"resourceType":"Basic","code":{"text":"x"},"extension":[{"url":"urn:x","valueInteger":' + digits + "}]}}]}"
    )
    answer = await client.fhir("POST", "", content=text, headers=JSON)
    assert answer.status_code == 400 and "`type` stands twice" in answer.text
    alone = json.dumps({"resourceType": "Patient", "active": True}).replace("true", digits)
    answer = await client.fhir("POST", "Patient", content=alone, headers=JSON)
    assert answer.status_code in (400, 422)


def transaction(*entries: dict[str, object]) -> dict[str, object]:
    return {"resourceType": "Bundle", "type": "transaction", "entry": list(entries)}


def post(type: str, full_url: str = "", if_none_exist: str = "", **resource: Any) -> dict[str, Any]:
    request = {"method": "POST", "url": type, **({"ifNoneExist": if_none_exist} if if_none_exist else {})}
    entry: dict[str, Any] = {"resource": {"resourceType": type, **resource}, "request": request}
    return {"fullUrl": full_url, **entry} if full_url else entry


async def test_a_reference_to_a_version_of_an_entry_is_reassigned_or_refused(client: Client) -> None:
    """R4 http.html#trules: references to entries are replaced, versioned ones included."""
    ehr = "http://ehr.example/fhir"
    answer = await client.fhir(
        "POST",
        "",
        json=transaction(
            post("Patient", f"{ehr}/Patient/tp1", id="tp1", meta={"versionId": "3"}),
            post(
                "Observation",
                f"{ehr}/Observation/o1",
                status="final",
                code={"text": "x"},
                subject={"reference": "Patient/tp1/_history/3"},
            ),
        ),
    )
    if answer.status_code == 200:
        location = answer.json()["entry"][0]["response"]["location"].split("/fhir/", 1)[1]
        url = answer.json()["entry"][1]["response"]["location"]
        assert (await client.get(url)).json()["subject"]["reference"] == location
    else:
        assert answer.status_code == 400 and "Observation.subject" in answer.text


async def test_two_conditional_puts_give_one_outcome_in_any_order(client: Client) -> None:
    def put(criteria: str, *values: str) -> dict[str, object]:
        identifiers = [{"system": "urn:x", "value": value} for value in values]
        return {
            "resource": {"resourceType": "Patient", "identifier": identifiers},
            "request": {"method": "PUT", "url": f"Patient?identifier=urn:x|{criteria}"},
        }

    first, second = put("a1", "a1", "b1"), put("b1", "b1")
    answers = [await client.fhir("POST", "", json=transaction(*each)) for each in ((first, second), (second, first))]
    assert [answer.status_code for answer in answers] == [400, 400]
    assert (await client.get("Patient?identifier=urn:x|b1")).json()["total"] == 0


async def test_a_placeholder_in_the_criteria_of_a_conditional_create_is_resolved(client: Client) -> None:
    for urn in ("urn:uuid:5b0d6a4e-0000-4000-8000-000000000001", "urn:uuid:6b0d6a4e-0000-4000-8000-000000000002"):
        owner: dict[str, Any] = {"for": {"reference": urn}}
        answer = await client.fhir(
            "POST",
            "",
            json=transaction(
                post("Patient", urn, "identifier=urn:x|K", identifier=[{"system": "urn:x", "value": "K"}]),
                post(
                    "Task",
                    "",
                    f"identifier=urn:x|T&subject={urn}",
                    identifier=[{"system": "urn:x", "value": "T"}],
                    status="requested",
                    intent="order",
                    **owner,
                ),
            ),
        )
        assert answer.status_code in (200, 400), answer.text
        if answer.status_code == 400:
            assert "ifNoneExist" in answer.text
            return
    assert (await client.get("Task?identifier=urn:x|T")).json()["total"] == 1


@pytest.mark.parametrize(("day", "total"), [("2015-06-30", 1), ("2015-07-01", 0)])
async def test_a_leap_second_belongs_to_its_own_minute(client: Client, day: str, total: int) -> None:
    observation = {
        "resourceType": "Observation",
        "status": "final",
        "code": {"text": "x"},
        "effectiveDateTime": "2015-06-30T23:59:60Z",
    }
    assert (await client.post("Observation", json=observation)).status_code == 201
    found = (await client.get(f"Observation?date={day}")).json()
    assert found["total"] == total and f"date={day}" in found["link"][0]["url"]


@pytest.mark.parametrize("media", ["application/json", "application/fhir+json"])
async def test_native_json_is_the_content_of_a_binary(client: Client, media: str) -> None:
    answer = await client.fhir("POST", "Binary", content=b'{"a": [1]}', headers={"content-type": media})
    assert answer.status_code == 201
    got = await client.get(answer.headers["location"], headers={"accept": media.replace("fhir+", "")})
    assert got.status_code == 200


async def test_a_reverse_chain_over_all_types_matches_none_of_what_is_no_target(client: Client) -> None:
    patient = {"resourceType": "Patient", "id": "p"}
    assert (await client.put("Patient/p", json=patient)).status_code == 201
    coded = {"coding": [{"system": "http://loinc.org", "code": "8302-2"}]}
    observation = {
        "resourceType": "Observation",
        "status": "final",
        "code": coded,
        "subject": {"reference": "Patient/p"},
    }
    assert (await client.post("Observation", json=observation)).status_code == 201
    found = await client.fhir("GET", "?_has:Observation:subject:code=8302-2")
    assert found.status_code == 200, found.text
    assert [entry["resource"]["id"] for entry in found.json()["entry"]] == ["p"]
    assert "_has" in found.json()["link"][0]["url"]


async def test_below_with_a_version_is_understood_or_refused(client: Client) -> None:
    value_set = {"resourceType": "ValueSet", "url": "http://e.example/v", "version": "1.2.3", "status": "active"}
    assert (await client.post("ValueSet", json=value_set)).status_code == 201
    answer = await client.fhir("GET", "ValueSet?url:below=http://e.example/v|1")
    assert answer.status_code == 400 or answer.json()["total"] == 1, answer.text
