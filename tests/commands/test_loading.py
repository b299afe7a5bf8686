"""Loading: repeatable, complete whatever the order of the files, and every failure told (`docs/load.md`)."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from fhir_server.commands.loading.client import open_client, open_local_client
from fhir_server.commands.loading.inputs import find_inputs
from fhir_server.commands.loading.sending import load_submissions
from fhir_server.commands.loading.submissions import read_submissions
from fhir_server.commands.loading.tally import Tally, find_result
from tests.fake_fhir import FakeFhir, served

A, B = "aaaaaaaa-0000-4000-8000-000000000001", "bbbbbbbb-0000-4000-8000-000000000002"


def write(path: Path, *resources: dict[str, Any]) -> None:
    path.write_text("\n".join(map(json.dumps, resources)))


def loaded(
    open_it: Callable[[], httpx.AsyncClient], folder: Path, concurrency: int = 3
) -> tuple[Tally, list[dict[str, Any]]]:
    """The tally of loading `folder`, and the lines of the failure report."""

    async def run() -> Tally:
        tally = Tally(report)
        async with open_it() as client:
            items = read_submissions(find_inputs([folder]).files)
            await load_submissions(items, client, tally, concurrency, weights.append)
        return tally

    report = io.StringIO()
    weights: list[int] = []
    tally = asyncio.run(run())
    assert sum(weights) <= sum(file.size for file in find_inputs([folder]).files)
    return tally, [json.loads(line) for line in report.getvalue().splitlines()]


def counts(tally: Tally) -> dict[str, dict[str, int]]:
    return {type: {str(result): count for result, count in found.items()} for type, found in tally.by_type.items()}


def patient(id: str, **more: Any) -> dict[str, Any]:
    return {"resourceType": "Patient", "id": id, **more}


def observation(id: str, subject: str) -> dict[str, Any]:
    return {"resourceType": "Observation", "id": id, "subject": {"reference": subject}}


def transaction(*resources: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    entries = [
        {
            "fullUrl": f"urn:uuid:{uuid}",
            "resource": resource,
            "request": {"method": "POST", "url": resource["resourceType"]},
        }
        for uuid, resource in resources
    ]
    return {"resourceType": "Bundle", "type": "transaction", "entry": entries}


@pytest.mark.parametrize("over_http", [True, False])
def test_a_second_load_makes_no_duplicates(tmp_path: Path, over_http: bool) -> None:
    subject = {"reference": f"urn:uuid:{A}"}
    write(
        tmp_path / "b.json",
        transaction((A, {"resourceType": "Patient"}), (B, {"resourceType": "Observation", "subject": subject})),
    )
    write(tmp_path / "c.ndjson", patient("p1"), {"resourceType": "Basic"})
    fake = FakeFhir()
    with served(fake) as url:

        def client() -> httpx.AsyncClient:
            return open_client(url) if over_http else open_local_client(fake)

        first, _ = loaded(client, tmp_path)
        again, _ = loaded(client, tmp_path)
    assert counts(first) == {"Patient": {"created": 2}, "Observation": {"created": 1}, "Basic": {"created": 1}}
    assert counts(again) == {"Patient": {"unchanged": 2}, "Observation": {"unchanged": 1}, "Basic": {"unchanged": 1}}
    assert len(fake.resources) == 4
    assert fake.resources[f"Observation/{B}"][1]["subject"] == {"reference": f"Patient/{A}"}


def test_what_points_to_later_files_is_tried_again(tmp_path: Path) -> None:
    """The file names hide the order: a1 needs z9; m1 and n1, in different files, need each other."""
    write(tmp_path / "a1.json", transaction((A, observation(A, "Patient/z"))))
    write(tmp_path / "a2.ndjson", observation("o1", "Patient/z"), observation("o2", "Patient/nobody"))
    write(tmp_path / "m.json", patient("m", link=[{"other": {"reference": "Patient/n"}}]))
    write(tmp_path / "n.json", patient("n", link=[{"other": {"reference": "Patient/m"}}]))
    write(tmp_path / "z9.json", transaction((B, patient("x"))))
    write(tmp_path / "zz.json", {"resourceType": "Bundle", "type": "batch", "entry": [_put(patient("z"))]})
    fake = FakeFhir()
    tally, lines = loaded(lambda: open_local_client(fake), tmp_path, concurrency=1)
    assert counts(tally) == {"Patient": {"created": 4}, "Observation": {"created": 2, "failed": 1}}
    assert [(Path(line["file"]).name, line["entry"], line["status"]) for line in lines] == [
        ("a2.ndjson", "line 2", 422)
    ]
    assert "`Patient/nobody` has no target" in lines[0]["text"]


def _put(resource: dict[str, Any]) -> dict[str, Any]:
    return {"resource": resource, "request": {"method": "PUT", "url": f"{resource['resourceType']}/{resource['id']}"}}


def test_one_bad_line_does_not_keep_out_its_group(tmp_path: Path) -> None:
    write(tmp_path / "a.ndjson", patient("1"), patient("2", active="yes"), patient("3"))
    fake = FakeFhir()
    tally, lines = loaded(lambda: open_local_client(fake), tmp_path)
    assert counts(tally) == {"Patient": {"created": 2, "failed": 1}}
    assert [(line["entry"], line["status"]) for line in lines] == [("line 2", 400)]
    assert "`active` is not a boolean" in lines[0]["text"]


def test_of_a_resource_that_stands_twice_the_later_wins(tmp_path: Path) -> None:
    """R4, batch: entries have no order among each other; so both must not be in one request."""
    write(tmp_path / "a.ndjson", patient("1", active=True), patient("2"), patient("1", active=False), patient("3"))
    fake = FakeFhir()
    for _ in range(2):
        tally, lines = loaded(lambda: open_local_client(fake), tmp_path)
        assert (sum(counts(tally)["Patient"].values()), lines) == (4, [])
        assert fake.resources["Patient/1"][1]["active"] is False
    assert fake.resources["Patient/1"][0] == 4
    assert not any(_repeats(json.loads(bundle)) for bundle in fake.posted)


def _repeats(bundle: dict[str, Any]) -> bool:
    urls = [entry["request"]["url"] for entry in bundle["entry"]]
    return len(set(urls)) < len(urls)


def test_a_refused_transaction_is_one_failure_and_leaves_nothing(tmp_path: Path) -> None:
    write(tmp_path / "a.json", transaction((A, patient(A)), (B, patient(B, active=7))))
    fake = FakeFhir()
    tally, lines = loaded(lambda: open_local_client(fake), tmp_path)
    assert counts(tally) == {"Patient": {"failed": 2}}
    assert (tally.failures, len(lines), fake.resources) == (1, 1, {})


def test_the_failing_entry_of_a_transaction_is_named(tmp_path: Path) -> None:
    write(tmp_path / "a.json", transaction((A, patient(A)), (B, observation(B, "Patient/none"))))
    _, lines = loaded(lambda: open_local_client(FakeFhir()), tmp_path)
    assert [line["entry"] for line in lines] == ["entry[1]"]


def test_a_conditional_create_that_finds_its_resource_is_unchanged(tmp_path: Path) -> None:
    entry = {
        "resource": {"resourceType": "Practitioner", "identifier": [{"value": "7"}]},
        "request": {"method": "POST", "url": "Practitioner", "ifNoneExist": "identifier=7"},
    }
    write(tmp_path / "a.json", {"resourceType": "Bundle", "type": "transaction", "entry": [entry]})
    fake = FakeFhir()
    results = [counts(loaded(lambda: open_local_client(fake), tmp_path)[0]) for _ in range(2)]
    assert results == [{"Practitioner": {"created": 1}}, {"Practitioner": {"unchanged": 1}}]
    assert len(fake.resources) == 1


def test_a_broken_server_fails_each_resource_once(tmp_path: Path) -> None:
    write(tmp_path / "a.ndjson", patient("1"), patient("2"))
    write(tmp_path / "b.json", "nonsense")  # type: ignore[arg-type]
    tally, lines = loaded(lambda: open_local_client(FakeFhir(broken=500)), tmp_path)
    assert counts(tally) == {"Patient": {"failed": 2}}
    assert sorted((Path(line["file"]).name, line["status"]) for line in lines) == [
        ("a.ndjson", 500),
        ("a.ndjson", 500),
        ("b.json", None),
    ]
    assert "it broke" in lines[-1]["text"]


def test_an_application_that_raises_counts_as_no_answer(tmp_path: Path) -> None:
    async def raises(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("no")

    with pytest.raises(ConnectionError, match="RuntimeError"):
        loaded(lambda: open_local_client(raises), tmp_path)


NOW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("method", "status", "etag", "modified", "result"),
    [
        ("PUT", 201, 'W/"1"', NOW, "created"),
        ("PUT", 200, 'W/"2"', NOW, "updated"),
        ("PUT", 200, 'W/"2"', NOW - timedelta(seconds=1), "unchanged"),
        ("PUT", 200, 'W/"1"', None, "unchanged"),
        ("POST", 201, 'W/"1"', NOW, "created"),
        ("POST", 200, 'W/"4"', NOW, "unchanged"),
        ("DELETE", 204, "", None, "deleted"),
        ("GET", 200, 'W/"1"', NOW, "read"),
        ("PUT", 412, "", None, "failed"),
    ],
)
def test_what_an_entry_did(method: str, status: int, etag: str, modified: datetime | None, result: str) -> None:
    assert find_result(method, status, etag, modified, NOW) == result
