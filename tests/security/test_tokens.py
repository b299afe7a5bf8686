"""A server with `FHIR_AUTHENTICATION=on`: tokens of its own, what their scopes allow, and what they do not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from fhir_server.app import Knowledge, Seams
from fhir_server.operations import OPERATIONS
from fhir_server.security.static_tokens import StaticToken, create_token, list_tokens, revoke_token
from tests.conftest import Client, serving

pytestmark = pytest.mark.anyio

START = 1_795_000_000_000_000
DAY = 24 * 3600 * 1_000_000
CONFIDENTIALITY = "http://terminology.hl7.org/CodeSystem/v3-Confidentiality"
EVERYTHING = f"system/*.cruds system/*.cruds?_security={CONFIDENTIALITY}|R"


class Clock:
    now = START

    def __call__(self) -> int:
        return self.now


@asynccontextmanager
async def guarding(known: Knowledge, store: str, clock: Clock | None = None) -> AsyncIterator[Client]:
    """A server that needs tokens, with a clinic that a token of everything has stored."""
    seams = Seams(clock=clock or Clock(), definitions=None)
    async with serving(known, seams, store=store, authentication="on", audit_folder="") as client:
        client.headers["authorization"] = f"Bearer {await make_token(client, EVERYTHING)}"
        for resource in CLINIC:
            answer = await client.put(f"{resource['resourceType']}/{resource['id']}", json=resource)
            assert answer.status_code == 201, answer.text
        yield client


async def make_token(client: Client, scopes: str, patient: str = "", role: str = "") -> str:
    store = client.server.context.unrestricted
    number = len(await list_tokens(store))
    token = StaticToken(f"t{number}", scopes, role, patient, START, START + DAY)
    return await create_token(store, token, {"desk": ("user/Appointment.crus", "user/Patient.rs")})


async def act_as(client: Client, scopes: str, patient: str = "") -> dict[str, str]:
    return {"authorization": f"Bearer {await make_token(client, scopes, patient)}"}


def observation(id: str, subject: str, code: str, **rest: Any) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "id": id,
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": code}]},
        "category": [{"coding": [{"code": "laboratory" if code == "1" else "vital-signs"}]}],
        "subject": {"reference": f"Patient/{subject}"},
        **rest,
    }


LONG = "Bearer " + "x" * 20_000
SECRET = {"security": [{"system": CONFIDENTIALITY, "code": "R"}]}
CLINIC: list[dict[str, Any]] = [
    {"resourceType": "Organization", "id": "clinic", "name": "North"},
    {"resourceType": "Patient", "id": "ada", "name": [{"family": "Quill"}]},
    {"resourceType": "Patient", "id": "bo", "name": [{"family": "Quill"}]},
    observation("ada-lab", "ada", "1"),
    observation("ada-pulse", "ada", "2"),
    observation("bo-lab", "bo", "1"),
    observation("ada-secret", "ada", "1"),
]


@pytest.fixture
async def client(known: Knowledge, any_store_uri: str) -> AsyncIterator[Client]:
    async with guarding(known, any_store_uri) as client:
        yield client


def list_ids(bundle: dict[str, Any]) -> list[str]:
    return [entry["resource"]["id"] for entry in bundle.get("entry", ())]


async def test_without_a_token_nothing_is_answered_but_the_statement(client: Client) -> None:
    del client.headers["authorization"]
    assert (await client.get("metadata")).status_code == 200
    for method, url in (
        ("GET", "Patient"),
        ("GET", "Patient/ada"),
        ("POST", ""),
        ("GET", "Nothing/x"),
        ("GET", "$job"),
    ):
        answer = await client.request(method, url)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert answer.json()["issue"][0]["code"] == "login"


@pytest.mark.parametrize(
    "header",
    ("Bearer", "Bearer ", "Basic YWRh", "Bearer a b", "Bearer a, Bearer b", "Bearer fhs_x", "Bearer a.b.c", LONG),
)
async def test_a_bad_token_is_401_with_the_reason(client: Client, header: str) -> None:
    answer = await client.get("Patient", headers={"authorization": header})
    assert answer.status_code == 401
    assert 'error="inval' in answer.headers["www-authenticate"]


async def test_two_tokens_are_none(client: Client) -> None:
    headers = [("authorization", client.headers["authorization"]), ("authorization", "Bearer other")]
    del client.headers["authorization"]
    assert (await client.get("Patient", headers=headers)).status_code == 401


async def test_a_token_in_the_query_is_no_token(client: Client) -> None:
    token = client.headers.pop("authorization").partition(" ")[2]
    assert (await client.get(f"Patient?access_token={token}")).status_code == 401


async def test_scopes_of_a_type_allow_that_type_alone(client: Client) -> None:
    desk = await act_as(client, "user/Patient.rs")
    assert list_ids((await client.get("Patient", headers=desk)).json()) == ["ada", "bo"]
    answer = await client.get("Observation", headers=desk)
    assert answer.status_code == 403
    assert "user/Observation.s" in answer.json()["issue"][0]["diagnostics"]
    assert 'error="insufficient_scope", scope="user/Observation.s"' in answer.headers["www-authenticate"]
    for url in ("Observation/ada-lab", "Observation/none"):
        refused = await client.get(url, headers=desk)
        assert (refused.status_code, "user/Observation.r" in refused.text) == (403, True)


async def test_a_patient_sees_the_own_compartment_alone(client: Client) -> None:
    ada = await act_as(client, "patient/*.rs", "ada")
    assert list_ids((await client.get("Observation", headers=ada)).json()) == ["ada-lab", "ada-pulse", "ada-secret"]
    assert list_ids((await client.get("Patient", headers=ada)).json()) == ["ada"]
    assert (await client.get("Observation?_summary=count", headers=ada)).json()["total"] == 3
    assert (await client.get("Patient/bo", headers=ada)).status_code == 404
    assert (await client.get("Observation/bo-lab/_history", headers=ada)).status_code == 404
    assert (await client.get("Organization/clinic", headers=ada)).status_code == 200
    everything = await client.get("Patient/ada/$everything", headers=ada)
    assert set(list_ids(everything.json())) == {"ada", "ada-lab", "ada-pulse", "ada-secret"}


async def test_a_scope_with_search_parameters_allows_what_they_match(client: Client) -> None:
    laboratory = await act_as(client, "user/Observation.rs?category=laboratory")
    assert list_ids((await client.get("Observation", headers=laboratory)).json()) == ["ada-lab", "ada-secret", "bo-lab"]
    assert (await client.get("Observation/ada-pulse", headers=laboratory)).status_code == 404


async def test_labelled_resources_need_a_scope_that_names_the_label(client: Client) -> None:
    secret = observation("ada-secret", "ada", "1", meta=SECRET)
    assert (await client.put("Observation/ada-secret", json=secret)).status_code == 200
    plain = await act_as(client, "user/Observation.rs")
    assert "ada-secret" not in list_ids((await client.get("Observation", headers=plain)).json())
    assert (await client.get("Observation/ada-secret", headers=plain)).status_code == 404
    # the version before the label stays readable: it was not labelled
    assert (await client.get("Observation/ada-secret/_history/1", headers=plain)).status_code == 200
    cleared = await act_as(client, f"user/Observation.rs?_security={CONFIDENTIALITY}|R")
    assert list_ids((await client.get("Observation", headers=cleared)).json()) == ["ada-secret"]


async def test_a_chain_through_a_hidden_type_is_refused(client: Client) -> None:
    desk = await act_as(client, "user/Patient.rs")
    for url in ("Patient?_has:Observation:subject:code=1", "Patient?organization.name=North"):
        assert (await client.get(url, headers=desk)).status_code == 403
    both = await act_as(client, "user/Patient.rs user/Observation.s")
    found = await client.get("Patient?_has:Observation:subject:code=2", headers=both)
    assert list_ids(found.json()) == ["ada"]
    assert found.json()["link"][0]["url"].endswith("/Patient?_has:Observation:subject:code=2")


async def test_writes_need_their_letter_and_stay_inside_the_grant(client: Client) -> None:
    ada = await act_as(client, "patient/Observation.crud", "ada")
    own, other = observation("new", "ada", "2"), observation("new2", "bo", "2")
    assert (await client.put("Observation/new", json=own, headers=ada)).status_code == 201
    assert (await client.put("Observation/new2", json=other, headers=ada)).status_code == 403
    assert (await client.post("Observation", json=other, headers=ada)).status_code == 403
    moved = observation("new", "bo", "2")
    assert (await client.put("Observation/new", json=moved, headers=ada)).status_code == 403
    assert (await client.get("Observation/new")).json()["meta"]["versionId"] == "1"
    assert (await client.get("Observation/new2")).status_code == 404
    assert (await client.delete("Observation/new", headers=ada)).status_code == 204
    assert (await client.post("Patient", json=CLINIC[1], headers=ada)).status_code == 403


async def test_a_hidden_resource_cannot_be_changed_and_its_refusal_tells_nothing(client: Client) -> None:
    ada = await act_as(client, "patient/Observation.cruds", "ada")
    body = observation("bo-lab", "ada", "1")
    texts = set()
    for headers in ({}, {"if-match": 'W/"1"'}, {"if-match": 'W/"7"'}):
        answer = await client.put("Observation/bo-lab", json=body, headers=ada | headers)
        texts.add((answer.status_code, answer.json()["issue"][0]["diagnostics"]))
    assert len(texts) == 1 and next(iter(texts))[0] == 403
    patch = [{"op": "test", "path": "/status", "value": "final"}]
    kind = {"content-type": "application/json-patch+json"}
    assert (await client.patch("Observation/bo-lab", json=patch, headers=ada | kind)).status_code == 403
    assert (await client.delete("Observation/bo-lab", headers=ada)).status_code == 403
    assert (await client.get("Observation/bo-lab")).json()["subject"]["reference"] == "Patient/bo"


async def test_who_may_not_read_overwrites_and_does_not_patch(client: Client) -> None:
    """A patch answers with the whole resource, an update with what was sent."""
    writer = await act_as(client, "user/Observation.u user/Patient.r")
    kind = {"content-type": "application/json-patch+json"}
    patch = [{"op": "replace", "path": "/status", "value": "amended"}]
    refused = await client.patch("Observation/bo-lab", json=patch, headers=writer | kind)
    assert (refused.status_code, "code" in refused.json()) == (403, False)
    changed = observation("bo-lab", "bo", "2")
    assert (await client.put("Observation/bo-lab", json=changed, headers=writer)).status_code == 200
    assert (await client.get("Observation/bo-lab", headers=writer)).status_code == 403


async def test_a_token_is_not_told_how_the_store_searches(client: Client) -> None:
    desk = await act_as(client, "user/Patient.rs")
    (outcome,) = [
        entry["resource"]
        for entry in (await client.get("Patient?family=quill&__explain=true", headers=desk)).json()["entry"]
        if entry["search"]["mode"] == "outcome"
    ]
    told = " ".join(issue["diagnostics"] for issue in outcome["issue"])
    assert "is not told to a token" in told and "SELECT" not in told and "rows" not in told


async def test_a_reference_to_what_is_hidden_is_one_to_nothing(client: Client) -> None:
    writer = await act_as(client, "user/Observation.cu")
    answers = []
    for subject in ("ada", "missing"):
        answer = await client.post("Observation", json=observation("x", subject, "2"), headers=writer)
        answers.append((answer.status_code, answer.text.replace(subject, "…")))
    assert answers[0] == answers[1]
    assert answers[0][0] == 422


async def test_what_keeps_a_resource_from_being_deleted_is_not_named_to_who_may_not_see_it(client: Client) -> None:
    keeper = await act_as(client, "user/Patient.rd")
    refused = await client.delete("Patient/bo", headers=keeper)
    assert (refused.status_code, "bo-lab" in refused.text, "may not see" in refused.text) == (409, False, True)
    seeing = await client.delete("Patient/bo")
    assert (seeing.status_code, "`Observation/bo-lab` (Observation.subject" in seeing.text) == (409, True)


async def test_entries_of_a_batch_and_a_transaction_are_asked_one_by_one(client: Client) -> None:
    ada = await act_as(client, "patient/Observation.rs", "ada")
    entries = [
        {"request": {"method": "GET", "url": url}}
        for url in ("Observation/ada-lab", "Observation/bo-lab", "Patient/ada")
    ]
    answer = await client.post("", json={"resourceType": "Bundle", "type": "batch", "entry": entries}, headers=ada)
    assert [each["response"]["status"][:3] for each in answer.json()["entry"]] == ["200", "404", "403"]
    write = {"request": {"method": "POST", "url": "Observation"}, "resource": observation("x", "ada", "2")}
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": [write]}
    refused = await client.post("", json=bundle, headers=ada)
    assert (refused.status_code, refused.json()["issue"][0]["expression"]) == (403, ["Bundle.entry[0]"])


async def test_conditional_writes_need_the_right_to_search(client: Client) -> None:
    writer = await act_as(client, "user/Patient.c")
    body = {"resourceType": "Patient", "name": [{"family": "New"}]}
    answer = await client.post("Patient", json=body, headers=writer | {"if-none-exist": "family=Quill"})
    assert answer.status_code == 403
    assert (await client.post("Patient", json=body, headers=writer)).status_code == 201


async def test_page_links_are_good_for_their_own_token(client: Client) -> None:
    ada_headers = await act_as(client, "patient/Observation.rs", "ada")
    bo_headers = await act_as(client, "patient/Observation.rs", "bo")
    first = (await client.get("Observation?_count=1", headers=ada_headers)).json()
    link = next(each["url"] for each in first["link"] if each["relation"] == "next")
    assert list_ids((await client.get(link, headers=ada_headers)).json()) == ["ada-pulse"]
    refused = await client.get(link, headers=bo_headers)
    assert (refused.status_code, "another token" in refused.text) == (400, True)


async def test_a_token_ends(known: Knowledge, any_store_uri: str) -> None:
    clock = Clock()
    async with guarding(known, any_store_uri, clock) as client:
        headers = await act_as(client, "user/Patient.rs")
        assert (await client.get("Patient", headers=headers)).status_code == 200
        names = {token.name for token in await list_tokens(client.server.context.unrestricted)}
        assert names == {"t0", "t1"}
        assert await revoke_token(client.server.context.unrestricted, "t1")
        clock.now += 5_000_000
        assert (await client.get("Patient", headers=headers)).status_code == 401
        clock.now += DAY
        assert (await client.get("Patient")).status_code == 401


async def test_the_last_use_is_kept(client: Client) -> None:
    headers = await act_as(client, "user/Patient.rs")
    await client.get("Patient", headers=headers)
    used = {token.name: token.used for token in await list_tokens(client.server.context.unrestricted)}
    assert used == {"t0": START, "t1": START}


async def test_operations_need_what_their_row_says(client: Client) -> None:
    desk = await act_as(client, "user/Appointment.rs")
    for code, letter in (("book", "c"), ("hold", "c"), ("cancel", "u")):
        answer = await client.post(f"Appointment/${code}", json={"resourceType": "Parameters"}, headers=desk)
        assert answer.status_code == 403
        assert f"user/Appointment.{letter}" in answer.json()["issue"][0]["diagnostics"]
    assert (await client.get("$ar-aging", headers=desk)).status_code == 403


async def test_every_operation_says_what_it_needs() -> None:
    assert [code for code, operation in OPERATIONS.items() if operation.needs is None] == []


async def test_who_is_referred_to_is_visible_and_nobody_makes_others_so(client: Client) -> None:
    for id in ("pine", "quill"):
        assert (await client.put(f"Practitioner/{id}", json={"resourceType": "Practitioner", "id": id})).is_success
    await client.put("Observation/ada-lab", json=observation("ada-lab", "ada", "1", **_made_by("Practitioner/pine")))
    headers = await act_as(client, "patient/*.rs patient/Observation.cu user/Practitioner.u", "ada")
    found = (await client.get("Practitioner", headers=headers)).json()
    assert [entry["resource"]["id"] for entry in found["entry"]] == ["pine"]
    assert (await client.get("Practitioner/pine", headers=headers)).status_code == 200
    assert (await client.get("Practitioner/pine/_history/1", headers=headers)).status_code == 200
    hidden = await client.get("Practitioner/quill", headers=headers)
    assert hidden.status_code == (await client.get("Practitioner/none", headers=headers)).status_code == 404
    for reference in ("Practitioner/quill", "Practitioner/quill/_history/1", "Practitioner/none/_history/1"):
        told = observation("mine", "ada", "2", **_made_by(reference))
        assert (await client.put("Observation/mine", json=told, headers=headers)).status_code in (403, 422)
    assert (await client.get("Practitioner/quill", headers=headers)).status_code == 404
    allowed = observation("mine", "ada", "2", **_made_by("Practitioner/pine"))
    assert (await client.put("Observation/mine", json=allowed, headers=headers)).status_code == 201
    # once nobody refers to them, they are hidden again
    for id in ("ada-lab", "mine"):
        await client.put(f"Observation/{id}", json=observation(id, "ada", "1"))
    assert (await client.get("Practitioner/pine", headers=headers)).status_code == 404
    assert "entry" not in (await client.get("Practitioner", headers=headers)).json()


def _made_by(reference: str) -> dict[str, Any]:
    return {"performer": [{"reference": reference}]}
