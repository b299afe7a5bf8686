"""A SMART app of somebody else's library, the Python package `fhirclient`, launches standalone and from an EHR."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import httpx
import pytest
from fhirclient import client as smart
from fhirclient.models.observation import Observation
from fhirclient.models.patient import Patient

from tests.faults.process import Process, serving_process

PASSWORD = "correct horse battery"
DONE = "http://127.0.0.1:8239/done"
SAMPLES: list[dict[str, Any]] = [
    *({"resourceType": "Patient", "id": id, "name": [{"family": id.title()}]} for id in ("ana", "bo")),
    *(
        {
            "resourceType": "Observation",
            "id": id,
            "status": "final",
            "code": {"text": "x"},
            "subject": {"reference": f"Patient/{id}"},
        }
        for id in ("ana", "bo")
    ),
]


def command(database: Path, *arguments: str) -> str:
    """What `fhir-server` prints."""
    call = (sys.executable, "-m", "fhir_server", *arguments, "--store", f"sqlite:///{database}")
    return subprocess.run(call, capture_output=True, check=True, text=True).stdout


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Process, str]]:
    """A server that needs tokens, with two patients, a clinician and an app; and the token of its EHR."""
    database = tmp_path_factory.mktemp("smart") / "fhir.db"
    with serving_process(database, authentication="on", audit_folder="") as process:
        token = command(database, "token", "create", "--name", "ehr", "--role", "administrator").split()[0]
        person = ("--role", "clinician", "--fhir-user", "Practitioner/quill", "--password", PASSWORD)
        command(database, "user", "add", "quill", *person)
        command(database, "client", "add", "app", "--redirect", DONE, "--scope", "patient/*.rs user/*.rs")
        with httpx.Client(base_url=process.base, headers={"authorization": f"Bearer {token}"}) as ehr:
            for each in SAMPLES:
                assert ehr.put(f"/{each['resourceType']}/{each['id']}", json=each).status_code == 201
        yield process, token


def log_in(url: str, patient: str = "") -> str:
    """What a person does in a browser: log in, choose a patient, allow; the URL to which the browser then goes."""

    def read_state(page: httpx.Response) -> str:
        (state,) = re.findall(r'name="state" value="([^"]*)"', page.text)
        return unescape(state)

    with httpx.Client() as browser:
        page = browser.get(url)
        assert page.status_code == 200, page.text
        form = {"state": read_state(page), "username": "quill", "password": PASSWORD}
        page = browser.post(str(page.url.copy_with(query=None).join("login")), data=form)
        form = {"state": read_state(page), "action": "allow", "patient": patient}
        answer = browser.post(str(page.url.join("consent")), data=form)
        assert answer.status_code == 303, answer.text
        return answer.headers["location"]


def test_fhirclient_launches_standalone(clinic: tuple[Process, str]) -> None:
    process, _ = clinic
    settings = {"app_id": "app", "api_base": process.base, "redirect_uri": DONE}
    app = smart.FHIRClient(settings={**settings, "scope": "patient/*.read openid fhirUser offline_access"})
    assert app.prepare() is False and not app.ready
    app.handle_callback(log_in(app.authorize_url, "bo"))
    assert app.ready and app.patient.name[0].family == "Bo"
    found = Observation.where({}).perform_resources_iter(app.server)
    assert [each.id for each in found] == ["bo"]
    before = app.server.auth.refresh_token
    assert app.reauthorize() and app.server.auth.refresh_token != before
    assert Patient.read("bo", app.server).id == "bo"


def test_fhirclient_launches_from_the_ehr(clinic: tuple[Process, str]) -> None:
    process, token = clinic
    parts = [{"name": "client", "valueString": "app"}, {"name": "patient", "valueString": "ana"}]
    headers = {"authorization": f"Bearer {token}"}
    body = {"resourceType": "Parameters", "parameter": parts}
    begun = httpx.post(f"{process.base}/$launch", json=body, headers=headers).json()
    handle = next(each["valueString"] for each in begun["parameter"] if each["name"] == "launch")
    settings = {"app_id": "app", "api_base": process.base, "redirect_uri": DONE, "launch_token": handle}
    app = smart.FHIRClient(settings={**settings, "scope": "patient/*.read"})
    app.prepare()
    app.handle_callback(log_in(app.authorize_url))
    assert app.patient_id == "ana" and app.patient.name[0].family == "Ana"
    again = smart.FHIRClient(settings={**settings, "scope": "patient/*.read"})
    again.prepare()
    answer = httpx.get(again.authorize_url)
    assert "error=invalid_request" in answer.headers["location"]
