"""RDE and OMP through the message log: what becomes of a prescription that is known, and who answers a request."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fhir_server.app import Knowledge
from tests.conftest import Client, serving
from tests.workers.hl7v2_messages import choose_store, code, msh, north, pid, resources, take, with_partners

pytestmark = pytest.mark.anyio

RXE = "RXE||308182^Amoxicillin 250 MG^RXNORM|1||{capsule}^capsule^UCUM||^One a day|||30|capsule|2\r"
ORC = "ORC|NW|RX1|||||||20240305120000-0600|||77^WREN^IVO\r"


@pytest.fixture(params=["memory", "sqlite", "mongo"])
async def client(request: pytest.FixtureRequest, known: Knowledge, tmp_path: Path) -> AsyncIterator[Client]:
    async with serving(known, store=choose_store(request, tmp_path), invariants="enforce") as client:
        with_partners(client, north())
        yield client


async def test_a_prescription_is_stored_and_what_is_told_later_changes_it(client: Client) -> None:
    """First a code, then a Medication with a form, which takes its place; what is older than that changes nothing."""
    first = await take(client, msh("RDE^O11", "1") + pid(f5="QUILL^ADA") + ORC + RXE)
    assert code(first) == "AA", first.reason
    (request,) = await resources(client, "MedicationRequest")
    assert (request["status"], request["dispenseRequest"]["numberOfRepeatsAllowed"]) == ("active", 2)
    later = RXE.replace("UCUM||^One", "UCUM|TAB^Tablet^L|^One")
    hold = ORC.replace("NW|RX1||||", "SC|RX1|||HD|")
    second = await take(client, msh("RDE^O11", "2", "20240306120000-0600") + pid(f5="QUILL^ADA^X") + hold + later)
    assert code(second) == "AA", second.reason
    (request,) = await resources(client, "MedicationRequest")
    (medication,) = await resources(client, "Medication")
    assert (request["status"], request["meta"]["versionId"]) == ("on-hold", "2")
    assert "medicationCodeableConcept" not in request
    assert request["medicationReference"]["reference"] == f"Medication/{medication['id']}"
    third = await take(client, msh("RDE^O11", "3", "20240305130000-0600") + pid() + ORC + RXE)
    assert code(third) == "AA"
    (request,) = await resources(client, "MedicationRequest")
    assert (request["status"], request["meta"]["versionId"]) == ("on-hold", "2")
    (patient,) = await resources(client, "Patient")
    assert patient["name"][0]["given"] == ["ADA"]  # only ADT changes a patient


async def test_a_pharmacy_asks_for_a_refill_and_the_renewal_answers(client: Client) -> None:
    await take(client, msh("RDE^O11", "1") + pid() + ORC + RXE)
    asked = ORC.replace("NW", "RF")
    for _ in range(2):  # a repeat opens nothing more
        received = await take(client, msh("RDE^O25^RDE_O11", "2") + pid() + asked + RXE.replace("|30|", "|90|"))
        assert code(received) == "AA", received.reason
    (request,) = await resources(client, "MedicationRequest")
    assert (request["dispenseRequest"]["quantity"]["value"], request["meta"]["versionId"]) == (30, "1")
    (task,) = await resources(client, "Task?code=refill-request&status=requested")
    assert task["focus"]["reference"] == f"MedicationRequest/{request['id']}"
    answer = await client.fhir("POST", f"MedicationRequest/{request['id']}/$renew")
    assert answer.status_code == 201, answer.text
    (task,) = await resources(client, "Task?code=refill-request")
    renewal = {"reference": f"MedicationRequest/{answer.json()['id']}"}
    assert (task["status"], task["output"][0]["valueReference"]) == ("completed", renewal)


async def test_an_order_without_a_drug_is_refused_and_kept(client: Client) -> None:
    received = await take(client, msh("OMP^O09", "1") + pid() + ORC + "RXO||1||mg\r")
    assert (received.state, code(received)) == ("refused", "AE")
    assert "RXO-1 is required and empty" in received.reason
    assert b"ERR|" in received.acknowledgement
    assert await resources(client, "MedicationRequest") == []
