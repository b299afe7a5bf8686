"""An invented practice for the tests of booking over HTTP: two doctors, a room, some patients, a clock that is set."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import httpx

from fhir_server.app import Knowledge, Seams
from mappers.scheduling.elements import read_instant
from tests.conftest import Client, serving
from tests.mappers.scheduling.scheduling_resources import parameters, role, schedule

Tree = dict[str, Any]

CHICAGO = {"url": "http://hl7.org/fhir/StructureDefinition/timezone", "valueCode": "America/Chicago"}
PATIENTS = ("ada", "ben", "cy", "dot")
JSON_PATCH = {"content-type": "application/json-patch+json"}


class Clock:
    """A clock that stands until it is set; each look is a microsecond later."""

    def __init__(self, text: str = "2026-03-01T12:00:00Z") -> None:
        self.now = 0
        self.set(text)

    def set(self, text: str) -> None:
        micros = read_instant(text)
        assert micros is not None
        self.now = micros

    def __call__(self) -> int:
        self.now += 1
        return self.now


def doctors(names: Iterable[str] = ("pine", "elm"), **rules: Any) -> list[Tree]:
    """Each with a role open from 08:00 to 18:00 every day, and a Schedule in Chicago; `rules` are its parameters."""
    found: list[Tree] = []
    for name in names:
        extension = [CHICAGO, *([parameters(**rules)] if rules else [])]
        found += [
            {"resourceType": "Practitioner", "id": name},
            role(f"{name}-role", f"Practitioner/{name}", ("08:00:00", "18:00:00")),
            schedule(name, f"Practitioner/{name}", extension=extension),
        ]
    return found


def room(id: str = "room-1") -> Tree:
    kind = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/location-physical-type", "code": "ro"}]}
    return {"resourceType": "Location", "id": id, "physicalType": kind}


def patients() -> list[Tree]:
    return [{"resourceType": "Patient", "id": name} for name in PATIENTS]


def visit(start: str, end: str, *actors: str, status: str = "booked", **more: Any) -> Tree:
    """An Appointment on 2026-03-02 in Chicago; times such as `10:00`, or whole instants."""
    times = {
        name: text if "T" in text else f"2026-03-02T{text}:00-06:00" for name, text in (("start", start), ("end", end))
    }
    participants = [{"actor": {"reference": actor}, "status": "accepted"} for actor in actors]
    return {"resourceType": "Appointment", "status": status, **times, "participant": participants, **more}


async def store(client: Client, resources: Iterable[Tree]) -> None:
    for each in resources:
        answer = await client.put(f"{each['resourceType']}/{each['id']}", json=each)
        assert answer.status_code in (200, 201), answer.text


@asynccontextmanager
async def practice(
    known: Knowledge, uri: str = "memory://", clock: Clock | None = None, **rules: Any
) -> AsyncIterator[Client]:
    """A server with the practice; settings are those of `rules` that begin with `set_`."""
    settings = {name.removeprefix("set_"): value for name, value in rules.items() if name.startswith("set_")}
    rules = {name: value for name, value in rules.items() if not name.startswith("set_")}
    async with serving(known, Seams(clock=clock or Clock()), store=uri, **settings) as client:
        await store(client, [*doctors(**rules), room(), room("room-2"), *patients()])
        yield client


async def patch_status(client: Client, appointment: Tree, status: str) -> httpx.Response:
    change = [{"op": "replace", "path": "/status", "value": status}]
    return await client.fhir("PATCH", f"Appointment/{appointment['id']}", json=change, headers=JSON_PATCH)


async def post(client: Client, resource: Tree, expected: int = 201) -> Tree:
    answer = await client.fhir("POST", resource["resourceType"], json=resource)
    assert answer.status_code == expected, answer.text
    tree: Tree = answer.json()
    return tree


async def call(client: Client, url: str, *pairs: tuple[str, Any], **named: Any) -> httpx.Response:
    """An operation with Parameters: strings as valueString, resources as resource, lists of pairs as parts."""
    given = [*pairs, *((name[0] + name[1:].replace("_", "-"), value) for name, value in named.items())]
    parts = [to_parameter(name, value) for name, value in given]
    body = {"resourceType": "Parameters", **({"parameter": parts} if parts else {})}
    return await client.fhir("POST", url, json=body)


def to_parameter(name: str, value: Any) -> Tree:
    if isinstance(value, dict):
        return {"name": name, "resource": value}
    if isinstance(value, list):
        return {"name": name, "part": [to_parameter(*each) for each in value]}
    if isinstance(value, bool):
        return {"name": name, "valueBoolean": value}
    if isinstance(value, int):
        return {"name": name, "valueInteger": value}
    return {"name": name, "valueString": value}


async def entries(client: Client, query: str) -> list[Tree]:
    answer = await client.get(query)
    assert answer.status_code == 200, answer.text
    return [each["resource"] for each in answer.json().get("entry", ())]


def diagnostics(answer: httpx.Response) -> str:
    return " ".join(issue["diagnostics"] for issue in answer.json()["issue"])
