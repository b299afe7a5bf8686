"""What `load` makes of a file: the same identity at every load, and the resource's own bytes (`docs/load.md`)."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from fhir_server.commands.loading.inputs import Failure, find_inputs
from fhir_server.commands.loading.submissions import Submission, read_submissions

UUID = "39cc9d76-0952-4ded-9b39-b97d1e43b9cf"


def made(folder: Path, name: str, content: Any, as_posted: bool = False) -> list[Submission | Failure]:
    """The submissions of one file with this content (a str as it is, else as JSON)."""
    text = content if isinstance(content, str) else json.dumps(content)
    data = text.encode("utf-8", "surrogatepass")
    (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return list(read_submissions(find_inputs([folder / name]).files, as_posted))


def only(found: list[Submission | Failure]) -> Submission:
    (submission,) = found
    assert isinstance(submission, Submission)
    return submission


def requests(submission: Submission) -> list[tuple[str, str]]:
    return [
        (entry["request"]["method"], entry["request"]["url"])
        for entry in json.loads(submission.write_bundle("transaction"))["entry"]
    ]


def bundle(type: str, *entries: dict[str, Any]) -> dict[str, Any]:
    return {"resourceType": "Bundle", "type": type, "entry": list(entries)}


def post(type: str, full_url: str | None = None, **resource: Any) -> dict[str, Any]:
    entry = {"resource": {"resourceType": type, **resource}, "request": {"method": "POST", "url": type}}
    return entry if full_url is None else {"fullUrl": full_url, **entry}


def test_urn_uuid_full_urls_become_the_ids_of_puts(tmp_path: Path) -> None:
    submission = only(made(tmp_path, "a.json", bundle("transaction", post("Patient", f"urn:uuid:{UUID}", active=True))))
    assert submission.kind == "transaction"
    assert json.loads(submission.entries[0].text) == {
        "fullUrl": f"urn:uuid:{UUID}",
        "resource": {"id": UUID, "resourceType": "Patient", "active": True},
        "request": {"method": "PUT", "url": f"Patient/{UUID}"},
    }


def test_other_verbs_and_conditional_creates_stay(tmp_path: Path) -> None:
    conditional = post("Practitioner", f"urn:uuid:{UUID}")
    conditional["request"]["ifNoneExist"] = "identifier=x|1"
    others = [
        conditional,
        {"request": {"method": "DELETE", "url": "Patient/1"}},
        {"request": {"method": "GET", "url": "Patient?name=a"}},
        {
            "resource": {"resourceType": "Patient", "id": "2"},
            "request": {"method": "PUT", "url": "Patient/2", "ifMatch": 'W/"3"'},
        },
    ]
    submission = only(made(tmp_path, "a.json", bundle("transaction", *others)))
    assert json.loads(submission.write_bundle("transaction"))["entry"] == others
    assert [entry.type for entry in submission.entries] == ["Practitioner", "Patient", "Patient", "Patient"]


def test_as_posted_keeps_the_verbs(tmp_path: Path) -> None:
    given = bundle("batch", post("Patient", f"urn:uuid:{UUID}"), post("Patient"))
    submission = only(made(tmp_path, "a.json", given, as_posted=True))
    assert submission.kind == "batch"
    assert json.loads(submission.write_bundle("batch")) == given


@pytest.mark.parametrize(
    ("full_url", "id", "expected"),
    [
        (None, "a1", "a1"),
        ("http://example.org/fhir/Patient/b2", None, "b2"),
        ("http://example.org/fhir/Patient/b2", "a1", "a1"),
        (f"urn:uuid:{UUID}", "a1", UUID),
    ],
)
def test_identity_comes_from_uuid_then_id_then_url(
    tmp_path: Path, full_url: str | None, id: str | None, expected: str
) -> None:
    entry = post("Patient", full_url, **({"id": id} if id else {}))
    submission = only(made(tmp_path, "a.json", bundle("transaction", entry)))
    assert requests(submission) == [("PUT", f"Patient/{expected}")]
    assert json.loads(submission.entries[0].text)["resource"]["id"] == expected


def test_a_resource_without_identity_gets_one_from_its_content(tmp_path: Path) -> None:
    texts = [
        '{"resourceType":"Patient","active":true}',
        '{ "active": true,\n "resourceType": "Patient" }',
        '{"resourceType":"Observation","valueDecimal":1.10}',
        '{"resourceType":"Observation","valueDecimal":1.1}',
    ]
    ids = [requests(only(made(tmp_path, "a.json", text)))[0][1].partition("/")[2] for text in texts]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3
    assert all(len(id) == 36 and id[14] == "5" for id in ids)


@pytest.mark.parametrize("identity", ['"id":"x",', ""])
def test_a_resource_keeps_its_bytes(tmp_path: Path, identity: str) -> None:
    inner = '"valueQuantity" : {"value": 1.10 , "unit":"\\u006bg"}, "effectiveDateTime":"2020-01-01T00:00:00-05:00"}'
    submission = only(made(tmp_path, "a.json", f'{{{identity}"resourceType":"Observation",{inner}'))
    assert f'"resourceType":"Observation",{inner}'.encode() in submission.write_bundle("batch")


def test_a_replaced_id_keeps_the_other_members(tmp_path: Path) -> None:
    text = f'{{"resourceType":"Bundle","type":"collection","entry":[{{"fullUrl":"urn:uuid:{UUID}","resource":'
    text += '{"resourceType":"Basic","id":"old","extension":[{"url":"u","valueDecimal":2.50}]}}]}'
    submission = only(made(tmp_path, "a.json", text))
    resource = f'{{"resourceType":"Basic","id":"{UUID}","extension":[{{"url":"u","valueDecimal":2.50}}]}}'
    assert resource.encode() in submission.entries[0].text


@pytest.mark.parametrize(("type", "kind"), [("collection", "group"), ("searchset", "group"), ("document", "group")])
def test_other_bundles_are_taken_apart(tmp_path: Path, type: str, kind: str) -> None:
    entries: list[dict[str, Any]] = [
        {"fullUrl": "http://x/Patient/1", "resource": {"resourceType": "Patient", "id": "1"}},
        {"resource": {"resourceType": "OperationOutcome"}, "search": {"mode": "outcome"}},
    ]
    submission = only(made(tmp_path, "a.json", bundle(type, *entries)))
    assert (submission.kind, requests(submission)) == (kind, [("PUT", "Patient/1")])


def test_a_collection_tied_by_urns_stays_in_one_transaction(tmp_path: Path) -> None:
    entry = {"fullUrl": f"urn:uuid:{UUID}", "resource": {"resourceType": "Patient"}}
    assert only(made(tmp_path, "a.json", bundle("collection", entry))).kind == "transaction"


def test_a_history_gives_the_newest_version_and_no_deleted_one(tmp_path: Path) -> None:
    versions: list[dict[str, Any]] = [
        {
            "fullUrl": "http://x/Patient/1",
            "resource": {"resourceType": "Patient", "id": "1", "active": True},
            "request": {"method": "PUT", "url": "Patient/1"},
        },
        {"fullUrl": "http://x/Patient/2", "request": {"method": "DELETE", "url": "Patient/2"}},
        {
            "fullUrl": "http://x/Patient/2",
            "resource": {"resourceType": "Patient", "id": "2"},
            "request": {"method": "POST", "url": "Patient"},
        },
        {
            "fullUrl": "http://x/Patient/1",
            "resource": {"resourceType": "Patient", "id": "1"},
            "request": {"method": "POST", "url": "Patient"},
        },
    ]
    submission = only(made(tmp_path, "a.json", bundle("history", *versions)))
    assert requests(submission) == [("PUT", "Patient/1")]
    assert b'"active": true' in submission.entries[0].text


@pytest.mark.parametrize("name", ["a.ndjson", "a.jsonl", "a.ndjson.gz"])
def test_lines_travel_in_groups(tmp_path: Path, name: str) -> None:
    lines = [json.dumps({"resourceType": "Patient", "id": str(index)}) for index in range(450)]
    found = made(tmp_path, name, "\n\n".join(lines) + "\n")
    groups = [one for one in found if isinstance(one, Submission)]
    assert [len(group.entries) for group in groups] == [200, 200, 50]
    assert groups[2].entries[-1].place == "line 899"
    assert sum(group.weight for group in groups) <= (tmp_path / name).stat().st_size


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.json", "nonsense", "It is not JSON"),
        ("a.json", '{"resourceType":"Patient"} {"resourceType":"Patient"}', "It is not JSON"),
        ("a.json", "[1]", "It is not FHIR"),
        ("a.json", '{"a":1}', "It has no `resourceType`"),
        ("a.json", '{"resourceType":"Patient","id":7}', "It is not FHIR"),
        ("a.json", '{"resourceType":"Patient","id":null}', "Expected `str`, got `null`"),
        ("a.json", r'{"resourceType":"Patient","language":"\ud800"}', "It is not JSON: .*surrogate.*column 39"),
        ("a.json", '{"resourceType":"Patient"', "It is not JSON: .*line 1 column 26"),
        ("a.json", '{"resourceType":"Patient","id":"a b"}', "The id `a b` of this Patient is not"),
        ("a.json", '{"resourceType":"Bundle","type":"batch","entry":[{}]}', r"`entry\[0\]` has no `request`"),
        (
            "a.json",
            f'{{"resourceType":"Bundle","type":"collection","entry":[{{"fullUrl":"urn:uuid:{UUID}","resource":'
            '{"resourceType":"Basic","id":"a","id":"b"}}]}',
            "The key `id` stands twice",
        ),
        ("a.ndjson", "nonsense", "line 1: It is not JSON"),
    ],
)
def test_what_is_not_fhir_is_a_failure_of_its_file(tmp_path: Path, name: str, content: str, words: str) -> None:
    (failure,) = made(tmp_path, name, content)
    assert isinstance(failure, Failure)
    assert failure.source == str(tmp_path / name)
    assert failure.status is None
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(failure.text)


@pytest.mark.parametrize("name", ["a.json", "a.ndjson"])
def test_a_byte_order_mark_is_left_out(tmp_path: Path, name: str) -> None:
    """RFC 8259, 8.1: what reads JSON may ignore it; editors on Windows write it."""
    (submission,) = made(tmp_path, name, '\ufeff{"resourceType":"Patient","id":"1"}')
    assert isinstance(submission, Submission)
    assert [entry.type for entry in submission.entries] == ["Patient"]
    assert b'{"resourceType":"Patient","id":"1"}' in submission.entries[0].text


@pytest.mark.parametrize("url", ["http:", "https://", "", "/"])
def test_a_url_without_type_is_left_to_the_server(tmp_path: Path, url: str) -> None:
    bundle = {"resourceType": "Bundle", "type": "batch", "entry": [{"request": {"method": "DELETE", "url": url}}]}
    (submission,) = made(tmp_path, "a.json", json.dumps(bundle))
    assert isinstance(submission, Submission)
    assert submission.entries[0].method == "DELETE"


def test_unreadable_files_are_failures(tmp_path: Path) -> None:
    (tmp_path / "cut.json.gz").write_bytes(gzip.compress(b'{"resourceType":"Patient"}')[:-9])
    (tmp_path / "plain.json.gz").write_bytes(b"{}")
    found = find_inputs([tmp_path, tmp_path / "absent.json"])
    assert [failure.source for failure in found.failures] == [str(tmp_path / "absent.json")]
    assert "No such file" in found.failures[0].text
    texts = sorted(one.text for one in read_submissions(found.files) if isinstance(one, Failure))
    assert ["cannot be read" in text for text in texts] == [True, True]


def test_folders_are_searched_and_ordered(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / ".git" / "deep").mkdir(parents=True)
    names = [
        "Observation.ndjson",
        "deep/Patient-1.json",
        "hospitalInformation155.json",
        "Abe.json",
        "notes.txt",
        ".x.json",
        ".git/deep/Patient-2.json",
    ]
    for name in names:
        (tmp_path / name).write_text("{}" if name != "Abe.json" else "{ }")
    found = find_inputs([tmp_path])
    assert [file.path.name for file in found.files] == [
        "hospitalInformation155.json",
        "Patient-1.json",
        "Abe.json",
        "Observation.ndjson",
    ]
    assert found.ignored == 3
