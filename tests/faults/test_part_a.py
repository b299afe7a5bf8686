"""Whatever one client sends, another one's reads and small writes go on, and memory stays bounded.

Two workers on SQLite get every input that once stopped them. A read may wait twice as long as `orjson.loads` takes for
the largest body in the same run, and 250 ms beside bodies of up to 1 MB; a small write 2 s. These times are of an idle
machine that counts to ten million in 0.8 s: how long that takes at the time, beside all else, is measured before.
What is beyond its bound is measured again, up to three times: what keeps others waiting does so each time.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import multiprocessing
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from tests.cost.measuring import REPEATS
from tests.faults.process import Process, serving_process, workers

pytestmark = [pytest.mark.anyio, pytest.mark.long]

JSON = {"content-type": "application/fhir+json"}
JSON_PATCH = {"content-type": "application/json-patch+json"}
FORM = {"content-type": "application/x-www-form-urlencoded"}

READ_SECONDS, WRITE_SECONDS = 0.25, 2.0
COUNT_SECONDS = 0.8
MEGABYTES = 650
"""Most of a worker, with bodies of up to 14 MB (367 were measured): the worst of docs/limits.md is for 100 MB."""

Sent = tuple[str, str, bytes, dict[str, str]]
"""Method, path, body, headers."""


def patient(**members: Any) -> bytes:
    return orjson.dumps({"resourceType": "Patient", "id": "big", **members})


def bundle(kind: str, entries: list[dict[str, Any]]) -> bytes:
    return orjson.dumps({"resourceType": "Bundle", "type": kind, "entry": entries})


def many_members(repeat: int) -> list[Sent]:
    body = gzip.compress(b"") * 250_000 + gzip.compress(b'{"resourceType":"Patient"}')
    return [("POST", "/Patient", body, {**JSON, "content-encoding": "gzip"})] * 2


def many_values(repeat: int) -> list[Sent]:
    names = [patient(name=[{"family": f"f{n}"} for n in range(count)]) for count in (10_000, 40_000, 120_000)]
    given = patient(name=[{"given": [f"g{n}" for n in range(1_000_000)]}])
    long = patient(name=[{"family": base64.b64encode(bytes(range(256)) * 300).decode()}])
    return [("PUT", "/Patient/big", body, JSON) for body in (*names, given, long)]


def conditional_creates(repeat: int) -> list[Sent]:
    entries = [
        {
            "resource": {
                "resourceType": "Observation",
                "status": "final",
                "code": {"text": "x"},
                "identifier": [{"system": f"urn:a3:{repeat}", "value": str(number)}],
            },
            "request": {"method": "POST", "url": "Observation", "ifNoneExist": f"identifier=urn:a3:{repeat}|{number}"},
        }
        for number in range(2000)
    ]
    return [("POST", "", bundle("transaction", entries), JSON)]


def patches(repeat: int) -> list[Sent]:
    contacts = patient(contact=[{"name": {"family": "f"}, "gender": "male"}] * 1000)
    path = "Patient.contact.where(" + "name.where(family='f').family='f' and " * 25 + "gender='female')"
    part = [{"name": "type", "valueCode": "delete"}, {"name": "path", "valueString": path}]
    fhirpath = {"resourceType": "Parameters", "parameter": [{"name": "operation", "part": part}] * 20}
    copies = [
        each
        for _ in range(3000)
        for each in ({"op": "copy", "from": "/resourceType", "path": "/y"}, {"op": "remove", "path": "/y"})
    ]
    doubling = [{"op": "copy", "from": "/contact", "path": f"/contact/{n}/x"} for n in range(900)]
    return [
        ("PUT", "/Patient/big", contacts, JSON),
        ("PATCH", "/Patient/big", orjson.dumps(fhirpath), JSON),
        ("PATCH", "/Patient/big", orjson.dumps(copies), JSON_PATCH),
        ("PATCH", "/Patient/big", orjson.dumps(doubling), JSON_PATCH),
    ]


def products(repeat: int) -> list[Sent]:
    """Lists that multiply inside one small resource."""
    codes = {"coding": [{"system": "u", "code": f"c{n}"} for n in range(10_000)]}
    observation = {"resourceType": "Observation", "status": "final", "code": codes, "valueCodeableConcept": codes}
    members = [{"entity": {"reference": f"Patient/p{n}"}} for n in range(15_000)]
    group = {"resourceType": "Group", "type": "person", "actual": True, "member": members}
    quantity = {"value": 1, "system": "http://unitsofmeasure.org", "code": ".".join(f"{{a{n}}}" for n in range(90_000))}
    measured = {"resourceType": "Observation", "status": "final", "code": {"text": "x"}, "valueQuantity": quantity}
    return [
        ("POST", "/Observation", orjson.dumps(observation), JSON),
        ("POST", "/Group", orjson.dumps(group), JSON),
        ("POST", "/Observation", orjson.dumps(measured), JSON),
        ("PUT", "/Patient/big", patient(name=[{"family": "a" + "\u0301\u0323" * 200_000}]), JSON),
    ]


def large_answers(repeat: int) -> list[Sent]:
    binary = {
        "resourceType": "Binary",
        "id": "big",
        "contentType": "application/pdf",
        "data": base64.b64encode(bytes(3_000_000)).decode(),
    }
    reads = [{"request": {"method": "GET", "url": "Binary/big"}}] * 300
    statements = [{"request": {"method": "GET", "url": "metadata"}}] * 1000
    return [
        ("PUT", "/Binary/big", orjson.dumps(binary), JSON),
        ("POST", "", bundle("batch", reads), JSON),
        ("POST", "", bundle("batch", statements), JSON),
        ("POST", "", bundle("transaction", reads), JSON),
    ]


def searches(repeat: int) -> list[Sent]:
    parameter = {
        "resourceType": "SearchParameter",
        "url": "http://example.org/many",
        "name": "many",
        "status": "active",
        "description": "many",
        "code": "many",
        "base": ["Patient"],
        "type": "string",
        "expression": " | ".join(["Patient.name.given"] * 5000),
    }
    families = "family=" + ",".join(f"f{number}" for number in range(5000))
    return [
        ("POST", "/SearchParameter", orjson.dumps(parameter), JSON),
        ("POST", "/Patient/_search", families.encode(), FORM),
        ("GET", "/Organization?_include=*&_include:iterate=*&_revinclude=*&_count=1000", b"", {}),
    ]


PART_A: dict[str, Callable[[int], list[Sent]]] = {
    "A1": many_members,
    "A2": many_values,
    "A2, what multiplies": products,
    "A3": conditional_creates,
    "A4, A5": patches,
    "A6": large_answers,
    "A7, A8": searches,
}


def resident(process: Process) -> float:
    """The largest resident memory in MB that a worker ever had."""
    peaks = []
    for worker in workers(process):
        with suppress(FileNotFoundError):
            text = Path(f"/proc/{worker}/status").read_text()
            peaks.append(int(text.partition("VmHWM:")[2].split()[0]) / 1024)
    return max(peaks)


def watch(base: str, waits: Connection) -> None:
    """In a process of its own: read and write all the time; at the end of the pipe's patience, the longest waits."""

    async def repeat(longest: list[float], method: str, url: str, **options: Any) -> None:
        async with httpx.AsyncClient(base_url=base, timeout=60) as client:
            while not waits.poll():
                began = time.perf_counter()
                answer = await client.request(method, url, **options)
                longest[0] = max(longest[0], time.perf_counter() - began)
                assert answer.status_code in (200, 201), answer.text
                await asyncio.sleep(0.01)

    async def watch_all() -> None:
        reads, writes = [0.0], [0.0]
        body = {"resourceType": "Basic", "code": {"text": "x"}}
        async with httpx.AsyncClient(base_url=base, timeout=60) as client:
            assert (await client.get("/Patient/small")).status_code == 200
        waits.send("begun")
        read = [repeat(reads, "GET", "/Patient/small") for _ in range(3)]
        write = [repeat(writes, "POST", "/Basic", json=body, headers=JSON) for _ in range(3)]
        await asyncio.gather(*read, *write)
        waits.send((round(reads[0], 3), round(writes[0], 3)))

    asyncio.run(watch_all())


class Watch:
    """Other clients on connections to both workers; `longest` has their longest waits, a read's and a write's."""

    def __init__(self, process: Process) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._ours, theirs = spawn.Pipe()
        self._watcher = spawn.Process(target=watch, args=(process.base, theirs))
        self.longest = (0.0, 0.0)

    async def __aenter__(self) -> Watch:
        self._watcher.start()
        assert await asyncio.to_thread(self._ours.recv) == "begun"
        await asyncio.sleep(0.5)
        return self

    async def __aexit__(self, *error: object) -> None:
        self._ours.send("enough")
        await asyncio.to_thread(self._watcher.join, 120)
        assert self._watcher.exitcode == 0
        self.longest = self._ours.recv()


async def fill(client: httpx.AsyncClient, count: int) -> None:
    """A circle of organizations, each part of the next."""
    entries = [
        {
            "resource": {
                "resourceType": "Organization",
                "id": f"o{number}",
                "name": f"n{number}",
                "partOf": {"reference": f"Organization/o{(number + 1) % count}"},
            },
            "request": {"method": "PUT", "url": f"Organization/o{number}"},
        }
        for number in range(count)
    ]
    answer = await client.post("", content=bundle("transaction", entries), headers=JSON)
    assert answer.status_code == 200, answer.text[:500]


async def test_part_a_keeps_nobody_else_waiting(tmp_path: Path) -> None:
    with serving_process(tmp_path / "fhir.db", "--workers", "2") as process:
        async with process.client() as client:
            small = await client.put("/Patient/small", json={"resourceType": "Patient", "id": "small"}, headers=JSON)
            assert small.status_code == 201
            await fill(client, 5000)
            async with Watch(process) as quiet:
                await asyncio.sleep(3)
            for name, build in PART_A.items():
                for repeat in range(REPEATS):
                    row = await measure(process, client, build(repeat))
                    print(name, json.dumps(row))
                    assert min(row["read"], row["write"]) > 0, (name, row)
                    assert all(status < 500 for status, _ in row["answers"]), (name, row)
                    assert row["peak"] <= MEGABYTES, (name, row)
                    if is_within_bounds(row, quiet.longest):
                        break
                else:
                    raise AssertionError((name, row, quiet.longest))
        assert "Traceback" not in process.log.read_text()


async def measure(process: Process, client: httpx.AsyncClient, sent: list[Sent]) -> dict[str, Any]:
    """What others wait while these are sent, and what it is compared with."""
    largest = max((body for _, _, body, headers in sent if "content-encoding" not in headers), key=len, default=b"")
    pace = max(1.0, count_to_ten_million() / COUNT_SECONDS)
    began = time.perf_counter()
    if largest.startswith(b"{"):
        orjson.loads(largest)
    parse = time.perf_counter() - began
    async with Watch(process) as others:
        answers = await send_all(client, sent)
    return {
        "read": others.longest[0],
        "write": others.longest[1],
        "parse": round(parse, 3),
        "pace": round(pace, 2),
        "answers": answers,
        "peak": round(resident(process)),
    }


def is_within_bounds(row: dict[str, Any], quiet: tuple[float, float]) -> bool:
    """Beside what clients wait for each other."""
    read, write = quiet
    return bool(
        row["read"] <= read + max(READ_SECONDS * row["pace"], 2 * row["parse"])
        and row["write"] <= write + WRITE_SECONDS * row["pace"]
    )


def count_to_ten_million() -> float:
    """Seconds by the clock."""
    began = time.perf_counter()
    exec("count = 0\nwhile count < 10_000_000:\n count += 1", {})
    return time.perf_counter() - began


async def send_all(client: httpx.AsyncClient, sent: list[Sent]) -> list[tuple[int, float]]:
    """Status and seconds of each, one after the other."""
    answers = []
    for method, path, body, headers in sent:
        began = time.perf_counter()
        answer = await client.request(method, path, content=body, headers=headers)
        answers.append((answer.status_code, round(time.perf_counter() - began, 2)))
    return answers
