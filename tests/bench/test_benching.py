"""The bench does the work that `bench/README.md` describes and counts only right answers."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.http import parse_target
from bench.ingest import read_folder
from bench.measuring import Limits, Samples, find_percentile
from bench.phases import CRUD_PATIENTS, READ_PATIENTS, make_patient, make_visit
from bench.queries import MORE, QUERIES
from bench.run import Work, run_bench
from bench.summary import PhaseResult, make_json_tree
from tests.fake_fhir import FakeFhir, served

PERSON: dict[str, Any] = {
    "resourceType": "Patient",
    "name": [{"family": "Mante"}],
    "gender": "female",
    "birthDate": "1980-01-02",
}


@pytest.fixture
def fake() -> FakeFhir:
    return FakeFhir()


@pytest.fixture
def url(fake: FakeFhir) -> Iterator[str]:
    with served(fake) as found:
        yield found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two bundles of what the search mix looks for; the second is the smaller one."""
    code = {"coding": [{"system": "http://loinc.org", "code": "8302-2"}]}
    active = {"coding": [{"code": "active"}]}
    who = {"reference": "urn:uuid:p"}
    quantity = {"value": 180.5, "unit": "cm"}
    named = {**code, "text": "body height"}
    resources: list[dict[str, Any]] = [
        {"resourceType": "Condition", "code": named, "clinicalStatus": active, "subject": who},
        {"resourceType": "Observation", "code": code, "category": [code], "valueQuantity": quantity, "subject": who},
        {"resourceType": "Organization", "name": "General"},
        {"resourceType": "MedicationRequest", "status": "active", "subject": who},
        {"resourceType": "Claim", "patient": who},
        {"resourceType": "Claim", "patient": who},
    ]
    for name, count in (("big", 6), ("small", 1)):
        entries = [
            {
                "fullUrl": f"urn:uuid:{full_url}",
                "resource": one,
                "request": {"method": "POST", "url": one["resourceType"]},
            }
            for full_url, one in [("p", PERSON), *enumerate(resources[:count])]
        ]
        (tmp_path / f"{name}.json").write_text(
            json.dumps({"resourceType": "Bundle", "type": "transaction", "entry": entries})
        )
    return tmp_path


def measured(urls: list[str], phases: list[str], work: Work) -> list[PhaseResult]:
    return asyncio.run(run_bench([parse_target(url) for url in urls], phases, work, 2, lambda name: None))


def test_reads_go_to_two_hundred_patients(fake: FakeFhir, url: str) -> None:
    (read,) = measured([url], ["read"], Work(Limits(30, 500)))
    assert (read.samples.ok, read.samples.errors, len(fake.resources)) == (500, Counter(), READ_PATIENTS)
    asked = {path for method, path in fake.requests if method == "GET"}
    assert asked <= set(fake.resources)
    assert len(asked) > 100


def test_the_crud_mix_has_its_shares_and_no_conflicts(fake: FakeFhir, url: str) -> None:
    (crud,) = measured([url], ["crud"], Work(Limits(30, 1000)))
    shares = {label: len(took) / 1000 for label, took in crud.samples.latencies.items()}
    assert crud.samples.errors == Counter()
    assert shares == pytest.approx({"create": 0.1, "read": 0.6, "update": 0.25, "delete": 0.05}, abs=0.04)
    grown = 1000 * (shares["create"] - shares["delete"])
    assert len(fake.resources) == pytest.approx(CRUD_PATIENTS + grown)
    assert max(version for version, _ in fake.resources.values()) > 1


def test_a_transaction_makes_four_resources_that_point_to_each_other(fake: FakeFhir, url: str) -> None:
    (transaction,) = measured([url], ["transaction"], Work(Limits(30, 10)))
    assert (transaction.samples.ok, transaction.samples.resources) == (10, 40)
    types = Counter(key.partition("/")[0] for key in fake.resources)
    assert types == {"Patient": 10, "Encounter": 10, "Observation": 20}
    subjects = {r["subject"]["reference"] for _, r in fake.resources.values() if "subject" in r}
    assert subjects == {key for key in fake.resources if key.startswith("Patient/")}


def test_ingest_posts_each_file_as_it_is_the_smallest_last(fake: FakeFhir, url: str, folder: Path) -> None:
    first, warm = measured([url], ["ingest"], Work(Limits(30), read_folder(folder), passes=3))
    texts = [(folder / f"{name}.json").read_bytes() for name in ("big", "small")]
    assert Counter(fake.posted) == Counter(texts * 3)
    assert (first.samples.ok, first.samples.resources, warm.samples.resources) == (2, 9, 18)
    assert (first.unit, len(fake.resources)) == ("resources", 27)


def test_the_search_mix_asks_all_queries_with_values_of_the_data(fake: FakeFhir, url: str, folder: Path) -> None:
    (search,) = measured([url], ["search"], Work(Limits(30, 600), read_folder(folder)))
    assert len(QUERIES) == 24
    assert set(search.samples.latencies) == {query.name for query in QUERIES}
    assert len(fake.posted) == 2 * 3, "the folder is loaded three times"
    asked = [path for _, path in fake.requests]
    assert "Observation?code-value-quantity=http%3A%2F%2Floinc.org%7C8302-2%24gt180.5&_count=20" in asked
    assert "Patient?name:contains=ant&_count=20" in asked
    assert search.totals["Claim by patient _sort=-created"] == 6


@pytest.mark.parametrize("full_text", [False, True])
def test_the_whole_mix_asks_for_full_text_where_the_server_has_it(
    fake: FakeFhir, url: str, folder: Path, full_text: bool
) -> None:
    fake.parameters = ("_id", "_content") if full_text else ("_id",)
    (search,) = measured([url], ["search-all"], Work(Limits(30, 1200), read_folder(folder)))
    asked = {query.name for query in (*QUERIES, *MORE) if full_text or query.needs != "_content"}
    assert set(search.samples.latencies) == asked
    assert len(asked) == len(QUERIES) + len(MORE) - (not full_text)
    texts = [path for _, path in fake.requests]
    assert "Organization?name:contains=ene&_count=20" in texts
    assert ("Condition?_content=height&_count=20" in texts) == full_text


def test_a_second_search_does_not_load_again(fake: FakeFhir, url: str, folder: Path) -> None:
    work = Work(Limits(30, 24), read_folder(folder))
    measured([url], ["search", "search"], work)
    assert len(fake.posted) == 6


def test_scale_searches_after_the_first_and_the_last_copy(url: str, folder: Path) -> None:
    found = measured([url], ["scale"], Work(Limits(30, 48), read_folder(folder), copies=3))
    assert [one.phase for one in found] == [
        "scale, ingest 1×",
        "scale, search 1×",
        "scale, search-all 1×",
        "scale, ingest 2×",
        "scale, ingest 3×",
        "scale, search 3×",
        "scale, search-all 3×",
    ]
    assert [one.totals.get("ExplanationOfBenefit _summary=count") for one in found if one.by_label] == [0, 0, 0, 0]
    assert [one.totals["Claim by patient _sort=-created"] for one in found if one.by_label] == [2, 2, 6, 6]


def test_two_servers_get_the_same_number_of_requests(fake: FakeFhir, url: str) -> None:
    other = FakeFhir()
    with served(other) as second:
        left, right = measured([url, second], ["transaction"], Work(Limits(10, 21)))
    assert (left.samples.ok, right.samples.ok, left.url, right.url) == (21, 21, url, second)
    assert len(fake.posted) == len(other.posted) == 21
    assert Counter(fake.posted) == Counter(other.posted), "one seed, one work"


def test_a_phase_ends_after_its_time(url: str) -> None:
    (transaction,) = measured([url], ["transaction"], Work(Limits(0.3)))
    assert 0.3 <= transaction.samples.seconds < 2
    assert transaction.samples.ok > 0


def test_wrong_answers_are_counted_by_status_with_their_first_text(fake: FakeFhir, url: str) -> None:
    fake.broken = 503
    (transaction,) = measured([url], ["transaction"], Work(Limits(30, 7)))
    assert (transaction.samples.ok, transaction.samples.errors) == (0, Counter({503: 7}))
    assert transaction.samples.first_texts == {503: "transaction: it broke"}
    assert transaction.rate == 0


def test_a_server_without_data_is_told_so(url: str) -> None:
    with pytest.raises(ValueError, match="holds no Condition to search for: give `--folder`"):
        measured([url], ["search"], Work(Limits(1)))


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no bundles"):
        read_folder(tmp_path)
    (tmp_path / "a.json").write_text('{"resourceType":"Patient"}')
    with pytest.raises(ValueError, match="is not a transaction or batch bundle"):
        read_folder(tmp_path)


def test_the_seed_decides_all_that_is_random() -> None:
    assert make_visit(random.Random(3)) == make_visit(random.Random(3)) != make_visit(random.Random(4))
    assert 500 < len(make_patient(random.Random(3))) < 900


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50), (0.95, 95), (0.99, 99), (1, 100), (0, 1)])
def test_percentiles_are_of_the_nearest_rank(share: float, expected: float) -> None:
    assert find_percentile(range(1, 101), share) == expected


def test_json_gives_milliseconds_and_errors() -> None:
    samples = Samples(seconds=2, resources=4)
    samples.latencies["a"] += [0.001, 0.003]
    samples.wrong(422, "a: no")
    tree = make_json_tree([PhaseResult("search", "http://x", samples, by_label=True, totals={"a": 7})])[0]
    assert (tree["ok"], tree["per_second"], tree["p50_ms"], tree["p99_ms"]) == (2, 1.0, 1.0, 3.0)
    assert tree["errors"] == {"422": {"count": 1, "first": "a: no"}}
    assert tree["queries"] == {"a": {"ok": 2, "p50_ms": 1.0, "p95_ms": 3.0, "p99_ms": 3.0, "total": 7}}


def test_a_create_without_location_ends_the_bench() -> None:
    async def answers_nothing(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 201, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    with served(answers_nothing) as url, pytest.raises(ValueError, match="without the Location of the Patient"):
        measured([url], ["read"], Work(Limits(1)))
