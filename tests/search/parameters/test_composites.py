"""Composite criteria: https://hl7.org/fhir/R4/search.html#composite."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fhir_server.fhir.outcome import Invalid, NotSupported

LOINC = "http://loinc.org"


def concept(code: str, system: str = LOINC) -> dict[str, Any]:
    return {"coding": [{"system": system, "code": code}]}


PRESSURE: dict[str, Any] = {
    "resourceType": "Observation",
    "code": concept("85354-9"),
    "component": [
        {"code": concept("8480-6"), "valueQuantity": {"value": 120, "unit": "mmHg"}},
        {"code": concept("8462-4"), "valueQuantity": {"value": 80, "unit": "mmHg"}},
    ],
}
WEIGHT: dict[str, Any] = {
    "resourceType": "Observation",
    "code": concept("29463-7"),
    "valueQuantity": {"value": 72, "unit": "kg", "system": "http://unitsofmeasure.org", "code": "kg"},
}
SEQUENCE: dict[str, Any] = {
    "resourceType": "MolecularSequence",
    "referenceSeq": {"chromosome": concept("1", "http://chromosome"), "windowStart": 10, "windowEnd": 90},
    "variant": [{"start": 20, "end": 30}, {"start": 60, "end": 70}],
}


@pytest.mark.parametrize(
    ("resource", "name", "value", "found"),
    [
        (PRESSURE, "component-code-value-quantity", "8480-6$120", True),
        (PRESSURE, "component-code-value-quantity", "8480-6$gt100", True),
        (PRESSURE, "component-code-value-quantity", f"{LOINC}|8462-4$lt90||mmHg", True),
        # "component values of one composite are of one element": never 80 of one component with the code of another
        (PRESSURE, "component-code-value-quantity", "8480-6$80", False),
        (PRESSURE, "component-code-value-quantity", "8462-4$gt100", False),
        (PRESSURE, "component-code-value-quantity", "http://other|8480-6$120", False),
        (PRESSURE, "component-code-value-quantity", "85354-9$120", False),
        (PRESSURE, "combo-code-value-quantity", "8462-4$80", True),
        (PRESSURE, "code-value-quantity", "8480-6$120", False),
        (WEIGHT, "code-value-quantity", "29463-7$ge70||kg", True),
        (WEIGHT, "code-value-quantity", "29463-7$ne72", False),
        (WEIGHT, "combo-code-value-quantity", f"{LOINC}|29463-7$72|http://unitsofmeasure.org|kg", True),
        (WEIGHT, "component-code-value-quantity", "29463-7$72", False),
        ({**WEIGHT, "valueQuantity": None, "valueString": "Très grand"}, "code-value-string", "29463-7$tres", True),
        ({**WEIGHT, "valueQuantity": None, "valueString": "Très grand"}, "code-value-string", "29463-7$grand", False),
        ({**WEIGHT, "valueQuantity": None, "valueDateTime": "2026-11"}, "code-value-date", "29463-7$2026", True),
        ({**WEIGHT, "valueQuantity": None, "valueDateTime": "2026-11"}, "code-value-date", "29463-7$lt2026-11", False),
        (
            {**WEIGHT, "valueQuantity": None, "valueCodeableConcept": concept("LA1", LOINC)},
            "code-value-concept",
            f"29463-7${LOINC}|LA1",
            True,
        ),
        (
            {**WEIGHT, "valueQuantity": None, "valueCodeableConcept": concept("LA1", LOINC)},
            "code-value-concept",
            "29463-7$LA2",
            False,
        ),
        (SEQUENCE, "chromosome-variant-coordinate", "1$gt50$lt80", True),
        (SEQUENCE, "chromosome-variant-coordinate", "1$20$30", True),
        # 20 is the start of one variant, 70 the end of another
        (SEQUENCE, "chromosome-variant-coordinate", "1$20$70", False),
        (SEQUENCE, "chromosome-variant-coordinate", "2$20$30", False),
        (SEQUENCE, "chromosome-window-coordinate", "http://chromosome|1$ge10$le90", True),
        (SEQUENCE, "chromosome-window-coordinate", "1$gt10$le90", False),
    ],
)
def test_components_meet_in_one_element(
    finds: Callable[..., bool], resource: dict[str, Any], name: str, value: str, found: bool
) -> None:
    assert finds({key: each for key, each in resource.items() if each is not None}, name, value) is found


def test_the_two_halves_of_a_document_relationship(finds: Callable[..., bool]) -> None:
    # R4 published the two components with each other's expression; the order is relatesto$relation.
    document = {
        "resourceType": "DocumentReference",
        "relatesTo": [
            {"code": "replaces", "target": {"reference": "DocumentReference/1"}},
            {"code": "appends", "target": {"reference": "DocumentReference/2"}},
        ],
    }
    assert finds(document, "relationship", "DocumentReference/1$replaces")
    assert not finds(document, "relationship", "DocumentReference/1$appends")


@pytest.mark.parametrize("value", ["8480-6", "8480-6$", "$120", "a$1$2", r"8480-6\$120"])
def test_every_component_is_needed(clause_of: Callable[..., Any], value: str) -> None:
    with pytest.raises(Invalid, match=r"a composite is written `\[code\]\$\[value-quantity\]`"):
        clause_of("Observation", "code-value-quantity", value)


def test_a_system_alone_cannot_be_a_component(clause_of: Callable[..., Any]) -> None:
    with pytest.raises(NotSupported, match="needs the code of `code`"):
        clause_of("Observation", "code-value-quantity", f"{LOINC}|$120")
