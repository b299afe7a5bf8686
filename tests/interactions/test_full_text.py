"""`_text`, `_content` and `_score` over HTTP, with the setting off and on: https://hl7.org/fhir/R4/search.html#content."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fhir_server.app import Knowledge
from fhir_server.settings import Settings
from fhir_server.store import memory
from fhir_server.store.protocol import StoreUnavailable
from fhir_server.store.sqlite import fulltext
from fhir_server.workers.reindexing import begin, run
from tests.conftest import Client, serving

pytestmark = pytest.mark.anyio

DIV = '<div xmlns="http://www.w3.org/1999/xhtml">{}</div>'


@pytest.fixture(params=["memory", "sqlite"])
async def on(request: pytest.FixtureRequest, known: Knowledge, tmp_path: Path) -> AsyncIterator[Client]:
    uri = "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/texts.db"
    async with serving(known, store=uri, full_text=True) as client:
        yield client


async def put(client: Client, id: str, narrative: str = "", **more: Any) -> None:
    text = {"text": {"status": "generated", "div": DIV.format(narrative)}} if narrative else {}
    resource = {"resourceType": "Observation", "id": id, "status": "final", "code": {"text": "x"}, **text, **more}
    response = await client.fhir("PUT", f"/Observation/{id}", json=resource)
    assert response.status_code in (200, 201), response.text


def scores(bundle: dict[str, Any]) -> dict[str, float | None]:
    return {each["resource"]["id"]: each["search"].get("score") for each in bundle.get("entry", [])}


async def test_off_the_error_names_the_setting(known: Knowledge) -> None:
    async with serving(known, store="memory://") as client:
        await put(client, "a", "bone")
        for query in ("_text=bone", "_content=bone", "_sort=_score"):
            refused = await client.fhir("GET", f"/Observation?{query}")
            issue = refused.json()["issue"][0]
            assert (refused.status_code, issue["code"]) == (400, "not-supported")
            assert "`FHIR_FULL_TEXT`" in issue["diagnostics"] and "`fhir-server reindex`" in issue["diagnostics"]
            lenient = {"Prefer": "handling=lenient"}
            page = (await client.fhir("GET", f"/Observation?{query}", headers=lenient)).json()
            assert page["link"][0]["url"] == "http://test/fhir/Observation", "the self link shows what was applied"
            assert [each["search"]["mode"] for each in page["entry"]] == ["match", "outcome"]
        names = _parameters((await client.fhir("GET", "/metadata")).json())
        assert not names & {"_text", "_content"}
        for entries in (client.server.context.index.make_entries("Observation", {"text": {"div": DIV.format("a")}}),):
            assert entries.texts == {}


def _parameters(statement: dict[str, Any]) -> set[str]:
    (observation,) = (each for each in statement["rest"][0]["resource"] if each["type"] == "Observation")
    return {each["name"] for each in observation["searchParam"]}


async def test_on_it_is_in_the_capability_statement(on: Client) -> None:
    statement = (await on.fhir("GET", "/metadata")).json()
    assert {"_text", "_content"} <= _parameters(statement)
    (binary,) = (each for each in statement["rest"][0]["resource"] if each["type"] == "Binary")
    assert "_text" not in {each["name"] for each in binary["searchParam"]}, "no DomainResource"
    assert "_content" in {each["name"] for each in statement["rest"][0]["searchParam"]}


async def test_matches_come_with_a_score(on: Client) -> None:
    """n / (n + 0.5 + L / 200): `bone` 1 of 1 word 1 / 1.505, 2 of 4 2 / 2.52; the order is the score's."""
    await put(on, "one", "bone")
    await put(on, "two", "bone x bone x")
    await put(on, "none", "x")
    found = (await on.fhir("GET", "/Observation?_text=bone&_sort=_score")).json()
    assert list(scores(found).items()) == [("two", round(2 / 2.52, 6)), ("one", round(1 / 1.505, 6))]
    turned = (await on.fhir("GET", "/Observation?_text=bone&_sort=-_score")).json()
    assert list(scores(turned)) == ["one", "two"]
    unsorted = (await on.fhir("GET", "/Observation?_text=bone")).json()
    assert scores(unsorted) == scores(found), "also where it does not decide the order"
    half = (await on.fhir("GET", "/Observation?_text=bone,absent")).json()
    assert scores(half)["two"] == round(2 / 2.52 / 2, 6), "the mean over the words searched"
    assert scores((await on.fhir("GET", "/Observation?status=final")).json()) == {
        "none": None,
        "one": None,
        "two": None,
    }


async def test_pages_posts_batches_and_explanations(on: Client) -> None:
    for number in range(5):
        await put(on, f"o{number}", " ".join(["bone"] * (number + 1)))
    form = {"_text": "bone", "_sort": "_score", "_count": "2"}
    page = (await on.fhir("POST", "/Observation/_search", data=form)).json()
    seen = list(scores(page))
    while following := [link["url"] for link in page["link"] if link["relation"] == "next"]:
        assert "bone" not in following[0]
        page = (await on.fhir("GET", following[0])).json()
        seen += scores(page)
    assert seen == ["o4", "o3", "o2", "o1", "o0"]
    entry = {"request": {"method": "GET", "url": "Observation?_text=bone&_count=1&_sort=_score"}}
    answer = await on.fhir("POST", "", json={"resourceType": "Bundle", "type": "batch", "entry": [entry]})
    assert list(scores(answer.json()["entry"][0]["resource"])) == ["o4"]
    for query in ('_text="bone bon"*&_sort=_score', "_filter=status eq final", "_content=NOT (bone OR x)"):
        told = (await on.fhir("GET", f"/Observation?{query}&__explain=true")).json()
        outcome = told["entry"][-1]["resource"]
        assert outcome["resourceType"] == "OperationOutcome"
        said = " ".join(issue["diagnostics"] for issue in outcome["issue"])
        assert ("`_text` has, side by side, the words `bone bon`, the last one only begun" in said) == (
            "_text" in query
        )


async def test_a_conditional_create_sees_words(on: Client) -> None:
    resource = {"resourceType": "Observation", "status": "final", "code": {"text": "unusual wording"}}
    headers = {"If-None-Exist": '_content="unusual wording"'}
    answers = [await on.fhir("POST", "/Observation", json=resource, headers=headers) for _ in range(2)]
    assert [each.status_code for each in answers] == [201, 200]


@pytest.mark.external
async def test_reindex_adds_and_removes_the_words(known: Knowledge, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/switched.db"

    async def found(client: Client) -> list[str]:
        return list(scores((await client.fhir("GET", "/Observation?_content=bone")).json()))

    async def refused(client: Client) -> None:
        response = await client.fhir("GET", "/Observation?_content=bone")
        assert response.status_code == 400
        assert "fhir-server reindex Observation" in response.json()["issue"][0]["diagnostics"]

    async def reindex(client: Client) -> None:
        context = client.server.context
        job = await run(context, await begin(context, ("Observation",)), rests=False)
        assert job.status == "complete"

    async with serving(known, store=uri) as client:
        await put(client, "a", "bone")
    async with serving(known, store=uri, full_text=True) as client:
        await refused(client)
        await reindex(client)
        assert await found(client) == ["a"]
        await put(client, "b", "bone")
        await put(client, "c", "bone")
    async with serving(known, store=uri) as client:
        await put(client, "c", "other")
        await client.fhir("DELETE", "/Observation/b")
    async with serving(known, store=uri, full_text=True) as client:
        await refused(client)  # what was written without texts is not indexed by them
        await reindex(client)
        assert await found(client) == ["a"]


async def test_sqlite_without_fts5_is_refused_at_start(
    known: Knowledge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fulltext, "has_fts5", lambda connection: False)
    uri = f"sqlite:///{tmp_path}/bare.db"
    with pytest.raises(StoreUnavailable, match=r"needs SQLite with FTS5.*switch the setting `FHIR_FULL_TEXT` off"):
        async with serving(known, store=uri, full_text=True):
            pass
    async with serving(known, store=uri) as client:
        await put(client, "a", "bone")
    monkeypatch.undo()
    with pytest.raises(StoreUnavailable, match="has no full-text index and is open for reading only"):
        async with serving(known, store=f"{uri}?mode=ro", full_text=True):
            pass
    async with serving(known, store=uri, full_text=True) as client:
        await put(client, "b", "bone")
        assert (await client.fhir("GET", "/Observation?_text=bone")).status_code == 400  # `a` is not indexed yet
        context = client.server.context
        assert (await run(context, await begin(context, ("Observation",)), rests=False)).status == "complete"
        assert list(scores((await client.fhir("GET", "/Observation?_text=bone")).json())) == ["a", "b"]


async def test_a_store_that_always_can_passes_the_check() -> None:
    assert Settings().full_text is False
    store = await memory.open_store("memory://", lambda: 0)
    await store.check_full_text()
