"""What pages of other sites may not do: names of the server, origins, and headers of proxies."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from fhir_server.app import Knowledge, create_server
from fhir_server.settings import Settings
from tests.conftest import Client, serving

pytestmark = pytest.mark.anyio

PATIENT = {"resourceType": "Patient", "id": "p"}


@asynccontextmanager
async def whole_server(
    monkeypatch: pytest.MonkeyPatch, known: Knowledge, client: str = "127.0.0.1", **settings: str
) -> AsyncIterator[httpx.AsyncClient]:
    """A client, at the address `client`, of the application that the HTTP server serves."""
    for name, value in {"store": "memory://", "log_level": "warning", "workers": "off", **settings}.items():
        monkeypatch.setenv(f"FHIR_{name.upper()}", value)
    application = create_server(known)
    events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    started = asyncio.Event()

    async def send(message: Any) -> None:
        assert message["type"].endswith(".complete"), message
        started.set()

    events.put_nowait({"type": "lifespan.startup"})

    async def live() -> None:
        await application({"type": "lifespan"}, events.get, send)

    lifespan = asyncio.create_task(live())
    await started.wait()
    transport = httpx.ASGITransport(application, client=(client, 5000))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as http:
        yield http
    events.put_nowait({"type": "lifespan.shutdown"})
    await lifespan


NAMES = (
    ("127.0.0.1:8000", 200),
    ("[::1]:8000", 200),
    ("192.0.2.7", 200),
    ("LOCALHOST.:8000", 200),
    ("localhost", 200),
    (socket.gethostname(), 200),
    ("Clinic.Example:8443", 200),
    ("gateway", 200),
    ("evil.example", 421),
    ("evil.example:8000", 421),
    ("127.0.0.1.evil.example", 421),
    ("localhost.evil.example", 421),
    ("xlocalhost", 421),
    ("clinic.example.evil", 421),
    ("clinic.example@evil.example", 421),
    ("localhost, evil.example", 421),
    ("[evil.example]", 421),
)


async def test_the_names_of_the_server(monkeypatch: pytest.MonkeyPatch, known: Knowledge) -> None:
    """H2: what is no name of this server is refused before anything is looked at, wherever it leads."""
    async with whole_server(monkeypatch, known, hosts="clinic.example, gateway") as client:
        for host, status in NAMES:
            for path in ("/fhir/Patient", "/docs", "/"):
                answer = await client.get(path, headers={"Host": host})
                assert answer.status_code == status, (host, path)
                if status == 421:
                    assert "FHIR_HOSTS" in answer.json()["issue"][0]["diagnostics"]
                    assert answer.headers["x-request-id"]
            for path in ("/livez", "/readyz"):
                assert (await client.get(path, headers={"Host": host})).status_code == 200


@pytest.mark.parametrize("path", ["/fhir", "/", "/a/b"])
async def test_the_metadata_of_an_issuer_is_where_rfc_8414_looks(
    monkeypatch: pytest.MonkeyPatch, known: Knowledge, path: str
) -> None:
    """RFC 8414, section 3.1: the well-known part comes between host and path of the issuer."""
    async with whole_server(monkeypatch, known, authentication="on", audit_folder="", path=path) as http:
        root = path.rstrip("/")
        found = await http.get(
            f"/.well-known/oauth-authorization-server{root}", headers={"origin": "https://a.example"}
        )
        assert (found.status_code, found.json()["issuer"]) == (200, f"http://127.0.0.1:8000{root}")
        assert found.headers["access-control-allow-origin"] == "*"
        assert found.json() == (await http.get(f"{root}/.well-known/oauth-authorization-server")).json()
        assert (await http.get(f"/.well-known/oauth-authorization-server{root}/x")).status_code in (401, 404)


async def test_without_authentication_there_is_no_issuer(monkeypatch: pytest.MonkeyPatch, known: Knowledge) -> None:
    async with whole_server(monkeypatch, known) as http:
        assert (await http.get("/.well-known/oauth-authorization-server/fhir")).status_code == 404


async def test_the_host_of_the_base_url_is_a_name(monkeypatch: pytest.MonkeyPatch, known: Knowledge) -> None:
    async with whole_server(monkeypatch, known, base_url="https://fhir.clinic.example:8443/r4") as client:
        assert (await client.get("/fhir/Patient", headers={"Host": "fhir.clinic.example"})).status_code == 200
        assert (await client.get("/fhir/Patient", headers={"Host": "clinic.example"})).status_code == 421


ORIGINS: tuple[tuple[dict[str, str], int], ...] = (
    ({}, 201),
    ({"Origin": "http://127.0.0.1:8000"}, 201),
    ({"Origin": "http://127.0.0.1:8000", "Sec-Fetch-Site": "same-origin"}, 201),
    ({"Sec-Fetch-Site": "none"}, 201),
    ({"Origin": "https://app.example"}, 201),
    ({"Origin": "https://app.example", "Sec-Fetch-Site": "cross-site"}, 201),
    ({"Host": "localhost", "Origin": "http://localhost"}, 201),
    ({"Host": "localhost:443", "Origin": "https://localhost"}, 201),  # behind something that ends TLS
    ({"Host": "localhost", "Origin": "https://localhost:443"}, 201),
    ({"Origin": "http://127.0.0.1:9000"}, 403),
    ({"Origin": "http://127.0.0.1"}, 403),
    ({"Origin": "http://localhost:8000"}, 403),
    ({"Origin": "http://evil.example"}, 403),
    ({"Origin": "https://app.example.evil"}, 403),
    ({"Origin": "http://app.example"}, 403),
    ({"Origin": "null"}, 403),
    ({"Origin": ""}, 403),
    ({"Origin": "chrome-extension://127.0.0.1:8000"}, 403),
    ({"Sec-Fetch-Site": "cross-site"}, 403),
    ({"Sec-Fetch-Site": "same-site"}, 403),  # another port of this machine
    ({"Origin": "http://127.0.0.1:8000", "Sec-Fetch-Site": "cross-site"}, 403),
)


async def test_the_origins_of_pages(monkeypatch: pytest.MonkeyPatch, known: Knowledge) -> None:
    """H1, H4: whatever the content type, with a body or without one."""
    async with whole_server(monkeypatch, known, cors_origins="https://app.example") as client:
        for headers, status in ORIGINS:
            text = {"Content-Type": "text/plain", **headers}
            answer = await client.post("/fhir/Binary", content=b"x", headers=text)
            assert answer.status_code == status, headers
            if status == 403:
                assert "cors_origins" in answer.json()["issue"][0]["diagnostics"]
            for method, url, body in (
                ("PUT", "/fhir/Patient/p", PATIENT),
                ("PATCH", "/fhir/Patient/p", {"resourceType": "Parameters"}),
                ("POST", "/fhir/Patient/_search", None),
                ("POST", "/fhir/$meta", None),
                ("DELETE", "/fhir/Patient/p", None),
            ):
                refused = (await client.request(method, url, json=body, headers=headers)).status_code == 403
                assert refused == (status == 403), (method, url, headers)
            assert (await client.get("/fhir/Patient", headers=headers)).status_code == 200


async def test_no_page_reads_unless_the_setting_lets_it(monkeypatch: pytest.MonkeyPatch, known: Knowledge) -> None:
    """H1: without CORS headers a browser gives the answer to no page of another origin."""
    headers = {"Origin": "http://127.0.0.1:9000", "Access-Control-Request-Method": "PUT"}
    async with whole_server(monkeypatch, known) as client:
        for method in ("GET", "OPTIONS"):
            answer = await client.request(method, "/fhir/Patient/p", headers=headers)
            assert not [name for name in answer.headers if name.startswith("access-control")]
    async with whole_server(monkeypatch, known, cors_origins="https://app.example") as client:
        theirs = await client.get("/fhir/Patient", headers={"Origin": "https://app.example"})
        assert theirs.headers["access-control-allow-origin"] == "https://app.example"
        other = await client.get("/fhir/Patient", headers=headers)
        assert "access-control-allow-origin" not in other.headers


FORGED: dict[str, str] = {
    "X-Forwarded-Host": "other.example",
    "X-Forwarded-Proto": "https",
    "Forwarded": "host=b.example",
}


async def test_forwarded_headers_of_strangers_are_ignored(
    monkeypatch: pytest.MonkeyPatch, known: Knowledge, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """H3: a forged header makes no foreign patient a local one; the log says once that such headers are ignored."""
    async with whole_server(monkeypatch, known, client="10.9.0.1", proxies="10.1.0.0/16, ::1") as client:
        await client.put("/fhir/Patient/p2", json={**PATIENT, "id": "p2"})
        observation = {
            "resourceType": "Observation",
            "status": "final",
            "code": {"text": "x"},
            "subject": {"reference": "https://other.example/fhir/Patient/p2"},
        }
        for _ in range(2):
            made = await client.post("/fhir/Observation", json=observation, headers=FORGED)
            assert made.headers["location"].startswith("http://127.0.0.1:8000/fhir/Observation/")
        assert (await client.get("/fhir/Observation?subject=Patient/p2")).json()["total"] == 0
    said = [json.loads(line) for line in capfdbinary.readouterr().err.splitlines() if line.startswith(b"{")]
    assert [line["client"] for line in said if "FHIR_PROXIES" in line["message"]] == ["10.9.0.1"]


async def test_forwarded_headers_of_a_proxy_count(monkeypatch: pytest.MonkeyPatch, known: Knowledge) -> None:
    """Its host must be a name of this server too: a proxy may pass on what a client has forged."""
    settings = {"proxies": "10.1.0.0/16, ::1", "hosts": "clinic.example"}
    headers = {"X-Forwarded-Host": "clinic.example", "X-Forwarded-Proto": "https"}
    for proxy in ("10.1.2.3", "::1", "::ffff:10.1.2.3"):
        async with whole_server(monkeypatch, known, client=proxy, **settings) as client:
            found = await client.get("/fhir/Patient", headers=headers)
            assert found.json()["link"][0]["url"] == "https://clinic.example/fhir/Patient"
            assert (await client.get("/fhir/Patient", headers=FORGED)).status_code == 421
            for origin, status in (("https://clinic.example", 200), ("http://clinic.example", 403)):
                page = {**headers, "Origin": origin}
                assert (await client.post("/fhir/Patient/_search", headers=page)).status_code == status


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("hosts", "https://clinic.example"),
        ("hosts", "clinic.example:8000"),
        ("hosts", "*"),
        ("proxies", "proxy.example"),
        ("proxies", "10.0.0.0/33"),
        ("cors_origins", "app.example"),
        ("cors_origins", "https://app.example/"),
    ],
)
def test_impossible_values(setting: str, value: str) -> None:
    with pytest.raises(ValidationError, match="Write"):
        Settings(**{setting: value})  # type: ignore[arg-type]


async def test_a_server_without_a_host_header(client: Client, known: Knowledge) -> None:
    """HTTP/1.0 has none: links then begin with the address that was connected to."""
    found = await client.fhir("GET", "/Patient", headers={"Host": ""})
    assert found.json()["link"][0]["url"].endswith("/fhir/Patient")
    async with serving(known, store="memory://", base_url="https://a.example/fhir") as other:
        found = await other.fhir("GET", "/Patient", headers={"Host": ""})
        assert found.json()["link"][0]["url"] == "https://a.example/fhir/Patient"
