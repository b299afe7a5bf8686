"""`_summary` and `_elements`: what stays of a resource, by https://hl7.org/fhir/R4/search.html#summary."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from fhir_server.fhir.definitions import Definitions, load
from fhir_server.fhir.outcome import Invalid
from fhir_server.fhir.subset import find_unknown_elements, write_subset

TAG = b'{"system":"http://terminology.hl7.org/CodeSystem/v3-ObservationValue","code":"SUBSETTED"}'
META = b'{"versionId":"1","lastUpdated":"2026-01-01T00:00:00.000Z"}'
TAGGED = META[:-1] + b',"tag":[' + TAG + b"]}"
TEXT = b'{"status":"generated","div":"<div xmlns=\\"http://www.w3.org/1999/xhtml\\">x</div>"}'
OBSERVATION = (
    b'{"resourceType":"Observation","id":"o","meta":%b,"text":%b,"status":"final","_status":{"id":"s"},'
    b'"code":{"text":"mass"},"valueQuantity":{"value": 1.10, "unit":"kg"},"note":[{"text":"n"}],'
    b'"referenceRange":[{"low":{"value":1.00}}],'
    b'"component":[{"code":{"text":"c"},"valueQuantity":{"value":2.50},"referenceRange":[{"text":"r"}]}]}'
)


@pytest.fixture(scope="module")
def definitions() -> Definitions:
    return load()


def observation(meta: bytes = META) -> bytes:
    return OBSERVATION % (meta, TEXT)


def keys(raw: bytes) -> list[str]:
    return list(orjson.loads(raw))


def test_text_is_text_identity_and_the_mandatory_elements(definitions: Definitions) -> None:
    """`text`: "only the text element, the id element, the meta element, and only top-level mandatory elements"."""
    expected = b'{"resourceType":"Observation","id":"o","meta":%b,"text":%b,"status":"final","_status":{"id":"s"},'
    expected += b'"code":{"text":"mass"}}'
    assert write_subset(observation(), "Observation", definitions, "text", ()) == expected % (TAGGED, TEXT)


def test_data_is_all_but_the_text(definitions: Definitions) -> None:
    whole = observation(TAGGED).replace(b'"text":' + TEXT + b",", b"")
    assert write_subset(observation(), "Observation", definitions, "data", ()) == whole


def test_elements_are_the_named_the_mandatory_and_the_identity(definitions: Definitions) -> None:
    made = write_subset(observation(), "Observation", definitions, None, ("note", "value"))
    assert keys(made) == ["resourceType", "id", "meta", "status", "_status", "code", "valueQuantity", "note"]
    assert b'"valueQuantity":{"value": 1.10, "unit":"kg"}' in made
    assert (
        keys(write_subset(observation(), "Observation", definitions, None, ("valueQuantity",)))[-1] == "valueQuantity"
    )


def test_summary_cuts_at_every_level(definitions: Definitions) -> None:
    """In R4 Observation.note and referenceRange are no summary elements, component and its code and value are."""
    made = write_subset(observation(), "Observation", definitions, "true", ())
    assert keys(made) == ["resourceType", "id", "meta", "status", "_status", "code", "valueQuantity", "component"]
    assert b'"component":[{"code":{"text":"c"},"valueQuantity":{"value":2.50}}]' in made
    assert b'"value":1.10' in made


def test_summary_keeps_mandatory_elements_that_are_not_flagged(definitions: Definitions) -> None:
    """Patient.communication is no summary element; Patient.link and its mandatory other and type are."""
    patient = (
        b'{"resourceType":"Patient","communication":[{"language":{"text":"yo"}}],'
        b'"link":[{"id":"l","other":{"reference":"Patient/q"},"type":"seealso"}],"photo":[{"title":"p"}]}'
    )
    made = orjson.loads(write_subset(patient, "Patient", definitions, "true", ()))
    assert made["link"] == [{"other": {"reference": "Patient/q"}, "type": "seealso"}]
    assert made.keys() == {"resourceType", "link", "meta"}


def test_an_element_without_summary_parts_is_not_left_empty(definitions: Definitions) -> None:
    patient = b'{"resourceType":"Patient","name":[{"extension":[{"url":"urn:x","valueDecimal":1.0}]}]}'
    assert b'"name":[{"extension":[{"url":"urn:x","valueDecimal":1.0}]}]' in write_subset(
        patient, "Patient", definitions, "true", ()
    )


def test_summary_reaches_the_resources_of_a_bundle(definitions: Definitions) -> None:
    bundle = (
        b'{"resourceType":"Bundle","type":"collection","total":1,'
        b'"entry":[{"fullUrl":"urn:x","resource":{"resourceType":"Patient"}}]}'
    )
    made: Any = orjson.loads(write_subset(bundle, "Bundle", definitions, "true", ()))
    assert made["type"] == "collection"
    assert made["entry"] == [{"fullUrl": "urn:x", "resource": {"resourceType": "Patient"}}]


@pytest.mark.parametrize(
    ("meta", "expected"),
    [
        (b"{}", b'{"tag":[%b]}' % TAG),
        (b'{"tag":[{"code":"a"}]}', b'{"tag":[{"code":"a"},%b]}' % TAG),
        (b'{"tag":[ ] ,"source":"u"}', b'{"tag":[ %b],"source":"u"}' % TAG),
        (b'{"tag":[%b]}' % TAG, b'{"tag":[%b]}' % TAG),
    ],
)
def test_the_tag_joins_the_tags_there_are(definitions: Definitions, meta: bytes, expected: bytes) -> None:
    assert b'"meta":%b,' % expected in write_subset(observation(meta), "Observation", definitions, "data", ())


def test_a_resource_without_meta_gets_one(definitions: Definitions) -> None:
    made = write_subset(b'{"resourceType":"Patient","active":true}', "Patient", definitions, None, ("active",))
    assert made == b'{"resourceType":"Patient","active":true,"meta":{"tag":[' + TAG + b"]}}"


def test_elements_of_a_summary(definitions: Definitions) -> None:
    made = write_subset(observation(), "Observation", definitions, "data", ("text", "note"))
    assert keys(made) == ["resourceType", "id", "meta", "status", "_status", "code", "note"]


def test_unknown_summary_and_elements(definitions: Definitions) -> None:
    with pytest.raises(Invalid):
        write_subset(observation(), "Observation", definitions, "count", ())
    names = ("status", "value", "valueQuantity", "resourceType", "colour", "component.code")
    assert find_unknown_elements("Observation", names, definitions) == ("colour", "component.code")
