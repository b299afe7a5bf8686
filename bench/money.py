"""The phases of money on a practice that the bench makes itself: an 835 posted beside reads, and receivables by age.

The server needs the partner of `bench/site` (`FHIR_PROFILES`), and its workers must run (`docs/bench.md`).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import orjson

from bench.answers import Answer, read_text
from bench.measuring import Lane, Samples, ask_json, get_connection
from bench.practice import CLAIMS_OF_PATIENT, Practice
from bench.scheduling import store

LARGEST_SET = 10_000
"""Claims of a transaction set."""

READS_BEFORE = 5.0
"""Seconds for which reads are measured before anything is posted."""

_LOOK, _READ = 0.25, 0.02
"""Seconds between two looks whether all is posted, and between two reads of a connection."""

_HEADERS = (("Content-Type", "application/edi-x12"),)


async def prepare_practice(lane: Lane, claims: int) -> Practice:
    """A new practice whose claims are stored."""
    practice = Practice(f"B{random.SystemRandom().randrange(10**6):06}", datetime.now(UTC).date())
    await store(lane, [practice.make_parties()])
    await store(lane, practice.list_bundles(range(claims)))
    return practice


async def measure_posting(lane: Lane, practice: Practice, claims: int) -> tuple[Samples, Samples, Samples]:
    """Reads alone; an 835 of all claims from its first byte to the end of all that follows; reads beside that.

    All connections but the first one read patients, each 50 times a second at most.
    """
    ids = [f"{practice.mark.lower()}-p{n}" for n in range(-(-claims // CLAIMS_OF_PATIENT))]
    alone, posted, beside = Samples(), Samples(), Samples()
    await _read_beside(lane, ids, alone, asyncio.create_task(asyncio.sleep(READS_BEFORE)))
    posting = asyncio.create_task(_post(lane, practice, claims, posted))
    await _read_beside(lane, ids, beside, posting)
    await posting
    return alone, posted, beside


async def _post(lane: Lane, practice: Practice, claims: int, samples: Samples) -> None:
    sets = [range(start, min(start + LARGEST_SET, claims)) for start in range(0, claims, LARGEST_SET)]
    text = practice.write_835(sets)
    started = time.perf_counter()
    request = lane.target.request("POST", "$x12", text, _HEADERS)
    answer = await (await get_connection(lane, 0)).exchange(request)
    samples.latencies["taken in"].append(time.perf_counter() - started)
    if answer.status not in (200, 202) or b'"rejected"' in answer.body:
        samples.wrong(answer.status, f"$x12: {read_text(answer.body)}")
        return
    for each in sets:
        payment = await _wait_for(lane, practice.trace(each))
        samples.latencies["set posted"].append(time.perf_counter() - started)
        if payment.get("status") != "active" or len(payment.get("detail", ())) != len(each):
            samples.wrong(answer.status, f"The set of {each} was not posted: {payment.get('disposition')}")
        samples.resources += len(each)
    samples.seconds = time.perf_counter() - started


async def _wait_for(lane: Lane, trace: str) -> dict[str, Any]:
    """The PaymentReconciliation of a trace number, once nothing of it waits."""
    path = f"PaymentReconciliation?payment-identifier={trace}"
    # counted, since the resource has a detail for each claim
    while (await ask_json(lane, f"{path}&outcome=complete,error&_summary=count"))["total"] == 0:
        await asyncio.sleep(_LOOK)
    payment: dict[str, Any] = (await ask_json(lane, path))["entry"][0]["resource"]
    return payment


async def _read_beside(lane: Lane, ids: Sequence[str], samples: Samples, until: asyncio.Task[None]) -> None:
    async with asyncio.TaskGroup() as group:
        for index in range(1, len(lane.connections)):
            group.create_task(_read(lane, index, ids, samples, until))


async def _read(lane: Lane, index: int, ids: Sequence[str], samples: Samples, until: asyncio.Task[None]) -> None:
    rng, started = random.Random(index), time.perf_counter()
    while not until.done():
        asked = time.perf_counter()
        answer = await (await get_connection(lane, index)).exchange(
            lane.target.request("GET", f"Patient/{rng.choice(ids)}")
        )
        _count(samples, "read", answer, time.perf_counter() - asked)
        await asyncio.sleep(_READ)
    samples.seconds = time.perf_counter() - started


def _count(samples: Samples, label: str, answer: Answer, took: float) -> None:
    if answer.status == 200:
        samples.latencies[label].append(took)
        samples.resources += 1
    else:
        samples.wrong(answer.status, f"{label}: {read_text(answer.body)}")


async def measure_aging(lane: Lane) -> Samples:
    """Receivables by age today, as a job where the server says so: from the request to the report."""
    samples = Samples()
    started = time.perf_counter()
    headers = (("Prefer", "respond-async"),)
    request = lane.target.request("GET", "$ar-aging", b"", headers)
    answer = await (await get_connection(lane, 0)).exchange(request)
    where = answer.header("content-location") or ""
    while answer.status == 202 and where:
        await asyncio.sleep(_LOOK)
        path = where.removeprefix(lane.target.url).lstrip("/")
        answer = await (await get_connection(lane, 0)).exchange(lane.target.request("GET", path))
    samples.seconds = time.perf_counter() - started
    is_report = answer.status == 200 and orjson.loads(answer.body)["resourceType"] == "MeasureReport"
    _count(samples, "aging", answer if is_report else Answer(0, b"", answer.body), samples.seconds)
    return samples
