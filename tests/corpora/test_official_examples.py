"""Every official R4 example is accepted and read back as it was sent (https://hl7.org/fhir/R4/examples.html).

The resources of the official packages that break base R4 are named in `tests/validation/test_structure_corpora.py`;
none of the examples does.
"""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from fhir_server.app import Knowledge, Seams
from tests.conftest import Client, leave_invariants_out, serving
from tests.corpora.corpus import JSON, Sent, differing, examples, spread, walk

pytestmark = pytest.mark.anyio

AS_SENT: dict[str, Any] = {"references": "allow", "booking": "off", "encounter_moves_appointment": False}
"""Settings under which nothing is checked or moved beyond base R4."""


async def put(client: Client, sent: Sent) -> str:
    """Store it at its own id, or at one that the server chooses; the `Type/id` it got."""
    if sent.id is None:
        return await post(client, sent)
    answer = await client.put(f"/{sent.type}/{sent.id}", content=sent.raw, headers=JSON)
    assert answer.status_code == 201, (sent.name, answer.text)
    return f"{sent.type}/{sent.id}"


async def post(client: Client, sent: Sent) -> str:
    answer = await client.post(f"/{sent.type}", content=sent.raw, headers=JSON)
    assert answer.status_code == 201, (sent.name, answer.text)
    reference, version = answer.headers["location"].removeprefix("http://test/fhir/").split("/_history/")
    assert version == "1"
    # http.html#create: the server ignores the id of the body and chooses one.
    assert reference != f"{sent.type}/{sent.id}"
    return str(reference)


async def check(client: Client, sent: Sent, reference: str) -> None:
    """What is read is what was sent, with the server's id and version, and searching by id finds it."""
    answer = await client.get(f"/{reference}", headers=JSON)
    assert answer.status_code == 200, (sent.name, answer.text)
    assert differing(sent.raw, answer.content) == [], sent.name
    stored, before = answer.json(), orjson.loads(sent.raw)
    assert f"{stored['resourceType']}/{stored['id']}" == reference
    ours = {"versionId", "lastUpdated"}
    assert {name: value for name, value in stored["meta"].items() if name not in ours} == {
        name: value for name, value in before.get("meta", {}).items() if name not in ours
    }, sent.name
    assert stored["meta"]["versionId"] == "1"
    found = (await client.fhir("GET", f"/{sent.type}", params={"_id": stored["id"]})).json()
    assert [entry["fullUrl"] for entry in found["entry"]] == [f"http://test/fhir/{reference}"], sent.name
    version = await client.get(f"/{reference}/_history/1", headers=JSON)
    assert version.content == answer.content


async def test_a_spread_of_examples(known: Knowledge, store_uri: str) -> None:
    chosen = spread(examples())
    assert 35 <= len(chosen) <= 45
    async with serving(known, Seams(definitions=None), store=store_uri, **AS_SENT) as client:
        for sent in chosen:
            await check(client, sent, await put(client, sent))
            await check(client, sent, await post(client, sent))


@pytest.mark.long
async def test_every_example_at_its_own_id(known: Knowledge, store_uri: str) -> None:
    all_examples = examples()
    assert len(all_examples) > 500 and len({sent.type for sent in all_examples}) > 110
    async with serving(leave_invariants_out(known), Seams(definitions=None), store=store_uri, **AS_SENT) as client:
        for sent in all_examples:
            await check(client, sent, await put(client, sent))
        history = await walk(client, "/_history?_count=200")
        assert sum(len(page["entry"]) for page in history) == len(all_examples)  # type: ignore[arg-type, misc]


@pytest.mark.long
async def test_every_example_at_an_id_of_the_server(known: Knowledge, store_uri: str) -> None:
    async with serving(leave_invariants_out(known), Seams(definitions=None), store=store_uri, **AS_SENT) as client:
        for sent in examples():
            await check(client, sent, await post(client, sent))
