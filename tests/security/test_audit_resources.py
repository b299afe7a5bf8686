"""The record as AuditEvents: written by the server alone, before the answer to a write, read by the auditor alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest

from fhir_server.app import Knowledge, Seams
from fhir_server.search.query import Query, Scope
from fhir_server.security.audit_store import AT_ONCE
from fhir_server.security.static_tokens import StaticToken, create_token
from fhir_server.store.protocol import StoreUnavailable
from tests.conftest import Client, serving

pytestmark = pytest.mark.anyio

START = 1_795_000_000_000_000
EVERYTHING = "system/*.cruds system/AuditEvent.cruds"
PATIENT = {"resourceType": "Patient", "id": "ada"}


@pytest.fixture
async def client(known: Knowledge, any_store_uri: str) -> AsyncIterator[Client]:
    async with open_recording(known, any_store_uri) as client:
        yield client


@asynccontextmanager
async def open_recording(known: Knowledge, uri: str) -> AsyncIterator[Client]:
    seams = Seams(clock=lambda: START, definitions=None)
    async with serving(known, seams, store=uri, authentication="on", audit="resources") as client:
        client.headers["authorization"] = await make_authorization(client, EVERYTHING)
        yield client


async def make_authorization(client: Client, scopes: str, role: str = "") -> str:
    context = client.server.context
    patient = "ada" if "patient/" in scopes else ""
    token = StaticToken((scopes + role).replace(" ", "-")[:60], scopes, role, patient, START, START * 2)
    return f"Bearer {await create_token(context.unrestricted, token, context.roles)}"


async def read_events(client: Client, settle: bool = True) -> list[dict[str, Any]]:
    """What the store holds, in the order in which it was recorded."""
    context = client.server.context
    if settle:
        assert context.audit is not None
        await context.audit.settle()
    page = await context.unrestricted.search(Query((Scope("AuditEvent"),), count=1000))
    return sorted((orjson.loads(each.raw or b"") for each in page.matches), key=lambda each: str(each["id"]))


def list_codes(events: list[dict[str, Any]]) -> list[str]:
    return sorted(event["subtype"][0]["code"] for event in events)


async def test_the_event_of_a_write_is_stored_before_its_answer(client: Client) -> None:
    await client.put("Patient/ada", json=PATIENT)
    assert list_codes(await read_events(client, settle=False)) == ["update"]
    await client.get("Patient?family=quill")
    assert list_codes(await read_events(client, settle=False)) == ["update"]
    assert list_codes(await read_events(client)) == ["search-type", "update"]
    await client.get("Patient", headers={"authorization": "Bearer wrong"})
    entries = [{"request": {"method": "GET", "url": "Patient/ada"}}, {"request": {"method": "GET", "url": "Patient/x"}}]
    await client.post("", json={"resourceType": "Bundle", "type": "batch", "entry": entries})
    events = await read_events(client, settle=False)
    assert list_codes(events) == ["login", "read", "read", "search-type", "transaction", "update"]
    assert "quill" not in str(events)


async def attempt_all(client: Client, event: dict[str, Any]) -> dict[str, int]:
    """What every way to write an AuditEvent answers, by a token that may everything."""
    place = f"AuditEvent/{event['id']}"
    changed = {**event, "outcome": "8"}
    new = {name: value for name, value in event.items() if name not in ("id", "meta")}
    meta = {"parameter": [{"name": "meta", "valueMeta": {"tag": [{"code": "x"}]}}], "resourceType": "Parameters"}
    patch = [{"op": "replace", "path": "/outcome", "value": "8"}]
    json_patch = {"content-type": "application/json-patch+json"}
    answers = {
        "PUT": await client.put(place, json=changed),
        "PUT elsewhere": await client.put("AuditEvent/new", json={**changed, "id": "new"}),
        "PUT by criteria": await client.put(f"AuditEvent?_id={event['id']}", json=changed),
        "POST": await client.post("AuditEvent", json=new),
        "PATCH": await client.patch(place, json=patch, headers=json_patch),
        "DELETE": await client.delete(place),
        "DELETE by criteria": await client.delete(f"AuditEvent?_id={event['id']}"),
        "$meta-add": await client.post(f"{place}/$meta-add", json=meta),
        "$purge": await client.post(f"{place}/$purge"),
    }
    for kind in ("batch", "transaction"):
        for method, resource in (("DELETE", None), ("PUT", changed)):
            entry: dict[str, Any] = {"request": {"method": method, "url": place}}
            entry |= {"resource": resource} if resource else {}
            bundle = {"resourceType": "Bundle", "type": kind, "entry": [entry]}
            answer = await client.post("", json=bundle)
            answers[f"{kind} {method}"] = answer
            if kind == "batch":
                answer.status_code = int(answer.json()["entry"][0]["response"]["status"][:3])
    return {name: answer.status_code for name, answer in answers.items()}


async def test_nobody_writes_one(client: Client) -> None:
    await client.put("Patient/ada", json=PATIENT)
    (event,) = await read_events(client)
    statuses = await attempt_all(client, event)
    assert {name: status for name, status in statuses.items() if status not in (404, 422)} == {}, statuses
    assert statuses["PUT"] == statuses["DELETE"] == 422
    stored = await client.server.context.unrestricted.read("AuditEvent", event["id"])
    assert stored is not None and stored.version == 1 and orjson.loads(stored.raw or b"") == event
    assert all(each["meta"]["versionId"] == "1" for each in await read_events(client))


async def test_the_auditor_alone_reads_them(client: Client) -> None:
    await client.put("Patient/ada", json=PATIENT)
    (event,) = await read_events(client)
    auditor = {"authorization": await make_authorization(client, "", "auditor")}
    found = (await client.get("AuditEvent?action=U", headers=auditor)).json()
    assert [entry["resource"]["id"] for entry in found["entry"]] == [event["id"]]
    assert (await client.get(f"AuditEvent/{event['id']}", headers=auditor)).status_code == 200
    for scopes, role in (("system/*.cruds", ""), ("patient/*.rs", ""), ("", "clinician"), ("", "administrator")):
        other = {"authorization": await make_authorization(client, scopes, role)}
        for url in ("AuditEvent", f"AuditEvent/{event['id']}", "AuditEvent/_history", "Patient/ada/AuditEvent"):
            answer = await client.get(url, headers=other)
            assert answer.status_code in (403, 404) or not answer.json().get("entry"), (scopes, role, url)
        for url in ("Patient/ada/$everything", "Patient?_revinclude=*", "_history"):
            answer = await client.get(url, headers=other)
            assert "AuditEvent/" not in answer.text, (scopes, role, url)


async def test_where_nothing_can_be_recorded_a_write_is_503(known: Knowledge, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_recording(known, "memory://") as client:
        store = client.server.context.unrestricted
        written = store.transact

        async def refuse_events(transaction: Any) -> Any:
            if any(write.type == "AuditEvent" for write in transaction.writes):
                raise StoreUnavailable("The disk is full.")
            return await written(transaction)

        with monkeypatch.context() as patch:
            patch.setattr(store, "transact", refuse_events)
            answer = await client.put("Patient/ada", json=PATIENT)
            assert answer.status_code == 503 and "may have been done" in answer.text
        assert list_codes(await read_events(client)) == ["update"]


async def test_many_events_go_in_few_transactions(known: Knowledge, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_recording(known, "memory://") as client:
        store = client.server.context.unrestricted
        sizes: list[int] = []
        written = store.transact

        async def count_writes(transaction: Any) -> Any:
            sizes.append(len(transaction.writes))
            return await written(transaction)

        monkeypatch.setattr(store, "transact", count_writes)
        for _ in range(AT_ONCE + 5):
            await client.get("Patient/ada")
        await read_events(client)
        assert sum(sizes) == AT_ONCE + 5 and len(sizes) < 20


async def test_what_is_no_id_is_not_recorded_as_one(client: Client) -> None:
    await client.get("Patient/" + "a" * 200)
    await client.get("Patient/a%20b%00")
    for event in await read_events(client):
        assert event["entity"][0]["name"] == "Patient"
