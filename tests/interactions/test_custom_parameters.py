"""SearchParameters of the installation: in force once stored, searched once indexed (https://hl7.org/fhir/R4/searchparameter.html)."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import json
import tarfile
from collections.abc import AsyncIterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import orjson
import pytest

from fhir_server.app import Knowledge, read_clock
from fhir_server.commands import reindex as command
from fhir_server.operations.core.reindex import supervise
from fhir_server.settings import Settings
from fhir_server.workers import reindexing
from tests.conftest import Client, serving
from tests.shared import shared_path

pytestmark = pytest.mark.anyio

EYES = "https://clinic.example/eyes"


def parameter(**changed: Any) -> dict[str, Any]:
    """A SearchParameter for the colour of a patient's eyes, kept in an extension."""
    return {
        "resourceType": "SearchParameter",
        "id": "eyes",
        "url": "https://clinic.example/SearchParameter/eyes",
        "name": "Eyes",
        "status": "active",
        "description": "The colour of the eyes",
        "code": "eyes",
        "base": ["Patient"],
        "type": "token",
        "expression": f"Patient.extension.where(url='{EYES}').value",
    } | changed


def patient(id: str, eyes: str = "", **rest: Any) -> dict[str, Any]:
    extension = [{"url": EYES, "valueCode": eyes}] if eyes else []
    return {"resourceType": "Patient", "id": id, **({"extension": extension} if extension else {}), **rest}


async def put(client: Client, resource: dict[str, Any]) -> None:
    response = await client.put(f"{resource['resourceType']}/{resource['id']}", json=resource)
    assert response.status_code in (200, 201), response.text


async def ids(client: Client, search: str) -> list[str]:
    """The ids found; the self link shows that the criteria were applied."""
    response = await client.get(search)
    assert response.status_code == 200, response.text
    bundle = response.json()
    assert next(link["url"] for link in bundle["link"] if link["relation"] == "self").endswith(search)
    return [entry["resource"]["id"] for entry in bundle.get("entry", ())]


async def refused(client: Client, search: str) -> str:
    response = await client.get(search)
    assert response.status_code == 400, response.text
    return str(response.json()["issue"][0]["diagnostics"])


async def reindexed(client: Client, path: str = "$reindex") -> dict[str, Any]:
    """Start a reindex and wait for its end, as a client does."""
    started = await client.post(path)
    assert started.status_code == 202, started.text
    status = started.headers["Content-Location"]
    for _ in range(500):
        response = await client.get(status)
        if response.status_code == 200:
            return {part["name"]: list(part.values())[1] for part in response.json()["parameter"]}
        assert response.status_code == 202 and "of" in response.headers["X-Progress"]
        await asyncio.sleep(0.02)
    raise AssertionError("The reindex does not end.")


@pytest.fixture(params=["memory", "sqlite", "mongodb"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh store of every kind."""
    if request.param == "mongodb":
        return str(request.getfixturevalue("new_mongo_uri")())
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/fhir.db"


@pytest.fixture
async def everywhere(known: Knowledge, uri: str) -> AsyncIterator[Client]:
    async with serving(known, store=uri) as client:
        yield client


async def test_new_parameters_are_searched_after_a_reindex(everywhere: Client) -> None:
    client = everywhere
    await put(client, patient("old", "brown"))
    await put(client, parameter())
    assert "fhir-server reindex Patient" in await refused(client, "Patient?eyes=brown")
    await put(client, patient("new", "brown"))
    ended = await reindexed(client)
    assert ended["status"] == "complete" and ended["indexed"] >= 3
    assert await ids(client, "Patient?eyes=brown") == ["new", "old"]
    assert await ids(client, "Patient?eyes=green") == []
    await put(client, patient("later", "green"))
    assert await ids(client, "Patient?eyes=green") == ["later"]
    assert await ids(client, "Patient?eyes:not=brown") == ["later"]
    assert await ids(client, "Patient?_sort=-eyes") == ["later", "new", "old"]


async def test_what_is_contained_waits_with_its_containers(everywhere: Client) -> None:
    """A chain looks inside resources: a new parameter of Patient waits for what contains Patients too."""
    client = everywhere
    subject = {"reference": "#p"}
    observation = {
        "resourceType": "Observation",
        "id": "o",
        "status": "final",
        "code": {"text": "x"},
        "subject": subject,
    }
    await put(client, observation | {"contained": [patient("p", "brown")]})
    await put(client, parameter())
    assert "stored before it" in await refused(client, "Observation?subject:Patient.eyes=brown")
    await reindexed(client, "Patient/$reindex")
    assert await ids(client, "Observation?subject:Patient.eyes=brown") == ["o"]
    assert await ids(client, "Patient?eyes=brown") == []
    assert await ids(client, "Observation?subject:Patient.eyes=green") == []


async def test_a_string_is_searched_by_a_part_of_its_text(everywhere: Client) -> None:
    """R4: `:contains` matches the value anywhere in the field; what is kept for it of strings, new ones have too."""
    client = everywhere
    await put(client, patient("old", "brown"))
    await put(client, parameter(type="string"))
    await put(client, patient("new", "light-brown"))
    await put(client, patient("other", "green"))
    await reindexed(client)
    for part in ("ro", "row", "brown"):
        assert await ids(client, f"Patient?eyes:contains={part}") == ["new", "old"]
    assert await ids(client, "Patient?eyes:contains=t-brown") == ["new"]


async def test_the_capability_statement_says_what_waits(client: Client) -> None:
    async def listed() -> dict[str, Any] | None:
        rest = (await client.get("metadata")).json()["rest"][0]
        patients = next(each for each in rest["resource"] if each["type"] == "Patient")
        return next((each for each in patients["searchParam"] if each["name"] == "eyes"), None)

    assert await listed() is None
    await put(client, patient("old"))
    await put(client, parameter())
    found = await listed()
    assert found is not None and "wait for a reindex" in found["documentation"]
    assert found["definition"] == parameter()["url"]
    await reindexed(client)
    found = await listed()
    assert found is not None and "reindex" not in found["documentation"]
    await client.delete("SearchParameter/eyes")
    assert await listed() is None
    rest = (await client.get("metadata")).json()["rest"][0]
    assert "reindex" in [each["name"] for each in rest["operation"]]


async def test_a_type_without_resources_needs_no_reindex(client: Client) -> None:
    await put(client, parameter())
    await put(client, patient("a", "brown"))
    assert await ids(client, "Patient?eyes=brown") == ["a"]


async def test_what_is_gone_or_retired_is_unknown(everywhere: Client) -> None:
    client = everywhere
    await put(client, parameter())
    await put(client, patient("a", "brown"))
    await put(client, parameter(status="retired"))
    assert "no search parameter `eyes`" in await refused(client, "Patient?eyes=brown")
    # written while nothing indexed it: back in force, it waits for a reindex again
    await put(client, patient("b", "brown"))
    await put(client, parameter())
    assert "stored before it" in await refused(client, "Patient?eyes=brown")
    await reindexed(client, "Patient/$reindex")
    assert await ids(client, "Patient?eyes=brown") == ["a", "b"]
    await client.delete("SearchParameter/eyes")
    assert "no search parameter `eyes`" in await refused(client, "Patient?eyes=brown")


async def test_a_changed_expression_waits_for_a_reindex(client: Client) -> None:
    await put(client, parameter())
    await put(client, patient("a", "brown", maritalStatus={"text": "x", "coding": [{"code": "M"}]}))
    assert await ids(client, "Patient?eyes=brown") == ["a"]
    await put(client, parameter(expression="Patient.maritalStatus"))
    assert "stored before it" in await refused(client, "Patient?eyes=brown")
    await reindexed(client)
    assert await ids(client, "Patient?eyes=brown") == []
    assert await ids(client, "Patient?eyes=M") == ["a"]


async def test_one_transaction_may_bring_both(client: Client) -> None:
    entries = [
        {"resource": each, "request": {"method": "PUT", "url": f"{each['resourceType']}/{each['id']}"}}
        for each in (patient("a", "brown"), parameter())
    ]
    response = await client.post("", json={"resourceType": "Bundle", "type": "transaction", "entry": entries})
    assert response.status_code == 200, response.text
    assert "stored before it" in await refused(client, "Patient?eyes=brown")
    await reindexed(client)
    assert await ids(client, "Patient?eyes=brown") == ["a"]


REFUSED = [
    ({"expression": "Patient.name["}, "SearchParameter.expression", "at character 14"),
    ({"expression": "Patient.name.matches('x')"}, "SearchParameter.expression", "at character 14"),
    ({"expression": "Patient.birthDate | Patient.eyes"}, "SearchParameter.expression", "at character 29"),
    ({"expression": "Patient.birthDate", "type": "reference"}, "SearchParameter.expression", "nothing to index"),
    ({"expression": "Observation.code"}, "SearchParameter.expression", "no part for `Patient`"),
    (
        {"base": ["Questionnaire"], "expression": f"Questionnaire.{'item.' * 25}linkId"},
        "SearchParameter.expression",
        "lists",
    ),
    ({"expression": None}, "SearchParameter.expression", "needs an expression"),
    ({"code": "birthdate"}, "SearchParameter.code", "choose another code"),
    ({"code": "a.b"}, "SearchParameter.code", "letters, digits"),
    ({"code": "_sort"}, "SearchParameter.code", "search syntax"),
    ({"type": "special"}, "SearchParameter.type", "`special`"),
    (
        {"type": "composite", "component": [{"definition": "https://x.example/none", "expression": "value"}]},
        "SearchParameter.component",
        "not known",
    ),
]


@pytest.mark.parametrize(("changed", "path", "says"), REFUSED)
async def test_what_cannot_be_applied_is_refused(client: Client, changed: dict[str, Any], path: str, says: str) -> None:
    resource = {name: value for name, value in parameter(**changed).items() if value is not None}
    response = await client.put("SearchParameter/eyes", json=resource)
    assert response.status_code == 422, response.text
    issue = response.json()["issue"][0]
    assert issue["expression"] == [path]
    assert says in issue["diagnostics"]
    draft = await client.put("SearchParameter/eyes", json=resource | {"status": "draft"})
    assert draft.status_code == 201, "a draft is not in force, so it is only stored"


async def test_two_may_not_have_one_code(client: Client) -> None:
    await put(client, parameter())
    response = await client.put("SearchParameter/other", json=parameter(id="other", url="https://x.example/other"))
    assert response.status_code == 422
    assert "`https://clinic.example/SearchParameter/eyes`" in response.json()["issue"][0]["diagnostics"]
    await put(client, parameter(description="The same one, told better"))


async def test_a_new_version_is_looked_at_like_a_first_one(client: Client) -> None:
    """What is in force of the version before says nothing about the expression, the type or the URL of this one."""
    await put(client, parameter())
    unfit = {"expression": "Patient.name", "type": "date"}
    for changed, says in (({"expression": "Patient.eyes"}, "at character 9"), (unfit, "nothing to index")):
        response = await client.put("SearchParameter/eyes", json=parameter(**changed))
        assert response.status_code == 422 and says in response.json()["issue"][0]["diagnostics"], response.text
    await put(client, patient("a", "brown"))
    assert await ids(client, "Patient?eyes=brown") == ["a"], "the version before is in force"
    await put(client, parameter(url="https://x.example/eyes"))
    same_url = await client.put("SearchParameter/other", json=parameter(id="other", url="https://x.example/eyes"))
    assert same_url.status_code == 422 and "choose another code" in same_url.json()["issue"][0]["diagnostics"]


def transaction(*resources: dict[str, Any]) -> dict[str, Any]:
    paths = [f"{each['resourceType']}/{each['id']}" for each in resources]
    entries = [
        {"resource": each, "request": {"method": "PUT", "url": path}}
        for each, path in zip(resources, paths, strict=True)
    ]
    return {"resourceType": "Bundle", "type": "transaction", "entry": entries}


async def test_two_of_one_transaction_are_looked_at_together(client: Client) -> None:
    twins = transaction(parameter(), parameter(id="other", url="https://x.example/other"))
    response = await client.post("", json=twins)
    assert response.status_code == 422 and "choose another code" in response.json()["issue"][0]["diagnostics"]
    await put(client, parameter())
    component = [{"definition": "https://x.example/other", "expression": "maritalStatus"}] * 2
    moved = transaction(
        parameter(code="iris"),
        parameter(id="other", url="https://x.example/other", expression="Patient.maritalStatus"),
        parameter(id="both", url="https://x.example/both", code="both", type="composite", expression="Patient")
        | {"component": component},
    )
    response = await client.post("", json=moved)
    assert response.status_code == 200, response.text
    await put(client, patient("a", "brown", maritalStatus={"coding": [{"code": "M"}]}))
    assert await ids(client, "Patient?iris=brown&eyes=M&both=M$M") == ["a"]


async def test_a_description_of_an_official_parameter_is_stored(client: Client) -> None:
    official = "http://hl7.org/fhir/SearchParameter/individual-birthdate"
    await put(client, parameter(code="birthdate", type="date", derivedFrom=official, expression="Patient.birthDate"))
    await put(client, patient("a", birthDate="1980-01-01"))
    assert await ids(client, "Patient?birthdate=1980-01-01") == ["a"]


async def test_references_and_composites(client: Client) -> None:
    """A custom reference can be chained through, included and reversed; a composite holds within one element."""
    url = "https://clinic.example/friend"
    await put(
        client,
        parameter(
            id="friend",
            url="https://clinic.example/SearchParameter/friend",
            code="friend",
            type="reference",
            target=["Patient"],
            expression=f"Patient.extension('{url}').value.as(Reference)",
        ),
    )
    await put(
        client,
        parameter(
            id="contact",
            url="https://clinic.example/SearchParameter/contact",
            code="contact-kind",
            type="composite",
            expression="Patient.contact",
            component=[
                {"definition": "http://hl7.org/fhir/SearchParameter/individual-gender", "expression": "gender"},
                {"definition": "http://hl7.org/fhir/SearchParameter/individual-family", "expression": "name.family"},
            ],
        ),
    )
    await put(client, patient("ann", gender="female"))
    await put(client, patient("bob") | {"extension": [{"url": url, "valueReference": {"reference": "Patient/ann"}}]})
    contacts = [{"gender": "male", "name": {"family": "Moor"}}, {"gender": "female", "name": {"family": "Hill"}}]
    await put(client, patient("cid", contact=contacts))
    assert await ids(client, "Patient?friend=Patient/ann") == ["bob"]
    assert await ids(client, "Patient?friend.gender=female") == ["bob"]
    assert await ids(client, "Patient?_has:Patient:friend:_id=bob") == ["ann"]
    assert await ids(client, "Patient?_id=bob&_include=Patient:friend") == ["bob", "ann"]
    assert await ids(client, "Patient?_id=ann&_revinclude=Patient:friend") == ["ann", "bob"]
    assert await ids(client, "Patient?contact-kind=male$moor") == ["cid"]
    assert await ids(client, "Patient?contact-kind=male$hill") == []


async def test_a_composite_of_a_custom_parameter(client: Client) -> None:
    await put(client, parameter(id="zz", expression="Patient.contact.gender"))
    component = [
        {"definition": parameter()["url"], "expression": "gender"},
        {"definition": "http://hl7.org/fhir/SearchParameter/individual-family", "expression": "name.family"},
    ]
    made = parameter(id="aa", url="https://x.example/aa", code="kind-name", type="composite", component=component)
    await put(client, made | {"expression": "Patient.contact"})
    await put(client, patient("a", contact=[{"gender": "male", "name": {"family": "Moor"}}]))
    assert await ids(client, "Patient?kind-name=male$moor") == ["a"]
    assert await ids(client, "Patient?eyes=male") == ["a"]


@pytest.fixture(params=["sqlite", pytest.param("mongodb", marks=pytest.mark.long)])
async def two(request: pytest.FixtureRequest, known: Knowledge, tmp_path: Path) -> AsyncIterator[tuple[Client, Client]]:
    """Two servers on one store, as two processes are: neither sees the other's memory."""
    uri = f"sqlite:///{tmp_path}/fhir.db"
    if request.param == "mongodb":
        uri = request.getfixturevalue("new_mongo_uri")()
    async with serving(known, store=uri) as first, serving(known, store=uri) as second:
        yield first, second


async def test_another_process_learns_before_it_writes(two: tuple[Client, Client]) -> None:
    first, second = two
    await put(second, patient("old", "brown"))
    await put(first, parameter())
    await put(second, patient("new", "brown"))
    assert "stored before it" in await refused(second, "Patient?eyes=brown")
    await reindexed(first, "Patient/$reindex")
    assert await ids(second, "Patient?eyes=brown") == ["new", "old"]
    await first.delete("SearchParameter/eyes")
    assert "no search parameter" in await refused(second, "Patient?eyes=brown")
    lenient = {"Prefer": "handling=lenient"}
    await put(first, parameter())
    await reindexed(first, "Patient/$reindex")
    bundle = (await second.get("Patient?eyes=none", headers=lenient)).json()
    assert list(bundle.get("entry", ())) == [], "not ignored: the parameter is known by now"


async def test_a_reindex_that_was_left_is_gone_on_with(client: Client) -> None:
    for number in range(3):
        await put(client, patient(str(number), "brown"))
    await put(client, parameter())
    context = client.server.context
    job = await reindexing.begin(context, ["Patient"])
    conflict = await client.post("$reindex")
    assert conflict.status_code == 409 and "GET $reindex" in conflict.json()["issue"][0]["diagnostics"]
    # its process died: no sign of life for longer than LEASE
    before = await context.unrestricted.get_value(reindexing.JOB)
    gone = orjson.loads(before or b"") | {"beat": job.beat - 2 * reindexing.LEASE}
    assert await context.unrestricted.put_value_if(reindexing.JOB, orjson.dumps(gone), before)
    assert (await client.get("$reindex")).status_code == 202
    for _ in range(200):
        if (await client.get("$reindex")).status_code == 200:
            break
        await asyncio.sleep(0.02)
    assert await ids(client, "Patient?eyes=brown") == ["0", "1", "2"]


async def test_a_slow_reindex_is_not_taken_for_one_that_was_left(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a low rate the pause after a batch is longer than LEASE: the job says that it lives meanwhile."""
    monkeypatch.setattr(reindexing, "HEARTBEAT", 0.02)
    context = client.server.context
    for number in range(3):
        await put(client, patient(str(number), "brown"))
    running = asyncio.create_task(reindexing.run(context, await reindexing.begin(context, ["Patient"], rate=8)))
    beats = set()
    while not running.done():
        job = await reindexing.find_job(context)
        if job is not None and (job.done, job.status) == (3, "running"):
            beats.add(job.beat)
        await asyncio.sleep(0.005)
    assert (await running).status == "complete" and len(beats) > 3


async def test_the_command_does_its_types_after_what_was_left(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "open_server", lambda settings: nullcontext(client.server))
    await put(client, patient("a", "brown"))
    long_ago = read_clock() - 2 * reindexing.LEASE
    await reindexing.begin(dataclasses.replace(client.server.context, clock=lambda: long_ago), ["Observation"])
    job = await command._reindex(Settings(store="memory://"), ["Patient"], 0)
    assert (job.types, job.status, job.done) == (("Patient",), "complete", 1)


@pytest.mark.external
async def test_a_start_goes_on_with_what_a_dead_process_left(known: Knowledge, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/fhir.db"
    async with serving(known, store=uri) as client:
        entries = [
            {"resource": patient(f"{n:03}", "brown"), "request": {"method": "PUT", "url": f"Patient/{n:03}"}}
            for n in range(450)
        ]
        await client.post("", json={"resourceType": "Bundle", "type": "transaction", "entry": entries})
        await put(client, parameter())
        # a rate so low that only the first batch is done when the server ends
        assert (await client.post("Patient/$reindex?rate=10")).status_code == 202
        while (job := await reindexing.find_job(client.server.context)) is None or job.done < 200:
            await asyncio.sleep(0.02)
    async with serving(known, store=uri) as client:
        context = client.server.context
        left = await reindexing.find_job(context)
        assert left is not None and (left.status, left.done) == ("running", 200)
        assert "stored before it" in await refused(client, "Patient?eyes=brown")
        later = dataclasses.replace(context, clock=lambda: read_clock() + 2 * reindexing.LEASE)
        before = await context.unrestricted.get_value(reindexing.JOB)
        faster = orjson.dumps(dataclasses.asdict(left) | {"rate": 0})
        await context.unrestricted.put_value_if(reindexing.JOB, faster, before)
        await supervise(later)
        while (job := await reindexing.find_job(context)) is not None and job.status == "running":
            await asyncio.sleep(0.02)
        assert job is not None and (job.status, job.done) == ("complete", 450), "the first batch was not done again"
        assert len(await ids(client, "Patient?eyes=brown&_count=1000")) == 450


async def test_reindex_beside_writes_loses_nothing(everywhere: Client) -> None:
    client = everywhere
    for number in range(30):
        await put(client, patient(f"a{number:02}", "brown"))
    await put(client, parameter())

    async def write_on() -> None:
        for number in range(30):
            await put(client, patient(f"b{number:02}", "brown"))
            await put(client, patient(f"a{number:02}", "green" if number % 2 else "brown"))

    writing = asyncio.create_task(write_on())
    await reindexed(client)
    await writing
    brown = [f"a{number:02}" for number in range(0, 30, 2)] + [f"b{number:02}" for number in range(30)]
    assert await ids(client, "Patient?eyes=brown&_count=100") == brown
    assert len(await ids(client, "Patient?eyes=green&_count=100")) == 15


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("$reindex?type=Nope", "`type=Nope`"),
        ("$reindex?rate=fast", "`rate`"),
        ("Patient/$reindex?type=Patient", "no parameter"),
    ],
)
async def test_bad_reindex_requests(client: Client, path: str, says: str) -> None:
    response = await client.post(path)
    assert response.status_code == 400 and says in response.json()["issue"][0]["diagnostics"]


async def test_a_reindex_never_started_is_not_found(client: Client) -> None:
    assert (await client.get("$reindex")).status_code == 404


@pytest.mark.external
async def test_definitions_of_a_folder_are_stored_at_the_start(known: Knowledge, tmp_path: Path) -> None:
    folder = tmp_path / "profiles"
    folder.mkdir()
    (folder / "eyes.json").write_text(json.dumps(parameter()))
    (folder / "notes.json").write_text('{"about": "no resource"}')
    uri = f"sqlite:///{tmp_path}/fhir.db"
    async with serving(known, store=uri, profiles=str(folder)) as client:
        await put(client, patient("a", "brown"))
        assert await ids(client, "Patient?eyes=brown") == ["a"]
    async with serving(known, store=uri, profiles=str(folder)) as client:
        assert await ids(client, "Patient?eyes=brown") == ["a"], "the same file makes no new version, so nothing waits"
        assert (await client.get("SearchParameter/eyes")).headers["ETag"] == 'W/"1"'
    (folder / "bad.json").write_text(json.dumps(parameter(id="bad", code="bad", url="urn:x", expression="Patient.bad")))
    with pytest.raises(ValueError, match=r"bad\.json.*at character 9"):
        async with serving(known, store=uri, profiles=str(folder)):
            pass


def packed(path: Path, members: dict[str, Any]) -> Path:
    """A FHIR package."""
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            text = json.dumps(content).encode()
            information = tarfile.TarInfo(name)
            information.size = len(text)
            archive.addfile(information, io.BytesIO(text))
    return path


@pytest.mark.external
async def test_a_package_of_the_folder_is_stored(known: Knowledge, tmp_path: Path) -> None:
    colours = {
        "resourceType": "ValueSet",
        "id": "warm",
        "url": "https://clinic.example/ValueSet/warm",
        "status": "active",
        "compose": {"include": [{"system": "urn:colours", "concept": [{"code": "brown"}]}]},
    }
    guide = {"resourceType": "ImplementationGuide", "id": "guide"}
    members = {
        "package/package.json": {"name": "clinic.colours"},
        "package/SearchParameter-eyes.json": parameter(),
        "package/ValueSet-warm.json": colours,
        "package/ImplementationGuide-guide.json": guide,
        "package/example/Patient-a.json": patient("a"),
    }
    packed(tmp_path / "colours.tgz", members)
    uri = f"sqlite:///{tmp_path}/fhir.db"
    async with serving(known, store=uri, profiles=str(tmp_path)) as client:
        assert (await client.get("Patient/a")).status_code == 404, "examples are not definitions"
        coded = [{"url": EYES, "valueCoding": {"system": "urn:colours", "code": "brown"}}]
        await put(client, patient("b") | {"extension": coded})
        assert await ids(client, "Patient?eyes:in=https://clinic.example/ValueSet/warm") == ["b"]


@pytest.mark.long
async def test_us_core_is_applied(known: Knowledge, tmp_path: Path) -> None:
    """US Core's own parameters, from its package: race by the code in the extension's extension."""
    (tmp_path / "us-core.tgz").symlink_to(shared_path("definitions/hl7.fhir.us.core-6.1.0.tgz"))
    race = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-race"
    category = {"url": "ombCategory", "valueCoding": {"system": "urn:oid:2.16.840.1.113883.6.238", "code": "2106-3"}}
    async with serving(known, store="memory://", profiles=str(tmp_path)) as client:
        await put(client, patient("a") | {"extension": [{"url": race, "extension": [category]}]})
        await put(client, patient("b"))
        assert await ids(client, "Patient?race=2106-3") == ["a"]
        assert await ids(client, "Patient?race:missing=true") == ["b"]
        stored = (await client.get("SearchParameter?_summary=count&url:below=http://hl7.org/fhir/us/core")).json()
        assert stored["total"] == 106
