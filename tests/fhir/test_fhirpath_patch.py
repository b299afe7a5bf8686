"""FHIRPath Patch: each operation of https://hl7.org/fhir/R4/fhirpatch.html, its rules, and the paths it may use."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fhir_server.fhir import fhirpath_patch, json_tree
from fhir_server.fhir.definitions import Definitions, load
from fhir_server.fhir.outcome import FhirError, Invalid, NotSupported, Unprocessable

PATIENT: dict[str, Any] = {
    "resourceType": "Patient",
    "id": "p",
    "identifier": [{"system": "urn:a", "value": "1"}, {"system": "urn:b", "value": "2"}],
    "name": [
        {"use": "official", "family": "Okafor", "given": ["Amina", "Grace"]},
        {"use": "nickname", "given": ["Mina"]},
    ],
    "gender": "female",
    "birthDate": "1984-03-09",
    "_birthDate": {"extension": [{"url": "urn:time", "valueDateTime": "1984-03-09T04:00:00Z"}]},
    "contact": [{"name": {"text": "Chidi"}, "gender": "male"}],
}
OBSERVATION = {
    "resourceType": "Observation",
    "status": "final",
    "code": {"text": "weight"},
    "valueQuantity": {"value": 80, "unit": "kg"},
    "note": [{"text": "n"}],
}


@pytest.fixture(scope="module")
def definitions() -> Definitions:
    return load()


@pytest.fixture
def patched(definitions: Definitions) -> Callable[..., Any]:
    def apply(resource: dict[str, Any], *operations: dict[str, Any]) -> Any:
        before = json_tree.copy_tree(resource)
        body = {"resourceType": "Parameters", "parameter": list(operations)}
        try:
            return fhirpath_patch.apply(resource, body, definitions)
        finally:
            assert resource == before

    return apply


TYPES = {"path": "valueString", "name": "valueString", "index": "valueInteger"}
TYPES |= {"source": "valueInteger", "destination": "valueInteger"}


def operation(type: str, path: str, *values: dict[str, Any], **parts: Any) -> dict[str, Any]:
    """One operation parameter; `values` are the members of the part `value`."""
    plain = [{"name": name, TYPES[name]: content} for name, content in {"path": path, **parts}.items()]
    value = [{"name": "value", **members} for members in values]
    return {"name": "operation", "part": [{"name": "type", "valueCode": type}, *plain, *value]}


def named(**members: Any) -> dict[str, Any]:
    """A nested part: `named(name="gender", valueCode="male")`."""
    return members


def without(resource: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in resource.items() if key not in keys}


# --- add: "appended to the element identified in the path, using the name specified" --------------------------------


def test_add_a_primitive(patched: Any) -> None:
    bare = without(PATIENT, "birthDate", "_birthDate")
    made = patched(bare, operation("add", "Patient", {"valueDate": "1930-01-01"}, name="birthDate"))
    assert made == {**bare, "birthDate": "1930-01-01"}


def test_add_a_complex_element(patched: Any) -> None:
    status = {"text": "married"}
    made = patched(PATIENT, operation("add", "Patient", {"valueCodeableConcept": status}, name="maritalStatus"))
    assert made == {**PATIENT, "maritalStatus": status}


def test_add_appends_to_a_list(patched: Any) -> None:
    third = {"system": "urn:c", "value": "3"}
    made = patched(PATIENT, operation("add", "Patient", {"valueIdentifier": third}, name="identifier"))
    assert made == {**PATIENT, "identifier": [*PATIENT["identifier"], third]}


def test_add_a_backbone_element_by_parts(patched: Any) -> None:
    """Anonymous types are given as "a set of parts that are values"."""
    parts = [
        named(name="name", valueHumanName={"text": "a name"}),
        named(name="telecom", valueContactPoint={"value": "1"}),
        named(name="telecom", valueContactPoint={"value": "2"}),
    ]
    made = patched(PATIENT, operation("add", "Patient", {"part": parts}, name="contact"))
    assert made["contact"] == [
        *PATIENT["contact"],
        {"name": {"text": "a name"}, "telecom": [{"value": "1"}, {"value": "2"}]},
    ]


def test_add_to_a_choice_takes_the_type_of_the_value(patched: Any) -> None:
    made = patched(PATIENT, operation("add", "Patient", {"valueBoolean": False}, name="deceased"))
    assert made == {**PATIENT, "deceasedBoolean": False}


def test_add_an_extension_to_a_primitive_of_a_list(patched: Any) -> None:
    parts = [named(name="url", valueUri="urn:x"), named(name="value", valueString="y")]
    made = patched(PATIENT, operation("add", "Patient.name[0].given[1]", {"part": parts}, name="extension"))
    assert made["name"][0]["given"] == ["Amina", "Grace"]
    assert made["name"][0]["_given"] == [None, {"extension": [{"url": "urn:x", "valueString": "y"}]}]


def test_add_a_contained_resource(patched: Any) -> None:
    inner = {"resourceType": "Organization", "id": "o", "name": "O"}
    add = operation("add", "Patient", {"resource": inner}, name="contained")
    rename = operation("replace", "Patient.contained[0].name", {"valueString": "P"})
    assert patched(PATIENT, add, rename)["contained"] == [{**inner, "name": "P"}]
    assert inner["name"] == "O"


def test_add_a_narrative_by_parts(patched: Any) -> None:
    div = '<div xmlns="http://www.w3.org/1999/xhtml">x</div>'
    parts = [named(name="status", valueCode="generated"), named(name="div", valueString=div)]
    made = patched(PATIENT, operation("add", "Patient", {"part": parts}, name="text"))
    assert made["text"] == {"status": "generated", "div": div}


# --- insert: "into the nominated list at the index specified (0 based)", at most the number of elements --------------


@pytest.mark.parametrize("index", [0, 1, 2])
def test_insert(patched: Any, index: int) -> None:
    new = {"system": "urn:n"}
    expected = list(PATIENT["identifier"])
    expected.insert(index, new)
    made = patched(PATIENT, operation("insert", "Patient.identifier", {"valueIdentifier": new}, index=index))
    assert made == {**PATIENT, "identifier": expected}


def test_insert_moves_the_extensions_of_primitives_along(patched: Any) -> None:
    extension = {"extension": [{"url": "urn:x", "valueCode": "y"}]}
    resource = {"resourceType": "Patient", "name": [{"given": ["A", "B"], "_given": [None, extension]}]}
    made = patched(resource, operation("insert", "Patient.name[0].given", {"valueString": "Z"}, index=0))
    assert made["name"] == [{"given": ["Z", "A", "B"], "_given": [None, None, extension]}]


def test_insert_into_an_empty_list(patched: Any) -> None:
    made = patched(
        {"resourceType": "Patient"}, operation("insert", "Patient.name", {"valueHumanName": {"text": "x"}}, index=0)
    )
    assert made == {"resourceType": "Patient", "name": [{"text": "x"}]}


# --- delete: "Path of the element to delete (if found)", "Only a single element can be deleted" ----------------------


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("Patient.birthDate", without(PATIENT, "birthDate", "_birthDate")),
        ("Patient.birthDate.extension('urn:time')", without(PATIENT, "_birthDate")),
        ("Patient.contact[0].gender", {**PATIENT, "contact": [{"name": {"text": "Chidi"}}]}),
        ("Patient.contact.where(gender='male')", without(PATIENT, "contact")),
        ("Patient.identifier.where(system = 'urn:a')", {**PATIENT, "identifier": PATIENT["identifier"][1:]}),
        ("Patient.name.where(use='nickname').given", {**PATIENT, "name": [PATIENT["name"][0], {"use": "nickname"}]}),
        ("Patient.identifier[2]", PATIENT),
        ("Patient.deceased", PATIENT),
        ("Patient.contact.name.text", {**PATIENT, "contact": [{"gender": "male"}]}),
    ],
)
def test_delete(patched: Any, path: str, expected: dict[str, Any]) -> None:
    assert patched(PATIENT, operation("delete", path)) == expected


# --- replace, move ----------------------------------------------------------------------------------------------------


def test_replace_a_primitive_replaces_its_extensions(patched: Any) -> None:
    made = patched(PATIENT, operation("replace", "Patient.birthDate", {"valueDate": "1930-01-01"}))
    assert made == {**without(PATIENT, "_birthDate"), "birthDate": "1930-01-01"}


def test_replace_in_a_list(patched: Any) -> None:
    made = patched(PATIENT, operation("replace", "Patient.name[0].given[1]", {"valueString": "Gloria"}))
    assert made["name"][0] == {"use": "official", "family": "Okafor", "given": ["Amina", "Gloria"]}


def test_replace_a_choice_by_another_type_keeps_the_place(patched: Any) -> None:
    made = patched(OBSERVATION, operation("replace", "Observation.value", {"valueString": "heavy"}))
    assert list(made.items()) == [
        ("resourceType", "Observation"),
        ("status", "final"),
        ("code", {"text": "weight"}),
        ("valueString", "heavy"),
        ("note", [{"text": "n"}]),
    ]


@pytest.mark.parametrize(
    ("source", "destination", "expected"),
    [(0, 2, "bcad"), (3, 0, "dabc"), (1, 2, "acbd"), (2, 2, "abcd")],
)
def test_move(patched: Any, source: int, destination: int, expected: str) -> None:
    """The element stands at `destination` afterwards."""
    resource = {"resourceType": "Patient", "name": [{"given": list("abcd")}]}
    moved = operation("move", "Patient.name.given", source=source, destination=destination)
    assert patched(resource, moved)["name"][0]["given"] == list(expected)


# --- paths ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("Patient.name.where(use='official').given[0]", {"valueString": "Zoe"}),
        ("Patient.name.where(use='official' and family='Okafor').given.first()", {"valueString": "Zoe"}),
        ("name.first().given.where($this = 'Amina')", {"valueString": "Zoe"}),
        ("Resource.name.given[0]", {"valueString": "Zoe"}),
        ("DomainResource.name.where(family = 'Okafor').single().given[0]", {"valueString": "Zoe"}),
    ],
)
def test_paths_to_the_first_given_name(patched: Any, path: str, value: dict[str, Any]) -> None:
    made = patched(PATIENT, operation("replace", path, value))
    assert [name["given"] for name in made["name"]] == [["Zoe", "Grace"], ["Mina"]]


@pytest.mark.parametrize(
    "path",
    [
        "Observation.value.unit",
        "Observation.value.ofType(Quantity).unit",
        "Observation.value.as(FHIR.Quantity).unit",
        "Observation.value.where(value = 80).unit",
        "Observation.value.where(value = 80.0).unit",
        "Observation.where(code.text = 'weight').value.unit",
    ],
)
def test_paths_into_a_choice(patched: Any, path: str) -> None:
    made = patched(OBSERVATION, operation("replace", path, {"valueString": "lb"}))
    assert made["valueQuantity"] == {"value": 80, "unit": "lb"}


def test_last_and_index_count_over_the_whole_collection(patched: Any) -> None:
    """FHIRPath: an indexer applies to the collection so far, here the given names of all names."""
    for path in ("Patient.name.given.last()", "Patient.name.given[2]"):
        made = patched(PATIENT, operation("replace", path, {"valueString": "X"}))
        assert [name["given"] for name in made["name"]] == [["Amina", "Grace"], ["X"]]


# --- errors -----------------------------------------------------------------------------------------------------------

STRING = {"valueString": "x"}
REFUSED: list[tuple[dict[str, Any], type[FhirError]]] = [
    (operation("change", "Patient.gender"), Invalid),
    (operation("delete", "Patient.gender", name="gender"), Invalid),
    (operation("replace", "Patient.gender"), Invalid),
    (operation("insert", "Patient.name", {"valueHumanName": {"text": "x"}}), Invalid),
    ({"name": "operation"}, Invalid),
    ({"name": "op", "part": []}, Invalid),
    ({"name": "operation", "part": [{"name": "type", "valueCode": "delete"}] * 2}, Invalid),
    (operation("delete", "Patient..gender"), Invalid),
    (operation("delete", "Patient.name["), Invalid),
    (operation("delete", "Patient.name[1.5]"), Invalid),
    (operation("delete", "Patient.name[-1]"), Invalid),
    (operation("delete", "Patient.name.where(use=family)"), Invalid),
    (operation("delete", "Patient.name;"), Invalid),
    (operation("delete", ""), Invalid),
    (operation("delete", "Patient." + "a" * 1000), Invalid),
    (operation("delete", "Patient.nickname"), Invalid),
    (operation("delete", "Observation.status"), Invalid),
    (operation("delete", "Patient.deceasedBoolean"), Invalid),
    (operation("delete", "Patient.gender.system"), Invalid),
    (operation("delete", "Patient.generalPractitioner.resolve().name"), NotSupported),
    (operation("add", "Patient", STRING, name="nickname"), Invalid),
    (operation("add", "Patient", STRING, name="maritalStatus"), Invalid),
    (operation("add", "Patient", STRING, name="deceased"), Invalid),
    (operation("add", "Patient", {"part": [named(name="nothing", valueString="x")]}, name="contact"), Invalid),
    (operation("insert", "Patient.gender", {"valueCode": "male"}, index=0), Invalid),
    (operation("insert", "Patient.name[0]", {"valueHumanName": {"text": "x"}}, index=0), Invalid),
    (operation("add", "Patient", {"valueCode": "male"}, name="gender"), Unprocessable),
    (operation("add", "Patient.maritalStatus", STRING, name="text"), Unprocessable),
    (operation("add", "Patient.name", STRING, name="text"), Unprocessable),
    (operation("delete", "Patient.name"), Unprocessable),
    (operation("delete", "Patient"), Unprocessable),
    (operation("replace", "Patient", {"resource": {"resourceType": "Patient"}}), Unprocessable),
    (operation("replace", "Patient.maritalStatus.text", STRING), Unprocessable),
    (operation("replace", "Patient.name.given", STRING), Unprocessable),
    (operation("insert", "Patient.name", {"valueHumanName": {"text": "x"}}, index=3), Unprocessable),
    (operation("insert", "Patient.name", {"valueHumanName": {"text": "x"}}, index=-1), Unprocessable),
    (operation("insert", "Patient.name.given", STRING, index=0), Unprocessable),
    (operation("move", "Patient.name", source=2, destination=0), Unprocessable),
    (operation("move", "Patient.name", source=0, destination=-1), Unprocessable),
    (operation("move", "Patient.communication", source=0, destination=0), Unprocessable),
]


@pytest.mark.parametrize(("refused", "error"), REFUSED)
def test_a_patch_is_refused_whole_and_names_its_operation(
    patched: Any, refused: dict[str, Any], error: type[FhirError]
) -> None:
    with pytest.raises(error) as raised:
        patched(PATIENT, operation("delete", "Patient.identifier[0]"), refused)
    assert raised.value.issues[0].expression == ("Parameters.parameter[1]",)
    assert raised.value.issues[0].diagnostics.endswith(".")


JSON = st.recursive(
    st.sampled_from(["x", 1, True, None, json_tree.Number("1e99999999999999999999")]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["given", "text", "url", "resourceType", "_given", "extension"]), inner)
    ),
    max_leaves=5,
)
NAME_PATHS = ["Patient.name", "Patient.name[0]", "name.given", "name.given[0]", "name.text"]
OTHER_PATHS = ["Patient", "birthDate", "Patient.text", "text.div", "Patient.contained", "contained.text"]
FILTER_PATHS = ["extension('x').value", "contained[0].where(text = 1.5)"]
PATHS = st.sampled_from([*NAME_PATHS, *OTHER_PATHS, *FILTER_PATHS])
VALUES = st.builds(
    lambda key, value: {key: value},
    st.sampled_from(["valueString", "valueHumanName", "valueDate", "resource", "_valueString", "valueQuantity"]),
    JSON,
)
NAMES = st.sampled_from(["name", "text", "given", "contained", "extension", "birthDate"])
OPERATIONS = st.one_of(
    st.builds(lambda path, value, name: operation("add", path, value, name=name), PATHS, VALUES, NAMES),
    st.builds(lambda path, value: operation("insert", path, value, index=0), PATHS, VALUES),
    st.builds(lambda path, value: operation("replace", path, value), PATHS, VALUES),
    st.builds(lambda path: operation("delete", path), PATHS),
    st.builds(lambda path: operation("move", path, source=0, destination=0), PATHS),
)


@given(st.lists(OPERATIONS, min_size=1, max_size=5))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_values_and_paths_are_applied_or_refused(definitions: Definitions, operations: list[Any]) -> None:
    """Values of the wrong JSON type meet the validation of the result, or an error here; never another exception."""
    with suppress(FhirError):
        made = fhirpath_patch.apply(PATIENT, {"resourceType": "Parameters", "parameter": operations}, definitions)
        assert made["resourceType"] == "Patient"


def test_the_body_must_be_parameters(definitions: Definitions) -> None:
    for body in ({"resourceType": "Patient"}, {"resourceType": "Parameters"}, {}):
        with pytest.raises(Invalid):
            fhirpath_patch.apply(PATIENT, body, definitions)


def test_operations_apply_in_order(patched: Any) -> None:
    made = patched(
        PATIENT,
        operation("delete", "Patient.name[0]"),
        operation("replace", "Patient.name[0].use", {"valueCode": "usual"}),
        operation("delete", "Patient.name[0].given"),
    )
    assert made["name"] == [{"use": "usual"}]


def test_numbers_keep_their_text(definitions: Definitions) -> None:
    tree = json_tree.decode(b'{"resourceType":"Observation","valueQuantity":{"value":1.10}}')
    body = operation(
        "add",
        "Observation",
        {"part": [named(name="low", valueQuantity=json_tree.decode(b'{"value":2.500}'))]},
        name="referenceRange",
    )
    made = fhirpath_patch.apply(tree, {"resourceType": "Parameters", "parameter": [body]}, definitions)
    assert json_tree.encode(made) == (
        b'{"resourceType":"Observation","valueQuantity":{"value":1.10},"referenceRange":[{"low":{"value":2.500}}]}'
    )
