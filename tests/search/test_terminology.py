"""Value sets and code systems in searches, R4's own and those stored in the server (https://hl7.org/fhir/R4/search.html#token)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fhir_server.fhir.definitions import TABLES
from fhir_server.fhir.outcome import Invalid, TooCostly
from fhir_server.fhir.terminology import load_published_terminology
from fhir_server.search.concepts import Unevaluable
from fhir_server.search.terminology import MAX_CODES, Codes, Terminology, find_names, list_dependencies, read_expansion
from scripts import generate_terminology
from tests.conftest import Client
from tests.shared import shared_path

VS, CS = "urn:example:vs", "urn:example:cs"


def value_set(**more: Any) -> dict[str, Any]:
    return {"resourceType": "ValueSet", "url": VS, "status": "active", **more}


def code_system(*codes: str, **more: Any) -> dict[str, Any]:
    concepts = [{"code": code} for code in codes]
    return {
        "resourceType": "CodeSystem",
        "url": CS,
        "status": "active",
        "content": "complete",
        "concept": concepts,
        **more,
    }


def including(*includes: dict[str, Any]) -> dict[str, Any]:
    return {"compose": {"include": list(includes)}}


def known(*resources: dict[str, Any]) -> Terminology:
    return Terminology({(each["resourceType"], each["url"]): (each,) for each in resources})


@pytest.mark.parametrize(
    ("pairs", "names"),
    [
        ([("name", "a"), ("_sort", "name"), ("gender:not", "male")], ()),
        ([("code:in", f"{VS}|1,ValueSet/x")], (("ValueSet", VS), ("ValueSet", "ValueSet/x"))),
        ([("subject:Patient.gender:not-in", VS)], (("ValueSet", VS),)),
        ([("_has:Observation:subject:code:below", f"{CS}|a,{CS}|b")], (("CodeSystem", CS),)),
        ([("url:below", "http://example.org/fhir")], ()),
        ([("_filter", f"not (code in {VS}|1) and code ss {CS}|a")], (("ValueSet", VS), ("CodeSystem", CS))),
        ([("_filter", "subject[gender sb loinc|x].birthdate pr true")], (("CodeSystem", "http://loinc.org"),)),
        ([("_filter", "name eq in"), ("_filter", "")], ()),
    ],
)
def test_the_names_that_searches_need(pairs: list[tuple[str, str]], names: tuple[Any, ...]) -> None:
    assert find_names(pairs) == names


def test_a_value_set_needs_the_systems_whose_codes_it_does_not_list() -> None:
    composed = including(
        {"system": "urn:listed", "concept": [{"code": "a"}]}, {"system": CS}, {"valueSet": [f"{VS}|2"]}
    )
    assert list_dependencies(value_set(**composed)) == (("CodeSystem", CS), ("ValueSet", VS))


def test_r4_publishes_value_sets_and_code_systems() -> None:
    """R4's list of its value sets: administrative-gender has four codes."""
    tables = load_published_terminology()
    assert (len(tables.value_sets), len(tables.code_systems)) == (1316, 1062)
    codes = Terminology().list_codes("http://hl7.org/fhir/ValueSet/administrative-gender|4.0.1")
    assert {code for _, code in codes.listed} == {"male", "female", "other", "unknown"}
    assert tables.implied["Patient.gender"] == ("http://hl7.org/fhir/administrative-gender",)


def test_what_r4_publishes_is_evaluated_or_refused() -> None:
    """Refused are filters on systems that R4 does not hold (SNOMED CT, LOINC …), nothing else."""
    refused = set()
    for url in load_published_terminology().value_sets:
        try:
            Terminology().list_codes(url)
        except Unevaluable as error:
            assert url in str(error)
            refused.add(url)
    assert len(refused) == 57
    assert "http://hl7.org/fhir/ValueSet/clinical-findings" in refused


def test_a_stored_definition_comes_before_that_of_r4() -> None:
    url = "http://hl7.org/fhir/ValueSet/administrative-gender"
    own = {**value_set(**including({"system": CS, "concept": [{"code": "x"}]})), "url": url, "version": "9"}
    terminology = known(own)
    assert terminology.list_codes(url) == Codes(frozenset({(CS, "x")}))
    assert len(terminology.list_codes(f"{url}|4.0.1").listed) == 4


def test_codes_taken_out_of_an_unknown_system_cannot_be_evaluated() -> None:
    composed = {
        "compose": {"include": [{"system": "urn:x"}], "exclude": [{"system": "urn:x", "concept": [{"code": "a"}]}]}
    }
    with pytest.raises(Unevaluable, match="`a` cannot be taken out of `urn:x`"):
        known(value_set(**composed)).list_codes(VS)


def test_an_intersection_with_a_whole_system() -> None:
    listed = Codes(frozenset({("urn:x", "a"), ("urn:y", "b")}))
    assert listed.intersection(Codes(systems=frozenset({"urn:y"}))) == Codes(frozenset({("urn:y", "b")}))


def test_a_value_set_that_is_used_twice_is_evaluated_once() -> None:
    """Forty levels of two references each would take 2**40 steps."""
    sets = [
        {**value_set(**including({"valueSet": [f"urn:{n + 1}"]}, {"valueSet": [f"urn:{n + 1}"]})), "url": f"urn:{n}"}
        for n in range(20)
    ]
    last = {**value_set(**including({"system": CS, "concept": [{"code": "a"}]})), "url": "urn:20"}
    assert known(*sets, last).list_codes("urn:0") == Codes(frozenset({(CS, "a")}))


def test_too_many_codes_are_too_costly() -> None:
    concepts = [{"code": str(number)} for number in range(MAX_CODES + 1)]
    with pytest.raises(TooCostly, match=f"has {MAX_CODES + 1} codes"):
        known(value_set(**including({"system": CS, "concept": concepts}))).list_codes(VS)


@pytest.mark.parametrize("pattern", ["(a+)+b", "a*a*a*a*a*b", "("])
def test_patterns_that_may_not_end_are_refused(pattern: str) -> None:
    include = {"system": CS, "filter": [{"property": "code", "op": "regex", "value": pattern}]}
    with pytest.raises(Unevaluable, match="cannot be evaluated"):
        known(value_set(**including(include)), code_system("aaaa")).list_codes(VS)


@pytest.mark.parametrize(
    ("condition", "reason"),
    [
        ({"property": "colour", "op": "=", "value": "red"}, "nothing is known of the property `colour`"),
        ({"property": "concept", "op": "is-a", "value": "z"}, "has no concept `z`"),
        ({"property": "colour", "op": "is-a", "value": "a"}, "has no is-a hierarchy"),
    ],
)
def test_filters_that_cannot_be_evaluated(condition: dict[str, str], reason: str) -> None:
    with pytest.raises(Unevaluable, match=reason):
        known(value_set(**including({"system": CS, "filter": [condition]})), code_system("a")).list_codes(VS)


def test_parts_and_groups_are_no_kinds() -> None:
    include = {"system": CS, "filter": [{"property": "concept", "op": "is-a", "value": "a"}]}
    with pytest.raises(Unevaluable, match="has no is-a hierarchy"):
        known(value_set(**including(include)), code_system("a", hierarchyMeaning="part-of")).list_codes(VS)


def test_generalizes_is_the_way_up() -> None:
    system = code_system(concept=[{"code": "a", "concept": [{"code": "b", "concept": [{"code": "c"}]}]}])
    include = {"system": CS, "filter": [{"property": "concept", "op": "generalizes", "value": "b"}]}
    assert {code for _, code in known(value_set(**including(include)), system).list_codes(VS).listed} == {"a", "b"}


def test_a_hierarchy_may_have_a_cycle() -> None:
    parents = {"a": "b", "b": "a"}
    concepts = [{"code": c, "property": [{"code": "parent", "valueCode": p}]} for c, p in parents.items()]
    assert known(code_system(concept=concepts)).find_below(CS, "a") == {"a", "b"}


@pytest.mark.parametrize(
    ("expansion", "codes"),
    [
        (
            {"contains": [{"system": CS, "code": "a", "abstract": True, "contains": [{"system": CS, "code": "b"}]}]},
            {"b"},
        ),
        ({"total": 1, "contains": [{"system": CS, "code": "a"}]}, {"a"}),
        ({"total": 2, "contains": [{"system": CS, "code": "a"}]}, None),
        ({"offset": 10, "contains": [{"system": CS, "code": "a"}]}, None),
    ],
)
def test_expansions(expansion: dict[str, Any], codes: set[str] | None) -> None:
    found = read_expansion(value_set(expansion=expansion))
    assert (None if found is None else {code for _, code in found.listed}) == codes


def test_what_is_not_known_is_named() -> None:
    with pytest.raises(Invalid, match="The value set `urn:none` is not known here") as refused:
        Terminology().list_codes("urn:none")
    assert refused.value.issues[0].code == "not-found"


@pytest.mark.long
def test_the_table_is_what_the_script_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate_terminology, "TABLE", tmp_path / "r4.json")
    generate_terminology.main(str(shared_path("definitions/hl7.fhir.r4.core.tgz")))
    written = (tmp_path / "r4.json").read_bytes()
    assert written == (TABLES / "terminology" / "r4.json").read_bytes()
    assert len(written) < 1_500_000


# --- over HTTP -------------------------------------------------------------------------------------------------------


async def put(client: Client, resource: dict[str, Any], id: str) -> None:
    made = await client.fhir("PUT", f"/{resource['resourceType']}/{id}", json={**resource, "id": id})
    assert made.status_code in (200, 201), made.text


def observation(code: str) -> dict[str, Any]:
    return {"resourceType": "Observation", "status": "final", "code": {"coding": [{"system": CS, "code": code}]}}


async def ids(client: Client, url: str) -> list[str]:
    response = await client.fhir("GET", url)
    assert response.status_code == 200, response.text
    return [entry["resource"]["id"] for entry in response.json().get("entry", ())]


@pytest.fixture
async def stocked(client: Client) -> Client:
    """A value set over a filter of a code system, both stored, and an observation for each code."""
    nested = [{"code": "a", "concept": [{"code": "b"}]}, {"code": "c"}]
    await put(client, code_system(concept=nested), "cs")
    by_filter = {"system": CS, "filter": [{"property": "concept", "op": "is-a", "value": "a"}]}
    await put(client, value_set(version="1", **including(by_filter)), "vs")
    await put(client, {**value_set(**including({"valueSet": [VS]})), "url": f"{VS}:outer"}, "outer")
    for code in "abc":
        await put(client, observation(code), code)
    return client


@pytest.mark.anyio
async def test_stored_definitions_are_found_with_what_they_need(stocked: Client) -> None:
    for name in (VS, f"{VS}|1", "ValueSet/vs", f"{VS}:outer", "http://test/fhir/ValueSet/vs"):
        assert await ids(stocked, f"/Observation?code:in={name}") == ["a", "b"], name
    assert await ids(stocked, f"/Observation?code:not-in={VS}") == ["c"]
    assert await ids(stocked, f"/Observation?code:below={CS}|a") == ["a", "b"]
    assert await ids(stocked, f"/Observation?code:above={CS}|b") == ["a", "b"]
    for operator, value, found in (
        *(("in", VS, ["a", "b"]), ("in", f"{VS}:outer", ["a", "b"]), ("ni", VS, ["c"])),
        *(("ss", f"{CS}|a", ["a", "b"]), ("sb", f"{CS}|b", ["a", "b"])),
    ):
        assert await ids(stocked, f"/Observation?_filter=code {operator} {value}") == found, (operator, value)


@pytest.mark.anyio
async def test_the_active_definition_is_preferred_then_the_last_updated(stocked: Client) -> None:
    only = {"system": CS, "concept": [{"code": "c"}]}
    await put(stocked, value_set(version="2", **including(only)), "newer")
    assert await ids(stocked, f"/Observation?code:in={VS}") == ["c"]
    assert await ids(stocked, f"/Observation?code:in={VS}|1") == ["a", "b"]
    await put(stocked, {**value_set(version="2", **including(only)), "status": "retired"}, "newer")
    assert await ids(stocked, f"/Observation?code:in={VS}") == ["a", "b"]


@pytest.mark.anyio
async def test_a_deleted_definition_is_not_known(stocked: Client) -> None:
    await stocked.fhir("DELETE", "/ValueSet/vs")
    for name in (VS, "ValueSet/vs"):
        response = await stocked.fhir("GET", f"/Observation?code:in={name}")
        assert response.status_code == 400
        assert response.json()["issue"][0]["diagnostics"].startswith(f"The value set `{name}` is not known here.")


@pytest.mark.anyio
async def test_lenient_handling_forgives_no_unknown_value_set(client: Client) -> None:
    response = await client.fhir("GET", "/Observation?code:in=urn:none", headers={"prefer": "handling=lenient"})
    assert response.status_code == 400


@pytest.mark.anyio
async def test_criteria_of_conditional_interactions(stocked: Client) -> None:
    headers = {"if-none-exist": f"code:not-in={VS}"}
    answered = await stocked.fhir("POST", "/Observation", json=observation("z"), headers=headers)
    assert (answered.status_code, answered.json()["id"]) == (200, "c")


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["batch", "transaction"])
async def test_searches_in_bundles(stocked: Client, kind: str) -> None:
    entry = {"request": {"method": "GET", "url": f"Observation?code:in={VS}"}}
    response = await stocked.fhir("POST", "", json={"resourceType": "Bundle", "type": kind, "entry": [entry]})
    (answered,) = response.json()["entry"]
    assert [each["resource"]["id"] for each in answered["resource"]["entry"]] == ["a", "b"]


@pytest.mark.anyio
async def test_pages_and_posted_searches(stocked: Client) -> None:
    form = {"code:in": VS, "_count": "1"}
    first = (await stocked.fhir("POST", "/Observation/_search", data=form)).json()
    assert [entry["resource"]["id"] for entry in first["entry"]] == ["a"]
    following = {link["relation"]: link["url"] for link in first["link"]}["next"]
    assert await ids(stocked, following) == ["b"]


@pytest.mark.anyio
@pytest.mark.parametrize("asking", [("&__explain=true", {}), ("", {"prefer": "explain"})])
async def test_a_search_explains_itself(stocked: Client, asking: tuple[str, dict[str, str]]) -> None:
    query, headers = asking
    url = f"/Observation?code:in={VS}&date:missing=true&_sort=-code{query}"
    bundle = (await stocked.fhir("GET", url, headers=headers)).json()
    *matches, outcome = bundle["entry"]
    assert [entry["resource"]["id"] for entry in matches] == ["b", "a"]
    assert bundle["total"] == 2
    assert outcome["search"]["mode"] == "outcome"
    told = [issue["diagnostics"] for issue in outcome["resource"]["issue"]]
    assert told[0] == (
        f"`code:in={VS}` on Observation is a token parameter with the modifier `:in`: "
        f"`code` is one of `a|{CS}`, `b|{CS}`."
    )
    assert (
        "`date:missing=true` on Observation is a date parameter with the modifier `:missing`: not (`date` has a value)."
        in told
    )
    assert any(sentence.startswith("Reading the parameters took ") for sentence in told)
    assert any(sentence.endswith("found 2 on this page.") for sentence in told)
    assert all(issue["severity"] == "information" for issue in outcome["resource"]["issue"])
    (own,) = [link["url"] for link in bundle["link"] if link["relation"] == "self"]
    assert "__explain" not in own


@pytest.mark.anyio
async def test_a_search_that_is_not_to_be_explained_is_not(client: Client) -> None:
    assert "entry" not in (await client.fhir("GET", "/Patient?__explain=false")).json()
    assert (await client.fhir("GET", "/Patient?__explain=yes")).status_code == 400
    refused = await client.fhir("PUT", "/Patient?identifier=1&__explain=true", json={"resourceType": "Patient"})
    assert refused.status_code == 400
