"""Scopes as SMART App Launch 2.2 writes them (https://hl7.org/fhir/smart-app-launch/STU2.2/scopes-and-launch-context.html)."""

from __future__ import annotations

import pytest

from fhir_server.security.scopes import ResourceScope, WrongScope, parse_scope, parse_scopes

LABORATORY = "http://terminology.hl7.org/CodeSystem/observation-category|laboratory"
# The examples of the specification's sections on scopes of version 2 and 1.
WRITTEN = {
    "patient/Observation.rs": ResourceScope("patient", "Observation", "rs"),
    "user/Observation.cruds": ResourceScope("user", "Observation", "cruds"),
    "system/*.cruds": ResourceScope("system", "*", "cruds"),
    "patient/*.read": ResourceScope("patient", "*", "rs"),
    "user/Appointment.write": ResourceScope("user", "Appointment", "cud"),
    "user/*.*": ResourceScope("user", "*", "cruds"),
    f"patient/Observation.rs?category={LABORATORY}": ResourceScope(
        "patient", "Observation", "rs", (("category", LABORATORY),)
    ),
}


@pytest.mark.parametrize("text", WRITTEN)
def test_a_scope_is_read(text: str) -> None:
    assert parse_scope(text) == WRITTEN[text]


@pytest.mark.parametrize(
    "text",
    (
        "patient/Observation patient/Observation. patient/Observation.sr patient/Observation.rr other/X.r "
        f"user/observation.rs patient/Observation.rs? user/*.reads /Patient.r user/Patient.r/x {'x' * 501}"
    ).split(),
)
def test_what_is_no_scope_is_refused(text: str) -> None:
    with pytest.raises(WrongScope):
        parse_scope(text)


def test_scopes_that_speak_of_no_resources_are_left_out() -> None:
    text = "openid fhirUser launch launch/patient offline_access https://example.org/other/scope"
    assert parse_scopes(f"{text} user/Patient.r user/Patient.r") == (ResourceScope("user", "Patient", "r"),)


def test_the_url_in_a_query_makes_no_scope_another_one() -> None:
    text = f"openid patient/Observation.rs?category={LABORATORY}"
    assert list(map(str, parse_scopes(text))) == [text.split()[1]]


@pytest.mark.parametrize(("type", "fits"), [("Observation", 100), ("*", 4)])
def test_the_queries_of_scopes_have_a_size(type: str, fits: int) -> None:
    """10,000 characters together, those of `*` counted 25 times."""
    scopes = [f"user/{type}.rs?code={number:03}{'x' * 90}" for number in range(fits + 1)]
    assert len(parse_scopes(" ".join(scopes[:fits]))) == fits
    with pytest.raises(WrongScope, match="characters together"):
        parse_scopes(" ".join([*scopes, f"user/{type}.rs?code={'y' * 390}"]))


def test_a_misspelt_one_among_others_is_refused() -> None:
    with pytest.raises(WrongScope):
        parse_scopes("openid user/Patient.r user/Patient.xyz")
