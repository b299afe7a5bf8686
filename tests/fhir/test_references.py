"""Reference texts: https://hl7.org/fhir/R4/references.html#literal."""

from __future__ import annotations

import pytest

from fhir_server.fhir.references import Reference, find_literal_references, find_local_target, parse

BASE = "http://127.0.0.1:8000/fhir"
TYPES = frozenset({"Patient", "Observation", "Practitioner", "Bundle"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Patient/23", Reference("local", "Patient/23", "Patient", "23")),
        ("Patient/23/_history/4", Reference("local", "Patient/23/_history/4", "Patient", "23", "4")),
        (f"{BASE}/Patient/a-b.C", Reference("local", f"{BASE}/Patient/a-b.C", "Patient", "a-b.C")),
        ("http://other/fhir/Patient/1", Reference("foreign", "http://other/fhir/Patient/1", "Patient", "1")),
        (
            "http://other/fhir/Patient/1/_history/2",
            Reference("foreign", "http://other/fhir/Patient/1/_history/2", "Patient", "1", "2"),
        ),
        (f"{BASE}2/Patient/1", Reference("foreign", f"{BASE}2/Patient/1", "Patient", "1")),
        ("http://other/anything", Reference("foreign", "http://other/anything")),
        ("#p1", Reference("contained", "#p1", id="p1")),
        (
            "urn:uuid:c757873d-ec9a-4326-a141-556f43239520",
            Reference("urn", "urn:uuid:c757873d-ec9a-4326-a141-556f43239520"),
        ),
        ("Unknown/23", Reference("logical", "Unknown/23")),
        ("Patient?identifier=1", Reference("logical", "Patient?identifier=1")),
        ("23", Reference("logical", "23")),
        ("Patient/" + "x" * 65, Reference("logical", "Patient/" + "x" * 65)),
    ],
)
def test_a_reference_is_taken_apart(text: str, expected: Reference) -> None:
    assert parse(text, BASE, TYPES) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Patient/23", "Patient/23"),
        ("Patient/23/_history/4", "Patient/23"),
        (f"{BASE}/Patient/23", "Patient/23"),
        ("http://other/fhir/Patient/1", None),
        ("Unknown/1", None),
        ("Patient/not an id", None),
        ("Patient", None),
        ("#Patient/1", None),
    ],
)
def test_local_references_lose_their_version(text: str, expected: str | None) -> None:
    assert find_local_target(text, BASE, TYPES) == expected


def test_literal_references_are_found_anywhere() -> None:
    resource = {
        "resourceType": "Observation",
        "subject": {"reference": "Patient/1", "display": 'say "reference":"Patient/quoted"'},
        "performer": [{"reference": f"{BASE}/Practitioner/2"}, {"reference": "Patient/1"}],
        "extension": [{"url": "http://x", "valueReference": {"reference": "Practitioner/3"}}],
        "contained": [{"resourceType": "Patient", "managingOrganization": {"reference": "Patient/4"}}],
        "hasMember": [{"reference": "#a"}, {"reference": "urn:uuid:1"}, {"reference": "http://other/Patient/5"}],
        "derivedFrom": [
            {"reference": "Observation/6/_history/1"},
            {"reference": "Unknown/7"},
            {"display": "Patient/8"},
        ],
    }
    assert find_literal_references(resource, BASE, TYPES) == (
        "Patient/1",
        "Patient/4",
        "Practitioner/2",
        "Practitioner/3",
    )


def test_absolute_references_are_local_only_below_the_base() -> None:
    resource = {"resourceType": "Observation", "subject": {"reference": f"{BASE}/Patient/1"}}
    assert find_literal_references(resource, "", TYPES) == ()
    assert find_literal_references(resource, "http://127x0x0x1:8000/fhir", TYPES) == ()


def test_the_entries_of_a_bundle_are_resources_of_their_own() -> None:
    entry = {"resource": {"resourceType": "Observation", "subject": {"reference": "Patient/1"}}}
    assert find_literal_references({"resourceType": "Bundle", "entry": [entry]}, BASE, TYPES) == ()
