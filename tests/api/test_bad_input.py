"""Bad input gets a clear answer and leaves nothing behind."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fhir_server.app import Knowledge, Seams
from tests.conftest import Client, serving

pytestmark = pytest.mark.anyio


@pytest.fixture
async def client(empty_client: Client) -> Client:
    """These tests look at everything that is stored."""
    return empty_client


JSON = {"Content-Type": "application/fhir+json"}


async def nothing_was_stored(client: Client) -> None:
    history = (await client.fhir("GET", "/_history")).json()
    assert history["total"] == 0


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "empty"),
        (b"{", "not valid JSON"),
        (b"<Patient/>", "not valid JSON"),
        (b"[]", "an array"),
        (b'"Patient"', "a string"),
        (b"null", "null"),
        (b'{"resourceType":"Patient","active":true,"active":false}', "`active` stands twice"),
        (b'{"resourceType":"Patient","name":[{"family":"a","family":"b"}]}', "`family` stands twice"),
        (b'{"resourceType":"Patient","name":[{"family":"a","f\\u0061mily":"b"}]}', "`family` stands twice"),
        (b'{"resourceType":"Patient","name":[{"family":"\\ud800"}]}', "not valid JSON"),
        (b'{"resourceType":"Patient","name":[{"family":"\xff"}]}', "not valid JSON"),
        (
            b'{"resourceType":"Patient","extension":' + b'[{"extension":' * 60 + b"[]" + b"}]" * 60 + b"}",
            "deeper than 100",
        ),
        (b'{"a":' * 100_000, "not valid JSON"),
        (b'{"resourceType":"Patient","multipleBirthInteger":1e999}', "not valid JSON"),
        (b'{"resourceType":"Patient","multipleBirthInteger":NaN}', "not valid JSON"),
        (b'{"resourceType":"Patient"} {"resourceType":"Patient"}', "not valid JSON"),
        (b'{"name":[]}', "no `resourceType`"),
        (b'{"resourceType":7}', "type `7`"),
        (b'{"resourceType":null}', "resourceType"),
        (b'{"resourceType":["Patient"]}', "resourceType"),
        (b'{"resourceType":"Observation"}', "`Observation`"),
    ],
)
async def test_unreadable_bodies(client: Client, body: bytes, says: str) -> None:
    response = await client.fhir("POST", "/Patient", content=body, headers=JSON)
    assert response.status_code == 400
    issue = response.json()["issue"][0]
    assert issue["severity"] == "error"
    assert says in issue["diagnostics"] or says == "resourceType"
    await nothing_was_stored(client)


@pytest.mark.parametrize(
    ("resource", "path"),
    [
        ({"birthDate": "2023-02-30"}, "Patient.birthDate"),
        ({"multipleBirthInteger": 10**30}, "Patient.multipleBirth.ofType(integer)"),
        ({"active": "true"}, "Patient.active"),
        ({"name": {"family": "x"}}, "Patient.name"),
        ({"gender": "Female"}, "Patient.gender"),
        ({"name": [{"given": [None, "x"]}]}, "Patient.name[0].given"),
        ({"unknown": 1}, "Patient"),
        ({"link": [{"type": "refer"}]}, "Patient.link[0]"),
    ],
)
async def test_faults_of_base_r4_are_400_with_their_path(client: Client, resource: dict[str, Any], path: str) -> None:
    response = await client.fhir("POST", "/Patient", json={"resourceType": "Patient", **resource})
    assert response.status_code == 400
    paths = [found for issue in response.json()["issue"] for found in issue.get("expression", [])]
    assert any(found.startswith(path) for found in paths), response.text
    await nothing_was_stored(client)


async def test_1_0_is_no_integer(client: Client) -> None:
    body = b'{"resourceType":"Patient","multipleBirthInteger":1.0}'
    response = await client.fhir("POST", "/Patient", content=body, headers=JSON)
    assert response.status_code == 400
    assert response.json()["issue"][0]["expression"] == ["Patient.multipleBirth.ofType(integer)"]


async def test_all_problems_at_once(client: Client) -> None:
    body = {"resourceType": "Patient", "gender": "x", "birthDate": "y", "name": [{"family": 1}]}
    issues = (await client.fhir("POST", "/Patient", json=body)).json()["issue"]
    assert {path for issue in issues for path in issue["expression"]} == {
        "Patient.gender",
        "Patient.birthDate",
        "Patient.name[0].family",
    }


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/fhir+xml"}, 415),
        ({"Content-Type": "application/fhir+json; fhirVersion=3.0"}, 415),
        ({"Content-Type": "application/fhir+json; charset=latin-1"}, 415),
        ({"Content-Type": "application/json"}, 201),
        ({"Content-Type": "application/fhir+json; fhirVersion=4.0; charset=UTF-8"}, 201),
        ({**JSON, "Accept": "application/fhir+xml"}, 406),
        ({**JSON, "Accept": "text/html"}, 406),
        ({**JSON, "Accept": "application/fhir+json; fhirVersion=5.0"}, 406),
        ({**JSON, "Accept": "text/html, application/json;q=0.5"}, 201),
        ({**JSON, "Accept": "*/*"}, 201),
        ({**JSON, "Content-Encoding": "br"}, 415),
        ({**JSON, "Content-Encoding": "gzip"}, 400),
    ],
)
async def test_content_negotiation(client: Client, headers: dict[str, str], status: int) -> None:
    response = await client.fhir("POST", "/Patient", content=b'{"resourceType":"Patient"}', headers=headers)
    assert response.status_code == status
    if status != 201:
        assert response.json()["resourceType"] == "OperationOutcome"
        await nothing_was_stored(client)


async def test_no_content_type(client: Client) -> None:
    assert (await client.fhir("POST", "/Patient", content=b'{"resourceType":"Patient"}')).status_code == 415


@pytest.mark.parametrize(
    ("media_type", "status"),
    [
        ("xml", 406),
        ("json", 200),
        ("application/fhir+json", 200),
        ("Application/FHIR+JSON", 200),
        ("application/fhir+json; fhirVersion=4.0", 200),
        ("application/fhir+json; fhirVersion=3.0", 406),
        ("ttl", 406),
    ],
)
async def test_format(client: Client, media_type: str, status: int) -> None:
    response = await client.fhir("GET", "/metadata", params={"_format": media_type}, headers={"Accept": "text/html"})
    assert response.status_code == status


async def test_gzip_both_ways(client: Client) -> None:
    body = gzip.compress(json.dumps({"resourceType": "Patient", "name": [{"text": "x" * 5000}]}).encode())
    made = await client.fhir("POST", "/Patient", content=body, headers={**JSON, "Content-Encoding": "gzip"})
    assert made.status_code == 201
    read = await client.fhir("GET", "/Patient", headers={"Accept-Encoding": "gzip"})
    assert read.headers["content-encoding"] == "gzip"
    assert read.json()["entry"][0]["resource"]["name"][0]["text"] == "x" * 5000


async def test_gzip_of_several_members(client: Client) -> None:
    """RFC 1952: gzip data may consist of several members, which decompress to one text."""
    body = gzip.compress(b'{"resourceType":') + gzip.compress(b'"Patient"}')
    headers = {**JSON, "Content-Encoding": "gzip"}
    assert (await client.fhir("POST", "/Patient", content=body, headers=headers)).status_code == 201
    assert (await client.fhir("POST", "/Patient", content=body + b"x", headers=headers)).status_code == 400


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/fhir+json; fhirVersion=3.0"])
async def test_content_type_of_a_patch(client: Client, content_type: str | None) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    assert (await client.fhir("PATCH", "/Patient/p", content=b"[]", headers=headers)).status_code == 415


async def test_pretty(client: Client) -> None:
    await client.fhir("PUT", "/Patient/p", json={"resourceType": "Patient", "id": "p"})
    assert b'\n  "id": "p"' in (await client.fhir("GET", "/Patient/p?_pretty=true")).content
    assert (await client.fhir("GET", "/Patient/p?_pretty=yes")).status_code == 400


async def test_oversize(known: Knowledge, store_uri: str) -> None:
    async with serving(known, Seams(definitions=None), store=store_uri, max_body=2000) as client:
        big = b'{"resourceType":"Patient","name":[{"text":"' + b"x" * 3000 + b'"}]}'
        assert (await client.fhir("POST", "/Patient", content=big, headers=JSON)).status_code == 413
        packed = {**JSON, "Content-Encoding": "gzip"}
        assert (await client.fhir("POST", "/Patient", content=gzip.compress(big), headers=packed)).status_code == 413
        await nothing_was_stored(client)


@pytest.mark.parametrize(
    ("method", "url", "status"),
    [
        ("DELETE", "/metadata", 405),
        ("POST", "/Patient/p1", 405),
        ("PUT", "/", 405),
        ("PATCH", "/", 405),
        ("GET", "/Patient/p1/_history/1/x", 404),
        ("GET", "/Patient/p1/$nothing", 404),
        ("POST", "/Patient/p1/$purge", 404),
        ("GET", "/a/b/c/d/e/f", 404),
        ("GET", "/Observation/o/Patient", 404),
        ("POST", "/Patient/_search", 200),
    ],
)
async def test_urls_and_methods(client: Client, method: str, url: str, status: int) -> None:
    response = await client.fhir(method, url)
    assert response.status_code == status
    if status == 405:
        assert response.headers["allow"]


@pytest.mark.parametrize(
    ("query", "mentions"),
    [
        ("nonsense=1", "birthdate"),
        ("name:fuzzy=x", "exact"),
        ("gender:exact=x", "not"),
        ("birthdate=2023-02-30", "2023-02-30"),
        ("birthdate=xx2023", "xx2023"),
        ("birthdate=", "birthdate"),
        ("_count=x", "_count"),
        ("_count=-1", "_count"),
        ("_sort=nonsense", "nonsense"),
        ("_total=many", "many"),
        ("_summary=some", "some"),
        ("_elements=nonsense", "nonsense"),
        ("_include=Patient:nonsense", "nonsense"),
        ("_include=nonsense", "nonsense"),
        ("_lastUpdated=never", "never"),
        ("general-practitioner.nonsense=1", "nonsense"),
        ("_has:Observation:nonsense:code=1", "nonsense"),
        ("gender:missing=perhaps", "perhaps"),
        ("__page=forged", "page"),
        ("__page=", "page"),
        ("%ff=1", "UTF-8"),
    ],
)
async def test_bad_searches(client: Client, query: str, mentions: str) -> None:
    response = await client.fhir("GET", f"/Patient?{query}")
    assert response.status_code == 400, response.text
    assert mentions in response.json()["issue"][0]["diagnostics"]


async def test_lenient_handling_never_forgives_a_modifier(client: Client) -> None:
    lenient = {"Prefer": "handling=lenient"}
    response = await client.fhir("GET", "/Patient?nonsense=1&gender=male", headers=lenient)
    assert response.status_code == 200
    bundle = response.json()
    assert bundle["entry"][0]["search"]["mode"] == "outcome"
    assert "nonsense" in bundle["entry"][0]["resource"]["issue"][0]["diagnostics"]
    assert bundle["link"][0] == {"relation": "self", "url": "http://test/fhir/Patient?gender=male"}
    assert (await client.fhir("GET", "/Patient?name:fuzzy=x", headers=lenient)).status_code == 400


async def test_page_links_that_are_forged_moved_or_expired(known: Knowledge, store_uri: str) -> None:
    async with serving(known, store=store_uri, page_lifetime=1) as client:
        for id in "abc":
            await client.fhir("PUT", f"/Patient/{id}", json={"resourceType": "Patient", "id": id})
        page = (await client.fhir("GET", "/Patient?_count=1")).json()
        following = next(link["url"] for link in page["link"] if link["relation"] == "next")
        assert (await client.fhir("GET", following)).status_code == 200
        assert (await client.fhir("GET", following.replace("/Patient?", "/Observation?"))).status_code == 400
        token = following.rpartition("=")[2]
        forged = token[:-2] + ("AA" if token[-2:] != "AA" else "BB")
        assert (await client.fhir("GET", following.replace(token, forged))).status_code == 400
        context = client.server.context
        later = context.clock() // 1_000_000 + 3
        with pytest.raises(Exception, match="expired"):
            from fhir_server.search.paging import open_token

            open_token(context.page_key, token, later)


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
NAMES = st.sampled_from(
    ["name", "birthdate", "gender", "identifier", "_id", "_sort", "_count", "_include", "_has:Observation:patient:code",
     "general-practitioner.name", "_lastUpdated", "telecom:not", "name:exact", "_elements", "_summary",
     "__page", "_total"]
)  # fmt: skip


def fields(type: str) -> st.SearchStrategy[dict[str, Any]]:
    names = st.sampled_from(
        ["name", "birthDate", "gender", "identifier", "contained", "extension", "meta", "id", "text"]
    )
    return st.dictionaries(names, ANY_JSON, max_size=4).map(lambda tree: {"resourceType": type, **tree})


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_arbitrary_json_is_never_a_500(known: Knowledge, tmp_path: Any, kind: str) -> None:
    _throw(known, tmp_path, kind, ANY_JSON | fields("Patient"), _post)


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_arbitrary_queries_are_never_a_500(known: Knowledge, tmp_path: Any, kind: str) -> None:
    pairs = st.lists(st.tuples(NAMES | st.text(max_size=10), st.text(max_size=15)), max_size=4)
    _throw(known, tmp_path, kind, pairs, _search)


async def _post(client: Client, body: Any) -> int:
    urls = (("POST", "/Patient"), ("PUT", "/Patient/p"), ("POST", "/"), ("PATCH", "/Patient/p"))
    statuses = [
        (
            await client.request(method, url, content=json.dumps(body).encode("utf-8", "surrogatepass"), headers=JSON)
        ).status_code
        for method, url in urls
    ]
    return max(statuses)


async def _search(client: Client, pairs: tuple[tuple[str, str], ...]) -> int:
    return (await client.request("GET", "/Patient", params=pairs)).status_code


def _throw(known: Knowledge, tmp_path: Any, kind: str, things: st.SearchStrategy[Any], attempt: Any) -> None:
    """Runs one server for all examples: opening one for each would test little more and take much longer."""
    import asyncio

    uri = "memory://" if kind == "memory" else f"sqlite:///{tmp_path}/fhir.db"

    with asyncio.Runner() as runner:
        server = serving(known, store=uri)
        client = runner.run(server.__aenter__())

        @settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
        @given(things)
        def examples(thing: Any) -> None:
            assert runner.run(attempt(client, thing)) < 500

        examples()
        runner.run(server.__aexit__(None, None, None))
