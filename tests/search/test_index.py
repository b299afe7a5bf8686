"""Index entries of whole resources: https://hl7.org/fhir/R4/search.html."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from zoneinfo import ZoneInfo

import orjson
import pytest

from fhir_server.fhir.datetimes import parse_interval
from fhir_server.search.entries import NO_ENTRIES, Entries
from fhir_server.search.index import Index
from fhir_server.search.nested_index import MAX_DEPTH, MAX_NESTED, MAX_NESTED_IN_ALL
from fhir_server.search.registry import Registry
from tests.r4 import R4, REGISTRY
from tests.shared import shared_path

BASE = "http://test/fhir"


@pytest.fixture(scope="module")
def registry() -> Registry:
    return REGISTRY


@pytest.fixture(scope="module")
def index(registry: Registry) -> Index:
    return Index(registry, R4)


def test_an_observation(index: Index) -> None:
    resource: dict[str, Any] = {
        "resourceType": "Observation",
        "id": "o1",
        "meta": {"lastUpdated": "2026-01-01T00:00:00Z", "tag": [{"system": "s", "code": "t"}]},
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "1"}, {"system": "http://loinc.org", "code": "1"}]},
        "subject": {"reference": f"{BASE}/Patient/p1"},
        "effectiveDateTime": "2026-11-23",
        "valueQuantity": {"value": 7.5, "unit": "g"},
    }
    quantity = (7.5, 7.5, "\x1f\x1fg")
    composite = (("1", *quantity), ("1\x1fhttp://loinc.org", *quantity))
    assert index.make_entries("Observation", resource, BASE) == Entries(
        terms={
            "_tag": ("t\x1fs",),
            "status": ("final\x1f",),
            "code": ("1\x1fhttp://loinc.org",),
            "subject": ("Patient/p1",),
            "patient": ("Patient/p1",),
        },
        dates={"date": (parse_interval("2026-11-23"),)},
        numbers={
            "value-quantity": (("", *quantity),),
            "code-value-quantity": composite,
        },
        references=("Patient/p1",),
    )


def test_without_values_there_are_no_entries(index: Index) -> None:
    assert index.make_entries("Observation", {"resourceType": "Observation"}) == NO_ENTRIES
    nulls = {"resourceType": "Patient", "name": [{"given": [None, "Ann"], "_given": [{"id": "a"}, None]}]}
    assert index.make_entries("Patient", nulls).terms["given"] == ("ann\x1fAnn",)


def test_a_contained_resource_is_indexed_by_what_refers_to_it(index: Index) -> None:
    resource = {
        "resourceType": "Observation",
        "contained": [
            {"resourceType": "Observation", "id": "c", "status": "final", "subject": {"reference": "Patient/2"}}
        ],
        "hasMember": [{"reference": "#c"}],
    }
    inside = "has-member:Observation#0"
    found = {
        "_contained": ("Observation",),
        "has-member": ("#c",),
        inside: ("c",),
        f"{inside}.patient": ("Patient/2",),
        f"{inside}.status": ("final\x1f",),
        f"{inside}.subject": ("Patient/2",),
    }
    assert index.make_entries("Observation", resource) == Entries(found, references=("Patient/2",))


def test_what_nothing_refers_to_is_not_indexed(index: Index) -> None:
    contained = [{"resourceType": "Patient", "id": "p", "gender": "male"}, {"resourceType": "Patient"}]
    for focus in ([], [{"reference": "#other"}], [{"reference": "#"}]):
        resource = {"resourceType": "Observation", "contained": contained, "focus": focus}
        found = index.make_entries("Observation", resource).terms
        assert found == {"_contained": ("Patient",)} | ({"focus": (focus[0]["reference"],)} if focus else {})


def test_places_inside_are_bounded(index: Index) -> None:
    """So many of a type by one parameter; a term tells that there are more."""
    found = _panel(index, [f"o{number:02}" for number in range(MAX_NESTED + 1)], {}).terms
    names = {name for name in found if "#" in name and "." not in name}
    places = {f"has-member:Observation#{number}" for number in range(MAX_NESTED)}
    assert names == {*places, "has-member:Observation#more"}
    exactly = _panel(index, [f"o{number:02}" for number in range(MAX_NESTED)], {}).terms
    assert "has-member:Observation#more" not in exactly


def test_a_circle_inside_is_followed_so_far(index: Index) -> None:
    found = _panel(index, ["a"], {"a": ["b"], "b": ["a"]}).terms
    name = "has-member:Observation#0"
    levels = [".".join([name] * depth) for depth in range(1, MAX_DEPTH + 1)]
    assert [found[level] for level in levels] == [("a",), ("b",), ("a",)]
    assert {each for each in found if "more" in each} == {f"{levels[-1]}.has-member:Observation#more"}


def test_places_in_one_resource_are_bounded(index: Index) -> None:
    ids = [f"o{number:02}" for number in range(30)]
    found = _panel(index, ids, dict.fromkeys(ids, ids)).terms
    assert (
        sum(name.endswith(tuple(f"#{number}" for number in range(MAX_NESTED))) for name in found) == MAX_NESTED_IN_ALL
    )
    assert any(name.endswith("#more") for name in found)


def _panel(index: Index, members: list[str], beside: dict[str, list[str]]) -> Entries:
    """An Observation with contained members, of which some have others of them as members."""
    refer = {id: [{"reference": f"#{other}"} for other in others] for id, others in beside.items()}
    contained = [
        {"resourceType": "Observation", "id": id, "hasMember": refer.get(id, [])}
        for id in dict.fromkeys([*members, *refer])
    ]
    direct = [{"reference": f"#{id}"} for id in members]
    return index.make_entries(
        "Observation", {"resourceType": "Observation", "contained": contained, "hasMember": direct}
    )


def test_an_extension_is_indexed_by_its_value(index: Index) -> None:
    url = "http://hl7.org/fhir/StructureDefinition/observation-geneticsGene"
    value = {"coding": [{"system": "http://genes", "code": "BRCA1"}]}
    resource = {
        "resourceType": "Observation",
        "extension": [{"url": url, "valueCodeableConcept": value}, {"url": "http://x", "valueCode": "no"}],
    }
    assert index.make_entries("Observation", resource).terms == {"gene-identifier": ("BRCA1\x1fhttp://genes",)}


def test_only_family_names_of_several_words_have_entries_for_them(index: Index) -> None:
    def terms(*families: str) -> dict[str, tuple[str, ...]]:
        names = [{"family": family, "given": ["Ana Sofía"], "text": "Dr. X"} for family in families]
        found = index.make_entries("Patient", {"resourceType": "Patient", "name": names}).terms
        assert found.keys() - {"name:family-words"} == {"name", "family", "given", "deceased"}
        assert all(f"\x1f{family}" in "".join(found["family"]) for family in families)
        return {code: values for code, values in found.items() if code.endswith(":family-words")}

    assert terms("Muñoz") == terms("O'Brien") == terms("-Berg") == terms("Berg - ") == terms("Berg & .") == {}
    assert terms("van der  Berg", "Smith-Jones") == {"name:family-words": ("berg\x1f", "der\x1f", "jones\x1f")}


def test_the_first_entry_of_a_bundle_is_its_composition_or_message(index: Index) -> None:
    entries = [
        {"resource": {"resourceType": "Composition", "id": "c1"}},
        {"resource": {"resourceType": "Patient", "id": "p"}},
    ]
    found = index.make_entries("Bundle", {"resourceType": "Bundle", "type": "document", "entry": entries})
    assert found.terms["composition"] == ("Composition/c1",)
    assert "message" not in found.terms


def test_dates_without_offset_are_taken_in_the_zone(registry: Registry) -> None:
    berlin = ZoneInfo("Europe/Berlin")
    found = Index(registry, R4, berlin).make_entries("Patient", {"resourceType": "Patient", "birthDate": "1980-07-01"})
    assert found.dates["birthdate"] == (parse_interval("1980-07-01", berlin),)


def test_many_members_cost_in_proportion(index: Index) -> None:
    group = {
        "resourceType": "Group",
        "member": [{"entity": {"reference": f"Patient/{number:06}"}} for number in range(50_000)],
    }
    found = index.make_entries("Group", group)  # quadratic, this would take half a minute
    assert found.terms["member"] == found.references == tuple(f"Patient/{number:06}" for number in range(50_000))


def test_values_are_distinct_and_sorted_on_all_official_examples(index: Index) -> None:
    for path in sorted(shared_path("data/r4-examples").glob("*.json")):
        resource = orjson.loads(path.read_bytes())
        if resource["resourceType"] == "Parameters":
            continue
        found = index.make_entries(resource["resourceType"], resource, BASE)
        parts: tuple[Mapping[str, Sequence[Any]], ...] = (found.terms, found.dates, found.numbers)
        for part in parts:
            for code, values in part.items():
                assert values, (path.name, code)
                assert list(values) == sorted(set(values)), (path.name, code)
        for values in found.dates.values():
            assert all(low <= high for low, high in values), path.name
