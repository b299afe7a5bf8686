"""The FHIRPath subset of search expressions: https://hl7.org/fhir/R4/searchparameter.html, http://hl7.org/fhirpath/N1/."""

from __future__ import annotations

import pytest

from fhir_server.fhir.path import All, Branch, Compare, Exists, Member, Path, Resolves, Some, Where, parse, parse_for


def steps(expression: str) -> Path:
    (branch,) = parse(expression)
    return branch.steps


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("Patient.name.family", (Member("name"), Member("family"))),
        ("(Observation.value as Quantity)", (Member("value", "Quantity"),)),
        ("Observation.value.as(Quantity)", (Member("value", "Quantity"),)),
        ("Observation.value.ofType(Quantity)", (Member("value", "Quantity"),)),
        ("(Observation.value as CodeableConcept).text", (Member("value", "CodeableConcept"), Member("text"))),
        ("Bundle.entry[0].resource", (Member("entry", index=0), Member("resource"))),
        ("Bundle.entry.first().resource", (Member("entry", index=0), Member("resource"))),
        (
            "Patient.telecom.where(system='phone')",
            (Member("telecom"), Where(Compare((Member("system"),), "=", "phone"))),
        ),
        ("Task.for.where(resolve() is Patient)", (Member("for"), Where(Resolves("Patient")))),
        (
            "Device.extension('http://x')",
            (Member("extension"), Where(Compare((Member("url"),), "=", "http://x"))),
        ),
        (
            "A.b.where(c.exists() and d != 'x').e",
            (
                Member("b"),
                Where(All((Exists((Member("c"),)), Compare((Member("d"),), "!=", "x")))),
                Member("e"),
            ),
        ),
    ],
)
def test_steps(expression: str, expected: Path) -> None:
    assert steps(expression) == expected


def test_a_shared_expression_gives_each_type_its_branches() -> None:
    shared = "AllergyIntolerance.code | (DeviceRequest.code as CodeableConcept) | Resource.meta.tag"
    assert [branch.text for branch in parse_for(shared, "DeviceRequest")] == [
        "(DeviceRequest.code as CodeableConcept)",
        "Resource.meta.tag",
    ]


def test_a_relative_expression_has_no_root() -> None:
    assert parse("name | alias") == (Branch("name", "", (Member("name"),)), Branch("alias", "", (Member("alias"),)))
    assert parse("%resource.referenceSeq.chromosome")[0].root == "%resource"


def test_a_truth_of_the_whole_resource() -> None:
    (branch,) = parse("Patient.deceased.exists() and Patient.deceased != false")
    deceased = (Member("deceased"),)
    assert branch.root == "Patient"
    assert branch.truth == All((Exists(deceased), Compare(deceased, "!=", False)))


@pytest.mark.parametrize(
    ("expression", "told"),
    [
        ("Patient.name.substring(1)", "function `substring`"),
        ("Patient.name[", "ends too early"),
        ("Patient.name)", "cannot be read from `\\)`"),
        ("Patient.name ~ 'x'", "unreadable at"),
        ("Patient.subject.where(resolve())", "`resolve\\(\\)` without `is`"),
        ("", "ends too early"),
        ("(" * 2000 + "Patient.name" + ")" * 2000, "more than 30 levels of parentheses"),
        ("Patient.name.where(" * 200 + "given" + ")" * 200, "more than 30 levels of parentheses"),
        ("Questionnaire" + ".item" * 900 + ".linkId", "more than 100 steps"),
    ],
)
def test_what_goes_beyond_the_subset_is_refused(expression: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        parse(expression)


def test_any_number_of_conditions_is_one_list() -> None:
    (branch,) = parse("Patient.where(" + " or ".join(["active = true"] * 2000) + ").name")
    assert isinstance(branch.steps[0], Where) and isinstance(branch.steps[0].condition, Some)
    assert len(branch.steps[0].condition.conditions) == 2000
