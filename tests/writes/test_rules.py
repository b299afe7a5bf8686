"""A rule of a type is asked at every door: plain and conditional writes, bundle entries, `$meta-add`, `$purge`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from fhir_server.app import Knowledge, Seams
from fhir_server.fhir.outcome import Issue
from fhir_server.fhir.resource import parse
from fhir_server.writes.action import Action
from fhir_server.writes.rules import ALLOWED, Change, Rule, Ruling
from fhir_server.writes.state import State
from tests.conftest import Client, serving
from tests.writes.booking import appointment, count_overlaps, rule_of

pytestmark = pytest.mark.anyio

JSON_PATCH = {"content-type": "application/json-patch+json"}
Seen = list[tuple[str, str | None, str | None]]


def text_of(tree: Any) -> str | None:
    return None if tree is None else tree["code"]["text"]


def basic(text: str, id: str | None = None) -> dict[str, Any]:
    tree = {"resourceType": "Basic", "code": {"text": text}, "identifier": [{"system": "urn:b", "value": "b"}]}
    return {**tree, "id": id} if id else tree


def entry(method: str, url: str, resource: object = None, **rest: str) -> dict[str, Any]:
    made: dict[str, Any] = {"request": {"method": method, "url": url, **rest}}
    return {**made, "resource": resource} if resource is not None else made


def bundle(kind: str, *entries: dict[str, Any]) -> dict[str, Any]:
    return {"resourceType": "Bundle", "type": kind, "entry": list(entries)}


def forbid(seen: Seen) -> Rule:
    """Notes every change; refuses what has or had the text `no`, and the deletion of what is marked `keep`."""

    async def rule(state: State, change: Change) -> Ruling:
        seen.append((change.verb, text_of(change.current), text_of(change.new)))
        if text_of(change.new) == "no" or (change.new is None and text_of(change.current) == "keep"):
            return Ruling((Issue("error", "business-rule", "This is not allowed.", ("Basic.code",)),))
        return ALLOWED

    return rule


@pytest.fixture
def seen() -> Seen:
    return []


@pytest.fixture
async def ruled(known: Knowledge, store_uri: str, seen: Seen) -> AsyncIterator[Client]:
    seams = Seams(rules={"Basic": forbid(seen)})
    async with serving(known, seams, store=store_uri, purge=True, conditional_delete="multiple") as client:
        yield client


PATCH = [{"op": "replace", "path": "/code/text", "value": "no"}]
FHIRPATH_PATCH = {
    "resourceType": "Parameters",
    "parameter": [
        {
            "name": "operation",
            "part": [
                {"name": "type", "valueCode": "replace"},
                {"name": "path", "valueString": "Basic.code.text"},
                {"name": "value", "valueString": "no"},
            ],
        }
    ],
}
META = {"resourceType": "Parameters", "parameter": [{"name": "meta", "valueMeta": {"tag": [{"code": "t"}]}}]}

REFUSED: dict[str, tuple[str, str, object, dict[str, str]]] = {
    "create": ("POST", "Basic", basic("no"), {}),
    "conditional create": ("POST", "Basic", basic("no"), {"if-none-exist": "identifier=urn:b|other"}),
    "update": ("PUT", "Basic/b", basic("no", "b"), {}),
    "update as create": ("PUT", "Basic/new", basic("no", "new"), {}),
    "conditional update": ("PUT", "Basic?identifier=urn:b|b", basic("no"), {}),
    "JSON patch": ("PATCH", "Basic/b", PATCH, JSON_PATCH),
    "conditional patch": ("PATCH", "Basic?identifier=urn:b|b", PATCH, JSON_PATCH),
    "FHIRPath patch": ("PATCH", "Basic/b", FHIRPATH_PATCH, {}),
    "delete": ("DELETE", "Basic/b", None, {}),
    "conditional delete": ("DELETE", "Basic?identifier=urn:b|b", None, {}),
    "transaction create": ("POST", "", bundle("transaction", entry("POST", "Basic", basic("no"))), {}),
    "transaction update": ("POST", "", bundle("transaction", entry("PUT", "Basic/b", basic("no", "b"))), {}),
    "transaction delete": ("POST", "", bundle("transaction", entry("DELETE", "Basic/b")), {}),
    "transaction conditional delete": (
        "POST",
        "",
        bundle("transaction", entry("DELETE", "Basic?identifier=urn:b|b")),
        {},
    ),
    "transaction patch": ("POST", "", bundle("transaction", entry("PATCH", "Basic/b", FHIRPATH_PATCH)), {}),
    "purge": ("POST", "Basic/b/$purge", None, {}),
}


@pytest.mark.parametrize("door", REFUSED)
async def test_no_door_goes_round_a_rule(ruled: Client, seen: Seen, door: str) -> None:
    """Each is 422 with the rule's sentence and path, and leaves the resource as it was."""
    await ruled.put("Basic/b", json=basic("keep", "b"))
    method, url, body, headers = REFUSED[door]
    answer = await ruled.fhir(method, url, json=body, headers=headers)
    issue = answer.json()["issue"][0]
    assert (answer.status_code, issue["code"], issue["diagnostics"]) == (422, "business-rule", "This is not allowed.")
    assert issue["expression"][0].endswith("code")
    assert (await ruled.get("Basic/b")).json()["meta"]["versionId"] == "1"
    assert (await ruled.get("Basic?_summary=count")).json()["total"] == 1


async def test_a_batch_entry_is_refused_alone(ruled: Client) -> None:
    answer = await ruled.post(
        "", json=bundle("batch", entry("POST", "Basic", basic("no")), entry("POST", "Basic", basic("yes")))
    )
    assert [each["response"]["status"][:3] for each in answer.json()["entry"]] == ["422", "201"]


async def test_meta_operations_are_updates_under_the_rule(ruled: Client, seen: Seen) -> None:
    await ruled.put("Basic/b", json=basic("yes", "b"))
    seen.clear()
    for code in ("$meta-add", "$meta-delete"):
        assert (await ruled.post(f"Basic/b/{code}", json=META)).status_code == 200
    assert seen == [("PATCH", "yes", "yes")] * 2


async def test_a_purge_is_asked_under_its_own_name_even_after_a_deletion(ruled: Client, seen: Seen) -> None:
    for id in ("b", "c"):
        await ruled.put(f"Basic/{id}", json=basic("yes", id))
    await ruled.delete("Basic/c")
    seen.clear()
    for id in ("b", "c"):
        assert (await ruled.post(f"Basic/{id}/$purge")).status_code == 200
    assert seen == [("purge", "yes", None), ("purge", None, None)]


async def test_what_is_found_by_a_conditional_create_is_no_write(ruled: Client, seen: Seen) -> None:
    await ruled.put("Basic/b", json=basic("yes", "b"))
    seen.clear()
    answer = await ruled.post("Basic", json=basic("no"), headers={"if-none-exist": "identifier=urn:b|b"})
    assert answer.status_code == 200
    assert seen == []


async def test_an_equal_update_is_no_write(ruled: Client, seen: Seen) -> None:
    await ruled.put("Basic/b", json=basic("yes", "b"))
    seen.clear()
    assert (await ruled.put("Basic/b", json=basic("yes", "b"))).headers["etag"] == 'W/"1"'
    assert seen == []


async def test_what_a_rule_adds_is_written_in_the_same_transaction(known: Knowledge, store_uri: str) -> None:
    """Each Basic gets a Flag; refused with it, written with it, and asked about by its own rule."""

    async def add_flag(state: State, change: Change) -> Ruling:
        if change.new is None:
            return Ruling(actions=(Action("DELETE", "Flag", "", id=change.id),))
        flag = {"resourceType": "Flag", "id": change.id, "status": "active", "code": change.new["code"],
                "subject": {"reference": "Patient/p"}}  # fmt: skip
        return Ruling(actions=(Action("PUT", "Flag", change.id, id=change.id, text=parse(orjson.dumps(flag))),))

    async def check_flag(state: State, change: Change) -> Ruling:
        bad = change.new is not None and change.new["code"]["text"] == "no"
        return Ruling((Issue("error", "conflict", "No such flag."),)) if bad else ALLOWED

    seams = Seams(rules={"Basic": add_flag, "Flag": check_flag})
    async with serving(known, seams, store=store_uri, references="allow") as client:
        assert (await client.put("Basic/b", json=basic("yes", "b"))).status_code == 201
        assert (await client.get("Flag/b")).json()["code"]["text"] == "yes"
        refused = await client.put("Basic/b", json=basic("no", "b"))
        assert (refused.status_code, refused.json()["issue"][0]["diagnostics"]) == (409, "No such flag.")
        assert (await client.get("Basic/b")).json()["code"]["text"] == "yes"
        both = bundle("transaction", entry("PUT", "Basic/b", basic("three", "b")), entry("DELETE", "Flag/b"))
        answer = await client.post("", json=both)
        assert answer.status_code == 422 and "`Flag/b` as well" in answer.json()["issue"][0]["diagnostics"]
        assert (await client.delete("Basic/b")).status_code == 204
        assert (await client.get("Flag/b")).status_code == 410


async def test_a_rule_sees_the_other_writes_of_its_transaction(known: Knowledge, store_uri: str) -> None:
    """Two overlapping appointments in one bundle are a clash; one that moves away leaves room for the other."""
    seams = Seams(rules={"Appointment": rule_of(1)})
    nine, half = ("2026-03-02T09:00:00+00:00", "2026-03-02T09:30:00+00:00"), "2026-03-02T09:45:00+00:00"
    early, late = appointment(*nine), appointment(nine[1].replace("09:30", "09:15"), half)
    async with serving(known, seams, store=store_uri, references="allow") as client:
        clash = await client.post(
            "", json=bundle("transaction", entry("POST", "Appointment", early), entry("POST", "Appointment", late))
        )
        assert clash.status_code == 409
        await client.put("Appointment/a", json={**early, "id": "a"})
        assert (await client.post("Appointment", json=late)).status_code == 409
        moved = {**early, "id": "a", "status": "cancelled"}
        answer = await client.post(
            "", json=bundle("transaction", entry("PUT", "Appointment/a", moved), entry("POST", "Appointment", late))
        )
        assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("capacity", [1, 3])
async def test_plain_writes_at_once_keep_the_capacity(known: Knowledge, store_uri: str, capacity: int) -> None:
    """120 writes by every door at once, of unequal overlapping times: exactly `capacity` appointments are stored."""
    seams = Seams(rules={"Appointment": rule_of(capacity)})
    times = [
        (f"2026-03-02T09:{minute:02}:00+00:00", f"2026-03-02T09:{minute + 30}:00+00:00") for minute in (0, 5, 10, 15)
    ]
    async with serving(known, seams, store=store_uri, references="allow", request_timeout=120.0) as client:

        async def write(number: int) -> int:
            tree = appointment(*times[number % 4])
            if number % 3 == 0:
                return (await client.post("Appointment", json=tree)).status_code
            if number % 3 == 1:
                return (await client.put(f"Appointment/n{number}", json={**tree, "id": f"n{number}"})).status_code
            answer = await client.post("", json=bundle("transaction", entry("POST", "Appointment", tree)))
            return 201 if answer.status_code == 200 else answer.status_code

        statuses = await asyncio.gather(*map(write, range(120)))
        assert sorted(set(statuses)) == [201, 409]
        assert statuses.count(201) == capacity
        page = (await client.get("Appointment?_count=200")).json()
        assert count_overlaps(each["resource"] for each in page["entry"]) == capacity


async def test_a_remark_goes_with_the_result(known: Knowledge, store_uri: str) -> None:
    async def remark(state: State, change: Change) -> Ruling:
        return Ruling((Issue("warning", "business-rule", "This is unusual."),))

    async with serving(known, Seams(rules={"Basic": remark}), store=store_uri) as client:
        answer = await client.post("Basic", json=basic("yes"), headers={"prefer": "return=OperationOutcome"})
        assert answer.status_code == 201
        assert [each["diagnostics"] for each in answer.json()["issue"]][1:] == ["This is unusual."]
