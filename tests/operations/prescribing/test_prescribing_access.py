"""Who may prescribe, and that what is hidden counts and is not named; many at once on MongoDB."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from fhir_server.app import Knowledge, find_roles
from fhir_server.security.static_tokens import StaticToken, create_token, list_tokens
from fhir_server.settings import Settings
from tests.conftest import Client, serving
from tests.faults.process import serving_process
from tests.mappers.prescribing.prescriptions import Tree, allergy, practitioner, prescription
from tests.operations.prescribing.prescribing_clinic import ask, checks, count_active, open_practice
from tests.operations.scheduling.booking_clinic import entries

pytestmark = pytest.mark.anyio

CONFIDENTIALITY = "http://terminology.hl7.org/CodeSystem/v3-Confidentiality"
SECRET = {"security": [{"system": CONFIDENTIALITY, "code": "R"}]}
EVERYTHING = f"system/*.cruds system/*.cruds?_security={CONFIDENTIALITY}|R"


@pytest.fixture
async def guarded(known: Knowledge, store_uri: str) -> AsyncIterator[Client]:
    """A server that needs tokens; the client's own allows everything."""
    async with serving(known, store=store_uri, authentication="on", audit_folder="") as client:
        await act_as(client, EVERYTHING)
        yield client


async def act_as(client: Client, scopes: str = "", role: str = "") -> None:
    """The client's requests have a token of these scopes, or of a role that ships."""
    context = client.server.context
    number, now = len(await list_tokens(context.unrestricted)), context.clock()
    token = StaticToken(f"t{number}", scopes, role, "", now, now + 3600 * 1_000_000)
    secret = await create_token(context.unrestricted, token, find_roles(Settings()))
    client.headers["authorization"] = f"Bearer {secret}"


async def test_a_clinician_prescribes_from_draft_to_the_end(guarded: Client) -> None:
    await open_practice(guarded)
    await act_as(guarded, role="clinician")
    assert (await guarded.fhir("PUT", "MedicationRequest/rx", json=prescription())).status_code == 201
    assert (await ask(guarded, "MedicationRequest/rx/$activate")).status_code == 200
    draft = (await ask(guarded, "MedicationRequest/rx/$renew")).json()
    assert (await ask(guarded, f"MedicationRequest/{draft['id']}/$activate")).status_code == 200
    stopped = await ask(guarded, f"MedicationRequest/{draft['id']}/$discontinue", reason="a rash")
    assert stopped.json()["status"] == "stopped"


async def test_who_only_reads_or_books_does_not_prescribe(guarded: Client) -> None:
    await open_practice(guarded, prescription(), prescription("old", "9", status="active"))
    for act in ({"scopes": "user/*.rs"}, {"role": "front-desk"}, {"role": "biller"}):
        await act_as(guarded, **act)
        for url in ("rx/$activate", "old/$renew", "old/$discontinue"):
            assert (await ask(guarded, f"MedicationRequest/{url}", reason="x")).status_code == 403, (act, url)
    await act_as(guarded, EVERYTHING)
    assert await count_active(guarded) == 1 and await entries(guarded, "Provenance") == []


async def test_what_is_hidden_counts_and_is_not_named(guarded: Client) -> None:
    """A label hides it from a clinician, whose prescription it stands against all the same."""
    hidden: list[Tree] = [
        allergy("secret-allergy", "314076", meta=SECRET),
        prescription("secret-drug", status="active", meta=SECRET),
    ]
    await open_practice(guarded, prescription(), *hidden)
    await act_as(guarded, role="clinician")
    refused = await ask(guarded, "MedicationRequest/rx/$activate")
    assert checks(refused) == [("error", "allergy"), ("error", "duplicate")]
    assert "secret" not in refused.text and "may not see" in refused.text


@pytest.mark.parametrize("settings", [{}, {"prescribing": "enforce"}], ids=["off", "enforce"])
async def test_on_mongodb_too_one_of_many_drafts_becomes_active(
    known: Knowledge, new_mongo_uri: Callable[[], str], settings: dict[str, Any]
) -> None:
    """Two servers on one database, drafts that differ; snapshots alone would let two of them pass."""
    uri = new_mongo_uri()
    async with serving(known, store=uri, **settings) as one, serving(known, store=uri, **settings) as other:
        drafts = [prescription(f"d{number}", note=[{"text": f"{number} days"}]) for number in range(6)]
        await open_practice(one, *drafts)
        calls = [(server, each["id"]) for each in drafts for server in (one, other)]
        answers = await asyncio.gather(*(ask(server, f"MedicationRequest/{id}/$activate") for server, id in calls))
        assert Counter(each.status_code for each in answers).keys() <= {200, 409, 422}
        assert await count_active(other) == 1
        assert len(await entries(one, "Provenance")) == 1


@pytest.mark.external
async def test_over_two_processes_one_of_many_drafts_becomes_active(tmp_path: Path) -> None:
    """Twelve drafts that differ, activated in two processes on one SQLite file; renewed in both, it has one draft."""
    with serving_process(tmp_path / "fhir.db") as one, serving_process(tmp_path / "fhir.db") as two:
        async with one.client() as first, two.client() as second:
            drafts = [prescription(f"d{number}", note=[{"text": f"{number} days"}]) for number in range(12)]
            for each in [practitioner(), {"resourceType": "Patient", "id": "ada"}, *drafts]:
                answer = await first.put(f"/{each['resourceType']}/{each['id']}", json=each)
                assert answer.status_code == 201, answer.text
            servers = (first, second)
            answers = await asyncio.gather(
                *(servers[n % 2].post(f"/MedicationRequest/d{n}/$activate") for n in range(12))
            )
            assert Counter(each.status_code for each in answers) == {200: 1, 422: 11}
            found = await second.get("/MedicationRequest?status=active")
            (active,) = [each["resource"]["id"] for each in found.json()["entry"]]
            renewed = await asyncio.gather(
                *(servers[n % 2].post(f"/MedicationRequest/{active}/$renew") for n in range(12))
            )
            assert Counter(each.status_code for each in renewed) == {201: 1, 200: 11}
            assert len({each.json()["id"] for each in renewed}) == 1
