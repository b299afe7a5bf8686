"""What FastAPI serves for people: complete without scripts, outside resources or a second server."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import AsyncIterator
from html import unescape
from urllib.parse import urljoin, urlsplit

import httpx
import pytest

from fhir_server.api.site import build_site, is_of_site, wants_page
from fhir_server.app import Knowledge
from tests.conftest import Client, serving

pytestmark = pytest.mark.anyio

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
PAGES = ["/", "/docs", "/docs/Patient", "/docs/Observation"]


@pytest.fixture(scope="module")
async def api(known: Knowledge) -> AsyncIterator[Client]:
    async with serving(known, store="memory://") as client:
        yield client


@pytest.fixture(scope="module")
async def client(api: Client) -> AsyncIterator[httpx.AsyncClient]:
    app = build_site("1", "/fhir")
    app.state.context = api.server.context
    headers = {"Accept": BROWSER}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test", headers=headers) as client:
        yield client


@pytest.mark.parametrize("path", PAGES)
async def test_a_page_loads_nothing_and_its_policy_allows_its_style_alone(client: httpx.AsyncClient, path: str) -> None:
    response = await client.get(path)
    assert response.status_code == 200 and response.headers["content-type"] == "text/html; charset=utf-8"
    assert not re.findall(r"<(?:script|link|img|iframe|object|base|form)\b|\bsrc=|url\(|@import| on\w+=", response.text)
    (style,) = re.findall(r"<style>(.*?)</style>", response.text, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy and policy.endswith(f"style-src 'sha256-{digest}'")


@pytest.mark.parametrize("path", PAGES)
async def test_links_of_a_page_lead_somewhere(client: httpx.AsyncClient, api: Client, path: str) -> None:
    text = (await client.get(path)).text
    links = {urljoin(f"http://test{path}", unescape(each)) for each in re.findall(r'href="([^"]+)"', text)}
    hosts = {urlsplit(each).netloc for each in links}
    assert "test" in hosts and hosts <= {"test", "hl7.org"}
    for each in links:
        if urlsplit(each).netloc == "test":
            asked = api if urlsplit(each).path.startswith("/fhir") else client
            assert (await asked.get(each)).status_code == 200, each


async def test_the_documentation_names_every_type_and_all_of_a_type(
    client: httpx.AsyncClient, known: Knowledge
) -> None:
    index = (await client.get("/docs")).text
    assert [type for type in known.types if f'href="docs/{type}"' not in index] == []
    page = (await client.get("/docs/Patient")).text
    for code, each in known.registry.parameters("Patient").items():
        assert (f"<code>{code}</code>" in page) is (each.type != "special"), code
    for text in ("/Patient/_search", "/Patient/{id}/$everything", "/Patient/{id}/Observation", "Patient:link"):
        assert text in page


async def test_what_is_not_there_is_told_without_markup_of_the_client(client: httpx.AsyncClient) -> None:
    response = await client.get("/docs/%3Cb%3E")
    assert response.status_code == 404
    assert "<code>&lt;b&gt;</code> is no resource type that is served here." in response.text


async def test_programs_get_json_at_the_root(client: httpx.AsyncClient) -> None:
    for accept in ("*/*", "application/json", "application/fhir+json, text/html"):
        response = await client.get("/", headers={"Accept": accept})
        assert response.json() == {
            "fhir": "/fhir",
            "metadata": "/fhir/metadata",
            "docs": "/docs",
            "openapi": "/openapi.json",
            "live": "/livez",
            "ready": "/readyz",
        }


@pytest.mark.parametrize(
    ("accept", "page"),
    [(BROWSER, True), ("text/html", True), ("", False), ("*/*", False), ("text/html, application/json", False)],
)
def test_browsers_are_told_from_programs(accept: str, page: bool) -> None:
    assert wants_page(accept) is page


@pytest.mark.parametrize(
    ("path", "site"),
    [
        *((path, True) for path in ("/docs", "/docs/Patient", "/openapi.json", "/livez", "/readyz")),
        *((path, False) for path in ("/", "/Patient", "/Patient/docs", "/metadata", "/docsx")),
    ],
)
def test_the_paths_of_the_site_beside_an_api_at_the_root(path: str, site: bool) -> None:
    assert is_of_site(path) is site
