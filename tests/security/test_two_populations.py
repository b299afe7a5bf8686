"""What a grant hides is as if it were not stored.

Random requests are sent to a server that holds everything, with a token, and to one that holds only what the token may
see: both answer alike. What may be seen is worked out here from the resources themselves, by rules of this test's own.
The only answers that may differ are refusals for want of a scope: of a type that the grant does not name, and of chains
through such a type.
"""

from __future__ import annotations

import math
import os
import random
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from fhir_server.app import Knowledge, Seams
from fhir_server.security.static_tokens import StaticToken, create_token
from tests.conftest import Client, serving

pytestmark = pytest.mark.anyio

START = 1_795_000_000_000_000
Resource = dict[str, Any]

PATIENTS = ("ada", "bo", "cy")
PRACTITIONERS = ("ash", "elm", "fir", "oak", "pine", "quill", "yew")
LABORATORY, VITAL = "laboratory", "vital-signs"


def build_population(chance: random.Random) -> list[Resource]:
    """Resources of three patients that refer to each other, some of them labelled."""
    people: list[Resource] = [
        {"resourceType": "Organization", "id": id, "name": name}
        for id, name in (("north", "North"), ("south", "South"))
    ]
    people += [{"resourceType": "Practitioner", "id": id, "name": [{"family": id.title()}]} for id in PRACTITIONERS]
    people += [
        {"resourceType": "PractitionerRole", "id": f"as-{id}", "practitioner": {"reference": f"Practitioner/{id}"}}
        for id in PRACTITIONERS
    ]
    people += [
        {
            "resourceType": "Patient",
            "id": id,
            "active": chance.random() < 0.7,
            "name": [{"family": chance.choice(("Pine", "Quill"))}],
            "gender": chance.choice(("female", "male")),
            "generalPractitioner": [{"reference": f"Practitioner/{chance.choice(PRACTITIONERS)}"}],
            "managingOrganization": {"reference": f"Organization/{chance.choice(('north', 'south'))}"},
        }
        for id in PATIENTS
    ]
    records = [make_clinical(chance, type, number) for type in RECORDS for number in range(8)]
    return people + records + [make_provenance(chance, people + records, number) for number in range(16)]


RECORDS = ("Encounter", "Observation", "Condition", "DiagnosticReport")


def make_clinical(chance: random.Random, type: str, number: int) -> Resource:
    patient, encounter = chance.choice(PATIENTS), f"Encounter/encounter{chance.randrange(8)}"
    code = {"coding": [{"system": "urn:codes", "code": chance.choice("123")}]}
    resource: Resource = {
        "resourceType": type,
        "id": f"{type.lower()}{number}",
        "subject": {"reference": f"Patient/{patient}"},
    }
    if chance.random() < 0.15:
        coding = {"system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "code": chance.choice("RV")}
        resource["meta"] = {"security": [coding]}
    if type == "Encounter":
        return {**resource, "status": "finished", "class": {"code": "AMB"}}
    resource |= {"code": code, "encounter": {"reference": encounter}}
    if type == "Observation":
        resource["status"] = chance.choice(("final", "amended"))
        resource["effectiveDateTime"] = f"2026-0{chance.randrange(1, 9)}-01"
        resource["category"] = [{"coding": [{"code": chance.choice((LABORATORY, VITAL))}]}]
        performers = [
            f"Practitioner/{chance.choice(PRACTITIONERS)}",
            f"PractitionerRole/as-{chance.choice(PRACTITIONERS)}",
        ]
        resource["performer"] = [{"reference": each} for each in chance.sample(performers, chance.randrange(1, 3))]
    if type == "DiagnosticReport":
        resource["status"] = "final"
        resource["result"] = [{"reference": f"Observation/observation{chance.randrange(8)}"}]
    return resource


def make_provenance(chance: random.Random, others: list[Resource], number: int) -> Resource:
    """The origin of up to three things, some of which are nowhere or not named by a reference."""
    names = [name(each) for each in others if each["resourceType"] not in PEOPLE]
    patient = f"Patient/{chance.choice(PATIENTS)}"
    targets = [patient, *chance.sample(names, chance.randrange(2))] if chance.random() < 0.7 else [chance.choice(names)]
    if chance.random() < 0.2:
        targets.append(chance.choice(("Observation/gone", "http://other.example/fhir/Patient/1", "Practitioner/oak")))
    named: list[Resource] = [{"reference": target} for target in targets]
    if chance.random() < 0.1:
        named.append({"identifier": {"value": "1"}})
    return {
        "resourceType": "Provenance",
        "id": f"provenance{number}",
        "target": named,
        "recorded": f"2026-0{chance.randrange(1, 9)}-01T00:00:00Z",
        "agent": [{"who": {"reference": f"Practitioner/{chance.choice(PRACTITIONERS)}"}}],
    }


def is_labelled(resource: Resource) -> bool:
    return bool(resource.get("meta", {}).get("security"))


def is_of(patient: str, resource: Resource) -> bool:
    if resource["resourceType"] == "Patient":
        return bool(resource["id"] == patient)
    if resource["resourceType"] == "Provenance":
        return {"reference": f"Patient/{patient}"} in resource["target"]
    return bool(resource.get("subject", {}).get("reference") == f"Patient/{patient}")


def has_category(resource: Resource, category: str) -> bool:
    return any(coding["code"] == category for each in resource.get("category", ()) for coding in each["coding"])


@dataclass(frozen=True)
class Case:
    """A grant, and which resources it shows as a sentence of this test's own.

    `named`: of PEOPLE, those are shown, too, to whom a resource that is shown refers.
    """

    scopes: str
    shows: Callable[[Resource], bool]
    types: tuple[str, ...]
    patient: str = ""
    named: bool = False
    any_target: bool = False
    """Whether Provenances are shown whatever their targets are."""

    def select(self, population: list[Resource]) -> list[Resource]:
        """What the grant shows, in the order of the population."""
        shown = [each for each in population if self.shows(each) and each["resourceType"] != "Provenance"]
        for type in reversed(PEOPLE) if self.named else ():
            named = {reference for each in shown for reference in find_references(each)}
            shown += [each for each in population if each["resourceType"] == type and name(each) in named]
        names = {name(each) for each in shown}
        shown += [
            each
            for each in population
            if each["resourceType"] == "Provenance" and self.shows(each)
            if self.any_target or all(target.get("reference") in names for target in each["target"])
        ]
        return [each for each in population if each in shown]


def name(resource: Resource) -> str:
    return f"{resource['resourceType']}/{resource['id']}"


def find_references(element: Any) -> list[str]:
    """Every `reference` inside a resource."""
    if isinstance(element, list):
        return [reference for each in element for reference in find_references(each)]
    if not isinstance(element, dict):
        return []
    own = [element["reference"]] if isinstance(element.get("reference"), str) else []
    return own + find_references(list(element.values()))


PEOPLE = ("Practitioner", "PractitionerRole")
ALL = (*RECORDS, "Patient", "Organization", "Provenance", *PEOPLE)
CASES = {
    "patient": Case(
        "patient/*.rs",
        lambda each: not is_labelled(each) and (each["resourceType"] == "Organization" or is_of("ada", each)),
        ALL,
        "ada",
        named=True,
    ),
    "a patient's observations and who made them": Case(
        "patient/Observation.rs patient/Practitioner.rs patient/PractitionerRole.rs",
        lambda each: not is_labelled(each) and each["resourceType"] == "Observation" and is_of("bo", each),
        ("Observation", *PEOPLE),
        "bo",
        named=True,
    ),
    "everybody": Case("user/*.rs", lambda each: not is_labelled(each), ALL),
    "origins of observations": Case(
        "user/Observation.rs user/Provenance.rs",
        lambda each: not is_labelled(each) and each["resourceType"] in ("Observation", "Provenance"),
        ("Observation", "Provenance"),
    ),
    "origins of everything": Case(
        "user/Patient.rs user/Provenance.rs?target:missing=false",
        lambda each: not is_labelled(each) and each["resourceType"] in ("Patient", "Provenance"),
        ("Patient", "Provenance"),
        any_target=True,
    ),
    "two types": Case(
        "user/Patient.rs user/Encounter.rs",
        lambda each: not is_labelled(each) and each["resourceType"] in ("Patient", "Encounter"),
        ("Patient", "Encounter"),
    ),
    "laboratory": Case(
        f"user/Observation.rs?category={LABORATORY} user/Patient.rs user/DiagnosticReport.rs user/Practitioner.read",
        lambda each: (
            not is_labelled(each)
            and (
                each["resourceType"] in ("Patient", "DiagnosticReport", "Practitioner")
                or has_category(each, LABORATORY)
            )
        ),
        ("Observation", "Patient", "DiagnosticReport", "Practitioner"),
    ),
    "a patient's observations, everybody's encounters": Case(
        "patient/Observation.rs patient/Patient.rs user/Encounter.rs",
        lambda each: (
            not is_labelled(each)
            and (
                each["resourceType"] == "Encounter"
                or (each["resourceType"] in ("Observation", "Patient") and is_of("bo", each))
            )
        ),
        ("Observation", "Patient", "Encounter"),
        "bo",
    ),
}

SEARCHES = {
    "Patient": (
        "family=quill;active=true;gender=female;gender:not=male;_id=ada,bo;organization=Organization/north;"
        "organization.name=North;general-practitioner.family=pine;_has:Observation:subject:code=1;"
        "_has:Observation:subject:status=final;_has:Encounter:subject:_id=encounter1;_revinclude=Observation:subject;"
        "_revinclude=Provenance:target;_has:Provenance:target:recorded=ge2026-04;_revinclude:iterate=*;_include=Patient:general-practitioner;_sort=family;_sort=-gender,family;"
        "_has:DiagnosticReport:subject:result.code=2;_filter=family eq quill;_elements=name"
    ),
    "Observation": (
        "code=1;status:not=final;category=laboratory;category:not=laboratory;subject=Patient/ada;subject.family=quill;"
        "subject:Patient.gender=male;performer:Practitioner.family=pine;performer:PractitionerRole.practitioner=Practitioner/oak;encounter.class=AMB;encounter=Encounter/encounter1;"
        "date=ge2026-03;_sort=date;_sort=-code;_include=Observation:subject;_include=*;_include=Observation:encounter;"
        "_include:iterate=*;_revinclude=DiagnosticReport:result;_has:DiagnosticReport:result:status=final;"
        "_revinclude=Provenance:target;_has:Provenance:target:_id=provenance1,provenance2,provenance3;"
        "subject:missing=false;_security=R;_security:missing=true;_summary=true;patient=bo"
    ),
    "Encounter": (
        "class=AMB;subject.active=true;subject:Patient._id=ada;patient.family=pine;_has:Observation:encounter:code=2;"
        "_has:Condition:encounter:_id=condition1;_revinclude=Condition:encounter;_include=Encounter:subject;_sort=_id"
    ),
    "Condition": "code=2;subject.family=quill;encounter._id=encounter1;_include=*;_sort=-_id;patient=ada",
    "DiagnosticReport": (
        "result.code=1;result:Observation.status=final;result.subject:Patient.gender=male;_include=DiagnosticReport:result;"
        "_include=DiagnosticReport:result&_include:iterate=Observation:subject;subject=Patient/ada;code:not=1"
    ),
    "Practitioner": (
        "family=pine;_has:Observation:performer:code=1;_revinclude=Patient:general-practitioner;family:contains=a;"
        "_has:PractitionerRole:practitioner:_id=as-oak;_revinclude=PractitionerRole:practitioner;_sort=-family"
    ),
    "PractitionerRole": (
        "practitioner=Practitioner/oak;practitioner.family=pine;_include=PractitionerRole:practitioner;_sort=-_id;"
        "_has:Observation:performer:code=2;_revinclude=Observation:performer;practitioner:missing=false"
    ),
    "Provenance": (
        "target=Patient/ada;target:Observation.code=1;patient.family=quill;target:Patient._id=bo;agent=Practitioner/oak;"
        "_include=Provenance:target;_include=*;_sort=recorded;_sort=-_id;recorded=ge2026-03;agent.family=pine;"
        "target:missing=false;patient=bo;_include:iterate=*"
    ),
    "Organization": "name=North;_has:Patient:organization:active=true;_revinclude=Patient:organization",
}
RESULTS = ("", "&_count=2", "&_total=accurate", "&_summary=count", "&_total=accurate&_count=1", "&_elements=id")


def make_request(chance: random.Random) -> str:
    """The URL of a read, a search, a history or an operation."""
    type = chance.choice(ALL)
    id = f"{type.lower()}{chance.randrange(9)}"
    if type == "Patient":
        id = chance.choice(PATIENTS)
    elif type in PEOPLE:
        id = ("as-" if type == "PractitionerRole" else "") + chance.choice(PRACTITIONERS)
    kind = chance.randrange(12)
    if kind == 0:
        return f"{type}/{id}"
    if kind == 1:
        return f"{type}/{id}/_history" + chance.choice(("", "/1", "/2"))
    if kind == 2:
        return chance.choice((f"{type}/_history", f"{type}/_history?_count=100", "_history?_count=100"))
    if kind == 3:
        member = chance.choice((*RECORDS, "Provenance", "*"))
        return f"Patient/{chance.choice(PATIENTS)}/{member}?_sort=_id{chance.choice(RESULTS)}"
    if kind == 4:
        owner = chance.choice(PATIENTS)
        return chance.choice(
            (f"Patient/{owner}/$everything", f"Patient/{owner}/$everything?_count=3", "Patient/$everything")
        )
    if kind == 5:
        types = ",".join(sorted(chance.sample(ALL, 3)))
        return f"?_type={types}" + chance.choice(RESULTS)
    criteria = SEARCHES[type].split(";")
    wanted = chance.sample(criteria, min(len(criteria), chance.randrange(1, 4)))
    if sum(each.startswith("_sort") for each in wanted) > 1:
        wanted = wanted[:1]
    return f"{type}?{'&'.join(wanted)}{chance.choice(RESULTS)}"


_VARYING = re.compile(r'"lastUpdated":"[^"]*"|__page=[^"&]*|[0-9a-f]{8}-[0-9a-f-]{27}')


def normalise(answer: httpx.Response) -> tuple[int, str]:
    """Status and text without the time, new ids and page links."""
    return answer.status_code, _VARYING.sub("", answer.text)


@asynccontextmanager
async def serving_both(
    known: Knowledge, uris: list[str], case: Case, seed: int
) -> AsyncIterator[tuple[Client, Client]]:
    """(the server that holds everything, with a token; the one that holds what the token may see)."""
    seams = Seams(clock=lambda: START, definitions=None)
    # A search that a busy machine stops on one server only is no difference in what is seen.
    settings: dict[str, Any] = {
        "references": "allow",
        "audit_folder": "",
        "search_seconds": 300.0,
        "request_timeout": 600.0,
    }
    population = build_population(random.Random(seed))
    async with AsyncExitStack() as stack:
        whole, part = [
            await stack.enter_async_context(serving(known, seams, store=uri, authentication=kind, **settings))
            for uri, kind in zip(uris, ("on", "off"), strict=True)
        ]
        store = whole.server.context.unrestricted
        label = "http://terminology.hl7.org/CodeSystem/v3-Confidentiality"
        everything = f"system/*.cruds system/*.cruds?_security={label}|R,{label}|V"
        for name, scopes, patient in (("all", everything, ""), ("some", case.scopes, case.patient)):
            token = await create_token(store, StaticToken(name, scopes, "", patient, START, START * 2), {})
            whole.headers["authorization"] = f"Bearer {token}"
            for resource in population if name == "all" else ():
                await store_resource(whole, resource)
        for resource in case.select(population):
            await store_resource(part, resource)
        yield whole, part


async def store_resource(client: Client, resource: Resource) -> None:
    answer = await client.put(f"{resource['resourceType']}/{resource['id']}", json=resource)
    assert answer.status_code == 201, answer.text


async def compare(known: Knowledge, uris: list[str], case: Case, seed: int, count: int) -> tuple[int, int]:
    """(answers that were equal, refusals for want of a scope) of `count` requests."""
    chance, equal, refused = random.Random(seed), 0, 0
    async with serving_both(known, uris, case, seed) as (whole, part):
        for _ in range(count):
            url = make_request(chance)
            got = await whole.fhir("GET", url)
            if got.status_code == 403:
                (wanted,) = re.findall(r'scope="user/(\*|[A-Za-z]+)\.', got.headers["www-authenticate"])
                assert wanted not in case.types, url
                refused += 1
                continue
            assert normalise(got) == normalise(await part.fhir("GET", url)), url
            equal += 1
            entry = {"request": {"method": "GET", "url": url}}
            bundle = {"resourceType": "Bundle", "type": "batch", "entry": [entry]}
            assert normalise(await whole.fhir("POST", "", json=bundle)) == normalise(
                await part.fhir("POST", "", json=bundle)
            ), url
    return equal, refused


SHARES = {"memory": 0.45, "sqlite": 0.45, "mongodb": 0.1}
"""Store → its share of the requests of the long run."""


@pytest.mark.parametrize("case", CASES)
async def test_answers_are_those_of_a_server_without_what_is_hidden(
    known: Knowledge, case: str, tmp_path: Path
) -> None:
    for number, uris in enumerate((["memory://"] * 2, [f"sqlite:///{tmp_path}/{name}.db" for name in ("a", "b")])):
        equal, _ = await compare(known, uris, CASES[case], 10 + number, 60)
        assert equal > 10


@pytest.mark.long
@pytest.mark.parametrize("store", SHARES)
@pytest.mark.parametrize("case", CASES)
async def test_many_answers_are(
    known: Knowledge, case: str, store: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """20,000 requests over all cases and stores; `FHIR_TEST_REQUESTS` sets another number.

    SecantusDB gets a tenth of them: each takes it four to ten times as long as the others.
    """
    count = math.ceil(int(os.environ.get("FHIR_TEST_REQUESTS", "20000")) * SHARES[store] / len(CASES) / 4)
    total = 0
    for seed in range(4):
        uris = [f"sqlite:///{tmp_path}/{seed}{name}.db" for name in ("a", "b")]
        if store == "memory":
            uris = ["memory://"] * 2
        elif store == "mongodb":
            uris = [request.getfixturevalue("new_mongo_uri")() for _ in "ab"]
        equal, refused = await compare(known, uris, CASES[case], seed, count)
        total += equal + refused
    assert total == 4 * count
