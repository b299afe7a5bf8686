"""Every kind of structural fault is refused with its path, once (https://hl7.org/fhir/R4/json.html)."""

from __future__ import annotations

from typing import Any

import pytest

from fhir_server.validation.structure import MOST_ISSUES, StructureValidator

ABSENT = {"extension": [{"url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason", "valueCode": "unknown"}]}
CLINICAL = "http://terminology.hl7.org/CodeSystem/condition-clinical"
BASIC = {"resourceType": "Basic", "code": {"text": "x"}}


def patient(**elements: Any) -> dict[str, Any]:
    return {"resourceType": "Patient", **elements}


def observation(**elements: Any) -> dict[str, Any]:
    return {"resourceType": "Observation", "status": "final", "code": {"text": "x"}, **elements}


def condition(**elements: Any) -> dict[str, Any]:
    return {"resourceType": "Condition", "subject": {"reference": "Patient/1"}, **elements}


def extended(*extensions: Any) -> dict[str, Any]:
    return patient(extension=list(extensions))


VALID = {
    "only a type": patient(),
    "sibling of a single primitive": patient(birthDate="1970-03-30", _birthDate={"id": "a", **ABSENT}),
    "extension instead of a value": patient(_birthDate=ABSENT),
    # json.html#primitive: "null values are used to fill out both arrays"
    "null pairing": patient(name=[{"given": ["A", None, "C"], "_given": [None, ABSENT, {"id": "c"}]}]),
    "siblings without values": patient(name=[{"_given": [ABSENT]}]),
    "a required element that is only extended": {
        "resourceType": "Observation",
        "_status": ABSENT,
        "code": {"text": "x"},
    },
    "an extended choice": observation(_valueString=ABSENT),
    "an extension with an id": extended({"id": "1", "url": "http://example.org", "valueInteger": 1}),
    "an extension whose value is extended": extended({"url": "http://example.org", "_valueString": ABSENT}),
    "a nested extension": extended({"url": "http://example.org", "extension": [{"url": "a", "valueDecimal": 1.0}]}),
    "contained": patient(contained=[{"resourceType": "Organization", "id": "o", "name": "O"}]),
    "a bundle": {
        "resourceType": "Bundle",
        "type": "batch-response",
        "entry": [{"resource": patient(active=True), "response": {"status": "200", "outcome": BASIC}}],
    },
    "parameters": {
        "resourceType": "Parameters",
        "parameter": [{"name": "a", "part": [{"name": "b", "resource": patient()}]}, {"name": "c", "valueInteger": 1}],
    },
    "a second coding in a required value set": condition(
        clinicalStatus={"coding": [{"system": "urn:own", "code": "1"}, {"system": CLINICAL, "code": "active"}]}
    ),
    "no code for a stated reason": condition(clinicalStatus=ABSENT),
}

FAULTS: dict[str, tuple[Any, str, str]] = {
    "no resourceType": ({"id": "1"}, "required", "Resource"),
    "unknown resourceType": ({"resourceType": "Pet"}, "value", "Pet"),
    "an abstract resourceType": ({"resourceType": "DomainResource"}, "value", "DomainResource"),
    "a datatype as resourceType": ({"resourceType": "HumanName"}, "value", "HumanName"),
    "resourceType of the wrong JSON type": ({"resourceType": ["Patient"]}, "value", "Resource"),
    "not an object": ([], "structure", "Resource"),
    "unknown element": (patient(nme="A"), "structure", "Patient.nme"),
    "unknown nested element": (patient(name=[{"givn": ["A"]}]), "structure", "Patient.name[0].givn"),
    "a key that is no identifier": (patient(**{"first name": "A"}), "structure", "Patient.`first name`"),
    "resourceType in a datatype": (
        patient(name=[{"resourceType": "HumanName"}]),
        "structure",
        "Patient.name[0].resourceType",
    ),
    "fhir_comments": (patient(fhir_comments=["x"]), "structure", "Patient.fhir_comments"),
    "a choice without its type": (observation(value="1"), "structure", "Observation.value"),
    "a sibling of an object": (patient(_name=[ABSENT]), "structure", "Patient._name"),
    "a sibling of the id": (patient(id="1", _id=ABSENT), "structure", "Patient._id"),
    "missing": ({"resourceType": "Observation", "code": {"text": "x"}}, "required", "Observation.status"),
    "missing array": ({"resourceType": "OperationOutcome"}, "required", "OperationOutcome.issue"),
    "missing choice": (
        {"resourceType": "MedicationRequest", "status": "active", "intent": "order", "subject": {"display": "x"}},
        "required",
        "MedicationRequest.medication",
    ),
    "array for a single element": (patient(gender=["male"]), "structure", "Patient.gender"),
    "array for a single object": (patient(maritalStatus=[{"text": "M"}]), "structure", "Patient.maritalStatus"),
    "single object for an array": (patient(name={"text": "A"}), "structure", "Patient.name"),
    "single primitive for an array": (patient(name=[{"given": "A"}]), "structure", "Patient.name[0].given"),
    "empty array": (patient(name=[]), "structure", "Patient.name"),
    "empty object": (patient(name=[{}]), "structure", "Patient.name[0]"),
    "empty single object": (patient(maritalStatus={}), "structure", "Patient.maritalStatus"),
    "empty string": (patient(name=[{"family": ""}]), "value", "Patient.name[0].family"),
    "blank string": (patient(name=[{"family": " \n"}]), "value", "Patient.name[0].family"),
    "null": (patient(birthDate=None), "structure", "Patient.birthDate"),
    "null beside a sibling": (patient(birthDate=None, _birthDate=ABSENT), "structure", "Patient.birthDate"),
    "null sibling": (patient(birthDate="1970", _birthDate=None), "structure", "Patient.birthDate"),
    "null object": (patient(name=[None]), "structure", "Patient.name[0]"),
    "null without a sibling": (patient(name=[{"given": ["A", None]}]), "structure", "Patient.name[0].given[1]"),
    "null in both": (
        patient(name=[{"given": ["A", None], "_given": [ABSENT, None]}]),
        "structure",
        "Patient.name[0].given[1]",
    ),
    "lone null sibling": (patient(name=[{"_given": [None]}]), "structure", "Patient.name[0].given[0]"),
    "arrays of different length": (
        patient(name=[{"given": ["A", "B"], "_given": [ABSENT]}]),
        "structure",
        "Patient.name[0].given",
    ),
    "sibling that is no array": (
        patient(name=[{"given": ["A"], "_given": ABSENT}]),
        "structure",
        "Patient.name[0].given",
    ),
    "sibling that is no object": (patient(birthDate="1970", _birthDate="x"), "structure", "Patient.birthDate"),
    "empty sibling": (patient(birthDate="1970", _birthDate={}), "structure", "Patient.birthDate"),
    "sibling with only an id": (patient(_birthDate={"id": "a"}), "structure", "Patient.birthDate"),
    "sibling with a value": (patient(_birthDate={"value": "1970", **ABSENT}), "structure", "Patient.birthDate.value"),
    "fault inside a sibling": (
        patient(_birthDate={"extension": [{"valueCode": "unknown"}]}),
        "required",
        "Patient.birthDate.extension[0].url",
    ),
    "string for a boolean": (patient(active="true"), "structure", "Patient.active"),
    "string for an object": (patient(maritalStatus="M"), "structure", "Patient.maritalStatus"),
    "object for a string": (patient(gender={"code": "male"}), "structure", "Patient.gender"),
    "number for a string": (patient(name=[{"family": 1}]), "structure", "Patient.name[0].family"),
    "1.0 for an integer": (observation(valueInteger=1.0), "structure", "Observation.value.ofType(integer)"),
    "beyond 32 bits": (observation(valueInteger=2**31), "value", "Observation.value.ofType(integer)"),
    "a day that does not exist": (patient(birthDate="2023-02-30"), "value", "Patient.birthDate"),
    "code outside its value set": (patient(gender="M"), "code-invalid", "Patient.gender"),
    "code in the wrong case": (patient(gender="Male"), "code-invalid", "Patient.gender"),
    "concept outside its value set": (
        condition(clinicalStatus={"coding": [{"system": CLINICAL, "code": "sick"}]}),
        "code-invalid",
        "Condition.clinicalStatus",
    ),
    "concept without a code": (
        condition(clinicalStatus={"text": "active"}),
        "code-invalid",
        "Condition.clinicalStatus",
    ),
    "two types of a choice": (observation(valueString="a", valueInteger=1), "structure", "Observation.value"),
    "two types, one extended": (observation(valueString="a", _valueInteger=ABSENT), "structure", "Observation.value"),
    "a type the choice does not have": (
        observation(valueAddress={"city": "X"}),
        "structure",
        "Observation.valueAddress",
    ),
    "extension without url": (extended({"valueString": "a"}), "required", "Patient.extension[0].url"),
    "extension without value": (extended({"url": "http://example.org"}), "invariant", "Patient.extension[0]"),
    "extension with only an id": (
        extended({"url": "http://example.org", "id": "a"}),
        "invariant",
        "Patient.extension[0]",
    ),
    "extension with value and extension": (
        extended({"url": "http://example.org", "valueString": "a", **ABSENT}),
        "invariant",
        "Patient.extension[0]",
    ),
    "extension with two values": (
        extended({"url": "http://example.org", "valueString": "a", "valueCode": "a"}),
        "structure",
        "Patient.extension[0].value",
    ),
    "contained in contained": (
        patient(contained=[{"resourceType": "Patient", "contained": [{"resourceType": "Patient"}]}]),
        "invariant",
        "Patient.contained[0].contained",
    ),
    "fault in a contained resource": (
        patient(contained=[{"resourceType": "Patient", "active": 1}]),
        "structure",
        "Patient.contained[0].active",
    ),
    "contained without a type": (patient(contained=[{"id": "1"}]), "required", "Patient.contained[0]"),
    "contained of an unknown type": (patient(contained=[{"resourceType": "Pet"}]), "value", "Patient.contained[0]"),
    "contained null": (patient(contained=[None]), "structure", "Patient.contained[0]"),
    "fault in a bundle's entry": (
        {
            "resourceType": "Bundle",
            "type": "batch",
            "entry": [{"resource": patient()}, {"resource": patient(active=1)}],
        },
        "structure",
        "Bundle.entry[1].resource.active",
    ),
    "fault beside a bundle's entry": (
        {
            "resourceType": "Bundle",
            "type": "batch",
            "entry": [{"resource": patient(), "request": {"method": "PUSH", "url": "x"}}],
        },
        "code-invalid",
        "Bundle.entry[0].request.method",
    ),
    "entry that is no object": (
        {"resourceType": "Bundle", "type": "batch", "entry": ["x"]},
        "structure",
        "Bundle.entry[0]",
    ),
    "entry's resource that is no object": (
        {"resourceType": "Bundle", "type": "batch", "entry": [{"resource": "x"}]},
        "structure",
        "Bundle.entry[0].resource",
    ),
    "fault in an entry's outcome": (
        {
            "resourceType": "Bundle",
            "type": "batch-response",
            "entry": [{"response": {"status": "400", "outcome": {"resourceType": "OperationOutcome"}}}],
        },
        "required",
        "Bundle.entry[0].response.outcome.issue",
    ),
    "fault in a parameter's part": (
        {
            "resourceType": "Parameters",
            "parameter": [{"name": "a", "part": [{"name": "b", "resource": patient(active=1)}]}],
        },
        "structure",
        "Parameters.parameter[0].part[0].resource.active",
    ),
}


@pytest.mark.parametrize("resource", VALID.values(), ids=VALID)
def test_valid(validator: StructureValidator, resource: dict[str, Any]) -> None:
    assert validator.find_issues(resource) == ()


@pytest.mark.parametrize(("resource", "code", "path"), FAULTS.values(), ids=FAULTS)
def test_fault(validator: StructureValidator, resource: Any, code: str, path: str) -> None:
    [issue] = validator.find_issues(resource)
    assert (issue.severity, issue.code, issue.expression) == ("error", code, (path,))
    assert issue.diagnostics.endswith((".", "?"))
    assert "`" in issue.diagnostics


def test_all_faults_at_once(validator: StructureValidator) -> None:
    resource = observation(
        status="done",
        subject={"reference": 1},
        component=[{"code": {"text": "a"}}, {"valueQuantity": {"value": "7"}}],
        nonsense=True,
    )
    assert [(issue.code, issue.expression[0]) for issue in validator.find_issues(resource)] == [
        ("code-invalid", "Observation.status"),
        ("structure", "Observation.subject.reference"),
        ("structure", "Observation.component[1].value.ofType(Quantity).value"),
        ("required", "Observation.component[1].code"),
        ("structure", "Observation.nonsense"),
    ]


SENTENCES = {
    "`Patient` has no element `brithDate`. Did you mean `birthDate`?": patient(brithDate="1970"),
    "`Observation` has no element `effective`. The key names the type, as in `effectiveDateTime`, `effectivePeriod`, "
    "`effectiveTiming` …": observation(effective="2020"),
    "`Observation` must have `status`.": {"resourceType": "Observation", "code": {"text": "x"}},
    "`Patient.gender` is `M`; it must be one of `female`, `male`, `other`, `unknown`.": patient(gender="M"),
    "`Patient.name` repeats, so it must be a JSON array, not an object.": patient(name={"text": "A"}),
    "`Patient.active` is `1`; it must be `true` or `false` without quotation marks.": patient(active=1),
    # Invariants that are part of the structure name their key, as all others do.
    "ele-1: `Patient.name[0]` is an empty object": patient(name=[{}]),
    "ele-1: the `_` member of `Patient.birthDate` is an empty object": patient(birthDate="1970", _birthDate={}),
    "ext-1: `Patient.extension[0]` must have a value": extended({"url": "a"}),
    "ext-1: `Patient.extension[0]` has both a value": extended(
        {"url": "a", "valueString": "x", "extension": [{"url": "b", "valueString": "x"}]}
    ),
    "dom-2: `Patient.contained[0]` is a contained resource": patient(
        contained=[{"resourceType": "Patient", "contained": [{"resourceType": "Patient"}]}]
    ),
}


@pytest.mark.parametrize(("sentence", "resource"), SENTENCES.items())
def test_sentences(validator: StructureValidator, sentence: str, resource: dict[str, Any]) -> None:
    [issue] = validator.find_issues(resource)
    assert issue.diagnostics.startswith(sentence)


def test_faults_are_listed_up_to_a_limit(validator: StructureValidator) -> None:
    issues = validator.find_issues(patient(name=[{"family": ""}] * 10_000))
    assert len(issues) == MOST_ISSUES + 1
    assert issues[-1].diagnostics == f"The resource has more than {MOST_ISSUES} faults; the rest is not listed."


def test_long_keys_and_values_are_cut(validator: StructureValidator) -> None:
    issues = validator.find_issues(patient(**{"k" * 100_000: 1, "birthDate": "9" * 100_000}))
    assert len(issues) == 2
    assert all(len(issue.diagnostics) < 1000 and len(issue.expression[0]) < 200 for issue in issues)


def test_a_hundred_levels(validator: StructureValidator) -> None:
    """The depth limit of the reader is 100; the walk must reach the bottom."""
    innermost: dict[str, Any] = {"url": "a"}
    for _ in range(48):
        innermost = {"url": "a", "extension": [innermost]}
    [issue] = validator.find_issues(extended(innermost))
    assert issue.expression == ("Patient" + ".extension[0]" * 49,)
