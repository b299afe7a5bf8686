"""The official search parameters of all types: https://hl7.org/fhir/R4/searchparameter-registry.html."""

from __future__ import annotations

import pytest

from fhir_server.search.custom import read_facts
from fhir_server.search.index import BY_STORE, Index
from fhir_server.search.parameters.composite import find_kind
from fhir_server.search.parameters.element_keys import list_element_names
from fhir_server.search.registry import Component, CustomParameter, Registry, add_custom, build, remove_custom
from tests.r4 import R4, REGISTRY

COMMON = {"_id", "_lastUpdated", "_tag", "_profile", "_security", "_source"}


@pytest.fixture(scope="module")
def registry() -> Registry:
    return REGISTRY


def test_every_concrete_type_but_parameters_is_served(registry: Registry) -> None:
    assert set(registry.types) == set(R4.resource_types) - {"Parameters"}
    assert build(R4, ["Patient", "Bundle"]).types == ("Bundle", "Patient")


def test_every_type_has_the_common_parameters(registry: Registry) -> None:
    for type in registry.types:
        assert set(registry.parameters(type)) >= COMMON, type
    assert "_text" in registry.parameters("Patient")
    assert "_text" not in registry.parameters("Bundle")  # a Resource, but no DomainResource


def test_no_official_parameter_is_skipped(registry: Registry) -> None:
    built = {
        (parameter.base, parameter.url) for type in registry.types for parameter in registry.parameters(type).values()
    }
    expected = {(base, facts.url) for facts in R4.search_parameters for base in facts.base if base in registry.types}
    assert expected <= built
    special = {
        parameter.code
        for type in registry.types
        for parameter in registry.parameters(type).values()
        if parameter.type == "special"
    }
    # The standard leaves them without an expression.
    assert special == {"_content", "_text", "_filter", "_query", "_list"}


def test_every_expression_compiles(registry: Registry) -> None:
    index = Index(registry, R4)
    for type in registry.types:
        index.make_entries(type, {"resourceType": type})  # ValueError for the first that does not
    expressed = [
        parameter
        for type in registry.types
        for parameter in registry.parameters(type).values()
        if parameter.type != "special" and parameter.code not in BY_STORE
    ]
    assert all(parameter.expression for parameter in expressed)
    assert len(expressed) > 2_000
    assert index.make_entries("Patient", {"resourceType": "Patient"}).terms == {"deceased": ("false\x1f",)}


@pytest.mark.parametrize(
    ("type", "code", "expression"),
    [
        ("Condition", "code", "Condition.code"),
        ("MedicationRequest", "code", "(MedicationRequest.medication as CodeableConcept)"),
        ("Observation", "patient", "Observation.subject.where(resolve() is Patient)"),
        ("Immunization", "date", "Immunization.occurrence"),
        ("Condition", "onset-date", "Condition.onset.as(dateTime) | Condition.onset.as(Period)"),
        ("InsurancePlan", "name", "name | alias"),
        ("Patient", "_tag", "Resource.meta.tag"),
    ],
)
def test_a_shared_parameter_keeps_only_the_branches_of_the_type(
    registry: Registry, type: str, code: str, expression: str
) -> None:
    assert registry.parameters(type)[code].expression == expression


@pytest.mark.parametrize(
    ("type", "code", "repeats"),
    [
        ("Patient", "birthdate", False),
        ("Observation", "date", False),  # effective[x] is one element, whatever its type
        ("Observation", "value-quantity", False),
        ("Condition", "onset-date", False),
        ("Encounter", "subject", False),
        ("Observation", "patient", False),
        ("Patient", "deceased", False),
        ("Patient", "name", True),
        ("Observation", "code", True),  # a concept may have several codings
        ("Observation", "combo-value-quantity", True),
        ("Patient", "general-practitioner", True),
        ("Patient", "phonetic", True),
        ("Goal", "target-date", True),  # Goal.target repeats
    ],
)
def test_whether_a_parameter_repeats(registry: Registry, type: str, code: str, repeats: bool) -> None:
    assert registry.parameters(type)[code].repeats is repeats


def test_parameters_whose_values_are_those_of_others(registry: Registry) -> None:
    """By their expressions in R4: https://hl7.org/fhir/R4/observation.html#search, the names in patient.html#search."""
    divided = {code: each.parts for code, each in registry.parameters("Observation").items() if each.parts}
    assert {code: parts for code, parts in divided.items() if code.startswith("combo-")} == {
        "combo-code": ("code", "component-code"),
        "combo-code-value-concept": ("code-value-concept", "component-code-value-concept"),
        "combo-code-value-quantity": ("code-value-quantity", "component-code-value-quantity"),
        "combo-data-absent-reason": ("component-data-absent-reason", "data-absent-reason"),
        "combo-value-concept": ("component-value-concept", "value-concept"),
        "combo-value-quantity": ("component-value-quantity", "value-quantity"),
    }
    assert registry.parameters("Patient")["phonetic"].parts == ("name",)
    for type in registry.types:
        table = registry.parameters(type)
        named = {code: list_element_names(each) for code, each in table.items() if each.expression}
        for code, parts in ((code, each.parts) for code, each in table.items() if each.parts):
            elements = {name for other, names in named.items() if other != code for name in names}
            assert code not in elements, "entries of an element would pass for those of the parameter"
            assert not any(table[part].parts or table[part].type == "reference" for part in parts)


def test_targets_and_components(registry: Registry) -> None:
    assert set(registry.parameters("Encounter")["subject"].targets) == {"Group", "Patient"}
    assert registry.parameters("Observation")["code-value-quantity"].components == (
        Component("code", "token", "code"),
        Component("value-quantity", "quantity", "value.as(Quantity)"),
    )


def test_the_composites_of_r4_are_joined_in_one_entry(registry: Registry) -> None:
    """Those are answered by one index lookup; only composites of an installation may need more."""
    kinds = {
        find_kind(parameter.components)
        for type in registry.types
        for parameter in registry.parameters(type).values()
        if parameter.type == "composite"
    }
    assert kinds == {"terms", "numbers"}


def test_taking_a_custom_parameter_out_looks_at_the_types_that_have_one(registry: Registry) -> None:
    """Tables of other types are handed on as they are: each check of a SearchParameter takes some out."""
    facts = read_facts(
        {"url": "urn:p", "code": "nick", "type": "string", "base": ["Patient"], "expression": "Patient.name.given"}
    )
    custom = add_custom(registry, R4, [CustomParameter(facts, "p1@1")], {})
    assert custom.custom_types == ("Patient",) and registry.custom_types == ()
    for ids, is_there in ((("p1",), False), (("p2",), True)):
        left = remove_custom(custom, ids)
        assert ("nick" in left.parameters("Patient")) is is_there
        assert left.parameters("Patient").keys() - {"nick"} == registry.parameters("Patient").keys()
        assert left.parameters("Person") is custom.parameters("Person")
