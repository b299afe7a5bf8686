"""The phases on resources that the bench makes itself: read, crud and transaction (https://hl7.org/fhir/R4/http.html)."""

from __future__ import annotations

import random
import uuid
from typing import ClassVar

import orjson

from bench.answers import Answer, read_text
from bench.http import Target
from bench.measuring import Lane, Limits, Phase, Request, measure

READ_PATIENTS = 200
CRUD_PATIENTS = 200

CRUD_MIX = (("create", 10), ("read", 60), ("update", 25), ("delete", 5))
"""Interaction and its share in percent."""

FAMILIES = ("Abbott", "Considine", "Frami", "Hyatt", "Mante", "Padberg", "Stracke", "Tromp", "Von", "Wyman")
GIVEN = ("Ada", "Blake", "Cletus", "Dominga", "Fredrick", "Juliette", "Malcolm", "Oda", "Rusty", "Veta")


def make_patient(rng: random.Random, id: str | None = None) -> bytes:
    """A Patient of about 700 bytes, different at every call."""
    number = rng.getrandbits(48)
    resource = {
        "resourceType": "Patient",
        "identifier": [{"system": "urn:oid:2.16.840.1.113883.4.3.25", "value": f"{number:015d}"}],
        "active": True,
        "name": [{"use": "official", "family": rng.choice(FAMILIES), "given": [rng.choice(GIVEN), rng.choice(GIVEN)]}],
        "telecom": [
            {"system": "phone", "value": f"555-{number % 10_000_000:07d}", "use": "home"},
            {"system": "email", "value": f"p{number}@example.org", "use": "work"},
        ],
        "gender": rng.choice(("female", "male", "other", "unknown")),
        "birthDate": f"{rng.randint(1925, 2020)}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}",
        "address": [
            {
                "use": "home",
                "line": [f"{number % 900 + 1} Main Street"],
                "city": "Boston",
                "state": "MA",
                "country": "US",
            }
        ],
        "maritalStatus": {
            "coding": [{"system": "http://terminology.hl7.org/CodeSystem/v3-MaritalStatus", "code": "M"}],
            "text": "Married",
        },
        "communication": [{"language": {"coding": [{"system": "urn:ietf:bcp:47", "code": "en-US"}]}}],
    }
    if id is not None:
        resource["id"] = id
    return orjson.dumps(resource)


class Read:
    """Reads of a random Patient among those given."""

    name = "read"

    def __init__(self, target: Target, ids: list[str], rng: random.Random) -> None:
        self._rng = rng
        self._requests = [Request(target.request("GET", f"Patient/{id}"), "read", (200,)) for id in ids]

    def ask(self) -> Request:
        """See `Phase.ask`."""
        return self._rng.choice(self._requests)

    def learn(self, request: Request, answer: Answer) -> bool:
        """See `Phase.learn`."""
        return True


class Crud:
    """The mix of CRUD_MIX over a growing pool of Patients.

    A Patient leaves the pool while a request on it is under way: a read that meets a delete is no error of the server.
    """

    name = "crud"
    _expected: ClassVar = {"create": (201,), "read": (200,), "update": (200,), "delete": (200, 204)}

    def __init__(self, target: Target, ids: list[str], rng: random.Random) -> None:
        self._target = target
        self._rng = rng
        self._pool = list(ids)
        self._mix = [name for name, share in CRUD_MIX for _ in range(share)]

    def ask(self) -> Request:
        """See `Phase.ask`."""
        does = self._rng.choice(self._mix) if self._pool else "create"
        if does == "create":
            text = self._target.request("POST", "Patient", make_patient(self._rng))
            return Request(text, does, self._expected[does])
        id = self._take()
        path = f"Patient/{id}"
        if does == "update":
            text = self._target.request("PUT", path, make_patient(self._rng, id))
        else:
            text = self._target.request("GET" if does == "read" else "DELETE", path)
        return Request(text, does, self._expected[does], key=id)

    def learn(self, request: Request, answer: Answer) -> bool:
        """See `Phase.learn`."""
        if request.label == "create":
            self._pool.append(read_created_id(answer))
        elif request.label != "delete":
            self._pool.append(request.key)
        return True

    def _take(self) -> str:
        pool = self._pool
        index = self._rng.randrange(len(pool))
        pool[index], pool[-1] = pool[-1], pool[index]
        return pool.pop()


class Transaction:
    """Bundles of {Patient, Encounter, 2 Observations} that point to each other by `urn:uuid`."""

    name = "transaction"

    def __init__(self, target: Target, rng: random.Random) -> None:
        self._target = target
        self._rng = rng

    def ask(self) -> Request:
        """See `Phase.ask`."""
        return Request(self._target.request("POST", "", make_visit(self._rng)), "transaction", (200,), 4)

    def learn(self, request: Request, answer: Answer) -> bool:
        """See `Phase.learn`."""
        return True


def make_visit(rng: random.Random) -> bytes:
    """A transaction bundle: a Patient, an Encounter and two Observations made in it."""
    who, when = (f"urn:uuid:{uuid.UUID(int=rng.getrandbits(128), version=4)}" for _ in range(2))
    day = f"{rng.randint(2010, 2024)}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}"
    encounter = {
        "resourceType": "Encounter",
        "status": "finished",
        "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "AMB"},
        "subject": {"reference": who},
        "period": {"start": f"{day}T09:00:00-05:00", "end": f"{day}T09:30:00-05:00"},
    }
    weight = _make_observation(
        who, when, f"{day}T09:10:00-05:00", ("29463-7", "Body Weight", rng.randint(400, 1200) / 10, "kg")
    )
    height = _make_observation(
        who, when, f"{day}T09:12:00-05:00", ("8302-2", "Body Height", rng.randint(1400, 2000) / 10, "cm")
    )
    entries = [
        _make_create(who, "Patient", make_patient(rng)),
        _make_create(when, "Encounter", orjson.dumps(encounter)),
        _make_create(f"urn:uuid:{uuid.UUID(int=rng.getrandbits(128), version=4)}", "Observation", weight),
        _make_create(f"urn:uuid:{uuid.UUID(int=rng.getrandbits(128), version=4)}", "Observation", height),
    ]
    return b'{"resourceType":"Bundle","type":"transaction","entry":[%b]}' % b",".join(entries)


def _make_observation(who: str, when: str, at: str, measured: tuple[str, str, float, str]) -> bytes:
    code, display, value, unit = measured
    category = {"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "vital-signs"}
    return orjson.dumps(
        {
            "resourceType": "Observation",
            "status": "final",
            "category": [{"coding": [category]}],
            "code": {"coding": [{"system": "http://loinc.org", "code": code, "display": display}], "text": display},
            "subject": {"reference": who},
            "encounter": {"reference": when},
            "effectiveDateTime": at,
            "valueQuantity": {"value": value, "unit": unit, "system": "http://unitsofmeasure.org", "code": unit},
        }
    )


def _make_create(full_url: str, type: str, resource: bytes) -> bytes:
    return b'{"fullUrl":"%b","resource":%b,"request":{"method":"POST","url":"%b"}}' % (
        full_url.encode(),
        resource,
        type.encode(),
    )


class _Create:
    """Makes Patients and keeps their ids; the preparation of read and crud."""

    name = "create"

    def __init__(self, target: Target, rng: random.Random) -> None:
        self._target = target
        self._rng = rng
        self.ids: list[str] = []

    def ask(self) -> Request:
        return Request(self._target.request("POST", "Patient", make_patient(self._rng)), "create", (201,))

    def learn(self, request: Request, answer: Answer) -> bool:
        self.ids.append(read_created_id(answer))
        return True


async def create_patients(lane: Lane, count: int, rng: random.Random) -> list[str]:
    """The ids of that many new Patients. Raises ValueError when the server refuses one."""
    phase: _Create = _Create(lane.target, rng)
    made: list[Phase] = [phase]
    (samples,) = await measure([lane], made, Limits(None, count))
    for status, text in samples.first_texts.items():
        raise ValueError(f"`{lane.target.url}` answered {status} to the create of a Patient. {text}")
    return phase.ids


def read_created_id(answer: Answer) -> str:
    """The id in the Location of a create. Raises ValueError without one."""
    parts = (answer.header("location") or "").split("/_history/")[0].split("/")
    if len(parts) < 2 or parts[-2] != "Patient":
        raise ValueError(f"A create was answered without the Location of the Patient: {read_text(answer.body)}")
    return parts[-1]
