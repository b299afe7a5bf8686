"""Two servers connected to each other by MLLP: what changes in one arrives in the other, and nothing comes back."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from fhir_server.app import Knowledge
from fhir_server.commands.hl7v2_workers import make_taker
from fhir_server.transports.mllp import Listener
from fhir_server.workers.message_states import read_state
from fhir_server.workers.table import WORKERS
from tests.conftest import Client, serving
from tests.workers.teams import take_turn
from tests.workers.test_hl7v2_sending import deliveries, put, queue

pytestmark = pytest.mark.anyio

MRN = "urn:oid:1.2.3.4"

FILE = """\
name = "{other}"
formats = ["hl7v2"]
zone = "America/New_York"
default_authority = "MRN"
[systems]
MRN = "urn:oid:1.2.3.4"
[transports.mllp]
host = "127.0.0.1"
port = {port}
[hl7v2]
senders = [{{ application = "{other}" }}]
[hl7v2.out]
transport = "mllp"
sending = {{ application = "{own}" }}
receiving = {{ application = "{other}" }}
retry_seconds = 0
[[hl7v2.out.send]]
type = "Patient"
event = "ADT^A31"
[[hl7v2.out.send]]
type = "Appointment"
filter = "status=booked"
change = "new"
event = "SIU^S12"
[[hl7v2.out.send]]
type = "Appointment"
filter = "status=booked"
change = "later"
event = "SIU^S14"
[[hl7v2.out.send]]
type = "ChargeItem"
filter = "code:missing=false"
event = "DFT^P03"
[[hl7v2.out.send]]
type = "DiagnosticReport"
filter = "status=final"
event = "ORU^R01"
[[hl7v2.out.send]]
type = "MedicationRequest"
filter = "status=active"
event = "RDE^O11"
"""


class Side(NamedTuple):
    """One of the two servers."""

    client: Client
    other: str

    async def send(self) -> None:
        """Queue and deliver all that has changed."""
        await queue(self.client)
        await WORKERS["deliveries"].step(await take_turn(self.client.server.context, "deliveries", "a"))

    async def find(self, type: str) -> list[dict[str, Any]]:
        bundle = (await self.client.fhir("GET", type)).json()
        return [entry["resource"] for entry in bundle.get("entry", ())]


@pytest.fixture(params=["memory", "sqlite"])
async def sides(request: pytest.FixtureRequest, known: Knowledge, tmp_path: Path) -> AsyncIterator[tuple[Side, Side]]:
    """A practice management system and an EHR, each a partner of the other."""
    sockets = {name: socket.create_server(("127.0.0.1", 0)) for name in ("pms", "ehr")}
    async with AsyncExitStack() as stack:
        pms = await stack.enter_async_context(opened(request.param, known, tmp_path, ("pms", "ehr"), sockets))
        ehr = await stack.enter_async_context(opened(request.param, known, tmp_path, ("ehr", "pms"), sockets))
        yield pms, ehr


@asynccontextmanager
async def opened(
    kind: str, known: Knowledge, folder: Path, names: tuple[str, str], sockets: dict[str, socket.socket]
) -> AsyncIterator[Side]:
    own, other = names
    (folder / own / "partners").mkdir(parents=True)
    text = FILE.format(own=own, other=other, port=sockets[other].getsockname()[1])
    (folder / own / "partners" / f"{other}.toml").write_text(text, encoding="utf-8")
    store = "memory://" if kind == "memory" else f"sqlite:///{folder}/{own}.db"
    async with serving(known, store=store, profiles=str(folder / own)) as client:
        listener = Listener(make_taker(client.server.context, lambda *_, **__: None), lambda *_, **__: None)
        await listener.start([sockets[own]])
        yield Side(client, other)
        await listener.stop(1)


PATIENT: dict[str, Any] = {
    "resourceType": "Patient",
    "id": "ada",
    "identifier": [{"system": MRN, "value": "100"}],
    "name": [{"family": "Adler", "given": ["Ada"]}],
    "gender": "female",
    "birthDate": "1970-01-02",
}
SUBJECT = {"reference": "Patient/ada"}
CLINIC: tuple[dict[str, Any], ...] = (
    {
        "resourceType": "Practitioner",
        "id": "p",
        "identifier": [{"system": "http://hl7.org/fhir/sid/us-npi", "value": "1234567893"}],
        "name": [{"family": "Weiss", "given": ["Max"]}],
    },
    {
        "resourceType": "Appointment",
        "id": "v",
        "identifier": [{"system": MRN, "value": "A1"}],
        "status": "booked",
        "start": "2026-05-04T10:00:00-04:00",
        "end": "2026-05-04T10:30:00-04:00",
        "participant": [
            {"actor": SUBJECT, "status": "accepted"},
            {"actor": {"reference": "Practitioner/p"}, "status": "accepted"},
        ],
    },
    {
        "resourceType": "ChargeItem",
        "id": "c",
        "identifier": [{"system": MRN, "value": "C1"}],
        "status": "billable",
        "code": {"coding": [{"system": "http://www.ama-assn.org/go/cpt", "code": "99213"}]},
        "subject": SUBJECT,
        "occurrenceDateTime": "2026-05-04",
        "quantity": {"value": 1},
    },
    {
        "resourceType": "Observation",
        "id": "o",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "2345-7", "display": "Glucose"}]},
        "subject": SUBJECT,
        "effectiveDateTime": "2026-05-04T10:10:00-04:00",
        "valueQuantity": {"value": 95, "unit": "mg/dL", "system": "http://unitsofmeasure.org", "code": "mg/dL"},
    },
    {
        "resourceType": "DiagnosticReport",
        "id": "r",
        "identifier": [{"system": MRN, "value": "R1"}],
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "24323-8", "display": "Panel"}]},
        "subject": SUBJECT,
        "effectiveDateTime": "2026-05-04T10:10:00-04:00",
        "issued": "2026-05-04T11:00:00-04:00",
        "result": [{"reference": "Observation/o"}],
    },
    {
        "resourceType": "MedicationRequest",
        "id": "m",
        "identifier": [{"system": MRN, "value": "RX1"}],
        "status": "active",
        "intent": "order",
        "medicationCodeableConcept": {
            "coding": [{"system": "http://www.nlm.nih.gov/research/umls/rxnorm", "code": "308182", "display": "x"}]
        },
        "subject": SUBJECT,
        "authoredOn": "2026-05-04T10:20:00-04:00",
        "requester": {"reference": "Practitioner/p"},
        "dosageInstruction": [{"doseAndRate": [{"doseQuantity": {"value": 1, "unit": "tablet"}}]}],
        "dispenseRequest": {"numberOfRepeatsAllowed": 2, "quantity": {"value": 30, "unit": "tablet"}},
    },
)


async def test_what_is_written_here_arrives_there_without_an_echo(sides: tuple[Side, Side]) -> None:
    """Demographics, a booking, a charge, a result and a prescription."""
    pms, ehr = sides
    await put(pms.client, PATIENT)
    for resource in CLINIC:
        await put(pms.client, resource)
    await pms.send()
    tasks = await deliveries(pms.client)
    told = [(task["focus"]["reference"], read_state(task), task.get("statusReason", {}).get("text")) for task in tasks]
    assert [state for _, state, _ in told] == ["acknowledged"] * 5, told
    (patient,) = await ehr.find("Patient")
    assert (patient["name"][0]["family"], patient["birthDate"]) == ("Adler", "1970-01-02")
    (appointment,) = await ehr.find("Appointment")
    assert (appointment["status"], appointment["start"]) == ("booked", "2026-05-04T10:00:00-04:00")
    (charge,) = await ehr.find("ChargeItem")
    assert charge["code"]["coding"][0]["code"] == "99213" and charge["status"] == "billable"
    (observation,) = await ehr.find("Observation")
    assert observation["valueQuantity"]["value"] == 95
    assert [each["identifier"][0]["value"] for each in await ehr.find("DiagnosticReport")] == ["R1"]
    (request,) = await ehr.find("MedicationRequest")
    assert request["medicationCodeableConcept"]["coding"][0]["code"] == "308182"
    assert request["dispenseRequest"]["numberOfRepeatsAllowed"] == 2
    await ehr.send()
    assert await deliveries(ehr.client) == [], "what came from the other side does not go back"

    # the next change made there goes out, and does not come back from here either
    await put(ehr.client, {**patient, "birthDate": "1970-01-03"})
    await ehr.send()
    assert [read_state(task) for task in await deliveries(ehr.client)] == ["acknowledged"]
    (here,) = await pms.find("Patient")
    assert (here["id"], here["birthDate"]) == ("ada", "1970-01-03")
    await pms.send()
    assert len(await deliveries(pms.client)) == 5
