"""The pages of a login in a real browser: without JavaScript, by keyboard alone; and an app in a browser launches.

Needs Chromium, as `test_browser.py`; the app is the npm package `fhirclient`, fetched by `npm`. Skipped without them.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest

from tests.clients.test_smart_clients import PASSWORD, SAMPLES, command
from tests.faults.chromium import Browser, open_browser
from tests.faults.process import serving_process
from tests.faults.test_browser import BROWSERS

pytestmark = pytest.mark.long

LIBRARY = "fhirclient@2.6.3"
CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
LAUNCH = """<!doctype html><meta charset=utf-8><script src="fhir-client.js"></script><script>
FHIR.oauth2.authorize({clientId: "app", scope: "launch openid fhirUser patient/*.rs", redirectUri: "done.html",
  completeInTarget: true, pkceMode: "required"});
</script>"""
STANDALONE = LAUNCH.replace("launch openid", "launch/patient openid").replace(
    'clientId: "app"', 'clientId: "app", iss: new URLSearchParams(location.search).get("server")'
)
DONE = """<!doctype html><meta charset=utf-8><pre id=seen></pre><script src="fhir-client.js"></script><script>
FHIR.oauth2.ready().then(async client => {
  const patient = await client.patient.read(), found = await client.request("Observation");
  return {patient: patient.id, user: client.user.fhirUser, found: found.entry.map(each => each.resource.id)};
}).catch(error => ({error: String(error)}))
  .then(seen => { document.getElementById("seen").textContent = JSON.stringify(seen); });
</script>"""
WHERE = "location.pathname.split('/').pop()"


@pytest.fixture(scope="module")
def program() -> str:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip("no Chromium on this machine (Debian: `apt-get install chromium-headless-shell`)")
    return found


@pytest.fixture
def browser(program: str, tmp_path: Path) -> Iterator[Browser]:
    with open_browser(program, tmp_path / "profile") as browser:
        yield browser


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The app's web server, which is another origin, and its folder."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "done.html").write_text(DONE)
    (folder / "launch.html").write_text(LAUNCH)
    (folder / "standalone.html").write_text(STANDALONE)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", folder
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def library(site: tuple[str, Path], tmp_path_factory: pytest.TempPathFactory) -> None:
    """The library beside the app's pages."""
    npm, folder = shutil.which("npm"), tmp_path_factory.mktemp("npm")
    if npm is None:
        pytest.skip("no npm on this machine")
    try:
        subprocess.run((npm, "pack", "--silent", LIBRARY), cwd=folder, check=True, capture_output=True, timeout=120)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        pytest.skip(f"{LIBRARY} cannot be had here")
    shutil.unpack_archive(next(folder.glob("*.tgz")), folder)
    shutil.copy(folder / "package" / "build" / "fhir-client.js", site[1])


@pytest.fixture(scope="module")
def clinic(site: tuple[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The base URL of a server with two patients, a clinician and the app; and the token of its EHR."""
    database = tmp_path_factory.mktemp("clinic") / "fhir.db"
    with serving_process(database, authentication="on", audit_folder="", cors_origins=site[0]) as process:
        token = command(database, "token", "create", "--name", "ehr", "--role", "administrator").split()[0]
        person = ("--role", "clinician", "--fhir-user", "Practitioner/quill", "--password", PASSWORD)
        command(database, "user", "add", "quill", *person)
        urls = ("--redirect", f"{site[0]}/done.html", "--launch", f"{site[0]}/launch.html")
        command(database, "client", "add", "app", *urls, "--scope", "patient/*.rs")
        with httpx.Client(base_url=process.base, headers={"authorization": f"Bearer {token}"}) as ehr:
            for each in SAMPLES:
                assert ehr.put(f"/{each['resourceType']}/{each['id']}", json=each).status_code == 201
        yield process.base, token


def log_in(browser: Browser, password: str = PASSWORD) -> None:
    """By keyboard, on the page of the login; the first field has the focus."""
    browser.press_until("Tab", "#username")
    browser.write("quill")
    browser.press("Tab")
    browser.write(password)
    browser.follow(partial(browser.press, "Enter"), "document.querySelector('h1')")


def make_url(base: str, site: str) -> str:
    """To which the app sends the browser."""
    query = {"response_type": "code", "client_id": "app", "redirect_uri": f"{site}/done.html", "state": "s"}
    query |= {"scope": "patient/*.rs", "aud": base, "code_challenge": CHALLENGE, "code_challenge_method": "S256"}
    return f"{base}/auth/authorize?{urlencode(query)}"


def test_a_person_without_javascript_logs_in_chooses_and_allows_by_keyboard(
    browser: Browser, clinic: tuple[str, str], site: tuple[str, Path]
) -> None:
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    browser.open(make_url(clinic[0], site[0]))
    browser.wait_for("document.activeElement.id === 'username'")
    log_in(browser, "a wrong password")
    assert "is wrong" in browser.evaluate("document.querySelector('[role=alert]').textContent")
    browser.wait_for("document.activeElement.id === 'password'")
    assert browser.evaluate("document.getElementById('username').value") == "quill"
    browser.write(PASSWORD)
    browser.follow(partial(browser.press, "Enter"), "document.querySelector('h1')")
    assert browser.evaluate("document.querySelector('h1').textContent") == "Allow access?"
    browser.press_until("Tab", "#name")
    browser.write("bo")
    browser.follow(partial(browser.press, "Enter"), "document.querySelector('[name=patient]')")
    browser.wait_for("document.activeElement.name === 'patient'")
    assert browser.evaluate("document.querySelector('[name=patient]:checked')") is None
    browser.press_until("Tab", "[value=allow]")
    browser.press("Enter")  # the browser itself says that a choice is missing, and goes to it
    browser.wait_for("document.activeElement.name === 'patient'")
    browser.press("Space")
    browser.follow(partial(browser.press, "Enter"), "document.querySelector('[name=patient]')")  # finds once more
    browser.wait_for("document.activeElement.name === 'patient'")
    assert browser.evaluate("document.querySelector('[name=patient]:checked').value") == "bo"
    browser.press_until("Tab", "[value=allow]")
    browser.follow(partial(browser.press, "Enter"), f"{WHERE} === 'done.html'")
    given = parse_qs(urlsplit(browser.evaluate("location.href")).query)
    assert given["state"] == ["s"] and given["iss"] == [clinic[0]] and given["code"]


def test_every_field_has_its_label_and_no_script_runs(
    browser: Browser, clinic: tuple[str, str], site: tuple[str, Path]
) -> None:
    browser.open(make_url(clinic[0], site[0]))
    browser.wait_for("document.getElementById('username')")
    fields = "[...document.querySelectorAll('input:not([type=hidden])')]"
    assert browser.evaluate(f"{fields}.length") == 3
    assert browser.evaluate(f"{fields}.every(each => each.labels.length === 1)") is True
    add = "const added = document.createElement('script'); added.textContent = 'window.ran = true'"
    assert browser.evaluate(f"{add}; document.body.append(added); window.ran === undefined") is True


def test_who_comes_with_a_wrong_request_reads_why(
    browser: Browser, clinic: tuple[str, str], site: tuple[str, Path]
) -> None:
    browser.open(make_url(clinic[0], "https://other.example"))
    assert browser.wait_for("document.querySelector('h1').textContent") == "This cannot go on"
    assert "not known here" in browser.evaluate("document.querySelector('[role=alert]').textContent")


def read_seen(browser: Browser) -> dict[str, Any]:
    """What the app shows after its launch."""
    seen: dict[str, Any] = json.loads(browser.wait_for("document.getElementById('seen').textContent"))
    return seen


@pytest.mark.usefixtures("library")
def test_an_app_in_a_browser_launches_standalone(
    browser: Browser, clinic: tuple[str, str], site: tuple[str, Path]
) -> None:
    browser.open(f"{site[0]}/standalone.html?{urlencode({'server': clinic[0]})}")
    browser.wait_for("document.getElementById('username')")
    log_in(browser)
    browser.press_until("Tab", "#name")
    browser.write("bo")
    browser.follow(partial(browser.press, "Enter"), "document.querySelector('[name=patient]')")
    browser.press_until("Tab", "[name=patient]")
    browser.press("Space")
    browser.press_until("Tab", "[value=allow]")
    browser.follow(partial(browser.press, "Enter"), f"{WHERE} === 'done.html'")
    assert read_seen(browser) == {"patient": "bo", "user": "Practitioner/quill", "found": ["bo"]}


@pytest.mark.usefixtures("library")
def test_an_app_in_a_browser_launches_from_the_ehr(browser: Browser, clinic: tuple[str, str]) -> None:
    base, token = clinic
    parts = [{"name": "client", "valueString": "app"}, {"name": "patient", "valueString": "ana"}]
    body = {"resourceType": "Parameters", "parameter": parts}
    begun = httpx.post(f"{base}/$launch", json=body, headers={"authorization": f"Bearer {token}"}).json()
    browser.open(next(each["valueUrl"] for each in begun["parameter"] if each["name"] == "url"))
    browser.wait_for("document.getElementById('username')")
    log_in(browser)
    browser.press_until("Tab", "[value=allow]")
    browser.follow(partial(browser.press, "Enter"), f"{WHERE} === 'done.html'")
    assert read_seen(browser) == {"patient": "ana", "user": "Practitioner/quill", "found": ["ana"]}
