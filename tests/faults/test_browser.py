"""A page of another origin, in a real browser, can neither read nor write; one that the setting lets can.

Needs Chromium (in Debian the package `chromium` or `chromium-headless-shell`); skipped where there is none.
"""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.faults.process import serving_process

pytestmark = pytest.mark.long

BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
JSON = {"content-type": "application/fhir+json"}
PATIENT = {"resourceType": "Patient", "id": "p", "name": [{"family": "Rivera"}]}

PAGE = """<!doctype html><meta charset=utf-8><pre id=seen></pre>
<iframe name=inside></iframe>
<form id=form method=post enctype=text/plain target=inside action="BASE/Binary"><input name=x value=from-form></form>
<script>
const seen = {}, json = {"content-type": "application/fhir+json"};
async function attempt(name, path, options) {
  try {
    const answer = await fetch("BASE" + path, options);
    seen[name] = answer.type === "opaque" ? "opaque" : answer.status + " " + await answer.text();
  } catch (error) { seen[name] = "blocked"; }
}
async function run() {
  await attempt("read", "/Patient");
  await attempt("search", "/Patient/_search", {method: "POST"});
  await attempt("put", "/Patient/p", {method: "PUT", headers: json,
    body: JSON.stringify({resourceType: "Patient", id: "p", name: [{family: "from-put"}]})});
  await attempt("text", "/Binary", {method: "POST", mode: "no-cors", body: "from-text"});
  await attempt("empty", "/Patient/p/$meta-add", {method: "POST", mode: "no-cors"});
  await attempt("delete", "/Patient/q", {method: "DELETE"});
  seen.beacon = navigator.sendBeacon("BASE/Binary", "from-beacon");
  document.getElementById("form").submit();
  await new Promise(done => setTimeout(done, 1000));
  document.getElementById("seen").textContent = JSON.stringify(seen);
}
run();
</script>"""


@pytest.fixture
def browser() -> str:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip("no Chromium on this machine (Debian: `apt-get install chromium-headless-shell`)")
    return found


class Page:
    """A page on a port of its own, which is another origin; `text` is what it shows."""

    def __init__(self) -> None:
        self.text = ""
        page = self

        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("content-type", "text/html")
                self.end_headers()
                self.wfile.write(page.text.encode())

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def page() -> Iterator[Page]:
    page = Page()
    thread = threading.Thread(target=page.server.serve_forever)
    thread.start()
    yield page
    page.server.shutdown()
    thread.join()
    page.server.server_close()


def visit(browser: str, url: str) -> dict[str, Any]:
    """What the page saw."""
    with tempfile.TemporaryDirectory() as profile:
        options = (
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            f"--user-data-dir={profile}",
        )
        command = (browser, *options, "--virtual-time-budget=20000", "--dump-dom", url)
        dumped = subprocess.run(command, capture_output=True, timeout=120, check=True).stdout.decode()
    found = re.search(r"<pre id=\"seen\">(.*?)</pre>", dumped, re.DOTALL)
    assert found and found[1], dumped
    seen: dict[str, Any] = json.loads(html.unescape(found[1]))
    return seen


def fill(base: str) -> None:
    with httpx.Client(base_url=base, headers=JSON) as client:
        for id in ("p", "q"):
            assert client.put(f"/Patient/{id}", json={**PATIENT, "id": id}).status_code == 201


def look(base: str) -> tuple[str, int, int]:
    """The family name of the patient, how many patients there are, how many binaries."""
    with httpx.Client(base_url=base, headers=JSON) as client:
        family = client.get("/Patient/p").json()["name"][0]["family"]
        return family, client.get("/Patient").json()["total"], client.get("/Binary").json()["total"]


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_a_page_of_another_origin_reads_and_writes_nothing(tmp_path: Path, browser: str, page: Page, name: str) -> None:
    with serving_process(tmp_path / "fhir.db") as process:
        fill(process.base)
        page.text = PAGE.replace("BASE", process.base.replace("127.0.0.1", name))
        seen = visit(browser, page.url)
        assert [seen[each] for each in ("read", "search", "put", "delete")] == ["blocked"] * 4
        assert (seen["text"], seen["empty"]) == ("opaque", "opaque")  # they were sent, and refused
        assert look(process.base) == ("Rivera", 2, 0)


def test_a_page_that_the_setting_names_reads_and_writes(tmp_path: Path, browser: str, page: Page) -> None:
    """The same page shows here that it would have noticed."""
    with serving_process(tmp_path / "fhir.db", cors_origins=page.url) as process:
        fill(process.base)
        page.text = PAGE.replace("BASE", process.base)
        seen = visit(browser, page.url)
        assert "Rivera" in seen["read"] and seen["put"].startswith("200") and seen["delete"].startswith("204")
        assert look(process.base) == ("from-put", 1, 3)
