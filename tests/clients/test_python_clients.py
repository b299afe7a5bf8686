"""Client programs of others against a server on a port: what they send must work as their users expect.

docs/clients.md has the table of all that were tried, those in other languages too.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fhirclient import client as smart
from fhirclient.models.bundle import Bundle
from fhirclient.models.humanname import HumanName
from fhirclient.models.patient import Patient
from fhirpy import AsyncFHIRClient, SyncFHIRClient
from fhirpy.base.exceptions import OperationOutcome, ResourceNotFound

from tests.faults.process import serving_process

FAMILIES = ("Abel", "Baker", "Cole", "Dunn", "Egan")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL of a server with five patients."""
    folder: Path = tmp_path_factory.mktemp("clients")
    with serving_process(folder / "fhir.db") as process:
        client = SyncFHIRClient(process.base)
        for number, family in enumerate(FAMILIES):
            client.resource("Patient", id=f"p{number}", name=[{"family": family}]).save()
        yield process.base


def test_fhirpy_creates_reads_updates_searches_and_deletes(base: str) -> None:
    client = SyncFHIRClient(base)
    made = client.resource("Patient", name=[{"family": "Fhirpy", "given": ["Ada"]}], active=True)
    made.save()
    assert made.id and client.reference("Patient", made.id).to_resource()["active"] is True
    made["active"] = False
    made.save(fields=["active"])
    assert client.get("Patient", made.id)["active"] is False
    found = client.resources("Patient").search(family="Fhirpy", active=False).fetch_all()
    assert [each.id for each in found] == [made.id]
    made.delete()  # type: ignore[no-untyped-call]
    for id in (made.id, "never-there"):
        with pytest.raises(ResourceNotFound):
            client.get("Patient", id)


def test_fhirpy_walks_pages_and_counts(base: str) -> None:
    patients = SyncFHIRClient(base).resources("Patient").sort("family").limit(2)
    assert [each["name"][0]["family"] for each in patients.fetch_all()] == list(FAMILIES)
    with pytest.raises(OperationOutcome, match="_totalMethod"):  # a parameter of one server, not of FHIR
        patients.count()
    assert patients.search(_total="accurate").fetch_raw()["total"] == len(FAMILIES)
    first = SyncFHIRClient(base).resources("Patient").sort("-family").first()
    assert first is not None and first["name"][0]["family"] == "Egan"


def test_fhirpy_creates_and_updates_on_a_condition(base: str) -> None:
    client = SyncFHIRClient(base)
    identifier = [{"system": "urn:clients", "value": "1"}]
    patients = client.resources("Patient").search(identifier="urn:clients|1")
    resource = client.resource("Patient", identifier=identifier, name=[{"family": "Zimm"}])
    first, created = patients.get_or_create(resource)
    again, created_again = patients.get_or_create(resource)
    assert (created, created_again) == (True, False) and first["id"] == again["id"]
    patched = patients.patch(active=True)
    assert patched["active"] is True
    client.resource("Patient", id=first["id"]).delete()  # type: ignore[no-untyped-call]


@pytest.mark.anyio
async def test_fhirpy_asynchronous_transaction_and_include(base: str) -> None:
    client = AsyncFHIRClient(base)
    observation = {
        "resourceType": "Observation",
        "status": "final",
        "code": {"text": "x"},
        "subject": {"reference": "Patient/p0"},
    }
    entry = {"resource": observation, "request": {"method": "POST", "url": "Observation"}}
    await client.resource("Bundle", type="transaction", entry=[entry, entry]).save()
    found = client.resources("Observation").search(subject="Patient/p0").include("Observation", "subject")
    bundle = await found.fetch_raw()
    types = [each["resource"]["resourceType"] for each in bundle["entry"]]
    assert sorted(types) == ["Observation", "Observation", "Patient"]
    everything = await client.execute("Patient/p0/$everything", method="get")
    assert {each["resource"]["resourceType"] for each in everything["entry"]} == {"Observation", "Patient"}


@pytest.fixture
def server(base: str) -> Any:
    """fhirclient's server without authorisation."""
    return smart.FHIRClient(settings={"app_id": "tests", "api_base": base}).server


def test_fhirclient_creates_reads_updates_and_deletes(server: Any) -> None:
    patient = Patient({"name": [{"family": "Smart"}]})
    made = patient.create(server)
    assert made["resourceType"] == "Patient"
    read = Patient.read(made["id"], server)
    assert read.name[0].family == "Smart"
    read.name = [HumanName({"family": "Smarter"})]
    read.update(server)
    assert Patient.read(made["id"], server).name[0].family == "Smarter"
    read.delete(server)


def test_fhirclient_searches_over_pages(server: Any) -> None:
    search = Patient.where({"_sort": "family", "_count": "2", "family": ",".join(FAMILIES)})
    families = [each.name[0].family for each in search.perform_resources_iter(server)]
    assert families == list(FAMILIES)
    first = next(search.perform_iter(server))
    assert isinstance(first, Bundle) and len(first.entry) == 2
