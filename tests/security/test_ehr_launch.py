"""Launches that an EHR begins, and the patient and visit that an app gets to know, with the ways round it.

https://hl7.org/fhir/smart-app-launch/STU2.2/app-launch.html#launch-app-ehr-launch
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from fhir_server.app import Knowledge
from fhir_server.security.clients import Client as Registered
from fhir_server.security.clients import add_client
from fhir_server.security.launch_handles import LIFETIME
from tests.conftest import Client
from tests.security.smart import (
    APP,
    BASE,
    NOW,
    allow,
    authorize,
    exchange,
    launch,
    log_in,
    make_request,
    open_clinic,
    read_code,
    read_state,
    wait,
)

pytestmark = pytest.mark.anyio

SCOPE = "launch patient/Observation.rs"


@pytest.fixture
async def client(known: Knowledge, any_store_uri: str) -> AsyncIterator[Client]:
    """The clinic, with two visits of Bo and one of Ada."""
    async with open_clinic(known, any_store_uri) as client:
        store = client.server.context.unrestricted
        start = "https://viewer.example/start"
        await add_client(store, Registered("viewer", "patient/*.rs user/*.rs", [], NOW, [APP], launch=start))
        headers = authorize(await launch(client, "quill", "user/*.cruds"))
        for id, day in (("bo-1", "2026-03-02"), ("bo-2", "2026-03-09"), ("ada-1", "2026-03-02")):
            encounter = {
                "resourceType": "Encounter",
                "id": id,
                "status": "finished",
                "class": {"code": "AMB"},
                "subject": {"reference": f"Patient/{id.partition('-')[0]}"},
                "period": {"start": day, "end": day},
            }
            assert (await client.put(f"Encounter/{id}", json=encounter, headers=headers)).status_code == 201
        yield client


async def begin(ehr: Client, user: str, /, scope: str = "user/*.rs", **parameters: Any) -> httpx.Response:
    """`$launch` by the app of a person, which is the EHR."""
    headers = authorize(await launch(ehr, user, scope))
    parts = [
        {"name": name.replace("_", "-"), "valueBoolean" if isinstance(value, bool) else "valueString": value}
        for name, value in {"client": "app", **parameters}.items()
    ]
    body = {"resourceType": "Parameters", "parameter": parts}
    return await ehr.post("$launch", json=body, headers=headers)


def read_handle(answer: httpx.Response) -> str:
    assert answer.status_code == 201, answer.text
    values = {each["name"]: each for each in answer.json()["parameter"]}
    assert values["expires-in"]["valueInteger"] == LIFETIME
    return str(values["launch"]["valueString"])


def read_error(answer: httpx.Response) -> str:
    assert answer.status_code == 303, answer.text
    return parse_qs(urlsplit(answer.headers["location"]).query)["error"][0]


async def test_an_app_gets_the_patient_and_visit_of_the_ehr(client: Client) -> None:
    answer = await begin(client, "quill", patient="bo", encounter="Encounter/bo-1", need_patient_banner=False)
    handle = read_handle(answer)
    page = await log_in(client, "quill", scope=f"{SCOPE} launch/encounter openid", launch=handle)
    assert "For which" not in page.text and "which patient is open" in page.text
    tokens = (await exchange(client, read_code(await allow(client, page)))).json()
    assert (tokens["patient"], tokens["encounter"], tokens["need_patient_banner"]) == ("bo", "bo-1", False)
    assert set(tokens["scope"].split()) == {"patient/Observation.rs", "openid", "launch", "launch/encounter"}
    found = (await client.get("Observation", headers=authorize(tokens))).json()
    assert [entry["resource"]["id"] for entry in found["entry"]] == ["bo"]
    # a form that names another patient changes nothing
    handle = read_handle(await begin(client, "quill", patient="bo"))
    page = await log_in(client, "quill", scope=SCOPE, launch=handle)
    answer = await allow(client, page, patient="ada", encounter="ada-1")
    tokens = (await exchange(client, read_code(answer))).json()
    assert tokens["patient"] == "bo" and "encounter" not in tokens


async def test_the_ehr_gets_the_url_at_which_it_starts_the_app(client: Client) -> None:
    answer = await begin(client, "quill", client="viewer", patient="bo")
    url = urlsplit(next(each["valueUrl"] for each in answer.json()["parameter"] if each["name"] == "url"))
    assert url.netloc + url.path == "viewer.example/start"
    assert parse_qs(url.query) == {"iss": [BASE], "launch": [read_handle(answer)]}


async def test_a_handle_is_good_once_and_for_minutes(client: Client) -> None:
    handle = read_handle(await begin(client, "quill", patient="bo"))
    pages = [await log_in(client, "quill", scope=SCOPE, launch=handle)]
    cookies = dict(client.cookies)
    pages.append(await log_in(client, "quill", scope=SCOPE, launch=handle))
    await exchange(client, read_code(await allow(client, pages[1])))
    client.cookies.clear()
    client.cookies.update(cookies)
    assert read_error(await allow(client, pages[0])) == "access_denied"
    late = read_handle(await begin(client, "quill", patient="bo"))
    wait(client, LIFETIME)
    for spent in (handle, late, "guess", "x" * 3000):
        query = make_request(scope=SCOPE, launch=spent)
        assert read_error(await client.get("auth/authorize", params=query)) == "invalid_request"


async def test_in_a_race_for_a_handle_one_gets_a_code(client: Client) -> None:
    handle = read_handle(await begin(client, "quill", patient="bo"))
    page = await log_in(client, "quill", scope=SCOPE, launch=handle)
    answers = await asyncio.gather(*(allow(client, page) for _ in range(4)))
    locations = [answer.headers["location"] for answer in answers]
    assert sum("code=" in each for each in locations) == 1
    assert sum("error=access_denied" in each for each in locations) == 3


@pytest.mark.parametrize(
    ("scope", "launch"), [("launch patient/*.rs", ""), ("patient/*.rs", "handle"), ("launch/patient", "handle")]
)
async def test_scope_and_handle_come_together(client: Client, scope: str, launch: str) -> None:
    answer = await client.get("auth/authorize", params=make_request(scope=scope, launch=launch))
    assert read_error(answer) == "invalid_scope"


async def test_another_app_and_another_person_cannot_use_it(client: Client) -> None:
    handle = read_handle(await begin(client, "quill", patient="bo"))
    query = make_request(scope=SCOPE, launch=handle, client_id="viewer")
    assert read_error(await client.get("auth/authorize", params=query)) == "invalid_request"
    for name in ("desk", "ada"):
        refused = await log_in(client, name, scope="launch patient/Patient.rs", launch=handle)
        assert read_error(refused) == "access_denied"
    assert (await log_in(client, "quill", scope=SCOPE, launch=handle)).status_code == 200


async def test_nobody_is_launched_with_a_patient_that_is_hidden(client: Client) -> None:
    """A system begins the launch, so that it is nobody's; Ada may see her own record alone."""
    from fhir_server.security.launch_handles import EhrLaunch, make_handle

    context = client.server.context
    begun = EhrLaunch("app", NOW, patient="bo", encounter="bo-1")
    handle = await make_handle(context.unrestricted, context.clock, begun)
    assert read_error(await log_in(client, "ada", scope=SCOPE, launch=handle)) == "access_denied"
    page = await log_in(client, "quill", scope=SCOPE, launch=handle)
    assert (await exchange(client, read_code(await allow(client, page)))).json()["encounter"] == "bo-1"


BAD_LAUNCHES: list[tuple[dict[str, Any], str]] = [
    ({"client": "nobody"}, "must name an app"),
    ({"patient": "nobody"}, "does not exist"),
    ({"patient": "../x"}, "does not exist"),
    ({"patient": "bo", "encounter": "none"}, "does not exist"),
    ({"patient": "ada", "encounter": "bo-1"}, "is not of the"),
    ({"encounter": "bo-1"}, "is not of the"),
    ({"intent": "order"}, "has no parameter"),
    ({"patient": "bo", "need_patient_banner": "yes"}, "`true` or `false`"),
]


async def test_what_cannot_be_launched_is_told(client: Client) -> None:
    for parameters, sentence in BAD_LAUNCHES:
        answer = await begin(client, "quill", **parameters)
        assert answer.status_code == 400 and sentence in answer.text, answer.text
    hidden = await begin(client, "ada", scope="patient/*.rs", patient="bo")
    assert hidden.status_code == 400 and "does not exist" in hidden.text
    assert (await begin(client, "quill", scope="user/Observation.rs")).status_code == 403
    assert (await client.post("$launch")).status_code == 401


async def test_a_visit_is_chosen_after_the_patient(client: Client) -> None:
    page = await log_in(client, "quill", scope="launch/encounter patient/*.rs")
    page = await allow(client, page, patient="bo")
    listed = re.findall(r'name="encounter" value="([^"]*)"', page.text)
    assert listed == ["bo-2", "bo-1", "none"] and "2026-03-09, ambulatory, finished" in page.text
    again = await allow(client, page, patient="bo", encounter="ada-1")
    assert "For which visit?" in again.text
    tokens = (await exchange(client, read_code(await allow(client, again, patient="bo", encounter="bo-1")))).json()
    assert (tokens["patient"], tokens["encounter"]) == ("bo", "bo-1")
    own = await log_in(client, "ada", scope="launch/encounter patient/*.rs")
    assert re.findall(r'name="encounter" value="([^"]*)"', own.text) == ["ada-1", "none"]
    tokens = (await exchange(client, read_code(await allow(client, own, encounter="none")))).json()
    assert "encounter" not in tokens and "launch/encounter" not in tokens["scope"]


async def test_a_form_without_an_answer_is_no_yes(client: Client) -> None:
    page = await log_in(client, "ada")
    answer = await client.post("auth/consent", data={"state": read_state(page)})
    assert answer.status_code == 200 and "Allow access?" in answer.text
