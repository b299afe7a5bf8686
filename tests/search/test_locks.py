"""Overlapping criteria meet in a lock (https://hl7.org/fhir/R4/http.html#cond-update)."""

from __future__ import annotations

import pytest

from fhir_server.search.entries import SEPARATOR
from fhir_server.search.locks import name_locks
from fhir_server.search.query import (
    And,
    Bound,
    Chain,
    Clause,
    DateRange,
    EndsWith,
    Equals,
    Ids,
    Not,
    Or,
    StartsWith,
)

ANY_SYSTEM = StartsWith("identifier", f"1{SEPARATOR}")
IN_SYSTEM = Equals("identifier", (f"1{SEPARATOR}urn:mrn",))
NO_SYSTEM = Equals("identifier", (f"1{SEPARATOR}",))
ACTIVE = Equals("active", (f"true{SEPARATOR}http://hl7.org/fhir/special-values",))
BORN = DateRange("birthdate", (Bound("low", "ge", 0),))


@pytest.mark.parametrize(
    ("clause", "names"),
    [
        (ANY_SYSTEM, ("Patient.identifier=1",)),
        (IN_SYSTEM, ("Patient.identifier=1",)),
        (NO_SYSTEM, ("Patient.identifier=1",)),
        (And((IN_SYSTEM, ACTIVE)), ("Patient.identifier=1",)),
        (And((ACTIVE, BORN)), ("Patient.active=true",)),
        (
            And((Equals("identifier", (f"2{SEPARATOR}", f"1{SEPARATOR}s")), BORN)),
            ("Patient.identifier=1", "Patient.identifier=2"),
        ),
        (Or((ANY_SYSTEM, NO_SYSTEM)), ("Patient.identifier=1",)),
        (Equals("general-practitioner", ("Practitioner/3",)), ("Patient.general-practitioner=Practitioner/3",)),
        (
            And((Equals("family", (f"chalmers{SEPARATOR}Chalmers",)), Equals("given", (f"peter{SEPARATOR}Peter",)))),
            ("Patient.family=chalmers", "Patient.given=peter"),
        ),
        (Ids(("7",)), ("Patient._id=7",)),
        (StartsWith("family", "chal"), ("Patient",)),
        (EndsWith("identifier", f"{SEPARATOR}urn:mrn"), ("Patient",)),
        (Not(IN_SYSTEM), ("Patient",)),
        (Chain("organization", "Organization", IN_SYSTEM), ("Patient",)),
        (BORN, ("Patient",)),
        (And(), ("Patient",)),
    ],
)
def test_the_locks_of_criteria(clause: Clause, names: tuple[str, ...]) -> None:
    assert name_locks("Patient", clause) == names


def test_the_same_identifier_of_another_type_is_another_lock() -> None:
    assert name_locks("Encounter", IN_SYSTEM) == ("Encounter.identifier=1",)
