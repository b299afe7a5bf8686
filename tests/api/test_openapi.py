"""`/openapi.json` says what the tables say, is valid OpenAPI 3.1, and its schemas take what the server takes."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import openapi_spec_validator
import orjson
import pytest

from fhir_server.api.openapi import SHARED
from fhir_server.api.site import build_site
from fhir_server.app import Knowledge, Seams, load_knowledge, open_server
from fhir_server.interactions.table import INTERACTIONS
from fhir_server.operations import OPERATIONS
from fhir_server.search.parse import NOT_SEARCHED
from fhir_server.search.result_parameters import PARAMETERS
from fhir_server.settings import Settings
from tests.conftest import faults_only

pytestmark = pytest.mark.anyio

# The meta-schema of the OpenAPI Initiative, as the validator brings it.
METASCHEMA = Path(openapi_spec_validator.__file__).parent / "resources" / "schemas" / "v3.1" / "schema.json"


class Around(httpx.AsyncClient):
    """A client of what FastAPI serves, with a client of the FHIR API beside it."""

    fhir: httpx.AsyncClient

    async def document(self) -> dict[str, Any]:
        response = await self.get("/openapi.json")
        assert response.status_code == 200
        return orjson.loads(response.content)  # type: ignore[no-any-return]


@asynccontextmanager
async def around(known: Knowledge | None, **settings: Any) -> AsyncIterator[Around]:
    chosen = Settings(store="memory://", **settings)
    async with open_server(chosen, faults_only, known, Seams(definitions=None)) as server:
        app = build_site("1", chosen.path)
        app.state.context = server.context
        fhir = httpx.ASGITransport(server.api)
        async with (
            httpx.AsyncClient(transport=fhir, base_url="http://test/fhir") as api,
            Around(transport=httpx.ASGITransport(app), base_url="http://test") as client,
        ):
            client.fhir = api
            yield client


@pytest.fixture(scope="module")
async def client(known: Knowledge) -> AsyncIterator[Around]:
    async with around(known, purge=True) as client:
        yield client


@pytest.fixture(scope="module")
async def document(client: Around) -> dict[str, Any]:
    return await client.document()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        yield from ((method, path, each) for method, each in item.items() if method != "parameters")


def parameters(document: dict[str, Any], path: str, method: str) -> set[str]:
    """The names of an operation's parameters, and of its form's members."""
    components = document["components"]
    operation = document["paths"][path][method]
    names = {components["parameters"][each["$ref"].rpartition("/")[2]]["name"] for each in operation["parameters"]}
    if method == "post" and path.endswith("_search"):
        body = components["requestBodies"][operation["requestBody"]["$ref"].rpartition("/")[2]]
        (content,) = body["content"].values()
        form = components["schemas"][content["schema"]["$ref"].rpartition("/")[2]]
        names |= set(form["properties"])
        for part in form.get("allOf", []):
            names |= set(components["schemas"][part["$ref"].rpartition("/")[2]]["properties"])
    return names


async def test_it_is_openapi_31_and_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    metaschema = orjson.loads(METASCHEMA.read_bytes())
    assert [str(error) for error in jsonschema_rs.validator_for(metaschema).iter_errors(document)] == []
    for name in set(re.findall(r'"\$ref": "([^"]+)"', json.dumps(document))):
        place: Any = document
        for part in name.removeprefix("#/").split("/"):
            place = place[part]
    names = [each["operationId"] for _, _, each in operations(document)]
    assert len(names) == len(set(names))


async def test_it_is_valid_to_a_validator(limited: dict[str, Any]) -> None:
    # two types, as all of them take it 40 s
    assert [str(error) for error in openapi_spec_validator.OpenAPIV31SpecValidator(limited).iter_errors()] == []


async def test_every_interaction_is_there_for_every_type(document: dict[str, Any], known: Knowledge) -> None:
    found = {(method.upper(), path) for method, path, _ in operations(document)}
    codes = {code for _, _, each in operations(document) for code in each["x-fhir-interaction"]}
    assert {each.code for each in INTERACTIONS} <= codes
    for each in INTERACTIONS:
        for type in known.types if "{type}" in each.pattern else [""]:
            if "{member}" not in each.pattern:
                assert (each.method, f"/{each.pattern.replace('{type}', type)}") in found
    assert {("POST", f"/{type}/_search") for type in known.types} | {("POST", "/_search")} <= found


async def test_compartments_are_there_with_the_parameters_of_their_members(document: dict[str, Any]) -> None:
    # https://hl7.org/fhir/R4/compartmentdefinition-patient.html lists Observation; Medication is in none
    assert "/Patient/{id}/Observation" in document["paths"]
    assert "/Patient/{id}/Medication" not in document["paths"]
    assert not any(path.startswith("/Observation/{id}/Patient") for path in document["paths"])
    for path, method in (("/Patient/{id}/Observation", "get"), ("/Patient/{id}/Observation/_search", "post")):
        assert {"code-value-quantity", "date", "_sort"} <= parameters(document, path, method)
    assert "get" in document["paths"]["/Patient/{id}/*"]


async def test_every_operation_is_there_at_its_levels(document: dict[str, Any], known: Knowledge) -> None:
    places = {
        "system": "/",
        "type": "/{0}/",
        "instance": "/{0}/{{id}}/",
        "version": "/{0}/{{id}}/_history/{{version}}/",
    }
    expected = {
        (method.lower(), f"{places[level].format(type)}${each.code}")
        for each in OPERATIONS.values()
        for type in (None, *known.types)
        for level in each.list_levels(type)
        for method in each.methods
    }
    assert {(method, path) for method, path, _ in operations(document) if "$" in path} == expected


@pytest.mark.parametrize("form", ["get", "post"])
async def test_every_search_parameter_of_every_type_is_there(
    document: dict[str, Any], known: Knowledge, form: str
) -> None:
    for type in known.types:
        registered = {code for code, each in known.registry.parameters(type).items() if each.type != "special"}
        names = parameters(document, f"/{type}/_search" if form == "post" else f"/{type}", form)
        # what is no search parameter of a type: R4, 3.1.1.4 and 3.1.1.5
        assert registered | set(PARAMETERS) | NOT_SEARCHED | {"_has", "_filter", "_list"} == names - set(
            SHARED["header"]
        )


async def test_parameters_keep_their_type_and_are_told_once(document: dict[str, Any]) -> None:
    told = document["components"]["parameters"]
    assert told["Patient.birthdate"]["schema"] == {"$ref": "#/components/schemas/search.date"}
    assert "`ge`" in document["components"]["schemas"]["search.date"]["description"]
    assert "any._lastUpdated" in told and "Patient._lastUpdated" not in told
    assert "Patient:general-practitioner" in told["Patient._include"]["schema"]["items"]["examples"]
    assert "Observation:subject" in told["Patient._revinclude"]["schema"]["items"]["examples"]


CUSTOM = {
    "resourceType": "SearchParameter",
    "url": "https://clinic.example/SearchParameter/nickname",
    "name": "Nickname",
    "status": "active",
    "description": "The nickname of a patient",
    "code": "nickname",
    "base": ["Patient"],
    "type": "string",
    "expression": "Patient.name.given",
}


async def test_a_posted_search_parameter_appears_with_the_next_request(known: Knowledge) -> None:
    async with around(known) as client:
        assert "nickname" not in parameters(await client.document(), "/Patient", "get")
        assert (await client.fhir.post("/SearchParameter", json=CUSTOM)).status_code == 201
        assert "nickname" in parameters(await client.document(), "/Patient", "get")
        assert "nickname" in (await client.get("/docs/Patient")).text


@pytest.fixture(scope="module")
async def limited(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("capability") / "capability.json"
    path.write_text('{"resourceTypes": ["Observation", "Patient"]}')
    async with around(load_knowledge(Settings(capability=str(path))), capability=str(path)) as client:
        assert (await client.get("/docs/Patient")).status_code == 200
        assert (await client.get("/docs/Claim")).status_code == 404
        return await client.document()


async def test_the_types_served_limit_it(limited: dict[str, Any]) -> None:
    assert {path.split("/")[1] for path in limited["paths"]} == {
        *("", "Observation", "Patient", "_history", "_search", "metadata"),
        *("$bulk-publish", "$hl7v2", "$job", "$launch", "$meta", "$reindex", "$x12"),
        *("$ar-aging", "$denials", "$financial-summary", "$productivity", "$provider-adjustments"),
    }
    schemas = limited["components"]["schemas"]
    assert {"Patient", "Observation", "Bundle", "OperationOutcome", "HumanName"} <= schemas.keys()
    assert "Claim" not in schemas and "Claim.item" not in schemas
    assert "Claim" in schemas["Resource.other"]["properties"]["resourceType"]["enum"]
    assert not any("$purge" in path for path in limited["paths"])  # the setting is off


def schema_of(document: dict[str, Any], type: str) -> Any:
    return jsonschema_rs.validator_for({"$ref": f"#/components/schemas/{type}", "components": document["components"]})


EXTENDED = {"extension": [{"id": "e", "url": "https://clinic.example/why", "valueCode": "masked"}]}

PATIENT: dict[str, Any] = {
    "resourceType": "Patient",
    "name": [{"given": ["Ada", None], "_given": [None, EXTENDED]}],
    "_birthDate": {"id": "b"},
    "deceasedBoolean": False,
    "contained": [{"resourceType": "Organization", "id": "o", "name": "Clinic"}],
}


@pytest.mark.parametrize(
    ("change", "valid"),
    [
        ({}, True),
        ({"_deceasedBoolean": EXTENDED}, True),
        ({"deceasedDateTime": "2024"}, False),  # a second value of a choice
        ({"birthDate": "2024-02-30"}, False),
        ({"gender": "f"}, False),
        ({"surname": "Okafor"}, False),
        ({"link": [{"type": "seealso"}]}, False),  # `other` is required
        ({"link": [{"other": {"display": "x"}, "_type": EXTENDED}]}, True),
        ({"contained": [{"resourceType": "Nothing"}]}, False),
    ],
)
async def test_a_schema_takes_what_r4_takes(document: dict[str, Any], change: dict[str, Any], valid: bool) -> None:
    assert schema_of(document, "Patient").is_valid(PATIENT | change) is valid


async def test_the_samples_are_valid_to_the_schemas(document: dict[str, Any]) -> None:
    validator = schema_of(document, "Bundle")
    for path in sorted((Path(__file__).resolve().parents[2] / "examples").rglob("*.json")):
        resource = orjson.loads(path.read_bytes())
        if resource.get("resourceType") == "Bundle":
            assert [str(error)[:300] for error in validator.iter_errors(resource)] == [], path.name


async def test_it_is_compressed_where_the_client_takes_it(client: Around) -> None:
    plain = await client.get("/openapi.json", headers={"Accept-Encoding": "identity"})
    async with client.stream("GET", "/openapi.json", headers={"Accept-Encoding": "gzip"}) as response:
        packed = b"".join([part async for part in response.aiter_raw()])
    assert response.headers["content-encoding"] == "gzip" and "content-encoding" not in plain.headers
    assert gzip.decompress(packed) == plain.content
    assert len(plain.content) < 6_000_000 and len(packed) < 400_000


async def test_its_server_is_below_where_it_lies(document: dict[str, Any], known: Knowledge) -> None:
    assert document["servers"] == [{"url": "./fhir"}]
    async with around(known, base_url="https://fhir.clinic.example/r4") as client:
        assert (await client.document())["servers"] == [{"url": "https://fhir.clinic.example/r4"}]
