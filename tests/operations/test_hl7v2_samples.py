"""Every sample of the corpus goes through `$hl7v2`: stored as its authors expect, or refused with AR and kept."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fhir_server.app import Knowledge, Seams
from fhir_server.workers.hl7v2_intake import read_header
from fhir_server.workers.message_codes import find_parts, read_acknowledgement
from fhir_server.workers.message_tasks import IncomingMessage
from mappers.hl7v2.mapping import find_event
from tests.conftest import Client, serving
from tests.mappers.hl7v2.test_hl7v2_corpus import (
    COMPARED,
    REFUSED,
    assert_enough,
    count_differences,
    expected_of,
    is_supported,
    read,
    samples,
)
from tests.workers.hl7v2_messages import read_codes

pytestmark = pytest.mark.anyio

ER7 = {"Content-Type": "x-application/hl7-v2+er7"}
EMPTY = Seams(definitions=None)


@pytest.fixture
def profiles(tmp_path: Path) -> str:
    """The folder of a partner that takes test messages of any sender."""
    text = 'name = "any"\nformats = ["hl7v2"]\nzone = "UTC"\n[hl7v2]\nprocessing = ["P", "T", "D", ""]\n'
    (tmp_path / "partners").mkdir()
    (tmp_path / "partners" / "any.toml").write_text(text)
    return str(tmp_path)


async def send(client: Client, path: Path) -> dict[str, Any]:
    """Sends a sample and gives its Task; fails where acknowledgement, state or text are not what they have to be."""
    message, raw = read(path), path.read_bytes()
    answer = await client.fhir("POST", "$hl7v2", content=raw, headers=ER7)
    assert answer.status_code in (200, 204), (path.name, answer.text)
    id = IncomingMessage("any", "hl7v2", read_header(raw).text(10), raw, ER7["Content-Type"]).id
    task: dict[str, Any] = (await client.fhir("GET", f"Task/{id}")).json()
    wanted = "AE" if path.stem in REFUSED else "AA" if is_supported(message) else "AR"
    reason = (path.name, task.get("statusReason"))
    assert task["businessStatus"]["coding"][0]["code"] == ("acknowledged" if wanted == "AA" else "refused"), reason
    assert read_codes(answer.content) == read_codes(read_acknowledgement(task)), path.name
    assert set(read_codes(answer.content)) <= {"CA", "CR", wanted}, (reason, answer.text)
    text = await client.fhir("GET", f"Binary/{task['id']}", headers={"Accept": ER7["Content-Type"]})
    assert text.content == raw, path.name
    return task


async def read_made(client: Client, task: dict[str, Any]) -> list[dict[str, Any]]:
    """The resources that the Task of a message names as made, as the server has them."""
    references = [part["valueReference"]["reference"] for part in find_parts(task, "result")]
    if not references:
        return []
    entry = [{"request": {"method": "GET", "url": each.partition("/_history")[0]}} for each in references]
    answer = await client.fhir("POST", "", json={"resourceType": "Bundle", "type": "batch", "entry": entry})
    assert answer.status_code == 200, answer.text
    return [each["resource"] for each in answer.json()["entry"]]


async def test_what_is_stored_of_a_sample_is_what_its_authors_expect(
    known: Knowledge, shared: Path, profiles: str
) -> None:
    """Each sample meets an empty store: what an earlier one has brought would stay, where only that may change it."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    faults: dict[str, list[str]] = defaultdict(list)
    for path in samples(shared):
        async with serving(known, EMPTY, store="memory://", profiles=profiles, invariants="enforce") as client:
            task = await send(client, path)
            message = read(path)
            if task["status"] != "rejected" and (expected := expected_of(path)) and find_event(message)[0] in COMPARED:
                count_differences(path, message, expected, await read_made(client, task), counts, faults)
    assert_enough(counts, faults)


@pytest.mark.parametrize(("store", "step"), [("sqlite", 1), ("mongo", 3)])
async def test_samples_go_into_one_store(
    known: Knowledge,
    shared: Path,
    profiles: str,
    tmp_path: Path,
    store: str,
    step: int,
    new_mongo_uri: Callable[[], str],
) -> None:
    uri = new_mongo_uri() if store == "mongo" else f"sqlite:///{tmp_path}/fhir.db"
    async with serving(known, EMPTY, store=uri, profiles=profiles, invariants="enforce") as client:
        for path in samples(shared)[::step]:
            await send(client, path)
