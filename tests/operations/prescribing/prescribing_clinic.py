"""An invented practice for the tests of prescriptions over HTTP: a doctor with an NPI, two patients."""

from __future__ import annotations

from typing import Any

import httpx

from tests.conftest import Client
from tests.mappers.prescribing.prescriptions import DEA, Tree, practitioner
from tests.operations.scheduling.booking_clinic import entries, store, to_parameter


async def open_practice(client: Client, *resources: Tree, dea: str = DEA) -> None:
    """Store the doctor, the patients, and what a test needs beside them."""
    people = [{"resourceType": "Patient", "id": name} for name in ("ada", "ben")]
    await store(client, [practitioner(dea=dea), *people, *resources])


async def ask(client: Client, url: str, **parameters: Any) -> httpx.Response:
    """POST of an operation; `_` in a name is `-`, a list repeats the parameter."""
    parts = [
        to_parameter(name.replace("_", "-"), each)
        for name, value in parameters.items()
        for each in (value if isinstance(value, list) else [value])
    ]
    body = {"resourceType": "Parameters", **({"parameter": parts} if parts else {})}
    return await client.fhir("POST", url, json=body)


async def read(client: Client, id: str) -> Tree:
    tree: Tree = (await client.fhir("GET", f"MedicationRequest/{id}")).json()
    return tree


async def count_active(client: Client, patient: str = "ada") -> int:
    return len(await entries(client, f"MedicationRequest?patient={patient}&status=active"))


def checks(response: httpx.Response) -> list[tuple[str, str]]:
    """(severity, check) of each issue of an outcome, or of that among the Parameters of an answer."""
    body = response.json()
    if body["resourceType"] == "Parameters":
        body = next(each["resource"] for each in body["parameter"] if each["name"] == "outcome")
    return [(each["severity"], each["details"]["coding"][0]["code"]) for each in body["issue"] if "details" in each]
