"""What a person reads on the pages of a login: what went wrong, whom the answer is about, and errors as pages."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from fhir_server.api.launch_context import MOST_LISTED
from fhir_server.app import Knowledge
from fhir_server.security.launch_handles import EhrLaunch, make_handle
from tests.conftest import Client
from tests.security.smart import (
    NOW,
    PASSWORD,
    allow,
    authorize,
    launch,
    log_in,
    make_request,
    open_clinic,
    read_state,
)

pytestmark = pytest.mark.anyio

BROWSER = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
PICKER = "launch/patient launch/encounter patient/*.rs"


@pytest.fixture
async def client(known: Knowledge) -> AsyncIterator[Client]:
    """The clinic in memory: the pages are the same on every store."""
    async with open_clinic(known, "memory://") as client:
        yield client


async def find(client: Client, page: httpx.Response, name: str, **form: str) -> httpx.Response:
    answer = await client.post("auth/consent", data={"state": read_state(page), "action": "find", "name": name, **form})
    assert answer.status_code == 200, answer.text
    return answer


async def add(client: Client, *resources: dict[str, Any]) -> None:
    headers = authorize(await launch(client, "quill", "user/*.cruds"))
    for each in resources:
        answer = await client.put(f"{each['resourceType']}/{each['id']}", json=each, headers=headers)
        assert answer.status_code == 201, answer.text


async def test_after_a_wrong_password_the_name_is_kept_and_the_fault_belongs_to_the_field(client: Client) -> None:
    page = await client.get("auth/authorize", params=make_request())
    assert "<title>Log in</title>" in page.text
    form = {"state": read_state(page), "username": 'quill"><b>', "password": "wrong"}
    again = (await client.post("auth/login", data=form)).text
    assert "<title>Error: Log in</title>" in again
    assert 'value="quill&#34;&gt;&lt;b&gt;"' in again and "wrong password" not in again
    (field,) = re.findall(r'<input [^>]*name="password"[^>]*>', again)
    assert 'aria-describedby="fault"' in field and "autofocus" in field and "value" not in field
    assert re.search(r'<p [^>]*id="fault"', again)


async def test_what_was_searched_for_is_kept_and_who_is_not_there_is_said(client: Client) -> None:
    page = await log_in(client, "quill", scope=PICKER)
    assert "No patient" not in page.text and "autofocus" not in page.text
    nobody = await find(client, page, "zz<")
    assert "No patient’s name begins with “zz&lt;”." in nobody.text
    # empty, since the cursor would stand before what is kept
    assert 'name="name" value="" autofocus' in nobody.text
    found = await find(client, nobody, "pine", patient="bo")
    assert 'value="bo" required checked autofocus' in found.text and 'value="pine"' in found.text


async def test_patients_of_one_name_are_told_apart_and_a_cut_list_says_so(client: Client) -> None:
    twins: list[dict[str, Any]] = [
        {"resourceType": "Patient", "id": f"twin-{number}", "name": [{"family": "Twin"}], "birthDate": "1980-02-03"}
        for number in range(MOST_LISTED + 1)
    ]
    await add(client, *twins[:2])
    page = await find(client, await log_in(client, "quill", scope=PICKER), "twin")
    assert "Twin, born 1980-02-03 (twin-0)" in page.text and "(twin-1)" in page.text
    assert "are shown" not in page.text
    await add(client, *twins[2:])
    page = await find(client, await log_in(client, "quill", scope=PICKER), "twin")
    assert page.text.count('name="patient"') == MOST_LISTED
    assert "Only the first 20 are shown: write more of the name." in page.text


async def test_visits_are_in_words_and_their_patient_is_named(client: Client) -> None:
    visits = [("2026-03-02T09:00:00Z", "AMB"), ("2026-03-03T10:30:00-05:00", "IMP"), ("2026-03-05", "XYZ")]
    await add(
        client,
        *(
            {
                "resourceType": "Encounter",
                "id": f"visit-{number}",
                "status": "in-progress",
                "class": {"code": code},
                "subject": {"reference": "Patient/bo"},
                "period": {"start": start, "end": start},
            }
            for number, (start, code) in enumerate(visits)
        ),
    )
    page = await allow(client, await log_in(client, "quill", scope=PICKER), patient="bo")
    assert "The patient is <strong>Bo Pine</strong>." in page.text
    assert re.findall(r'name="encounter" [^>]*> ([^<]*)<', page.text) == [
        "2026-03-05, XYZ, in progress",
        "2026-03-03 10:30 -05:00, inpatient, in progress",
        "2026-03-02 09:00 UTC, ambulatory, in progress",
        "no visit",
    ]


async def test_the_patient_of_the_ehr_is_named(client: Client) -> None:
    context = client.server.context
    handle = await make_handle(context.unrestricted, context.clock, EhrLaunch("app", NOW, patient="bo"))
    page = await log_in(client, "quill", scope="launch patient/*.rs", launch=handle)
    assert "The patient is <strong>Bo Pine</strong>." in page.text


async def test_a_scope_says_what_it_is_narrowed_to(client: Client) -> None:
    page = await log_in(client, "quill", scope="patient/Observation.rs?category=laboratory")
    assert "read, search: Observation (of one patient), only category=laboratory" in page.text


async def test_a_browser_gets_errors_as_pages_and_a_program_gets_an_outcome(client: Client) -> None:
    request = make_request(client_id="<b>other")
    page = await client.get("auth/authorize", params=request, headers=BROWSER)
    assert (page.status_code, page.headers["content-type"]) == (400, "text/html; charset=utf-8")
    assert "This app is not known here" in page.text and "<b>other" not in page.text
    policy = page.headers["content-security-policy"]
    assert "form-action 'none'" in policy and "script" not in policy and page.headers["x-frame-options"] == "DENY"
    assert page.headers["cache-control"] == "no-store"
    program = await client.get("auth/authorize", params=request)
    assert (program.status_code, program.json()["resourceType"]) == (400, "OperationOutcome")
    form = {"state": "x", "username": "ada", "password": PASSWORD}
    old = await client.post("auth/login", data=form, headers=BROWSER)
    assert old.status_code == 400 and "This page is too old; begin again at the app." in old.text
    assert old.headers["content-type"].startswith("text/html")
    wrong = await client.get("auth/login", headers=BROWSER)
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
