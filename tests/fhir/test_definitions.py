"""The definitions say what the R4 pages say (https://hl7.org/fhir/R4/resourcelist.html)."""

from __future__ import annotations

from pathlib import Path

import pytest

from fhir_server.fhir import definitions as module
from fhir_server.fhir.definitions import Definitions, SearchParameterFacts, load
from scripts import generate_definitions
from tests.shared import shared_path


@pytest.fixture(scope="module")
def definitions() -> Definitions:
    return load()


def parameter(definitions: Definitions, type_: str, code: str) -> SearchParameterFacts:
    [found] = [p for p in definitions.search_parameters if p.code == code and type_ in p.base]
    return found


def test_resource_types(definitions: Definitions) -> None:
    # R4 has 148 resource types; Resource and DomainResource are abstract.
    assert len(definitions.resource_types) == 146
    assert list(definitions.resource_types) == sorted(definitions.resource_types)
    assert {"Patient", "Parameters", "Binary", "VisionPrescription"} <= set(definitions.resource_types)
    assert not {"Resource", "DomainResource", "MetadataResource", "SubscriptionStatus"} & set(
        definitions.resource_types
    )


def test_primitives(definitions: Definitions) -> None:
    # https://hl7.org/fhir/R4/datatypes.html#primitive, and xhtml of Narrative.div
    assert definitions.primitives == {
        "boolean", "integer", "string", "decimal", "uri", "url", "canonical", "base64Binary", "instant", "date",
        "dateTime", "time", "code", "oid", "id", "markdown", "unsignedInt", "positiveInt", "uuid", "xhtml",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("owner", "key", "expected"),
    [
        ("Patient", "id", ("id", "Patient.id", 0, False)),
        ("Patient", "name", ("HumanName", "Patient.name", 0, True)),
        ("Patient", "contact", ("Patient.contact", "Patient.contact", 0, True)),
        ("Patient", "contained", ("Resource", "Patient.contained", 0, True)),
        ("Patient", "deceasedDateTime", ("dateTime", "Patient.deceased[x]", 0, False)),
        ("Patient.contact", "id", ("string", "Patient.contact.id", 0, False)),
        ("Observation", "status", ("code", "Observation.status", 1, False)),
        ("Observation", "valueQuantity", ("Quantity", "Observation.value[x]", 0, False)),
        ("Parameters.parameter", "part", ("Parameters.parameter", "Parameters.parameter.part", 0, True)),
        ("Extension", "url", ("uri", "Extension.url", 1, False)),
        ("Timing", "repeat", ("Timing.repeat", "Timing.repeat", 0, False)),
        ("Bundle.entry", "resource", ("Resource", "Bundle.entry.resource", 0, False)),
        ("Narrative", "div", ("xhtml", "Narrative.div", 1, False)),
        ("Questionnaire.item", "item", ("Questionnaire.item", "Questionnaire.item.item", 0, True)),
    ],
)  # fmt: skip
def test_properties(definitions: Definitions, owner: str, key: str, expected: tuple[str, str, int, bool]) -> None:
    property_ = definitions.properties[owner][key]
    element = property_.element
    assert (property_.type, element.path, element.minimum, element.repeats) == expected
    assert element.choice == element.path.endswith("[x]")
    assert element.name == element.path.rpartition(".")[2].removesuffix("[x]")


def test_a_choice_has_a_key_for_each_type(definitions: Definitions) -> None:
    # https://hl7.org/fhir/R4/observation.html: value[x] has eleven types
    keys = {key for key, p in definitions.properties["Observation"].items() if p.element.name == "value"}
    assert keys == {
        "valueQuantity", "valueCodeableConcept", "valueString", "valueBoolean", "valueInteger", "valueRange",
        "valueRatio", "valueSampledData", "valueTime", "valueDateTime", "valuePeriod",
    }  # fmt: skip


def test_every_type_named_is_defined(definitions: Definitions) -> None:
    for elements in definitions.properties.values():
        for property_ in elements.values():
            known = property_.type in definitions.properties or property_.type in definitions.primitives
            assert known or property_.type == "Resource", property_


def test_targets_and_summary(definitions: Definitions) -> None:
    patient = definitions.properties["Patient"]
    assert patient["generalPractitioner"].element.targets == ("Organization", "Practitioner", "PractitionerRole")
    assert definitions.properties["Observation"]["focus"].element.targets == ()  # Reference(Any)
    assert patient["birthDate"].element.summary
    assert not patient["photo"].element.summary


def test_required_codes(definitions: Definitions) -> None:
    # https://hl7.org/fhir/R4/valueset-administrative-gender.html
    assert definitions.properties["Patient"]["gender"].element.codes == ("female", "male", "other", "unknown")
    # a required binding of a CodeableConcept: https://hl7.org/fhir/R4/valueset-condition-clinical.html
    system = "http://terminology.hl7.org/CodeSystem/condition-clinical"
    codes = ("active", "inactive", "recurrence", "relapse", "remission", "resolved")
    assert definitions.properties["Condition"]["clinicalStatus"].element.codes == tuple(f"{system}|{c}" for c in codes)
    # the package cannot list MIME types, and a preferred binding binds nobody
    assert definitions.properties["Attachment"]["contentType"].element.codes is None
    assert definitions.properties["Attachment"]["language"].element.codes is None


def test_search_parameters(definitions: Definitions) -> None:
    facts = parameter(definitions, "Observation", "code-value-quantity")
    assert facts.type == "composite"
    assert facts.components == (
        ("http://hl7.org/fhir/SearchParameter/clinical-code", "code"),
        ("http://hl7.org/fhir/SearchParameter/Observation-value-quantity", "value.as(Quantity)"),
    )
    subject = parameter(definitions, "Condition", "subject")
    assert (subject.url, subject.targets) == (
        "http://hl7.org/fhir/SearchParameter/Condition-subject",
        ("Group", "Patient"),
    )
    birthdate = parameter(definitions, "Patient", "birthdate")
    assert birthdate.comparators == (
        "eq",
        "ne",
        "gt",
        "ge",
        "lt",
        "le",
        "sa",
        "eb",
        "ap",
    )


def test_parameters_of_all_resources(definitions: Definitions) -> None:
    # https://hl7.org/fhir/R4/search.html#all
    common = {p.code for p in definitions.search_parameters if {"Resource", "DomainResource"} & set(p.base)}
    assert common == {
        "_id", "_lastUpdated", "_tag", "_profile", "_security", "_source",
        "_text", "_content", "_list", "_has", "_type", "_query", "_filter",
    }  # fmt: skip


def test_a_parameter_is_there_once_for_a_type(definitions: Definitions) -> None:
    pairs = [(base, p.code) for p in definitions.search_parameters for base in p.base]
    assert len(pairs) == len(set(pairs))


def test_compartments(definitions: Definitions) -> None:
    # https://hl7.org/fhir/R4/compartmentdefinition-patient.html
    assert set(definitions.compartments) == {"Patient", "Encounter", "RelatedPerson", "Practitioner", "Device"}
    assert definitions.compartments["Patient"]["Observation"] == ("subject", "performer")
    assert "Organization" not in definitions.compartments["Patient"]


def test_the_tables_are_what_the_script_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate_definitions, "TABLES", tmp_path)
    generate_definitions.main(str(shared_path("definitions/hl7.fhir.r4.core.tgz")))
    written = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert written == {file.name: file.read_bytes() for file in module.TABLES.glob("*.json")}
    assert sum(map(len, written.values())) < 2_000_000
