"""The phases of scheduling on providers that the bench makes itself (`Appointment/$find`, `$book`, plain Appointments).

Times lie in 2035, so that no booking is past; each run makes providers of its own, so that it meets none of another.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from bench.answers import Answer
from bench.http import Target
from bench.measuring import Lane, Limits, Phase, Request, measure

PROVIDERS, DAYS, VISITS, BOOKED = 20, 14, 20, 0.8
"""Providers, days, half hours of each day, and the share of them that is booked before `$find` is asked."""

_FIRST = datetime(2035, 3, 5, 8, tzinfo=UTC)
_HALF_HOUR = timedelta(minutes=30)
_AT_ONCE = 40
"""Appointments of a bundle of the preparation."""
_OURS = "https://fhir-server.example/StructureDefinition"


def make_providers(count: int) -> tuple[list[str], list[dict[str, Any]]]:
    """(ids, Practitioners with a role open from 08:00 to 18:00 UTC every day and a Schedule)."""
    ids = [uuid.uuid4().hex for _ in range(count)]
    ahead = {"value": 10_000, "unit": "d", "system": "http://unitsofmeasure.org", "code": "d"}
    parts = [{"url": "horizon", "valueDuration": ahead}]
    rules = [
        {"url": "http://hl7.org/fhir/StructureDefinition/timezone", "valueCode": "UTC"},
        {"url": f"{_OURS}/scheduling-parameters", "extension": parts},
    ]
    week = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
    hours = {"daysOfWeek": week, "availableStartTime": "08:00:00", "availableEndTime": "18:00:00"}
    found: list[dict[str, Any]] = []
    for id in ids:
        who = {"reference": f"Practitioner/{id}"}
        found += [
            {"resourceType": "Practitioner", "id": id},
            {"resourceType": "PractitionerRole", "id": id, "practitioner": who, "availableTime": [hours]},
            {"resourceType": "Schedule", "id": id, "actor": [who], "extension": rules},
        ]
    return ids, found


def list_visits(ids: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Appointments of half an hour without end: provider after provider, then the next half hour, then the next day."""
    number = 0
    while True:
        day, half_hour = divmod(number, VISITS)
        start = _FIRST + timedelta(days=day) + half_hour * _HALF_HOUR
        for id in ids:
            yield make_visit(id, start)
        number += 1


def make_visit(id: str, start: datetime) -> dict[str, Any]:
    """A booked Appointment of half an hour."""
    return {
        "resourceType": "Appointment",
        "status": "booked",
        "start": start.isoformat(),
        "end": (start + _HALF_HOUR).isoformat(),
        "participant": [{"actor": {"reference": f"Practitioner/{id}"}, "status": "accepted"}],
    }


class Find:
    """The first page of free times of all providers over all days."""

    name = "find"

    def __init__(self, target: Target, ids: Iterable[str]) -> None:
        last = _FIRST + timedelta(days=DAYS)
        named = "&".join(f"practitioner=Practitioner/{id}" for id in ids)
        path = f"Appointment/$find?start={_FIRST.date()}&end={last.date()}&{named}"
        self._request = Request(target.request("GET", path), "find", (200,))

    def ask(self) -> Request:
        """See `Phase.ask`."""
        return self._request

    def learn(self, request: Request, answer: Answer) -> bool:
        """See `Phase.learn`; an answer without a proposal is none."""
        return b'"proposed"' in answer.body


class Book:
    """Visits at free times: by `$book`, or as plain Appointments, which the rule of booking is asked about as well."""

    name = "book"

    def __init__(self, target: Target, ids: Sequence[str], path: str) -> None:
        self._target, self._visits, self._path = target, list_visits(ids), path

    def ask(self) -> Request:
        """See `Phase.ask`."""
        visit: dict[str, Any] = next(self._visits)
        if self._path.endswith("$book"):
            parameter = [{"name": "appointment-resource", "resource": visit}]
            visit = {"resourceType": "Parameters", "parameter": parameter}
        return Request(self._target.request("POST", self._path, orjson.dumps(visit)), self._path, (201,))

    def learn(self, request: Request, answer: Answer) -> bool:
        """See `Phase.learn`."""
        return True


class _Store:
    """Posts bundles that store resources; the preparation."""

    name = "store"

    def __init__(self, target: Target, bundles: Iterable[Sequence[dict[str, Any]]]) -> None:
        self._bundles = [target.request("POST", "", _make_bundle(each)) for each in bundles]

    def ask(self) -> Request | None:
        return Request(self._bundles.pop(0), "store", (200,)) if self._bundles else None

    def learn(self, request: Request, answer: Answer) -> bool:
        return True


def _make_bundle(resources: Iterable[dict[str, Any]]) -> bytes:
    entries = [
        {
            "resource": each,
            "request": {"method": "PUT", "url": f"{each['resourceType']}/{each['id']}"}
            if "id" in each
            else {"method": "POST", "url": each["resourceType"]},
        }
        for each in resources
    ]
    return orjson.dumps({"resourceType": "Bundle", "type": "transaction", "entry": entries})


async def store(lane: Lane, bundles: Iterable[Sequence[dict[str, Any]]]) -> None:
    """Store the resources of each bundle together. Raises ValueError when the server refuses some."""
    phases: list[Phase] = [_Store(lane.target, bundles)]
    (samples,) = await measure([lane], phases, Limits(None))
    for status, text in samples.first_texts.items():
        raise ValueError(f"`{lane.target.url}` answered {status} to what scheduling needs. {text}")


async def prepare_providers(lane: Lane) -> list[str]:
    """The ids of new providers with nothing booked."""
    ids, resources = make_providers(PROVIDERS)
    await store(lane, [resources])
    return ids


async def prepare_booked(lane: Lane, rng: random.Random) -> list[str]:
    """The ids of new providers, most of whose time is booked."""
    ids = await prepare_providers(lane)
    half_hours = [_FIRST + timedelta(days=day) + n * _HALF_HOUR for day in range(DAYS) for n in range(VISITS)]
    # provider after provider, so that the bundles under way at once want different locks
    visits = [make_visit(id, start) for id in ids for start in half_hours if rng.random() < BOOKED]
    await store(lane, [visits[at : at + _AT_ONCE] for at in range(0, len(visits), _AT_ONCE)])
    return ids
