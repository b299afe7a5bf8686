"""Valid resources with one fault put in are refused with that fault's path, and schema and diagnosis agree."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fhir_server.fhir.definitions import Definitions, Property
from fhir_server.validation.structure import StructureValidator
from tests.validation.corpora import folder

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Place:
    """A member of an object inside a resource; `keys` lead from the resource to the object."""

    keys: tuple[str | int, ...]
    owner_path: str
    owner: str
    key: str
    member: Property

    @property
    def path(self) -> str:
        """The member's FHIRPath, without an index."""
        element = self.member.element
        return f"{self.owner_path}.{element.name}" + (f".ofType({self.member.type})" if element.choice else "")

    def object(self, resource: Object) -> Object:
        """The object in a copy of the resource."""
        found: Any = resource
        for key in self.keys:
            found = found[key]
        return found  # type: ignore[no-any-return]


def places(resource: Object, definitions: Definitions) -> Iterator[Place]:
    """Every member of every object, nested resources left out."""

    def walk(value: Object, owner: str, path: str, keys: tuple[str | int, ...]) -> Iterator[Place]:
        for key, member in value.items():
            property_ = definitions.properties[owner].get(key)
            if property_ is None or property_.type == "Resource":
                continue
            place = Place(keys, path, owner, key, property_)
            yield place
            if property_.type in definitions.primitives:
                continue
            if not property_.element.repeats:
                yield from walk(member, property_.type, place.path, (*keys, key))
                continue
            for index, one in enumerate(member):
                yield from walk(one, property_.type, f"{place.path}[{index}]", (*keys, key, index))

    return walk(resource, resource["resourceType"], resource["resourceType"], ())


Mutation = Callable[[Place, Object, Definitions], str | None]
"""Puts a fault at a place of the object; returns the path expected, or None where this fault cannot be made here."""


def first(place: Place) -> str:
    return place.path + ("[0]" if place.member.element.repeats else "")


def put(place: Place, target: Object, value: Any) -> str:
    """Replaces the value, or the first of several."""
    if place.member.element.repeats:
        target[place.key][0] = value
    else:
        target[place.key] = value
    return first(place)


def value_at(place: Place, target: Object) -> Any:
    return target[place.key][0] if place.member.element.repeats else target[place.key]


def unknown_element(place: Place, target: Object, _: Definitions) -> str:
    target["zzUnknown"] = 1
    return f"{place.owner_path}.zzUnknown"


def null(place: Place, target: Object, _: Definitions) -> str | None:
    return None if f"_{place.key}" in target else put(place, target, None)


def wrong_cardinality(place: Place, target: Object, _: Definitions) -> str:
    value = target[place.key]
    target[place.key] = value[0] if place.member.element.repeats else [value]
    return place.path


def empty(place: Place, target: Object, definitions: Definitions) -> str | None:
    if place.member.element.repeats:
        target[place.key] = []
        return place.path
    if isinstance(value_at(place, target), str):
        return put(place, target, "")
    return None if place.member.type in definitions.primitives else put(place, target, {})


def wrong_json_type(place: Place, target: Object, _: Definitions) -> str:
    return put(place, target, 1 if isinstance(value_at(place, target), str | dict) else "1")


def object_for_primitive(place: Place, target: Object, definitions: Definitions) -> str | None:
    return put(place, target, {"a": 1}) if place.member.type in definitions.primitives else None


def required_missing(place: Place, target: Object, _: Definitions) -> str | None:
    element = place.member.element
    if not element.minimum or f"_{place.key}" in target or len(target) == 1:
        return None
    del target[place.key]
    return f"{place.owner_path}.{element.name}"


def fraction(place: Place, target: Object, _: Definitions) -> str | None:
    if place.member.type not in {"integer", "positiveInt", "unsignedInt"}:
        return None
    return put(place, target, float(value_at(place, target)))


def unknown_code(place: Place, target: Object, _: Definitions) -> str | None:
    coded = place.member.type == "code" and place.member.element.codes is not None
    return put(place, target, "no-such-code") if coded else None


def unreal_date(place: Place, target: Object, _: Definitions) -> str | None:
    if place.member.type not in {"date", "dateTime", "instant"}:
        return None
    return put(place, target, "2023-02-30" + str(value_at(place, target))[10:])


def control_character(place: Place, target: Object, _: Definitions) -> str | None:
    if place.member.type not in {"string", "markdown", "code", "uri", "id"}:
        return None
    return put(place, target, str(value_at(place, target)) + "\x01")


def second_choice(place: Place, target: Object, definitions: Definitions) -> str | None:
    element = place.member.element
    others = {"dateTime": "2020", "string": "a", "boolean": True}
    for key, property_ in definitions.properties[place.owner].items():
        if property_.element == element and key not in target and property_.type in others:
            target[key] = others[property_.type]
            return f"{place.owner_path}.{element.name}"
    return None


def long_sibling(place: Place, target: Object, definitions: Definitions) -> str | None:
    if not place.member.element.repeats or place.member.type not in definitions.primitives:
        return None
    extension = {"extension": [{"url": "http://example.org/x", "valueBoolean": True}]}
    target[f"_{place.key}"] = [extension] * (len(target[place.key]) + 1)
    return place.path


def bare_extension(place: Place, target: Object, definitions: Definitions) -> str | None:
    extensible = "extension" in definitions.properties[place.owner]
    if place.owner == "Extension" or "extension" in target or not extensible:
        return None
    target["extension"] = [{"url": "http://example.org/x"}]
    return f"{place.owner_path}.extension[0]"


MUTATIONS: tuple[Mutation, ...] = (
    unknown_element,
    null,
    wrong_cardinality,
    empty,
    wrong_json_type,
    object_for_primitive,
    required_missing,
    fraction,
    unknown_code,
    unreal_date,
    control_character,
    second_choice,
    long_sibling,
    bare_extension,
)


def examples() -> list[Object]:
    return [resource for _, resource in folder("data/r4-examples")]


def assert_refused(validator: StructureValidator, mutated: Object, path: str) -> None:
    issues = validator.find_issues(mutated)
    # A fault inside a CodeableConcept may leave its required value set unmet; nothing else follows from a fault.
    others = [issue for issue in issues if issue.expression != (path,) and issue.code != "code-invalid"]
    assert any(issue.expression == (path,) for issue in issues), (path, issues)
    assert others == [], (path, issues)


def mutate_all(
    validator: StructureValidator, definitions: Definitions, resources: list[Object], mutation: Mutation, most: int
) -> int:
    """Applies a mutation to up to `most` random places of each resource; returns how many faults were made."""
    chance = random.Random(4)
    made = 0
    for resource in resources:
        found = list(places(resource, definitions))
        tried = 0
        for place in chance.sample(found, len(found)):
            mutated = copy.deepcopy(resource)
            path = mutation(place, place.object(mutated), definitions)
            if path is not None:
                assert_refused(validator, mutated, path)
                tried += 1
            if tried == most:
                break
        made += tried
    return made


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__)
def test_a_fault_is_refused_at_its_path(
    validator: StructureValidator, definitions: Definitions, mutation: Mutation
) -> None:
    small = [resource for resource in examples() if len(str(resource)) < 6_000]
    assert mutate_all(validator, definitions, small[::8], mutation, 1) > 2


@pytest.mark.long
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__)
def test_a_fault_anywhere_is_refused_at_its_path(
    validator: StructureValidator, definitions: Definitions, mutation: Mutation
) -> None:
    assert mutate_all(validator, definitions, examples(), mutation, 6) > 15


JSON = st.recursive(
    st.sampled_from([None, True, False, "final", "2020-02-30"]) | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@given(data=st.data())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_the_schema_accepts_nothing_that_the_diagnosis_refuses(
    validator: StructureValidator, definitions: Definitions, data: st.DataObject
) -> None:
    """Arbitrary JSON at arbitrary members of every kind of type: no error, and never a false acceptance."""
    type_ = data.draw(st.sampled_from(["Patient", "Observation", "Bundle", "Parameters", "Timing", "Questionnaire"]))
    resource_type = type_ if type_ in definitions.resource_types else "Basic"
    keys = sorted(definitions.properties[type_])
    members = data.draw(st.dictionaries(st.sampled_from([*keys, *(f"_{key}" for key in keys), "zz"]), JSON, max_size=5))
    resource: Object = {"resourceType": resource_type, **members}
    if type_ != resource_type:
        timing = {"url": "http://example.org/x", "valueTiming": members}
        resource = {"resourceType": "Basic", "code": {"text": "x"}, "extension": [timing]}
    if validator._accepts(resource):
        assert list(validator._diagnosis.find_issues(resource)) == []
    else:
        assert validator.find_issues(resource) == tuple(islice(validator._diagnosis.find_issues(resource), 501))
