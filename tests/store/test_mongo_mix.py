"""The plan of each search of the mix: which index MongoDB answers each of its questions by (docs/stores/mongodb.md).

What is asked is compared with the rules by which MongoDB enters an index or reads it in order
(https://www.mongodb.com/docs/manual/core/query-plans/); a real server (`FHIR_TEST_MONGO_URL`) also explains its plans.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any

import pymongo
import pytest
from pymongo import monitoring

from bench.queries import QUERIES
from fhir_server.app import Knowledge
from fhir_server.store.contract.case import write
from fhir_server.store.mongo.indexes import Index, list_indexes
from fhir_server.store.operations import Content, Write
from tests.conftest import Client, serving

pytestmark = pytest.mark.anyio

REAL = "FHIR_TEST_MONGO_URL" in os.environ
HELD = 400 if REAL else 3

VALUES = {
    "birthdate": "1970-01-01",
    "category": "urn%3Ac%7Claboratory",
    "city": "rlin",
    "code": "urn%3Ac%7Cc1",
    "date": "2020-01-01",
    "gender": "female",
    "id": "1",
    "middle": "mit",
    "patient": "1",
    "prefix": "Smi",
    "status": "active",
    "value": "1",
}

Plan = tuple[str, ...]
"""`Type.index` of each question, in their order."""

MIX: Mapping[str, Plan] = {
    "Patient by gender": ("Patient.terms_id",),
    "Patient by birthdate=ge": ("Patient.dates_high",),
    "Patient by family prefix": ("Patient.terms_id",),
    "Patient by name:contains": ("Patient.terms_id",),
    "Patient _sort=birthdate": ("Patient.sort_birthdate",),
    "Patient by _id": ("Patient._id_",),
    # What is negated is tested on each resource in the order of ids, until the page is full.
    "Patient by death-date:missing": ("Patient._id_",),
    "Patient by gender:not": ("Patient._id_",),
    "Patient _has Condition": ("Condition.terms_id", "Patient._id_"),
    "Patient _revinclude Condition": ("Patient.terms_id", "Condition.terms_id"),
    "Observation by patient": ("Observation.terms_id",),
    "Observation by code": ("Observation.terms_id",),
    "Observation by patient, code _sort=-date": ("Observation.terms_id",),
    "Observation by code, value": ("Observation.terms_id",),
    "Observation by code-value": ("Observation.numbers",),
    "Observation by category, date": ("Observation.terms_id",),
    # A chain asks for its targets, and whether any resource contains such a one.
    "Observation by patient.gender": ("Patient.terms_id", "Observation.terms_id", "Observation.terms_id"),
    "Condition by patient, status": ("Condition.terms_id",),
    "Condition _sort=-_lastUpdated": ("Condition.updated_down",),
    "Encounter by patient _include": ("Encounter.terms_id", "Patient._id_"),
    "Encounter _sort=-date": ("Encounter.sort_date_down",),
    "MedicationRequest by patient, status": ("MedicationRequest.terms_id",),
    "Claim by patient _sort=-created": ("Claim.terms_id",),
    # Counting reads the keys of what is there, and no document.
    "ExplanationOfBenefit _summary=count": ("ExplanationOfBenefit.updated",),
}

BESIDE: Mapping[str, Plan] = {
    "Observation?encounter:Encounter.service-provider:Organization.name={prefix}": (
        "Organization.terms_id",
        *("Encounter.terms_id", "Encounter.terms_id"),
        *("Observation.terms_id", "Observation.terms_id"),
    ),
    "Condition?patient.name:contains={middle}": ("Patient.terms_id", "Condition.terms_id", "Condition.terms_id"),
    "Patient?_has:Encounter:patient:_has:Condition:encounter:code={code}": (
        "Condition.terms_id",
        "Encounter._id_",
        "Patient._id_",
    ),
    "Practitioner?_has:Encounter:practitioner:patient.family={prefix}": (
        "Patient.terms_id",
        *("Encounter.terms_id", "Encounter.terms_id"),
        "Practitioner._id_",
    ),
    "Observation?component-code-value-quantity={code}$gt130": ("Observation.numbers",),
    "Organization?name:contains={middle}": ("Organization.terms_id",),
    "Patient?address:contains={city}": ("Patient.terms_id",),
    "Patient?address:contains=be": ("Patient.terms_id",),
    "Observation?_sort=-date": ("Observation.sort_date_down",),
    "Condition?_sort=onset-date": ("Condition.sort_onset-date",),
    "Patient?_sort=-family": ("Patient.sort_family_down",),
    # A walk along the first key tells what the second has to order; then the page is read.
    "Patient?_sort=family,-given&_count=2": ("Patient.sort_family", "Patient.sort_family", "Patient._id_"),
    "Patient?_sort=-_lastUpdated,_id": ("Patient.updated_down",),
    "Observation?patient={patient}&_sort=-date": ("Observation.terms_id",),
}

FETCHED = {"Patient?address:contains=be"}
"""A pattern is tested on documents, as an index over an array cannot cover it: on all that have the parameter."""

SEARCHES: Mapping[str, Plan | None] = {query.search: MIX.get(query.name) for query in QUERIES} | dict(BESIDE)


class Heard(monitoring.CommandListener):
    """The questions sent while it listens: (collection, pipeline), a find as the aggregation that it equals."""

    def __init__(self) -> None:
        self.questions: list[tuple[str, list[dict[str, Any]]]] = []

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        name, command = event.command_name, event.command
        if name in ("aggregate", "find") and command[name][:1].isupper():
            asked = command.get("pipeline") or [{"$match": command["filter"]}]
            self.questions.append((command[name], [dict(stage) for stage in asked]))

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        """Of no interest here."""

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        """Of no interest here."""


@pytest.fixture(scope="module")
def heard() -> Heard:
    made = Heard()
    monitoring.register(made)
    return made


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def mix_uri(fresh_mongo_uri: Callable[[], str]) -> str:
    return fresh_mongo_uri()


@pytest.fixture(scope="module")
async def client(known: Knowledge, heard: Heard, mix_uri: str) -> AsyncIterator[Client]:
    """A server that holds some resources of each type of the mix."""
    async with serving(known, store=mix_uri) as client:
        context = client.server.context
        for type in RESOURCES:
            trees = [{**RESOURCES[type](n), "resourceType": type, "id": str(n)} for n in range(HELD)]
            writes = [
                Write("PUT", type, tree["id"], _content(tree), context.index.make_entries(type, tree)) for tree in trees
            ]
            await write(context.unrestricted, *writes)
        yield client


def _content(tree: Mapping[str, Any]) -> Content:
    rest = {name: value for name, value in tree.items() if name not in ("resourceType", "id")}
    head = f'{{"resourceType":"{tree["resourceType"]}","id":"{tree["id"]}","meta":{{'
    return Content(head.encode(), b"}," + json.dumps(rest)[1:].encode())


def _concept(code: str) -> dict[str, Any]:
    return {"coding": [{"system": "urn:c", "code": code}]}


def _of_patient(n: int) -> dict[str, str]:
    return {"reference": f"Patient/{n}"}


RESOURCES: Mapping[str, Callable[[int], dict[str, Any]]] = {
    "Organization": lambda n: {"name": f"Smithfield {n}"},
    "Practitioner": lambda n: {"name": [{"family": f"Doe {n}"}]},
    "Patient": lambda n: {
        "name": [{"family": f"Smith{n}", "given": [f"Ann{n % 7}"]}],
        "gender": ("male", "female")[n % 2],
        "birthDate": f"{1950 + n % 50}-01-01",
        "address": [{"city": "Berlin" if n % 40 == 0 else "Bonn"}],
    },
    "Encounter": lambda n: {
        "status": "finished",
        "subject": _of_patient(n),
        "serviceProvider": {"reference": f"Organization/{n}"},
        "participant": [{"individual": {"reference": f"Practitioner/{n}"}}],
        "period": {"start": f"20{n % 20 + 10}-01-01"},
    },
    "Condition": lambda n: {
        "code": _concept(f"c{n}"),
        "clinicalStatus": _concept("active"),
        "subject": _of_patient(n),
        "encounter": {"reference": f"Encounter/{n}"},
    },
    "Observation": lambda n: {
        "status": "final",
        "code": _concept(f"c{n % 100}"),
        "category": [_concept("laboratory" if n % 20 == 0 else "vital-signs")],
        "subject": _of_patient(n),
        "encounter": {"reference": f"Encounter/{n}"},
        "effectiveDateTime": f"20{n % 20 + 10}-01-01",
        "valueQuantity": {"value": n},
    },
    "MedicationRequest": lambda n: {"status": "active", "intent": "order", "subject": _of_patient(n)},
    "Claim": lambda n: {"status": "active", "patient": _of_patient(n), "created": f"20{n % 20 + 10}-01-01"},
    "ExplanationOfBenefit": lambda n: {"status": "active", "patient": _of_patient(n)},
}


def test_the_whole_mix_is_here() -> None:
    assert set(MIX) == {query.name for query in QUERIES}


async def _asked(client: Client, heard: Heard, search: str) -> list[tuple[str, list[dict[str, Any]]]]:
    heard.questions.clear()
    answer = await client.fhir("GET", "/" + search.format_map(VALUES))
    assert answer.status_code == 200, answer.text
    return list(heard.questions)


@pytest.mark.parametrize("search", SEARCHES)
async def test_each_question_is_answered_by_an_index(client: Client, heard: Heard, search: str) -> None:
    questions = await _asked(client, heard, search)
    expected = SEARCHES[search]
    assert expected is not None
    assert [type for type, _ in questions] == [each.partition(".")[0] for each in expected]
    for (type, pipeline), name in zip(questions, expected, strict=True):
        assert name.partition(".")[2] in set(_usable(type, pipeline)), pipeline


@pytest.mark.skipif(not REAL, reason="SecantusDB has no planner to ask; set FHIR_TEST_MONGO_URL")
@pytest.mark.parametrize("search", SEARCHES)
async def test_the_database_scans_no_collection(client: Client, heard: Heard, mix_uri: str, search: str) -> None:
    """No document is examined but matches, and of what is walked in order those before the page is full."""
    questions = await _asked(client, heard, search)
    with pymongo.MongoClient[dict[str, Any]](mix_uri) as asking:
        database = asking.get_default_database()
        for type, pipeline in questions:
            command = {"aggregate": type, "pipeline": pipeline, "cursor": {}}
            told = database.command("explain", command, verbosity="executionStats")
            stages = list(_values(told, "stage"))
            examined = max(_values(told, "totalDocsExamined"), default=0)
            matching = database[type].count_documents(pipeline[0]["$match"])
            assert "COLLSCAN" not in stages, told
            assert examined <= (HELD if search in FETCHED else 2 * max(matching, 51)), told


def _values(told: Any, name: str) -> Iterator[Any]:
    """What stands at a key, at any depth."""
    if isinstance(told, list):
        for each in told:
            yield from _values(each, name)
    elif isinstance(told, dict):
        if name in told:
            yield told[name]
        for each in told.values():
            yield from _values(each, name)


def _usable(type: str, pipeline: list[dict[str, Any]]) -> Iterator[str]:
    """The indexes that MongoDB can enter by what the first stage asks, or read in the order of the second."""
    match = pipeline[0]["$match"]
    sort = tuple(pipeline[1].get("$sort", {}).items()) if len(pipeline) > 1 else ()
    tested = dict(_tested(match))
    yield from _entered(type, tested)
    for alternatives in _alternatives(match):
        each = [set(_entered(type, tested | dict(_tested(one)))) for one in alternatives]
        if all(each):
            yield from set[str]().union(*each)
    for index in _indexes(type):
        if sort == index.keys or (("live", 1), *sort) == index.keys:
            yield index.name
    if tested.keys() == {"live"} and any("$group" in stage for stage in pipeline):
        yield from ("updated", "updated_down")


def _indexes(type: str) -> tuple[Index, ...]:
    return (Index("_id_", (("_id", 1),)), *list_indexes(type))


def _entered(type: str, tested: Mapping[str, Any]) -> Iterator[str]:
    """Those with a bounded first key; one over nothing but what is there is entered by its second."""
    for index in _indexes(type):
        paths = [path for path, _ in index.keys]
        first = paths[1] if paths[0] == "live" else paths[0]
        if first in tested and (not index.live or tested.get("live") is True):
            yield index.name


def _alternatives(match: Mapping[str, Any]) -> Iterator[list[dict[str, Any]]]:
    if "$or" in match:
        yield match["$or"]
    for each in match.get("$and", ()):
        yield from _alternatives(each)


_BOUNDS = frozenset({"$eq", "$in", "$all", "$gt", "$gte", "$lt", "$lte"})


def _tested(match: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The paths of which every match has a bounded value; what is negated or alternative bounds none."""
    for path, condition in match.items():
        if path == "$and":
            for each in condition:
                yield from _tested(each)
        elif path.startswith("$"):
            continue
        elif not isinstance(condition, dict) or condition.keys() <= _BOUNDS:
            yield path, condition
        elif "$elemMatch" in condition:
            inside = condition["$elemMatch"]
            if inside.keys() <= _BOUNDS:
                yield path, inside
            else:
                yield from ((f"{path}.{field}", each) for field, each in inside.items())
        elif str(condition.get("$regex", "")).startswith("^"):
            yield path, condition
