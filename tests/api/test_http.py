"""The HTTP layer: base URL, Binary in its own type, CORS, request ids, health."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, MutableMapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from fhir_server.app import Knowledge, create_server
from tests.conftest import Client, serving

pytestmark = pytest.mark.anyio

PATIENT = {"resourceType": "Patient", "id": "p"}


@pytest.fixture
async def proxied(known: Knowledge) -> AsyncIterator[Client]:
    """A client that is a proxy of the settings."""
    async with serving(known, store="memory://", proxies="127.0.0.1") as client:
        yield client


async def test_forwarded_headers_decide_every_link(proxied: Client) -> None:
    client = proxied
    headers = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "ehr.example", "X-Forwarded-Prefix": "/clinic"}
    made = await client.fhir("PUT", "/Patient/p", json=PATIENT, headers=headers)
    assert made.headers["location"] == "https://ehr.example/clinic/fhir/Patient/p/_history/1"
    found = (await client.fhir("GET", "/Patient", headers=headers)).json()
    assert found["link"][0]["url"] == "https://ehr.example/clinic/fhir/Patient"
    assert found["entry"][0]["fullUrl"] == "https://ehr.example/clinic/fhir/Patient/p"
    forwarded = {"Forwarded": 'for=1.2.3.4;proto=https;host="b.example"'}
    found = (await client.fhir("GET", "/Patient", headers=forwarded)).json()
    assert found["entry"][0]["fullUrl"] == "https://b.example/fhir/Patient/p"


async def test_the_forwarded_port_is_named_where_it_is_needed(proxied: Client) -> None:
    client = proxied
    https = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "ehr.example"}
    for headers, base in (
        ({**https, "X-Forwarded-Port": "8443"}, "https://ehr.example:8443"),
        ({**https, "X-Forwarded-Port": "443"}, "https://ehr.example"),
        ({"X-Forwarded-Host": "ehr.example", "X-Forwarded-Port": "80"}, "http://ehr.example"),
        ({"X-Forwarded-Host": "ehr.example", "X-Forwarded-Port": "443"}, "http://ehr.example:443"),
        ({**https, "X-Forwarded-Host": "ehr.example:9443", "X-Forwarded-Port": "8443"}, "https://ehr.example:9443"),
        ({**https, "X-Forwarded-Host": "[2001:db8::1]", "X-Forwarded-Port": "8443"}, "https://[2001:db8::1]:8443"),
        ({**https, "X-Forwarded-Proto": "HTTPS", "X-Forwarded-Port": "443"}, "https://ehr.example"),
        ({**https, "X-Forwarded-Port": "8443, 80"}, "https://ehr.example:8443"),
    ):
        found = (await client.fhir("GET", "/Patient", headers=headers)).json()
        assert found["link"][0]["url"] == f"{base}/fhir/Patient", headers
    wrong = await client.fhir("GET", "/Patient", headers={**https, "X-Forwarded-Port": "eight"})
    assert wrong.status_code == 400


async def test_the_base_url_setting_wins_and_makes_references_local(known: Knowledge, store_uri: str) -> None:
    async with serving(known, store=store_uri, base_url="https://fhir.clinic.example/r4/") as client:
        await client.fhir("PUT", "/Patient/p", json=PATIENT)
        observation = {
            "resourceType": "Observation",
            "status": "final",
            "code": {"text": "x"},
            "subject": {"reference": "https://fhir.clinic.example/r4/Patient/p"},
        }
        made = await client.fhir("POST", "/Observation", json=observation)
        assert made.headers["location"].startswith("https://fhir.clinic.example/r4/Observation/")
        found = (await client.fhir("GET", "/Observation?subject=Patient/p")).json()
        assert found["total"] == 1
        missing = {**observation, "subject": {"reference": "https://fhir.clinic.example/r4/Patient/q"}}
        assert (await client.fhir("POST", "/Observation", json=missing)).status_code == 422


async def test_binary_in_its_own_type(client: Client) -> None:
    content = bytes(range(256))
    made = await client.fhir("POST", "/Binary", content=content, headers={"Content-Type": "image/png"})
    assert made.status_code == 201
    url = made.headers["location"].split("/_history")[0]
    resource = (await client.fhir("GET", url, headers={"Accept": "application/fhir+json"})).json()
    assert (resource["resourceType"], resource["contentType"]) == ("Binary", "image/png")
    native = await client.fhir("GET", url, headers={"Accept": "image/png"})
    assert (native.content, native.headers["content-type"]) == (content, "image/png")
    assert native.headers["etag"] == 'W/"1"'
    put = await client.fhir("PUT", "/Binary/b", content=b"text", headers={"Content-Type": "text/plain"})
    assert put.status_code == 201
    assert (await client.fhir("GET", "/Binary/b", headers={"Accept": "*/*"})).content == b"text"
    as_json = {"resourceType": "Binary", "id": "b", "contentType": "text/plain", "data": "dGV4dA=="}
    assert (await client.fhir("PUT", "/Binary/b", json=as_json)).headers["etag"] == 'W/"1"'


async def test_cors(known: Knowledge) -> None:
    async with serving(known, store="memory://", cors_origins="*") as client:
        await check_cors(client)


async def check_cors(client: Client) -> None:
    preflight = {"Origin": "https://app.example", "Access-Control-Request-Method": "PUT"}
    allowed = await client.request("OPTIONS", "/Patient/p", headers=preflight)
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == "*"
    answer = await client.fhir("GET", "/metadata", headers={"Origin": "https://app.example"})
    assert "ETag" in answer.headers["access-control-expose-headers"]


async def test_request_id(client: Client) -> None:
    assert (await client.fhir("GET", "/metadata", headers={"X-Request-Id": "abc-1"})).headers["x-request-id"] == "abc-1"
    made = (await client.fhir("GET", "/metadata")).headers["x-request-id"]
    assert len(made) == 16


async def test_log_lines_hold_no_content(known: Knowledge) -> None:
    lines: list[dict[str, object]] = []

    def log(level: str, message: str, **fields: object) -> None:
        lines.append({"level": level, "message": message, **fields})

    from fhir_server.app import open_server
    from fhir_server.settings import Settings

    async with open_server(Settings(store="memory://"), log=log, known=known) as server:
        transport = httpx.ASGITransport(server.api)
        async with httpx.AsyncClient(transport=transport, base_url="http://test/fhir") as http:
            await http.get("/Patient?name:exact=Secret&_count=1", headers={"X-Request-Id": "r1"})
            await http.post("/Patient", json={"resourceType": "Patient", "name": [{"family": "Secret"}]})
    assert [(line["method"], line["path"], line["status"]) for line in lines] == [
        ("GET", "/fhir/Patient", 200),
        ("POST", "/fhir/Patient", 201),
    ]
    assert lines[0]["request_id"] == "r1" and lines[0]["query"] == ["name:exact", "_count"]
    assert "query" not in lines[1]
    assert "Secret" not in str(lines)


async def test_the_whole_application_with_health(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FHIR_STORE", "memory://")
    monkeypatch.setenv("FHIR_LOG_LEVEL", "error")
    monkeypatch.setenv("FHIR_HOSTS", "test")
    server = create_server()
    messages: list[MutableMapping[str, Any]] = []
    events: Iterator[MutableMapping[str, Any]] = iter([{"type": "lifespan.startup"}])

    stop = asyncio.Event()

    async def receive() -> MutableMapping[str, Any]:
        for event in events:
            return event
        await stop.wait()
        return {"type": "lifespan.shutdown"}

    async def send(message: MutableMapping[str, Any]) -> None:
        messages.append(message)

    async def live() -> None:
        await server({"type": "lifespan"}, receive, send)

    lifespan = asyncio.create_task(live())
    while not messages:
        await asyncio.sleep(0.01)
    assert messages[0]["type"] == "lifespan.startup.complete", messages
    transport = httpx.ASGITransport(server)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        for path in ("/livez", "/readyz", "/", "/docs", "/docs/Patient", "/openapi.json", "/fhir/metadata"):
            assert (await http.get(path)).status_code == 200, path
        assert (await http.get("/nothing")).status_code == 404
    stop.set()
    await lifespan
    assert messages[-1]["type"] == "lifespan.shutdown.complete"


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-Host": 'evil","resource":{"x"'},
        {"X-Forwarded-Host": "a b"},
        {"X-Forwarded-Host": "user@evil.example"},
        {"X-Forwarded-Proto": "javascript"},
        {"X-Forwarded-Prefix": '/x"y'},
        {"Forwarded": 'host="a<b"'},
        {"Host": 'evil"x'},
    ],
)
async def test_headers_that_make_no_base_url(proxied: Client, headers: dict[str, str]) -> None:
    """What Host and the forwarded headers say stands in every link and fullUrl: a quote in it would break the JSON."""
    client = proxied
    await client.fhir("PUT", "/Patient/p", json=PATIENT)
    response = await client.fhir("GET", "/Patient", headers=headers)
    assert response.status_code == 400
    assert "base URL" in response.json()["issue"][0]["diagnostics"]


@pytest.mark.parametrize("host", ["ehr.example", "ehr.example:8443", "[::1]:8000", "my_host", "127.0.0.1"])
async def test_hosts(proxied: Client, host: str) -> None:
    found = await proxied.fhir("GET", "/Patient", headers={"X-Forwarded-Host": host})
    assert found.json()["link"][0]["url"] == f"http://{host}/fhir/Patient"


async def test_binary_cannot_inject_headers(client: Client) -> None:
    for context, expected in (("Patient/p", "Patient/p"), ("https://x.example/\r\nX-Evil: 1", None)):
        body = {
            "resourceType": "Binary",
            "id": "b",
            "contentType": "text/plain",
            "securityContext": {"reference": context},
        }
        await client.fhir("PUT", "/Patient/p", json=PATIENT)
        assert (await client.fhir("PUT", "/Binary/b", json=body)).is_success
        native = await client.fhir("GET", "/Binary/b", headers={"Accept": "*/*"})
        assert native.headers.get("x-security-context") == expected
        assert native.headers["x-content-type-options"] == "nosniff"


async def test_binary_is_outside_the_rules_for_content_types(client: Client) -> None:
    made = await client.fhir(
        "POST", "/Binary", content=b"x", headers={"Content-Type": "image/png", "Accept": "image/png"}
    )
    assert made.status_code == 201
    url = made.headers["location"].split("/_history")[0]
    part = await client.fhir("GET", f"{url}?_elements=contentType", headers={"Accept": "*/*"})
    assert part.json()["contentType"] == "image/png"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/fhir%2FPatient", 404),
        ("/fhir%2FPatient/p", 404),
        ("/fhirx/Patient", 404),
        ("/fhir/Patient%2Fp", 404),
        ("/fhir/Patient/p/", 200),
        ("/fhir//Patient/p", 200),
        ("/fhir/Patient/%70", 200),
    ],
)
async def test_paths_that_look_like_others(client: Client, path: str, status: int) -> None:
    await client.fhir("PUT", "/Patient/p", json=PATIENT)
    assert (await client.fhir("GET", f"http://test{path}")).status_code == status


async def test_metadata_is_a_possible_id(client: Client) -> None:
    assert (await client.fhir("PUT", "/Patient/metadata", json={**PATIENT, "id": "metadata"})).status_code == 201
    assert (await client.fhir("GET", "/Patient/metadata")).json()["id"] == "metadata"


@pytest.mark.parametrize(
    ("header", "coding"), [("gzip", "gzip"), ("br, gzip;q=0.5", "gzip"), ("gzip;q=0", None), ("br", None)]
)
async def test_accept_encoding(client: Client, header: str, coding: str | None) -> None:
    response = await client.fhir("GET", "/metadata", headers={"Accept-Encoding": header})
    assert response.headers.get("content-encoding") == coding


async def test_errors_come_in_the_type_that_was_asked_for(client: Client) -> None:
    response = await client.fhir("GET", "/Patient/nobody?_pretty=true", headers={"Accept": "application/json"})
    assert response.headers["content-type"] == "application/json; charset=utf-8"
    assert response.text.startswith("{\n")
    assert (await client.fhir("HEAD", "/Patient/nobody")).content == b""


async def test_search_forms_may_hold_format_and_pretty(client: Client) -> None:
    assert (await client.fhir("POST", "/Patient/_search", data={"_format": "xml"})).status_code == 406
    assert (await client.fhir("POST", "/Patient/_search", data={"_pretty": "true"})).text.startswith("{\n")


async def test_the_statement_offers_operations_only_where_they_are(client: Client) -> None:
    rest = (await client.fhir("GET", "/metadata")).json()["rest"][0]
    reports = {"ar-aging", "financial-summary", "denials", "productivity", "provider-adjustments"}
    system = {"reindex", "job", "hl7v2", "bulk-publish", "x12", "meta", "launch", *reports}
    assert {each["name"] for each in rest["operation"]} == system
    named = {each["type"]: {each["name"] for each in each["operation"]} for each in rest["resource"]}
    common = {"meta", "meta-add", "meta-delete", "reindex"}
    assert named["Medication"] == common and named["Account"] == common | {"ledger", "statement"}
    await client.fhir("PUT", "/Patient/p", json=PATIENT)
    assert (await client.fhir("HEAD", "/Patient/p/$meta")).status_code == 200


async def test_the_time_limit_of_a_request(known: Knowledge) -> None:
    """A request that takes longer is given up with 408 and a sentence; the server goes on."""
    async with serving(known, store="memory://", request_timeout=0.05) as client:
        store = client.server.context.unrestricted
        read = store.read

        async def slow(type: str, id: str) -> object:
            await asyncio.sleep(1)
            return await read(type, id)

        store.read = slow  # type: ignore[method-assign,assignment]
        late = await client.fhir("GET", "/Patient/p")
        assert late.status_code == 408
        assert late.json()["issue"][0]["code"] == "timeout"
        assert "0.05 seconds" in late.json()["issue"][0]["diagnostics"]
        store.read = read  # type: ignore[method-assign]
        assert (await client.fhir("GET", "/Patient/p")).status_code == 404


async def test_the_time_limit_of_a_body(known: Knowledge) -> None:
    """A client that stops in the middle of its body is answered 408 (RFC 9110, 15.5.9), and nothing is written."""

    async def stopping() -> AsyncIterator[bytes]:
        yield b'{"resourceType":'
        await asyncio.sleep(5)
        yield b'"Patient","id":"p"}'

    async with serving(known, store="memory://", request_timeout=0.05) as client:
        headers = {"Content-Type": "application/fhir+json"}
        late = await client.fhir("PUT", "/Patient/p", content=stopping(), headers=headers)
        assert late.status_code == 408
        assert "had not arrived after 0.05 seconds" in late.json()["issue"][0]["diagnostics"]
        assert (await client.fhir("GET", "/Patient/p")).status_code == 404


async def test_the_capability_file_says_which_types_are_served(tmp_path: Path) -> None:
    listed = tmp_path / "capability.json"
    listed.write_text('{"resourceTypes": ["Patient", "Observation"]}')
    async with serving(None, store="memory://", capability=str(listed)) as client:
        statement = (await client.fhir("GET", "/metadata")).json()
        assert [each["type"] for each in statement["rest"][0]["resource"]] == ["Observation", "Patient"]
        assert (await client.fhir("GET", "/Patient")).status_code == 200
        refused = await client.fhir("POST", "/Claim", json={"resourceType": "Claim"})
        assert refused.status_code == 404
        assert "not served" in refused.json()["issue"][0]["diagnostics"]
    listed.write_text('{"resourceTypes": ["Patient", "Nonsense"]}')
    with pytest.raises(ValueError, match="Nonsense"):
        async with serving(None, store="memory://", capability=str(listed)):
            pass


async def test_lenient_handling_by_setting(known: Knowledge) -> None:
    async with serving(known, store="memory://", handling="lenient") as client:
        found = (await client.fhir("GET", "/Patient?nonsense=1&gender=male")).json()
        assert found["link"][0]["url"] == "http://test/fhir/Patient?gender=male"
        strict = await client.fhir("GET", "/Patient?nonsense=1", headers={"Prefer": "handling=strict"})
        assert strict.status_code == 400
