"""What a query string becomes: the tree, its simplification and the limits (https://hl7.org/fhir/R4/search.html)."""

from __future__ import annotations

from datetime import UTC
from urllib.parse import parse_qsl

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fhir_server.fhir.outcome import FhirError, Invalid, TooCostly
from fhir_server.search.entries import SEPARATOR
from fhir_server.search.include import Include
from fhir_server.search.parameters import Criteria
from fhir_server.search.parse import Search, list_system_types, parse
from fhir_server.search.query import (
    And,
    Bound,
    Chain,
    Clause,
    DateRange,
    Equals,
    Has,
    Ids,
    LastUpdated,
    Not,
    Or,
    Present,
    Sort,
    StartsWith,
)
from fhir_server.search.result_parameters import Options
from tests.r4 import REGISTRY

CRITERIA = Criteria(registry=REGISTRY, base="http://fhir.example", now=1_795_420_800_000_000, zone=UTC)
STRICT = Options()
LENIENT = Options(lenient=True)


def _search(type: str, text: str, options: Options = STRICT) -> Search:
    return parse((type,), parse_qsl(text, keep_blank_values=True), CRITERIA, options)


def _where(type: str, text: str) -> Clause:
    return _search(type, text).query.scopes[0].where


def _code(parameter: str, code: str) -> Clause:
    return StartsWith(parameter, code + SEPARATOR)


@pytest.mark.parametrize(
    ("type", "text", "clause"),
    [
        ("Patient", "", And()),
        ("Patient", "gender=male", _code("gender", "male")),
        ("Patient", "gender=male&gender=male", _code("gender", "male")),
        ("Patient", "gender=male,male", _code("gender", "male")),
        ("Patient", "gender=male,female", Or((_code("gender", "male"), _code("gender", "female")))),
        ("Patient", "gender:not=male,female", Not(Or((_code("gender", "male"), _code("gender", "female"))))),
        ("Patient", "gender=male&active=true", And((_code("gender", "male"), _code("active", "true")))),
        ("Patient", "_id=b,a,b", Ids(("b", "a"))),
        ("Patient", "gender:missing=true", Not(Present("gender"))),
        ("Patient", "_id:missing=false&gender=male", _code("gender", "male")),
        ("Observation", "subject=Patient/1,Patient/2", Equals("subject", ("Patient/1", "Patient/2"))),
        ("Observation", "subject:Patient=1,2", Equals("subject", ("Patient/1", "Patient/2"))),
        ("Observation", "subject:Patient.gender=male", Chain("subject", "Patient", _code("gender", "male"))),
        (
            "Observation",
            "subject:Patient.organization.partof.active=true",
            Chain(
                "subject",
                "Patient",
                Chain("organization", "Organization", Chain("partof", "Organization", _code("active", "true"))),
            ),
        ),
        (
            "Patient",
            "_has:Observation:subject:_has:AuditEvent:entity:type=rest",
            Has("Observation", "subject", Has("AuditEvent", "entity", _code("type", "rest"))),
        ),
    ],
)
def test_the_tree_of_a_search(type: str, text: str, clause: Clause) -> None:
    assert _where(type, text) == clause


def test_an_untyped_chain_tries_each_target_that_has_the_parameter() -> None:
    """Observation.subject is a Patient, Group, Device or Location; of these only Patient has a gender."""
    assert _where("Observation", "subject.gender=male") == Chain("subject", "Patient", _code("gender", "male"))
    where = _where("Observation", "subject.identifier=1")
    assert isinstance(where, Or)
    assert [clause.type for clause in where.clauses if isinstance(clause, Chain)] == [
        "Device",
        "Group",
        "Location",
        "Patient",
    ]


def test_bounds_of_a_single_value_become_one_range() -> None:
    """`gt2000` is one bound above 2000, `lt2001` one below 2001; a value must pass both."""
    low, high = _where("Patient", "birthdate=gt2000"), _where("Patient", "birthdate=lt2002")
    assert isinstance(low, DateRange)
    assert isinstance(high, DateRange)
    assert _where("Patient", "birthdate=gt2000&birthdate=lt2002") == DateRange("birthdate", low.bounds + high.bounds)


def test_ge_is_two_ranges_of_which_each_is_bounded() -> None:
    """ge: contained in the search range or overlapping what is above it, each of them below the other bound."""
    low, high = _where("Patient", "birthdate=ge2000"), _where("Patient", "birthdate=lt2001")
    assert isinstance(low, Or)
    assert isinstance(high, DateRange)
    assert _where("Patient", "birthdate=ge2000&birthdate=lt2001") == Or(
        tuple(DateRange("birthdate", part.bounds + high.bounds) for part in low.clauses if isinstance(part, DateRange))
    )


def test_many_bounds_do_not_multiply_without_end() -> None:
    where = _where("Patient", "&".join(f"birthdate=ge{year}" for year in range(1900, 1950)))
    assert isinstance(where, And)
    assert all(len(part.clauses) <= 8 for part in where.clauses if isinstance(part, Or))


def test_the_bounds_of_last_updated_become_one_range() -> None:
    bounded = _where("Patient", "_lastUpdated=ge2000&_lastUpdated=lt2001")
    assert isinstance(bounded, LastUpdated)
    assert set(bounded.bounds) == {Bound("low", "ge", 946_684_800_000_000), Bound("low", "lt", 978_307_200_000_000)}


def test_bounds_of_a_repeating_value_stay_apart() -> None:
    """One prediction may be above and another below: https://hl7.org/fhir/R4/riskassessment.html"""
    assert isinstance(_where("RiskAssessment", "probability=gt0.5&probability=lt0.6"), And)


def test_chains_through_a_single_reference_become_one() -> None:
    where = _where("Observation", "subject:Patient.gender=male&subject:Patient.active=true")
    assert where == Chain("subject", "Patient", And((_code("gender", "male"), _code("active", "true"))))
    bounded = _where("Observation", "subject:Patient.birthdate=gt2000&subject:Patient.birthdate=lt2002")
    assert bounded == Chain("subject", "Patient", _where("Patient", "birthdate=gt2000&birthdate=lt2002"))


def test_chains_through_a_repeating_reference_stay_apart() -> None:
    where = _where(
        "Patient", "general-practitioner:Practitioner.active=true&general-practitioner:Practitioner.gender=male"
    )
    assert isinstance(where, And)
    assert len(where.clauses) == 2


def test_the_result_parameters() -> None:
    text = (
        "_sort=-birthdate,family&_sort=_id&_count=7&_total=accurate&_summary=data&_elements=name,gender&_elements=name"
        "&_include=Patient:organization&_revinclude:iterate=Observation:subject:Patient&_include:iterate=*"
    )
    search = _search("Patient", text)
    assert search.query.sort == (Sort("birthdate", "date", True), Sort("family", "term"), Sort("_id", "id"))
    assert search.query.count == 7
    assert (search.total, search.summary, search.elements) == ("accurate", "data", ("name", "gender"))
    assert search.includes == (
        Include("Patient", "organization"),
        Include("Observation", "subject", "Patient", reverse=True, iterate=True),
        Include("*", "*", iterate=True),
    )
    assert search.applied == tuple(parse_qsl(text))


def test_what_was_not_said_is_none_and_the_count_has_a_default() -> None:
    search = _search("Patient", "gender=male")
    assert (search.total, search.summary, search.elements, search.includes, search.issues) == (None, None, (), (), ())
    assert search.query.count == 20
    assert _search("Patient", "", Options(default_count=3)).query.count == 3


def test_a_count_above_the_largest_page_is_capped() -> None:
    """R4: a server never returns more than asked for, and may return less."""
    assert _search("Patient", "_count=5000", Options(max_count=100)).query.count == 100


def test_counting_alone_wants_no_matches() -> None:
    assert _search("Patient", "_count=0").query.count == 0
    assert _search("Patient", "_summary=count&_count=9").query.count == 0


def test_a_warning_tells_what_was_ignored_and_the_rest_is_applied() -> None:
    search = _search("Patient", "nam=x&gender=male&_include=Person:link", LENIENT)
    assert search.query.scopes[0].where == _code("gender", "male")
    assert search.applied == (("gender", "male"),)
    assert [(issue.severity, issue.code) for issue in search.issues] == [("warning", "not-supported")] * 2
    assert search.includes == ()


def test_an_unknown_parameter_is_refused_with_the_sorted_list_of_valid_ones() -> None:
    with pytest.raises(Invalid) as error:
        _search("Patient", "nam=x")
    assert (error.value.status, error.value.issues[0].code) == (400, "not-supported")
    listed = str(error.value).partition("Valid ones: ")[2].rstrip(".").replace("`", "").split(", ")
    assert listed == sorted(listed)
    assert {"_id", "_tag", "birthdate", "general-practitioner", "name"} <= set(listed)
    assert not {"_text", "_filter", "_content", "_query", "nam"} & set(listed)


def test_a_modifier_is_refused_with_the_list_of_valid_ones() -> None:
    with pytest.raises(Invalid, match="`:contains`, `:exact`, `:missing`"):
        _search("Patient", "family:near=x", LENIENT)


def test_a_chain_may_be_long_but_not_endless() -> None:
    chain = "partof." * 8 + "name"
    assert isinstance(_where("Organization", f"{chain}=x"), Chain)
    with pytest.raises(TooCostly, match="follows more than 8 references; search in several steps"):
        _search("Organization", f"partof.{chain}=x")


def test_an_untyped_chain_that_could_lead_anywhere_is_refused() -> None:
    with pytest.raises(TooCostly, match="may reach too many resource types; name the type of each link"):
        _search("Provenance", "target.subject.identifier=x")


def test_the_types_of_a_system_search() -> None:
    assert list_system_types((("_type", "Slot,Patient,Slot"),), REGISTRY) == ("Slot", "Patient")
    assert list_system_types((("_id", "1"),), REGISTRY) == REGISTRY.types
    with pytest.raises(Invalid, match="`_type` names `Foo`"):
        list_system_types((("_type", "Patient,Foo"),), REGISTRY)


NAMES = st.sampled_from(
    [
        "name",
        "gender:not",
        "birthdate",
        "_id",
        "_sort",
        "_include",
        "_has:Observation:patient:code",
        "organization.name",
    ]
)
TEXT = st.text(st.sampled_from(list("abP:.|$,\\-*?/ 019éZT%\x00\x1f\n")), max_size=12)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(NAMES | TEXT, TEXT), max_size=4), st.booleans())
def test_any_query_string_is_read_or_refused_with_a_sentence(pairs: list[tuple[str, str]], lenient: bool) -> None:
    try:
        search = parse(("Patient",), pairs, CRITERIA, Options(lenient=lenient))
    except FhirError as error:
        assert error.status < 500
        assert len(str(error)) > 10
    else:
        assert len(search.applied) + len(search.issues) <= len(pairs)
