"""String, token, reference and uri criteria: https://hl7.org/fhir/R4/search.html#string, #token, #reference, #uri."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.fhir.outcome import Invalid, NotSupported
from fhir_server.search.escapes import split, unescape
from fhir_server.search.index import Index
from fhir_server.search.parameters import TYPES, make_sort
from fhir_server.search.parameters.string import normalise
from fhir_server.search.query import Ids, Sort
from fhir_server.search.registry import Registry

PATIENT: dict[str, Any] = {
    "resourceType": "Patient",
    "id": "p1",
    "active": True,
    "gender": "female",
    "name": [{"family": "Van  Ángel", "given": ["José", "Ma|ría"], "prefix": ["Dr."]}],
    "address": [{"line": ["1 Straße"], "city": "Köln", "postalCode": "50667", "use": "home"}],
    "telecom": [{"system": "phone", "value": "0221 1"}, {"system": "email", "value": "a@example.org"}],
    "identifier": [{"system": "http://mrn", "value": "A1"}, {"value": "B,2"}],
    "managingOrganization": {"reference": "Organization/o1"},
    "generalPractitioner": [{"identifier": {"system": "http://npi", "value": "99"}, "type": "Practitioner"}],
}
OBSERVATION: dict[str, Any] = {
    "resourceType": "Observation",
    "status": "final",
    "code": {"coding": [{"system": "http://loinc.org", "code": "8480-6"}, {"code": "local"}]},
    "category": [{"text": "only text"}],
    "subject": {"reference": "http://test/fhir/Patient/p1/_history/3"},
    "performer": [{"reference": "http://elsewhere/fhir/Practitioner/7"}, {"reference": "#contained"}],
}


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        # "the field starts with the value, case-insensitive and accent-insensitive, whitespace and punctuation aside"
        ("family", "van angel", True),
        ("family", "VAN ÁN", True),
        ("family", "angel", True),
        ("family", "gel", False),
        ("name", "jose", True),
        ("name", "dr", True),
        ("given", "van", False),
        ("address", "1 STRASSE", True),
        ("address-city", "koln", True),
        ("address", "home", False),
        ("family:exact", "Van  Ángel", True),
        ("family:exact", "van angel", False),
        ("family:exact", "Van", False),
        ("family:contains", "NGEL", True),
        ("family:contains", "gela", False),
        ("given", r"ma\|ria", True),
    ],
)
def test_strings(finds: Callable[..., bool], name: str, value: str, found: bool) -> None:
    assert finds(PATIENT, name, value) is found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" José\t LÓPEZ ", "jose lopez"),
        ("ﬁne", "fine"),
        ("Straße", "strasse"),
        ("İz", "iz"),
        ("ångström", "angstrom"),
        ("O'Brien-Ng, MD.", "obrienng md"),
        ("«Ñu»…", "nu"),
        ("a_b/c", "abc"),
        ("5 < 6 + $", "5 < 6 + $"),
        ("A\x1fB", "a b"),
    ],
)
def test_normalised_text(text: str, expected: str) -> None:
    assert normalise(text) == expected


@given(st.text(max_size=20))
def test_normalising_upper_case_changes_nothing_for_ascii(text: str) -> None:
    if text.isascii():
        assert normalise(text.upper()) == normalise(text)


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("identifier", "A1", True),
        ("identifier", "A", False),
        ("identifier", "a1", False),
        ("identifier", "http://mrn|A1", True),
        ("identifier", "http://other|A1", False),
        ("identifier", "|A1", False),
        ("identifier", r"|B\,2", True),
        ("identifier", "http://mrn|", True),
        ("identifier", "http://m|", False),
        ("gender", "female", True),
        ("active", "true", True),
        ("active", "false", False),
        ("telecom", "0221 1", True),
        ("phone", "0221 1", True),
        ("phone", "a@example.org", False),
        ("email", "a@example.org", True),
        ("deceased", "false", True),
        ("deceased", "true", False),
    ],
)
def test_tokens(finds: Callable[..., bool], name: str, value: str, found: bool) -> None:
    assert finds(PATIENT, name, value) is found


@pytest.mark.parametrize(
    ("deceased", "value"),
    [
        ({"deceasedBoolean": True}, "true"),
        ({"deceasedBoolean": False}, "false"),
        ({"deceasedDateTime": "2020"}, "true"),
    ],
)
def test_deceased_is_a_truth_of_the_whole_patient(
    finds: Callable[..., bool], deceased: dict[str, Any], value: str
) -> None:
    assert finds({"resourceType": "Patient", **deceased}, "deceased", value)


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("code", "8480-6", True),
        ("code", "http://loinc.org|8480-6", True),
        ("code", "|8480-6", False),
        ("code", "|local", True),
        ("code", "http://loinc.org|local", False),
        ("status", "final", True),
        ("category", "only text", False),
    ],
)
def test_tokens_of_concepts(finds: Callable[..., bool], name: str, value: str, found: bool) -> None:
    assert finds(OBSERVATION, name, value) is found


def test_a_concept_with_text_alone_is_not_missing(index: Index) -> None:
    assert index.make_entries("Observation", OBSERVATION).terms["category"] == ("\x1f",)


def test_not_is_left_to_the_caller(clause_of: Callable[..., Any]) -> None:
    assert TYPES["token"].negating_modifiers == {"not", "not-in"}
    assert TYPES["token"].modifiers == {"above", "below", "in", "not", "not-in", "of-type", "text"}
    assert clause_of("Patient", "gender:not", "male") == clause_of("Patient", "gender", "male")


def test_id_is_asked_of_the_store(clause_of: Callable[..., Any]) -> None:
    assert clause_of("Patient", "_id", "p1") == Ids(("p1",))


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("subject", "Patient/p1", True),
        ("subject", "p1", True),
        ("subject", "http://test/fhir/Patient/p1", True),
        ("subject", "Patient/p1/_history/3", True),
        ("subject", "Patient/p2", False),
        ("subject", "Group/p1", False),
        ("subject:Patient", "p1", True),
        ("subject:Patient", "Patient/p1", True),
        ("subject:Group", "p1", False),
        ("patient", "p1", True),
        ("performer", "http://elsewhere/fhir/Practitioner/7", True),
        ("performer", "Practitioner/7", False),
        ("performer", "7", False),
    ],
)
def test_references(finds: Callable[..., bool], name: str, value: str, found: bool) -> None:
    assert finds(OBSERVATION, name, value) is found


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("general-practitioner:identifier", "99", True),
        ("general-practitioner:identifier", "http://npi|99", True),
        ("general-practitioner:identifier", "http://mrn|99", False),
        ("general-practitioner", "99", False),
        ("organization", "o1", True),
    ],
)
def test_logical_references_are_found_by_identifier(
    finds: Callable[..., bool], name: str, value: str, found: bool
) -> None:
    assert finds(PATIENT, name, value) is found


def test_patient_takes_only_references_to_patients(finds: Callable[..., bool]) -> None:
    # `Observation.subject.where(resolve() is Patient)`
    grouped = {"resourceType": "Observation", "subject": {"reference": "Group/g1"}}
    assert finds(grouped, "subject", "Group/g1")
    assert not finds(grouped, "patient", "Group/g1")
    named = {"resourceType": "Observation", "subject": {"type": "Patient", "identifier": {"value": "1"}}}
    assert finds(named, "patient:identifier", "1")


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("http://x/Questionnaire/q", True),
        ("http://x/Questionnaire/q|2", True),
        ("http://x/Questionnaire/q|1", False),
        ("http://x/Questionnaire", False),
    ],
)
def test_canonicals_are_found_with_and_without_version(finds: Callable[..., bool], value: str, found: bool) -> None:
    response = {"resourceType": "QuestionnaireResponse", "questionnaire": "http://x/Questionnaire/q|2"}
    assert finds(response, "questionnaire", value) is found


def test_uris_are_equal_or_not(finds: Callable[..., bool]) -> None:
    system = {
        "resourceType": "CodeSystem",
        "url": "http://x/CodeSystem/a",
        "meta": {"profile": ["http://p"], "source": "#1"},
    }
    assert finds(system, "url", "http://x/CodeSystem/a")
    assert not finds(system, "url", "http://x/CodeSystem")
    assert not finds(system, "url", "http://X/CodeSystem/a")
    assert finds(system, "_profile", "http://p")
    assert finds(system, "_source", "#1")


@pytest.mark.parametrize(
    ("type", "name", "value", "told"),
    [
        ("Patient", "identifier", "a|b|c", "a token is `code`"),
        ("Patient", "identifier", "|", "a token is `code`"),
        ("Patient", "_id", "x|p1", "an id has no system"),
        ("Patient", "name", " ", "at least one character"),
        ("Observation", "subject", "Unknown/1", "a reference is `Type/id`"),
        ("Observation", "subject", "a|b|c", "a reference is `Type/id`"),
        ("Observation", "subject:Patient", "Group/1", "another type than `Patient`"),
    ],
)
def test_bad_values_are_named(clause_of: Callable[..., Any], type: str, name: str, value: str, told: str) -> None:
    with pytest.raises(Invalid) as error:
        clause_of(type, name, value)
    assert told in str(error.value)
    assert value in str(error.value)


@pytest.mark.parametrize(("type", "code"), [("Patient", "_text"), ("Patient", "_content"), ("Patient", "_filter")])
def test_special_parameters_are_not_supported(clause_of: Callable[..., Any], type: str, code: str) -> None:
    with pytest.raises(NotSupported, match=f"`{code}`"):
        clause_of(type, code, "x")


@pytest.mark.parametrize(
    ("type", "code", "kind"),
    [
        ("Patient", "family", "term"),
        ("Patient", "gender", "term"),
        ("Patient", "organization", "term"),
        ("Patient", "birthdate", "date"),
        ("Observation", "value-quantity", "number"),
        ("RiskAssessment", "probability", "number"),
        ("Patient", "_id", "id"),
        ("Patient", "_lastUpdated", "lastUpdated"),
    ],
)
def test_sort_keys(registry: Registry, type: str, code: str, kind: Any) -> None:
    assert make_sort(registry.parameters(type)[code], True) == Sort(code, kind, True)


@pytest.mark.parametrize(("type", "code"), [("Location", "near"), ("Observation", "code-value-quantity")])
def test_what_has_no_order_cannot_be_sorted_by(registry: Registry, type: str, code: str) -> None:
    with pytest.raises(Invalid, match=f"`_sort={code}`"):
        make_sort(registry.parameters(type)[code], False)


@pytest.mark.parametrize(
    ("text", "separator", "expected"),
    [
        ("a,b", ",", ["a", "b"]),
        (r"a\,b,c", ",", [r"a\,b", "c"]),
        (r"a\\,b", ",", [r"a\\", "b"]),
        (r"a\|b|c", "|", [r"a\|b", "c"]),
        (r"a\$b$c$", "$", [r"a\$b", "c", ""]),
        ("", ",", [""]),
        ("a\\", ",", ["a\\"]),
    ],
)
def test_splitting_honours_escapes(text: str, separator: str, expected: list[str]) -> None:
    assert split(text, separator) == expected


@pytest.mark.parametrize(
    ("text", "expected"), [(r"a\,b\|c\$d\\e", r"a,b|c$d\e"), (r"\n", r"\n"), ("a\\", "a\\"), (r"\\,", "\\,")]
)
def test_unescaping(text: str, expected: str) -> None:
    assert unescape(text) == expected


@given(st.lists(st.text(), min_size=1, max_size=4))
def test_what_was_escaped_comes_back(parts: list[str]) -> None:
    escaped = [part.replace("\\", r"\\").replace(",", r"\,").replace("|", r"\|").replace("$", r"\$") for part in parts]
    assert [unescape(part) for part in split(",".join(escaped), ",")] == parts
