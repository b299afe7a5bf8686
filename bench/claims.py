"""The phase of claims on a practice that the bench makes itself: a day assembled, each of its claims judged and split.

Each run takes a day and people of its own (`Claim/$assemble`, `$scrub`, `$split`; https://hl7.org/fhir/R4/claim.html).
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from typing import Any

import orjson

from bench.answers import Answer, read_text
from bench.http import Target
from bench.measuring import Lane, Limits, Phase, Request, Samples, get_connection, measure
from bench.scheduling import store

VISITS = 200
"""Visits of the day, of two procedures each."""

_AT_ONCE = 10
"""Visits of a bundle of the preparation."""

_CPT = "http://www.ama-assn.org/go/cpt"
_PRICES = {"99213": 120, "93000": 45.5}


def make_practice() -> list[dict[str, Any]]:
    """The practice, its payer and the prices; the same in every run, since two prices of one code would clash."""
    prices = [
        {
            "resourceType": "ChargeItemDefinition",
            "id": f"bench-{code}",
            "url": f"https://bench.example/charges/{code}",
            "status": "active",
            "code": _code(_CPT, code),
            "propertyGroup": [{"priceComponent": [{"type": "base", "amount": {"value": price, "currency": "USD"}}]}],
        }
        for code, price in _PRICES.items()
    ]
    others = [{"resourceType": "Organization", "id": f"bench-{each}", "name": each} for each in ("practice", "payer")]
    return [*others, *prices]


def list_visits(day: date, count: int) -> Iterator[list[dict[str, Any]]]:
    """Each a patient with a coverage, an Encounter of that day, and two Procedures that nobody has charged."""
    for _ in range(count):
        id = uuid.uuid4().hex
        who, encounter = {"reference": f"Patient/{id}"}, {"reference": f"Encounter/{id}"}
        payor = [{"reference": "Organization/bench-payer"}]
        done = {"subject": who, "encounter": encounter, "performedDateTime": f"{day}T10:05:00Z"}
        yield [
            {"resourceType": "Patient", "id": id, "name": [{"family": "Bench"}], "birthDate": "1970-01-02"},
            {"resourceType": "Coverage", "id": id, "status": "active", "subscriberId": id[:12], "beneficiary": who,
             "payor": payor},
            {"resourceType": "Encounter", "id": id, "status": "finished", "class": {"code": "AMB"}, "subject": who,
             "period": {"start": f"{day}T10:00:00Z", "end": f"{day}T10:20:00Z"},
             "serviceProvider": {"reference": "Organization/bench-practice"},
             "reasonCode": [_code("http://hl7.org/fhir/sid/icd-10-cm", "I10")]},
            *(
                {"resourceType": "Procedure", "id": f"{id}-{code}", "status": "completed", "code": _code(_CPT, code),
                 **done}
                for code in _PRICES
            ),
        ]  # fmt: skip


def _code(system: str, code: str) -> dict[str, Any]:
    return {"coding": [{"system": system, "code": code}]}


class Judge:
    """One of the operations on each claim, in turn."""

    name = "claims"

    def __init__(self, target: Target, ids: Sequence[str], operation: str) -> None:
        paths = [f"Claim/{id}/${operation}" for id in ids]
        self._requests = [Request(target.request("POST", each), operation, (200,)) for each in paths]

    def ask(self) -> Request | None:
        """See `Phase.ask`."""
        return self._requests.pop() if self._requests else None

    def learn(self, request: Request, answer: Answer) -> bool:
        """See `Phase.learn`."""
        return True


async def measure_claims(lane: Lane) -> Samples:
    """A day assembled in one request, then each of its claims scrubbed and split (dry run)."""
    day = date(1990, 1, 1) + timedelta(days=random.SystemRandom().randrange(10_000))
    await store(lane, [make_practice()])
    visits = list(list_visits(day, VISITS))
    bundles = (visits[at : at + _AT_ONCE] for at in range(0, VISITS, _AT_ONCE))
    await store(lane, [[each for visit in several for each in visit] for several in bundles])
    samples, ids = await _assemble(lane, day)
    for operation in ("scrub", "split"):
        phases: list[Phase] = [Judge(lane.target, ids, operation)]
        (judged,) = await measure([lane], phases, Limits(None))
        samples.seconds += judged.seconds
        samples.latencies |= judged.latencies
        samples.errors.update(judged.errors)
        samples.first_texts |= judged.first_texts
    return samples


async def _assemble(lane: Lane, day: date) -> tuple[Samples, list[str]]:
    samples, began = Samples(), time.perf_counter()
    request = lane.target.request("POST", f"Claim/$assemble?start={day}&end={day}")
    answer = await (await get_connection(lane, 0)).exchange(request)
    samples.seconds = time.perf_counter() - began
    tree = orjson.loads(answer.body)
    ids = [each["resource"]["id"] for each in tree.get("parameter", ()) if each["name"] == "claim"]
    if answer.status == 200 and len(ids) == VISITS:
        samples.latencies["assemble a day"].append(samples.seconds)
    else:
        samples.wrong(answer.status, f"$assemble made {len(ids)} claims: {read_text(answer.body)}")
    return samples, ids
