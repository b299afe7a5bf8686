"""What is looked up in the resources of an answer: large ones are read in a thread, wherever an answer needs it."""

from __future__ import annotations

import asyncio
import threading
from types import ModuleType, SimpleNamespace
from typing import Any

import orjson
import pytest

from fhir_server.app import Knowledge
from fhir_server.interactions import contained, search
from fhir_server.operations.core import everything, lastn
from fhir_server.requests.long_work import THREAD_FROM, LongWork
from fhir_server.search.contained import list_contained
from tests.conftest import Client, serving
from tests.cost.measuring import JSON

pytestmark = pytest.mark.anyio

TEXT = "word " * (THREAD_FROM // 5)
LARGE = 2 * THREAD_FROM
CODE = {"coding": [{"system": "urn:example:codes", "code": "a"}], "text": "x"}


async def store(client: Client, size: int) -> None:
    """A Patient, an Observation of it that holds a Specimen, a Specimen and a Questionnaire, all of that size."""
    note = [{"text": TEXT}] * (size // len(TEXT))
    texts = [{"linkId": str(number), "type": "display", "text": TEXT} for number in range(len(note))]
    specimen = {"resourceType": "Specimen", "id": "s", "note": note}
    observation = {
        "resourceType": "Observation",
        "id": "o",
        "status": "final",
        "code": CODE,
        "subject": {"reference": "Patient/p/_history/1"},
        "effectiveDateTime": "2026-03-04",
        "specimen": {"reference": "#s"},
        "contained": [specimen],
    }
    url = "http://example.org/q"
    for resource in (
        {"resourceType": "Patient", "id": "p", "contact": [{"name": {"text": TEXT}}] * len(note)},
        observation,
        specimen,
        {"resourceType": "Questionnaire", "id": "q", "status": "active", "url": url, "item": texts},
        {"resourceType": "QuestionnaireResponse", "id": "r", "status": "completed", "questionnaire": url},
    ):
        path = f"/{resource['resourceType']}/{resource['id']}"
        answer = await client.put(path, json=resource, headers=JSON)
        assert answer.status_code == 201, answer.text[:500]


def overhear(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bool]]:
    """The length of each text that a module parses, and whether it was on the loop's thread."""
    parsed: list[tuple[int, bool]] = []

    def loads(text: bytes) -> Any:
        parsed.append((len(text), threading.current_thread() is threading.main_thread()))
        return orjson.loads(text)

    monkeypatch.setattr(module, "orjson", SimpleNamespace(loads=loads, dumps=orjson.dumps))
    return parsed


@pytest.mark.parametrize(
    ("module", "url", "count"),
    [
        (search, "Observation?_id=o&_include=Observation:subject", 2),
        (search, "Questionnaire?_id=q&_revinclude=QuestionnaireResponse:questionnaire", 2),
        (search, "Patient?_content=word", 1),
        (contained, "Specimen?_contained=both", 2),
        (everything, "Patient/p/$everything", 2),
        (lastn, "Observation/$lastn?patient=Patient/p&code=a", 1),
    ],
)
async def test_large_resources_of_an_answer_are_read_beside_the_loop(
    known: Knowledge, monkeypatch: pytest.MonkeyPatch, module: ModuleType, url: str, count: int
) -> None:
    async with serving(known, store="memory://", full_text=True) as client:
        await store(client, LARGE)
        parsed = overhear(module, monkeypatch)
        answer = await client.get(f"/{url}")
        assert answer.status_code == 200, answer.text[:500]
        assert len(answer.json()["entry"]) == count
        assert {on_loop for size, on_loop in parsed if size >= THREAD_FROM} == {False}


async def test_large_containers_are_looked_into_beside_the_loop(
    known: Knowledge, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_loop: list[bool] = []

    def look_into(*arguments: Any) -> Any:
        on_loop.append(threading.current_thread() is threading.main_thread())
        return list_contained(*arguments)

    async with serving(known, store="memory://") as client:
        await store(client, LARGE)
        monkeypatch.setattr(contained, "list_contained", look_into)
        assert len((await client.get("/Specimen?_contained=true")).json()["entry"]) == 1
    assert on_loop == [False]


async def test_small_resources_are_read_where_they_are_and_others_get_turns() -> None:
    """One turn for each 64 KiB of small texts, in the order of the resources."""
    long_work, turns, reads = LongWork(), 0, []

    def read(resource: SimpleNamespace) -> int:
        reads.append((turns, threading.current_thread() is threading.main_thread()))
        return len(resource.raw or b"")

    sizes = [1024] * 128 + [THREAD_FROM]

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count_turns())
    assert await long_work.run_each(read, [SimpleNamespace(raw=b"x" * size) for size in sizes]) == sizes
    counting.cancel()
    long_work.close()
    assert [on_loop for _, on_loop in reads] == [True] * 128 + [False]
    assert [turn for turn, _ in reads[:128]] == [0] * 64 + [1] * 64
