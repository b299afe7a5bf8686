"""read, vread, create, update, delete: https://hl7.org/fhir/R4/http.html, one rule per test."""

from __future__ import annotations

import re

import pytest

from tests.conftest import Client

pytestmark = pytest.mark.anyio

PATIENT = {"resourceType": "Patient", "name": [{"family": "Okafor"}], "gender": "female"}


async def test_create_gives_location_etag_and_the_resource(client: Client) -> None:
    response = await client.fhir("POST", "/Patient", json=PATIENT)
    assert response.status_code == 201
    resource = response.json()
    assert response.headers["location"] == f"http://test/fhir/Patient/{resource['id']}/_history/1"
    assert response.headers["etag"] == 'W/"1"'
    assert resource["meta"]["versionId"] == "1"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", resource["meta"]["lastUpdated"])
    assert resource["name"] == PATIENT["name"]
    read = await client.fhir("GET", f"/Patient/{resource['id']}")
    assert read.status_code == 200
    assert read.json() == resource
    assert read.headers["content-type"] == "application/fhir+json; charset=utf-8"


async def test_create_ignores_id_and_version_of_the_body(client: Client) -> None:
    body = {**PATIENT, "id": "mine", "meta": {"versionId": "7", "lastUpdated": "not a time"}}
    response = await client.fhir("POST", "/Patient", json=body)
    assert response.status_code == 201
    assert response.json()["id"] != "mine"
    assert response.json()["meta"]["versionId"] == "1"


async def test_bytes_outside_id_and_meta_stay_as_written(client: Client) -> None:
    rest = b'"valueQuantity" : { "value": 1.10, "unit":"mg" },  "status":"final","code":{"text":"\\u00e4 / \\/"}'
    body = b'{"resourceType":"Observation","effectiveDateTime":"2026-01-01T10:00:00-05:00",' + rest + b"}"
    response = await client.fhir(
        "PUT", "/Observation/o", content=body[:-1] + b',"id":"o"}', headers={"Content-Type": "application/fhir+json"}
    )
    assert response.status_code == 201
    raw = (await client.fhir("GET", "/Observation/o")).content
    assert b'"valueQuantity":{ "value": 1.10, "unit":"mg" }' in raw
    assert b'"effectiveDateTime":"2026-01-01T10:00:00-05:00"' in raw
    assert b'"\\u00e4 / \\/"' in raw


async def test_update_as_create_then_new_versions(client: Client) -> None:
    body = {**PATIENT, "id": "p1"}
    first = await client.fhir("PUT", "/Patient/p1", json=body)
    assert (first.status_code, first.headers["etag"]) == (201, 'W/"1"')
    second = await client.fhir("PUT", "/Patient/p1", json={**body, "active": True})
    assert (second.status_code, second.headers["etag"]) == (200, 'W/"2"')
    assert (await client.fhir("GET", "/Patient/p1/_history/1")).json().get("active") is None
    assert (await client.fhir("GET", "/Patient/p1/_history/2")).json()["active"] is True


async def test_identical_update_makes_no_version(client: Client) -> None:
    body = {**PATIENT, "id": "p1"}
    await client.fhir("PUT", "/Patient/p1", json=body)
    again = await client.fhir("PUT", "/Patient/p1", json=dict(reversed(body.items())))
    assert (again.status_code, again.headers["etag"]) == (200, 'W/"1"')
    history = await client.fhir("GET", "/Patient/p1/_history")
    assert len(history.json()["entry"]) == 1


async def test_numbers_as_written_decide_whether_content_is_identical(client: Client) -> None:
    def body(value: str) -> bytes:
        return (
            b'{"resourceType":"Observation","id":"o","status":"final","code":{"text":"x"},"valueQuantity":{"value":%b}}'
            % value.encode()
        )

    headers = {"Content-Type": "application/fhir+json"}
    await client.fhir("PUT", "/Observation/o", content=body("1.1"), headers=headers)
    response = await client.fhir("PUT", "/Observation/o", content=body("1.10"), headers=headers)
    assert response.headers["etag"] == 'W/"2"'


async def test_delete_read_vread_and_recreate(client: Client) -> None:
    body = {**PATIENT, "id": "p1"}
    await client.fhir("PUT", "/Patient/p1", json=body)
    assert (await client.fhir("DELETE", "/Patient/p1")).status_code == 204
    gone = await client.fhir("GET", "/Patient/p1")
    assert gone.status_code == 410
    assert gone.json()["issue"][0]["code"] == "deleted"
    assert (await client.fhir("GET", "/Patient/p1/_history/2")).status_code == 410
    assert (await client.fhir("GET", "/Patient/p1/_history/1")).status_code == 200
    back = await client.fhir("PUT", "/Patient/p1", json=body)
    assert (back.status_code, back.headers["etag"]) == (201, 'W/"3"')


async def test_delete_of_what_is_absent_makes_no_version(client: Client) -> None:
    assert (await client.fhir("DELETE", "/Patient/nobody")).status_code == 204
    assert (await client.fhir("GET", "/Patient/nobody/_history")).status_code == 404
    await client.fhir("PUT", "/Patient/p1", json={**PATIENT, "id": "p1"})
    await client.fhir("DELETE", "/Patient/p1")
    await client.fhir("DELETE", "/Patient/p1")
    assert len((await client.fhir("GET", "/Patient/p1/_history")).json()["entry"]) == 2


@pytest.mark.parametrize(
    ("url", "status"),
    [
        ("/Patient/unknown", 404),
        ("/Patient/unknown/_history/1", 404),
        ("/Patient/p1/_history/99", 404),
        ("/Patient/p1/_history/x", 404),
        ("/Nonsense/1", 404),
        ("/Parameters/1", 404),
        ("/patient/p1", 404),
    ],
)
async def test_what_is_not_there(client: Client, url: str, status: int) -> None:
    await client.fhir("PUT", "/Patient/p1", json={**PATIENT, "id": "p1"})
    response = await client.fhir("GET", url)
    assert response.status_code == status
    assert response.json()["resourceType"] == "OperationOutcome"


async def test_if_match(client: Client) -> None:
    body = {**PATIENT, "id": "p1"}
    await client.fhir("PUT", "/Patient/p1", json=body)
    stale = await client.fhir("PUT", "/Patient/p1", json={**body, "active": True}, headers={"If-Match": 'W/"9"'})
    assert stale.status_code == 412
    assert "version 1" in stale.json()["issue"][0]["diagnostics"]
    fresh = await client.fhir("PUT", "/Patient/p1", json={**body, "active": True}, headers={"If-Match": 'W/"1"'})
    assert fresh.status_code == 200
    assert (await client.fhir("DELETE", "/Patient/p1", headers={"If-Match": 'W/"1"'})).status_code == 412
    assert (await client.fhir("DELETE", "/Patient/p1", headers={"If-Match": 'W/"2"'})).status_code == 204
    absent = await client.fhir("PUT", "/Patient/new", json={**PATIENT, "id": "new"}, headers={"If-Match": 'W/"1"'})
    assert absent.status_code == 412


@pytest.mark.parametrize("tag", ["banana", 'W/"1', "W/1", '"1" "2"', ""])
async def test_malformed_etag_is_400(client: Client, tag: str) -> None:
    await client.fhir("PUT", "/Patient/p1", json={**PATIENT, "id": "p1"})
    response = await client.fhir("PUT", "/Patient/p1", json={**PATIENT, "id": "p1"}, headers={"If-Match": tag})
    assert response.status_code == 400


async def test_if_none_match_star_on_update(client: Client) -> None:
    body = {**PATIENT, "id": "p1"}
    assert (await client.fhir("PUT", "/Patient/p1", json=body, headers={"If-None-Match": "*"})).status_code == 201
    assert (await client.fhir("PUT", "/Patient/p1", json=body, headers={"If-None-Match": "*"})).status_code == 412


async def test_conditional_read(client: Client) -> None:
    await client.fhir("PUT", "/Patient/p1", json={**PATIENT, "id": "p1"})
    read = await client.fhir("GET", "/Patient/p1", headers={"If-None-Match": 'W/"1"'})
    assert (read.status_code, read.content) == (304, b"")
    assert (await client.fhir("GET", "/Patient/p1", headers={"If-None-Match": 'W/"2"'})).status_code == 200
    since = (await client.fhir("GET", "/Patient/p1")).headers["last-modified"]
    assert (await client.fhir("GET", "/Patient/p1", headers={"If-Modified-Since": since})).status_code == 304
    early = {"If-Modified-Since": "Mon, 01 Jan 2001 00:00:00 GMT"}
    assert (await client.fhir("GET", "/Patient/p1", headers=early)).status_code == 200
    for date in ("soon", "Mon, 23 Nov 99999999999999999999 08:00:00 GMT", "Mon, 23 Nov 2026 08:00:00 +99999999999999"):
        assert (await client.fhir("GET", "/Patient/p1", headers={"If-Modified-Since": date})).status_code == 400


async def test_head_is_get_without_body(client: Client) -> None:
    await client.fhir("PUT", "/Patient/p1", json={**PATIENT, "id": "p1"})
    get, head = await client.fhir("GET", "/Patient/p1"), await client.fhir("HEAD", "/Patient/p1")
    assert head.status_code == 200
    assert head.content == b""
    for name in ("etag", "last-modified", "content-length", "content-type"):
        assert head.headers[name] == get.headers[name]
    assert (await client.fhir("HEAD", "/Patient?gender=female")).status_code == 200


@pytest.mark.parametrize(
    ("preference", "expected"),
    [("minimal", None), (' "minimal"', None), ("representation", "Patient"), ("OperationOutcome", "OperationOutcome")],
)
async def test_prefer_return(client: Client, preference: str, expected: str | None) -> None:
    response = await client.fhir("POST", "/Patient", json=PATIENT, headers={"Prefer": f"return={preference}"})
    assert response.status_code == 201
    assert (response.json()["resourceType"] if response.content else None) == expected
    assert response.headers["location"]


async def test_ids(client: Client) -> None:
    mismatch = await client.fhir("PUT", "/Patient/p1", json={**PATIENT, "id": "p2"})
    assert mismatch.status_code == 400
    missing = await client.fhir("PUT", "/Patient/p1", json=PATIENT)
    assert missing.status_code == 400
    for id in ("a_b", "x" * 65, "ä", "a b"):
        assert (await client.fhir("PUT", f"/Patient/{id}", json={**PATIENT, "id": id})).status_code == 400
    wrong_type = await client.fhir("POST", "/Observation", json=PATIENT)
    assert wrong_type.status_code == 400


async def test_read_summary_and_elements(client: Client) -> None:
    await client.fhir("PUT", "/Patient/p1", json={**PATIENT, "id": "p1", "birthDate": "1980-01-01"})
    part = (await client.fhir("GET", "/Patient/p1?_elements=gender")).json()
    assert part.keys() == {"resourceType", "id", "meta", "gender"}
    assert part["meta"]["tag"][0]["code"] == "SUBSETTED"
    assert (await client.fhir("GET", "/Patient/p1?_elements=gendre")).status_code == 400
    assert (await client.fhir("GET", "/Patient/p1?_summary=sometimes")).status_code == 400
    assert (await client.fhir("GET", "/Patient/p1?gender=female")).status_code == 400


async def test_references_are_enforced(client: Client) -> None:
    observation = {
        "resourceType": "Observation",
        "status": "final",
        "code": {"text": "x"},
        "subject": {"reference": "Patient/p1"},
    }
    missing = await client.fhir("POST", "/Observation", json=observation)
    assert missing.status_code == 422
    assert missing.json()["issue"][0]["expression"] == ["Observation.subject.reference"]
    await client.fhir("PUT", "/Patient/p1", json={**PATIENT, "id": "p1"})
    made = await client.fhir("POST", "/Observation", json=observation)
    assert made.status_code == 201
    kept = await client.fhir("DELETE", "/Patient/p1")
    assert kept.status_code == 409
    assert f"Observation/{made.json()['id']}" in kept.json()["issue"][0]["diagnostics"]
    await client.fhir("DELETE", f"/Observation/{made.json()['id']}")
    assert (await client.fhir("DELETE", "/Patient/p1")).status_code == 204


@pytest.mark.parametrize(
    "reference",
    ["https://other.example/fhir/Patient/9", "#c", "Patient/p9/_history/1"],
)
async def test_references_that_are_exempt(client: Client, reference: str) -> None:
    body = {
        "resourceType": "Observation",
        "status": "final",
        "code": {"text": "x"},
        "contained": [{"resourceType": "Patient", "id": "c"}],
        "subject": {"reference": reference},
        "focus": [{"reference": "#c"}],
    }
    assert (await client.fhir("POST", "/Observation", json=body)).status_code == 201


async def test_unresolved_urn_is_refused_with_its_path(client: Client) -> None:
    body = {
        "resourceType": "Observation",
        "status": "final",
        "code": {"text": "x"},
        "performer": [{"display": "d"}, {"reference": "urn:uuid:7c6d1f4e-0c8b-4f0c-9d1d-000000000000"}],
    }
    response = await client.fhir("POST", "/Observation", json=body)
    assert response.status_code == 400
    assert response.json()["issue"][0]["expression"] == ["Observation.performer[1].reference"]


async def test_elements_of_a_search_over_several_types(client: Client) -> None:
    await client.fhir("PUT", "/Patient/p1", json={**PATIENT, "id": "p1"})
    found = (await client.fhir("GET", "/?_type=Patient,Observation&_elements=gender,status")).json()
    assert found["entry"][0]["resource"].keys() == {"resourceType", "id", "meta", "gender"}
    refused = await client.fhir("GET", "/?_type=Patient,Observation&_elements=gender,birthPlace")
    assert refused.status_code == 400
    assert "`birthPlace`" in refused.json()["issue"][0]["diagnostics"]


async def test_if_match_with_a_star_wants_any_version(client: Client) -> None:
    """RFC 9110, 13.1.1: `*` is met by whatever is current, and by nothing where there is nothing."""
    star = {"If-Match": "*"}
    body = {**PATIENT, "id": "star"}
    refused = await client.fhir("PUT", "/Patient/star", json=body, headers=star)
    assert refused.status_code == 412
    assert "names some version of `Patient/star` as current, but it does not exist" in refused.text
    assert (await client.fhir("DELETE", "/Patient/star", headers=star)).status_code == 412
    assert (await client.fhir("PUT", "/Patient?_id=star", json=body, headers=star)).status_code == 412
    assert (await client.fhir("DELETE", "/Patient?_id=star", headers=star)).status_code == 412
    await client.fhir("PUT", "/Patient/star", json=body)
    updated = await client.fhir("PUT", "/Patient/star", json={**body, "active": False}, headers=star)
    assert (updated.status_code, updated.headers["etag"]) == (200, 'W/"2"')
    patch = {"content": b'[{"op":"replace","path":"/active","value":true}]'}
    kind = {"Content-Type": "application/json-patch+json"}
    assert (await client.fhir("PATCH", "/Patient/star", **patch, headers={**star, **kind})).status_code == 200
    assert (await client.fhir("DELETE", "/Patient/star", headers=star)).status_code == 204
    assert (await client.fhir("PUT", "/Patient/star", json=body, headers=star)).status_code == 412
    zero = await client.fhir("PUT", "/Patient/star", json=body, headers={"If-Match": 'W/"0"'})
    assert zero.status_code == 412
