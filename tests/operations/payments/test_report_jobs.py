"""Reports as jobs (`Prefer: respond-async`, https://hl7.org/fhir/R4/async.html): the same answer, later."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from importlib import import_module
from pathlib import Path
from typing import Any

import orjson
import pytest

from fhir_server.app import Knowledge
from fhir_server.fhir.outcome import NotFound
from fhir_server.requests.request import Request
from fhir_server.search.query import EVERYTHING, NOTHING, Clause
from fhir_server.security.policy import AllowAll, Grant, Principal
from fhir_server.security.scopes import parse_scopes
from fhir_server.workers import job_results
from fhir_server.workers.jobs import SLOTS, list_jobs, run_jobs
from fhir_server.workers.operation_jobs import KIND
from fhir_server.workers.table import JOBS
from tests.conftest import Client
from tests.operations.payments.money_clinic import bill, practice
from tests.workers.teams import Failing, Killed, take_turn

pytestmark = pytest.mark.anyio

ASYNC = {"Prefer": "respond-async"}
BASE, HEADERS = "http://test/fhir", {"prefer": "respond-async"}
REPORTS = ("ar-aging", "financial-summary", "denials", "productivity", "provider-adjustments")


@pytest.fixture(params=["memory", "sqlite", "mongo"])
async def client(request: pytest.FixtureRequest, known: Knowledge, tmp_path: Path) -> AsyncIterator[Client]:
    uri = {"memory": "memory://", "sqlite": f"sqlite:///{tmp_path}/fhir.db"}.get(request.param)
    async with practice(known, uri or request.getfixturevalue("new_mongo_uri")()) as client:
        await bill(client, "03-01", "A1", "100", "50")
        yield client


async def work(client: Client, owner: str = "a") -> None:
    turn, step = await take_turn(client.server.context, "jobs", owner), run_jobs(JOBS)
    while (await step(turn)).done:
        pass
    await turn.lease.release()


async def start(client: Client, path: str, **headers: str) -> str:
    """The URL that tells of the job."""
    answer = await client.get(path, headers={**ASYNC, **headers})
    assert (answer.status_code, answer.headers["x-progress"]) == (202, "0 of 1 are done."), answer.text
    return str(answer.headers["content-location"])


def without_time(tree: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in tree.items() if name not in ("date", "id")}


@pytest.mark.parametrize("name", REPORTS)
async def test_a_job_gives_the_report_that_is_given_at_once(client: Client, name: str) -> None:
    location = await start(client, f"${name}")
    assert (await client.get(location)).status_code == 202
    await work(client)
    answer = await client.get(location)
    assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (200, "application/fhir+json")
    at_once = await client.get(f"${name}")
    assert at_once.status_code == 200
    assert without_time(answer.json()) == without_time(at_once.json())
    assert answer.json()["resourceType"] == "MeasureReport"


async def test_csv_stays_csv_and_parameters_of_a_body_count(client: Client) -> None:
    location = await start(client, "$ar-aging?by=patient", Accept="text/csv")
    body = {"resourceType": "Parameters", "parameter": [{"name": "by", "valueString": "provider"}]}
    posted = await client.fhir("POST", "$ar-aging", json=body, headers=ASYNC)
    assert posted.status_code == 202
    await work(client)
    answer = await client.get(location, headers={"Accept": "text/csv"})
    assert answer.headers["content-type"].startswith("text/csv")
    assert answer.text == (await client.get("$ar-aging?by=patient", headers={"Accept": "text/csv"})).text
    assert "Practitioner/pine" in (await client.get(posted.headers["content-location"])).text


async def test_what_is_wrong_with_the_request_is_the_result(client: Client) -> None:
    location = await start(client, "$ar-aging?by=moon")
    await work(client)
    answer = await client.get(location)
    assert answer.status_code == 400 and "not `moon`" in answer.json()["issue"][0]["diagnostics"]


async def test_a_job_reads_more_than_a_request_may(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("fhir_server.operations.payments.report"), "MOST", 2)
    assert (await client.get("$ar-aging")).status_code == 413
    location = await start(client, "$ar-aging")
    await work(client)
    assert (await client.get(location)).status_code == 200


async def test_a_death_at_any_write_or_read_begins_the_report_again(client: Client) -> None:
    context = client.server.context
    for at in range(1, 60, 3):
        location = await start(client, "$ar-aging")
        store = Failing(context.unrestricted, at, after=bool(at % 2))
        turn = await take_turn(context, "jobs", f"dies at {at}")
        object.__setattr__(context, "unrestricted", store)
        try:
            await run_jobs(JOBS)(turn)
        except Killed:
            pass
        finally:
            object.__setattr__(context, "unrestricted", store._store)
        await work(client, f"after {at}")
        assert (await client.get(location)).status_code == 200
        if not store.reached:
            return
    raise AssertionError("a report takes less calls than this")


async def test_a_result_of_many_parts_and_one_that_is_too_large(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_results, "PART", 100)
    location = await start(client, "$ar-aging")
    await work(client)
    (job,) = await list_jobs(client.server.context, KIND)
    assert job.parts > 2
    assert (await client.get(location)).json()["resourceType"] == "MeasureReport"
    monkeypatch.setattr(job_results, "MOST", 10)
    location = await start(client, "$ar-aging")
    await work(client)
    assert (await client.get(location)).status_code == 413


async def list_results(client: Client) -> list[str]:
    return [key for key, _ in (await client.server.context.unrestricted.list_values("job-result/")).values]


async def test_a_cancelled_job_and_one_whose_place_is_taken_leave_no_result(client: Client) -> None:
    location = await start(client, "$ar-aging")
    await work(client)
    assert len(await list_results(client)) == 1
    assert (await client.delete(location)).status_code == 202
    assert (await client.get(location)).status_code == 404 and await list_results(client) == []
    for _ in range(SLOTS + 3):
        await start(client, "$ar-aging")
        await work(client)
    assert len(await list_results(client)) == SLOTS == len(await list_jobs(client.server.context, KIND))


async def test_of_many_at_once_each_has_a_place_or_is_refused(client: Client) -> None:
    answers = await asyncio.gather(*(client.get("$ar-aging", headers=ASYNC) for _ in range(SLOTS + 4)))
    started = [each.headers["content-location"] for each in answers if each.status_code == 202]
    assert {each.status_code for each in answers} == {202, 409} and len(started) == len(set(started)) <= SLOTS


class HideCharges(AllowAll):
    """Hides ChargeItems from who has no scope for them."""

    def restricts(self, principal: Principal) -> bool:
        return principal.grant is not None

    def restriction(self, principal: Principal, type: str) -> Clause:
        scopes = principal.grant.scopes if principal.grant is not None else ()
        hidden = type == "ChargeItem" and not any(each.covers(type, "s") for each in scopes)
        return NOTHING if hidden else EVERYTHING


async def test_a_job_sees_what_the_token_allows_and_is_seen_by_such_a_token(
    known: Knowledge,
) -> None:
    """Two tokens of the same name: one sees charges, and the report of the other is not for it."""
    async with practice(known) as client:
        await bill(client, "03-01", "A1", "100", "50")
        context = client.server.context
        object.__setattr__(context, "policy", HideCharges())
        grants = [Grant(parse_scopes(each)) for each in ("system/Claim.s", "system/*.s")]
        one, other = (Principal("desk", grant=each) for each in grants)
        requests = [
            Request("GET", ("$ar-aging",), headers={"prefer": "respond-async"}, base=BASE, principal=each)
            for each in (one, other)
        ]
        started = [await context.dispatch(context, each) for each in requests]
        assert [each.status for each in started] == [202, 202]
        await work(client)
        ids = [dict(each.headers)["Content-Location"].partition("id=")[2] for each in started]

        async def ask(id: str, who: Principal) -> Any:
            asked = Request("GET", ("$job",), (("id", id),), base=BASE, principal=who)
            return orjson.loads((await context.dispatch(context, asked)).body)

        empty, full = await ask(ids[0], one), await ask(ids[1], other)
        assert "150" in str(full) and "150" not in str(empty)
        with pytest.raises(NotFound):
            await ask(ids[1], one)


async def test_other_operations_and_entries_of_a_batch_are_answered_at_once(client: Client) -> None:
    assert (await client.get("Patient/a/$balance", headers=ASYNC)).status_code == 200
    entries = [{"request": {"method": "GET", "url": "$ar-aging"}}]
    batch = await client.post("", json={"resourceType": "Bundle", "type": "batch", "entry": entries}, headers=ASYNC)
    assert batch.json()["entry"][0]["resource"]["resourceType"] == "MeasureReport"
