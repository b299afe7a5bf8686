"""batch and transaction: https://hl7.org/fhir/R4/http.html#transaction."""

from __future__ import annotations

import asyncio
import base64
import json
from collections import Counter
from typing import Any

import pytest

from fhir_server.app import Knowledge
from fhir_server.store.protocol import BudgetExceeded
from tests.conftest import Client, serving

pytestmark = pytest.mark.anyio

P = "urn:uuid:0a6e4a0e-30e5-4bd0-b6a3-4b1a4b2e9001"
E = "urn:uuid:0a6e4a0e-30e5-4bd0-b6a3-4b1a4b2e9002"


def bundle(*entries: dict[str, Any], type: str = "transaction") -> dict[str, Any]:
    return {"resourceType": "Bundle", "type": type, "entry": list(entries)}


def entry(
    method: str, url: str, resource: dict[str, Any] | None = None, full_url: str = "", **more: str
) -> dict[str, Any]:
    made: dict[str, Any] = {"request": {"method": method, "url": url, **more}}
    if resource is not None:
        made["resource"] = resource
    if full_url:
        made["fullUrl"] = full_url
    return made


def patient(**more: Any) -> dict[str, Any]:
    return {"resourceType": "Patient", **more}


def observation(subject: str, **more: Any) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "status": "final",
        "code": {"text": "x"},
        "subject": {"reference": subject},
        **more,
    }


async def post(client: Client, body: dict[str, Any], **headers: str) -> Any:
    return await client.fhir("POST", "/", json=body, headers=headers)


async def test_references_between_entries_are_rewritten(client: Client) -> None:
    narrative = f'<div xmlns="http://www.w3.org/1999/xhtml"><a href="{P}">p</a> {P}<img src =\n"{P}" alt=""/></div>'
    response = await post(
        client,
        bundle(
            entry("POST", "Observation", observation(P, text={"status": "generated", "div": narrative})),
            entry("POST", "Patient", patient(identifier=[{"system": "urn:ietf:rfc:3986", "value": P}]), P),
            entry(
                "POST",
                "DocumentReference",
                {
                    "resourceType": "DocumentReference",
                    "status": "current",
                    "content": [{"attachment": {"url": P, "title": P}}],
                    "meta": {"profile": [P]},
                },
            ),
        ),
    )
    assert response.status_code == 200, response.text
    answers = response.json()["entry"]
    assert [answer["response"]["status"] for answer in answers] == ["201 Created"] * 3
    locations = [answer["response"]["location"].removeprefix("http://test/fhir/").split("/_")[0] for answer in answers]
    assert [location.split("/")[0] for location in locations] == ["Observation", "Patient", "DocumentReference"]
    assert all(answer["response"]["etag"] == 'W/"1"' and answer["response"]["lastModified"] for answer in answers)
    person = locations[1]
    stored = (await client.fhir("GET", f"/{locations[0]}")).json()
    assert stored["subject"]["reference"] == person
    linked = f'<a href="{person}">p</a> {P}<img src =\n"{person}" alt=""/>'
    assert stored["text"]["div"] == f'<div xmlns="http://www.w3.org/1999/xhtml">{linked}</div>'
    # a string is no reference, and a canonical never is one to an entry
    assert (await client.fhir("GET", f"/{person}")).json()["identifier"][0]["value"] == P
    document = (await client.fhir("GET", f"/{locations[2]}")).json()
    assert document["content"][0]["attachment"] == {"url": person, "title": P}
    assert document["meta"]["profile"] == [P]


async def test_relative_references_are_read_from_the_full_url(client: Client) -> None:
    old = "http://old.example/fhir/"
    response = await post(
        client,
        bundle(
            entry("POST", "Patient", patient(), f"{old}Patient/77"),
            entry("POST", "Observation", observation("Patient/77"), f"{old}Observation/78"),
            entry(
                "POST", "Observation", observation(f"{old}Patient/77"), "urn:uuid:b0d3a3e0-0000-4000-8000-000000000001"
            ),
        ),
    )
    answers = response.json()["entry"]
    person = answers[0]["response"]["location"].removeprefix("http://test/fhir/").split("/_")[0]
    for answer in answers[1:]:
        stored = await client.fhir("GET", answer["response"]["location"])
        assert stored.json()["subject"]["reference"] == person


async def test_escaped_references_are_rewritten_too(client: Client) -> None:
    text = json.dumps(
        bundle(
            entry("POST", "Patient", patient(), "http://old.example/Patient/1"),
            entry("POST", "Observation", observation("http://old.example/Patient/1", valueQuantity={"value": 1})),
        )
    ).replace("/", "\\/")
    text = text.replace('"value": 1', '"value": 1.10')
    response = await client.fhir("POST", "/", content=text, headers={"Content-Type": "application/fhir+json"})
    answers = response.json()["entry"]
    stored = await client.fhir("GET", answers[1]["response"]["location"])
    assert answers[0]["response"]["location"].split("/_")[0].endswith(stored.json()["subject"]["reference"])
    assert b'"value":1.10' in stored.content


async def test_all_or_nothing_names_the_failing_entry(client: Client) -> None:
    response = await post(
        client,
        bundle(
            entry("PUT", "Patient/a", patient(id="a")), entry("PUT", "Patient/b", patient(id="b", gender="x", foo=1))
        ),
    )
    assert response.status_code == 400
    paths = {path for issue in response.json()["issue"] for path in issue["expression"]}
    assert paths == {"Bundle.entry[1].resource.gender", "Bundle.entry[1].resource.foo"}
    assert (await client.fhir("GET", "/Patient/a")).status_code == 404
    missing = await post(
        client,
        bundle(entry("PUT", "Patient/a", patient(id="a")), entry("POST", "Observation", observation("Patient/zz"))),
    )
    assert missing.status_code == 422
    assert missing.json()["issue"][0]["expression"] == ["Bundle.entry[1].resource.subject.reference"]
    assert (await client.fhir("GET", "/Patient/a")).status_code == 404


async def test_every_verb_in_one_transaction(client: Client) -> None:
    for id in ("old", "patched", "pathed", "updated"):
        await client.fhir("PUT", f"/Patient/{id}", json=patient(id=id, gender="male"))
    json_patch = base64.b64encode(b'[{"op":"replace","path":"/gender","value":"female"}]').decode()
    replace = {
        "name": "operation",
        "part": [
            {"name": "type", "valueCode": "replace"},
            {"name": "path", "valueString": "Patient.gender"},
            {"name": "value", "valueCode": "other"},
        ],
    }
    response = await post(
        client,
        bundle(
            entry("GET", "Patient/updated"),
            entry("GET", "Patient?gender=female,other&_sort=_id"),
            entry("DELETE", "Patient/old"),
            entry(
                "PATCH",
                "Patient/patched",
                {"resourceType": "Binary", "contentType": "application/json-patch+json", "data": json_patch},
            ),
            entry("PATCH", "Patient/pathed", {"resourceType": "Parameters", "parameter": [replace]}),
            entry("PUT", "Patient/updated", patient(id="updated", gender="unknown")),
            entry("POST", "Patient", patient(gender="female"), P),
            entry("HEAD", "Patient/updated"),
            entry("GET", "Patient/updated/_history/1"),
        ),
    )
    assert response.status_code == 200, response.text
    answers = response.json()["entry"]
    assert [answer["response"]["status"].split()[0] for answer in answers] == [
        "200", "200", "204", "200", "200", "200", "201", "200", "200",
    ]  # fmt: skip
    # reads and searches see the writes of their bundle
    assert answers[0]["resource"]["gender"] == "unknown"
    made = answers[6]["response"]["location"].split("/")[-3]
    found = [each["resource"]["id"] for each in answers[1]["resource"]["entry"]]
    assert found == sorted([made, "patched", "pathed"])
    assert "resource" not in answers[7]
    assert answers[8]["resource"]["gender"] == "male"
    assert (await client.fhir("GET", "/Patient/old")).status_code == 410


async def test_a_read_that_fails_refuses_the_transaction(client: Client) -> None:
    response = await post(client, bundle(entry("PUT", "Patient/a", patient(id="a")), entry("GET", "Patient/nobody")))
    assert response.status_code == 404
    assert response.json()["issue"][0]["expression"] == ["Bundle.entry[1]"]
    assert (await client.fhir("GET", "/Patient/a")).status_code == 404


@pytest.mark.parametrize(
    ("url", "more"),
    [
        ("Patient/a?_summary=bad", {}),
        ("Patient/a?_elements=bogus", {}),
        ("Patient/a?gender=male", {}),
        ("Patient/a", {"ifNoneMatch": "bogus"}),
        ("Patient/a", {"ifModifiedSince": "2026-01-01T00:00:00Z"}),
        ("Patient/a/_history/1?_summary=bad", {}),
        ("Patient?_elements=bogus", {}),
    ],
)
async def test_a_read_at_fault_refuses_the_transaction_before_it_writes(
    client: Client, url: str, more: dict[str, str]
) -> None:
    # a transaction either does all that it asks for or nothing, and says which entry failed
    await client.fhir("PUT", "/Patient/a", json=patient(id="a"))
    response = await post(
        client, bundle(entry("PUT", "Patient/b", patient(id="b")), entry("GET", url, None, "", **more))
    )
    assert response.status_code == 400
    assert response.json()["issue"][0]["expression"] == ["Bundle.entry[1]"]
    assert (await client.fhir("GET", "/Patient/b")).status_code == 404


async def test_a_search_that_fails_after_the_commit_is_told_in_its_entry(known: Knowledge, store_uri: str) -> None:
    # its includes are looked up when all is written: the answer must not say that nothing was
    async with serving(known, store=store_uri, max_included=1) as client:
        people = [entry("PUT", f"Patient/{id}", patient(id=id)) for id in "ab"]
        tests = [entry("PUT", f"Observation/{id}", observation(f"Patient/{id}", id=id)) for id in "ab"]
        search = entry("GET", "Observation?_include=Observation:subject")
        response = await post(client, bundle(*people, *tests, search))
        assert response.status_code == 200, response.text
        told = response.json()["entry"][4]["response"]
        assert (told["status"].split()[0], told["outcome"]["issue"][0]["code"]) == ("413", "too-costly")
        assert (await client.fhir("GET", "/Patient/a")).status_code == 200


@pytest.mark.parametrize("stored", ["", "a"])
async def test_what_a_deletion_matches_can_be_created_anew(client: Client, stored: str) -> None:
    # DELETE is processed before POST, so that its criteria do not see what the same bundle creates
    old = patient(identifier=[{"value": "1"}])
    if stored:
        await client.fhir("PUT", f"/Patient/{stored}", json={**old, "id": stored})
    body = bundle(entry("POST", "Patient", old), entry("DELETE", "Patient?identifier=1"))
    response = await post(client, body)
    assert response.status_code == 200, response.text
    found = (await client.fhir("GET", "/Patient?identifier=1")).json()
    assert found["total"] == 1
    assert found["entry"][0]["resource"]["id"] in response.json()["entry"][0]["response"]["location"]


async def test_a_deletion_by_criteria_of_what_is_updated(client: Client) -> None:
    # identities that overlap, also those that criteria come down to, make the transaction fail
    await client.fhir("PUT", "/Patient/a", json=patient(id="a", identifier=[{"value": "1"}]))
    change = entry("PUT", "Patient/a", patient(id="a", identifier=[{"value": "2"}]))
    response = await post(client, bundle(change, entry("DELETE", "Patient?identifier=1")))
    assert response.status_code == 400
    assert response.json()["issue"][0]["expression"] == ["Bundle.entry[0]", "Bundle.entry[1]"]


async def test_two_writes_to_one_resource(client: Client) -> None:
    response = await post(client, bundle(entry("PUT", "Patient/a", patient(id="a")), entry("DELETE", "Patient/a")))
    assert response.status_code == 400
    assert response.json()["issue"][0]["expression"] == ["Bundle.entry[0]", "Bundle.entry[1]"]


async def test_conditional_entries_and_references(client: Client) -> None:
    await client.fhir("PUT", "/Patient/there", json=patient(id="there", identifier=[{"value": "1"}]))
    response = await post(
        client,
        bundle(
            entry("POST", "Patient", patient(identifier=[{"value": "1"}]), P, ifNoneExist="identifier=1"),
            entry("POST", "Patient", patient(identifier=[{"value": "2"}]), E, ifNoneExist="identifier=2"),
            entry("POST", "Patient", patient(identifier=[{"value": "2"}]), ifNoneExist="identifier=2"),
            entry("POST", "Observation", observation(P)),
            entry("POST", "Observation", observation("Patient?identifier=2")),
            entry("PUT", "Patient?identifier=3", patient(identifier=[{"value": "3"}])),
        ),
    )
    assert response.status_code == 200, response.text
    answers = [answer["response"] for answer in response.json()["entry"]]
    assert [answer["status"].split()[0] for answer in answers] == ["200", "201", "200", "201", "201", "201"]
    assert answers[1]["location"] == answers[2]["location"]
    assert (await client.fhir("GET", answers[3]["location"])).json()["subject"]["reference"] == "Patient/there"
    second = answers[1]["location"].removeprefix("http://test/fhir/").split("/_")[0]
    assert (await client.fhir("GET", answers[4]["location"])).json()["subject"]["reference"] == second


@pytest.mark.parametrize(
    ("reference", "status"),
    [
        ("Patient?identifier=none", 412),
        ("Patient?gender=male", 412),
        # what looks like a conditional reference and leads nowhere is not stored as some text
        ("Patient?", 412),
        ("Patint?gender=male", 412),
        ("http://test/fhir/Patient?identifier=none", 412),
        ("Patient?colour=red", 400),
        ("Patient?name=%ff", 400),
    ],
)
async def test_conditional_reference_without_one_match(client: Client, reference: str, status: int) -> None:
    for id in "ab":
        await client.fhir("PUT", f"/Patient/{id}", json=patient(id=id, gender="male"))
    response = await post(client, bundle(entry("POST", "Observation", observation(reference))))
    assert response.status_code == status
    assert response.json()["issue"][0]["expression"] == ["Bundle.entry[0].resource.subject.reference"]


@pytest.mark.parametrize("reference", [P, P.replace("urn:uuid", "URN:UUID"), "urn:oid:1.2.3"])  # RFC 8141: any case
async def test_unresolved_urn_names_its_path(client: Client, reference: str) -> None:
    response = await post(client, bundle(entry("POST", "Observation", observation(reference))))
    assert response.status_code == 400
    assert response.json()["issue"][0]["expression"] == ["Bundle.entry[0].resource.subject.reference"]


async def test_delete_with_its_referrer_in_one_transaction(client: Client) -> None:
    await client.fhir("PUT", "/Patient/a", json=patient(id="a"))
    await client.fhir("PUT", "/Observation/o", json=observation("Patient/a", id="o"))
    assert (await client.fhir("DELETE", "/Patient/a")).status_code == 409
    done = await post(client, bundle(entry("DELETE", "Patient/a"), entry("DELETE", "Observation/o")))
    assert done.status_code == 200


async def test_stale_version_in_a_transaction(client: Client) -> None:
    await client.fhir("PUT", "/Patient/a", json=patient(id="a"))
    response = await post(
        client,
        bundle(
            entry("PUT", "Patient/b", patient(id="b")),
            entry("PUT", "Patient/a", patient(id="a", active=True), ifMatch='W/"5"'),
        ),
    )
    assert response.status_code == 412
    assert response.json()["issue"][0]["expression"] == ["Bundle.entry[1]"]
    assert (await client.fhir("GET", "/Patient/b")).status_code == 404


@pytest.mark.parametrize(
    ("broken", "path"),
    [
        ({"resource": {"resourceType": "Patient"}}, "Bundle.entry[0]"),
        ({"request": {"method": "POST", "url": "Patient"}}, "Bundle.entry[0].resource"),
        (entry("POST", "Nonsense", {"resourceType": "Nonsense"}), "Bundle.entry[0]"),
        (entry("POST", "Patient", observation("Patient/a")), "Bundle.entry[0].resource"),
        (entry("PUT", "Patient/a", patient(id="b")), "Bundle.entry[0].resource.id"),
        (entry("POST", "Patient/$meta-add", {"resourceType": "Parameters"}), "Bundle.entry[0]"),
        (entry("GET", "Patient/_history"), "Bundle.entry[0]"),
    ],
)
async def test_entries_that_cannot_be_read(client: Client, broken: dict[str, Any], path: str) -> None:
    response = await post(client, bundle(broken))
    assert response.status_code in (400, 404)
    assert path in response.json()["issue"][0]["expression"]


async def test_bundles_of_other_types_are_refused(client: Client) -> None:
    assert (await post(client, bundle(type="collection"))).status_code == 400
    assert (await client.fhir("POST", "/", json=patient())).status_code == 400
    empty = {"resourceType": "Bundle", "type": "transaction"}
    assert (await post(client, empty)).status_code == 200
    assert (await post(client, {**empty, "entry": []})).status_code == 400


async def test_batch_entries_stand_alone(client: Client) -> None:
    response = await post(
        client,
        bundle(
            entry("GET", "Patient/a"),
            entry("PUT", "Patient/a", patient(id="a")),
            entry("PUT", "Patient/b", patient(id="b", gender="x")),
            {"request": {"method": "POST", "url": "Patient"}},
            entry("GET", "Patient?_id=a"),
            entry("DELETE", "Patient/zz"),
            entry("GET", "metadata"),
            entry("GET", "Patient?nonsense=1"),
            type="batch",
        ),
    )
    assert response.status_code == 200
    answers = response.json()["entry"]
    assert [answer["response"]["status"].split()[0] for answer in answers] == [
        "200", "201", "400", "400", "200", "204", "200", "400",
    ]  # fmt: skip
    assert answers[4]["resource"]["total"] == 1
    assert answers[2]["response"]["outcome"]["issue"][0]["expression"] == ["Patient.gender"]
    assert answers[6]["resource"]["resourceType"] == "CapabilityStatement"


async def test_bundle_prefer(client: Client) -> None:
    body = bundle(entry("POST", "Patient", patient()))
    assert "resource" not in (await post(client, body)).json()["entry"][0]
    full = (await post(client, body, Prefer="return=representation")).json()["entry"][0]
    assert full["resource"]["resourceType"] == "Patient"
    outcome = (await post(client, body, Prefer="return=OperationOutcome")).json()["entry"][0]
    assert outcome["response"]["outcome"]["resourceType"] == "OperationOutcome"


async def test_concurrent_transactions_on_the_same_resources(client: Client) -> None:
    """Each moves one unit from a to b under If-Match; the sum is conserved and every answer is true."""

    def account(id: str, amount: int) -> dict[str, Any]:
        return {
            "resourceType": "Observation",
            "id": id,
            "status": "final",
            "code": {"text": "units"},
            "valueInteger": amount,
        }

    await post(
        client,
        bundle(entry("PUT", "Observation/a", account("a", 100)), entry("PUT", "Observation/b", account("b", 0))),
    )

    async def move() -> int:
        a = (await client.fhir("GET", "/Observation/a")).json()
        b = (await client.fhir("GET", "/Observation/b")).json()
        response = await post(
            client,
            bundle(
                entry(
                    "PUT",
                    "Observation/a",
                    account("a", a["valueInteger"] - 1),
                    ifMatch=f'W/"{a["meta"]["versionId"]}"',
                ),
                entry(
                    "PUT",
                    "Observation/b",
                    account("b", b["valueInteger"] + 1),
                    ifMatch=f'W/"{b["meta"]["versionId"]}"',
                ),
            ),
        )
        status: int = response.status_code
        return status

    counted = Counter(await asyncio.gather(*(move() for _ in range(40))))
    assert set(counted) <= {200, 412}
    a = (await client.fhir("GET", "/Observation/a")).json()["valueInteger"]
    b = (await client.fhir("GET", "/Observation/b")).json()["valueInteger"]
    assert (a, b) == (100 - counted[200], counted[200])
    assert counted[200] >= 1


async def test_a_bundle_inside_keeps_its_references(client: Client) -> None:
    """What the entries of a stored Bundle refer to is settled inside it: https://hl7.org/fhir/R4/bundle.html#references"""
    inner = bundle(
        {"fullUrl": P, "resource": patient()},
        {"fullUrl": E, "resource": observation(P)},
        {"resource": observation("Patient/nobody")},
        {"resource": observation("Patient?identifier=none")},
        type="collection",
    )
    alone = await client.fhir("POST", "/Bundle", json=inner)
    assert alone.status_code == 201, alone.text
    within = await post(client, bundle(entry("POST", "Patient", patient(), P), entry("POST", "Bundle", inner)))
    assert within.status_code == 200, within.text
    stored = await client.fhir("GET", within.json()["entry"][1]["response"]["location"])
    assert stored.json()["entry"] == inner["entry"]


async def test_two_entries_with_one_full_url(client: Client) -> None:
    """bdl-7: a fullUrl is unique in a Bundle."""
    response = await post(
        client,
        bundle(
            entry("POST", "Patient", patient(), P),
            entry("POST", "Patient", patient(), P),
            entry("POST", "Observation", observation(P)),
        ),
    )
    assert response.status_code == 400
    assert response.json()["issue"][0]["expression"] == ["Bundle.entry[0].fullUrl", "Bundle.entry[1].fullUrl"]
    same = entry("POST", "Patient", patient(identifier=[{"value": "1"}]), P, ifNoneExist="identifier=1")
    assert (await post(client, bundle(same, same))).status_code == 200


async def test_relative_urls_and_narrative_are_rewritten(client: Client) -> None:
    old = "http://old.example/fhir/"
    div = '<div xmlns="http://www.w3.org/1999/xhtml"><a href="Binary/5">x</a></div>'
    text = {"status": "generated", "div": div}
    response = await post(
        client,
        bundle(
            entry("POST", "Binary", {"resourceType": "Binary", "contentType": "text/plain"}, f"{old}Binary/5"),
            entry(
                "POST",
                "DocumentReference",
                {
                    "resourceType": "DocumentReference",
                    "status": "current",
                    "contained": [patient(id="c", text=text)],
                    "subject": {"reference": "#c"},
                    "content": [{"attachment": {"url": "Binary/5", "title": "Binary/5"}}],
                    "description": 'href="Binary/5"',
                },
                f"{old}DocumentReference/6",
            ),
        ),
        Prefer="return=representation",
    )
    binary, document = (answer["resource"] for answer in response.json()["entry"])
    new = f"Binary/{binary['id']}"
    assert document["content"][0]["attachment"] == {"url": new, "title": "Binary/5"}
    assert document["contained"][0]["text"]["div"] == div.replace("Binary/5", new)
    assert document["description"] == 'href="Binary/5"'


async def test_conditional_reference_with_an_escaped_comma(client: Client) -> None:
    await client.fhir("PUT", "/Patient/a", json=patient(id="a", identifier=[{"value": "1,2"}]))
    for base in ("", "http://test/fhir/"):
        body = bundle(entry("POST", "Observation", observation(rf"{base}Patient?identifier=1\,2")))
        answer = (await post(client, body, Prefer="return=representation")).json()["entry"][0]
        assert answer["resource"]["subject"]["reference"] == "Patient/a"


async def test_criteria_see_what_is_patched_in_the_bundle(client: Client) -> None:
    await client.fhir("PUT", "/Patient/a", json=patient(id="a", identifier=[{"value": "1"}]))
    json_patch = base64.b64encode(b'[{"op":"add","path":"/gender","value":"female"}]').decode()
    change = {"resourceType": "Binary", "contentType": "application/json-patch+json", "data": json_patch}
    response = await post(
        client,
        bundle(
            entry("PATCH", "Patient/a", change),
            entry("POST", "Patient", patient(), ifNoneExist="identifier=1"),
            entry("POST", "Observation", observation("Patient?identifier=1")),
        ),
    )
    statuses = [answer["response"]["status"].split()[0] for answer in response.json()["entry"]]
    assert statuses == ["200", "200", "201"]


@pytest.mark.parametrize("url", ["Patient", "Patient?gender=male"])
async def test_criteria_at_fault_name_their_entry(client: Client, url: str) -> None:
    for id in "ab":
        await client.fhir("PUT", f"/Patient/{id}", json=patient(id=id, gender="male"))
    response = await post(client, bundle(entry("POST", "Patient", patient()), entry("PUT", url, patient())))
    assert response.status_code == 412
    assert response.json()["issue"][0]["expression"] == ["Bundle.entry[1]"]


@pytest.mark.parametrize(
    "url",
    ["Patient/a/Observation/x/y", "Patient/a/Observation/_search", "Patient/_search", "Patient/a/$meta", "metadata"],
)
async def test_reads_that_a_transaction_does_not_answer(client: Client, url: str) -> None:
    response = await post(client, bundle(entry("GET", url)))
    assert response.status_code == 400
    assert response.json()["issue"][0]["code"] == "not-supported"


@pytest.mark.parametrize(
    ("url", "status"),
    [
        ("http://test/fhir/Patient/a", "200"),
        ("/Patient/a", "200"),
        ("http://test/fhirx/Patient/a", "400"),
        ("http://other.example/fhir/Patient/a", "400"),
        ("Patient?name=%ff", "400"),
    ],
)
async def test_entry_urls(client: Client, url: str, status: str) -> None:
    await client.fhir("PUT", "/Patient/a", json=patient(id="a"))
    answer = (await post(client, bundle(entry("GET", url), type="batch"))).json()["entry"][0]
    assert answer["response"]["status"].split()[0] == status


async def test_batch_answers_hold_what_they_are_asked_for(client: Client) -> None:
    await client.fhir("PUT", "/Patient/a", json=patient(id="a"))
    meta = {"resourceType": "Parameters", "parameter": [{"name": "meta", "valueMeta": {"tag": [{"code": "t"}]}}]}
    body = bundle(
        entry("POST", "Patient/a/$meta-add", meta),
        entry("POST", "Patient", patient()),
        entry("HEAD", "Patient/a"),
        type="batch",
    )
    plain = (await post(client, body)).json()["entry"]
    assert plain[0]["resource"]["parameter"][0]["valueMeta"]["tag"] == [{"code": "t"}]
    assert [sorted(each) for each in plain[1:]] == [["response"], ["response"]]
    told = (await post(client, body, Prefer="return=OperationOutcome")).json()["entry"]
    assert told[1]["response"]["outcome"]["resourceType"] == "OperationOutcome"
    assert [sorted(each) for each in told[1:]] == [["response"], ["response"]]


async def test_a_store_error_in_one_batch_entry_stays_there(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    async def too_long(query: object) -> None:
        raise BudgetExceeded("The search took too long.")

    monkeypatch.setattr(type(client.server.context.unrestricted), "search", lambda self, query: too_long(query))
    body = bundle(entry("PUT", "Patient/a", patient(id="a")), entry("GET", "Patient?gender=male"), type="batch")
    answers = (await post(client, body)).json()["entry"]
    assert [answer["response"]["status"].split()[0] for answer in answers] == ["201", "413"]
    assert answers[1]["response"]["outcome"]["issue"][0]["code"] == "too-costly"


async def test_a_referrer_that_stays_is_named_with_its_path(client: Client) -> None:
    await client.fhir("PUT", "/Patient/a", json=patient(id="a"))
    await client.fhir("PUT", "/Observation/o", json=observation("Patient/a", id="o"))
    response = await post(client, bundle(entry("PUT", "Patient/b", patient(id="b")), entry("DELETE", "Patient/a")))
    assert response.status_code == 409
    issue = response.json()["issue"][0]
    assert issue["expression"] == ["Bundle.entry[1]"]
    assert "`Observation/o` (Observation.subject.reference)" in issue["diagnostics"]


async def test_a_large_bundle_with_restful_full_urls(client: Client) -> None:
    """References in it are read relative to their entry; the work grows with its size, not with the square of it."""
    root = "https://old.example/fhir"
    people = [entry("POST", "Patient", patient(), f"{root}/Patient/{number}") for number in range(400)]
    seen = [
        entry("POST", "Observation", observation(f"Patient/{number}"), f"{root}/Observation/{number}")
        for number in range(400)
    ]
    response = await post(client, bundle(*people, *seen))
    assert response.status_code == 200
    locations = [
        each["response"]["location"].split("/_")[0].removeprefix("http://test/fhir/")
        for each in response.json()["entry"]
    ]
    stored = (await client.fhir("GET", f"/{locations[799]}")).json()
    assert stored["subject"]["reference"] == locations[399]
