"""The CapabilityStatement tells what search can do, and is small (https://hl7.org/fhir/R4/capabilitystatement.html)."""

from __future__ import annotations

from typing import Any

import pytest

from fhir_server.interactions.capabilities import SYNTAX, build_statement
from fhir_server.search.parameters import TYPES
from fhir_server.search.parse import COMMON_CRITERIA
from tests.conftest import Client

pytestmark = pytest.mark.anyio


@pytest.fixture
async def rest(client: Client) -> dict[str, Any]:
    response = await client.fhir("GET", "/metadata")
    assert len(response.content) < 850_000
    statement: dict[str, Any] = response.json()
    rest: dict[str, Any] = statement["rest"][0]
    return rest


def named(parameters: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in parameters}


async def test_modifiers_are_told_per_type_and_where_a_parameter_takes_more(rest: dict[str, Any]) -> None:
    told = rest["documentation"]
    for name, kind in TYPES.items():
        line = next((line for line in told.splitlines() if line.startswith(f"- {name}:")), "")
        for modifier in kind.modifiers - {"of-type", "text"}:
            assert f"`:{modifier}`" in line, (name, modifier)
        assert kind.prefixes == ("`sa`" in line), name
    assert "`:missing`" in told
    patient = named(next(each for each in rest["resource"] if each["type"] == "Patient")["searchParam"])
    assert patient["identifier"]["documentation"] == "Also takes `:of-type`, `:text`."
    assert patient["language"]["documentation"] == "Also takes `:text`."
    assert "documentation" not in patient["gender"]
    location = named(next(each for each in rest["resource"] if each["type"] == "Location")["searchParam"])
    assert location["near"]["type"] == "special"
    assert "latitude|longitude|distance|units" in location["near"]["documentation"]


async def test_every_parameter_that_can_be_searched_is_listed(client: Client, rest: dict[str, Any]) -> None:
    registry = client.server.context.registry
    for resource in rest["resource"]:
        searchable = {each.code for each in registry.parameters(resource["type"]).values() if each.type != "special"}
        assert set(named(resource["searchParam"])) == searchable
    common = named(rest["searchParam"])
    assert {"_id", "_lastUpdated", "_tag", "_filter", "_list"} <= set(common)
    assert common["_filter"]["definition"] == "http://hl7.org/fhir/SearchParameter/filter"
    assert set(SYNTAX) == set(COMMON_CRITERIA) - {"_text", "_content"}  # these are parameters of R4 as well


async def test_the_statement_can_be_asked_for_in_part(client: Client) -> None:
    whole = (await client.fhir("GET", "/metadata?mode=full&_pretty=true")).json()
    part = (await client.fhir("GET", "/metadata?_elements=software&_elements=implementation")).json()
    assert part["software"] == whole["software"]
    # mandatory elements stay
    assert part.keys() >= {"status", "date", "kind", "fhirVersion", "format"}
    assert "rest" not in part
    assert "implementation" in part
    summary = (await client.fhir("GET", "/metadata?_summary=true")).json()
    assert summary["meta"]["tag"][0]["code"] == "SUBSETTED"


@pytest.mark.parametrize("query", ["colour=red", "mode=half", "mode=full&mode=half", "_summary=count", "_elements=x"])
async def test_what_the_statement_has_no_parameter_for(client: Client, query: str) -> None:
    assert (await client.fhir("GET", f"/metadata?{query}")).status_code == 400


async def test_an_update_needs_no_version(rest: dict[str, Any]) -> None:
    # `versioned-update` would mean that the version must be given with each update
    assert {resource["versioning"] for resource in rest["resource"]} == {"versioned"}


async def test_operations_of_every_type_are_told_once(rest: dict[str, Any]) -> None:
    assert "- `$meta-add`: Adds profiles" in rest["documentation"]
    patient = named(next(each for each in rest["resource"] if each["type"] == "Patient")["operation"])
    assert patient["meta-add"].keys() == {"name", "definition"}
    assert patient["everything"]["documentation"]


async def test_named_queries_are_refused_with_what_to_do(client: Client) -> None:
    response = await client.fhir("GET", "/Patient?_query=x")
    issue = response.json()["issue"][0]
    assert (response.status_code, issue["code"]) == (400, "not-supported")
    assert issue["diagnostics"] == (
        "This server does not support the search parameter `_query`: it has no named queries. "
        "Ask by search parameters, or call an operation."
    )


async def test_the_statement_has_an_etag_and_is_sent_once(client: Client) -> None:
    first = await client.get("metadata")
    tag = first.headers["etag"]
    again = await client.get("metadata", headers={"if-none-match": tag})
    assert again.status_code == 304 and not again.content and again.headers["etag"] == tag
    other = await client.get("metadata?_elements=fhirVersion", headers={"if-none-match": tag})
    assert other.status_code == 200 and other.headers["etag"] != tag


async def test_the_statement_is_made_once_for_all_names(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients address the server by any IP address and port: each would have it made anew."""
    build, built = build_statement, []

    def overhear(*arguments: Any) -> Any:
        built.append(arguments)
        return build(*arguments)

    monkeypatch.setattr("fhir_server.app.build_statement", overhear)
    for number in range(1, 40):
        statement = (await client.get("/metadata", headers={"host": f"10.0.0.{number}:8{number:03}"})).json()
        assert statement["implementation"]["url"] == f"http://10.0.0.{number}:8{number:03}/fhir"
    assert len(built) <= 1
