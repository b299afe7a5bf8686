"""The search mix: 24 queries, and more of R4 beside them, with values of the server's data (https://hl7.org/fhir/R4/search.html)."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from bench.answers import Answer
from bench.http import Target
from bench.ingest import Folder, post_folder
from bench.measuring import Lane, Request, ask_json

COPIES = 3
"""How many times the folder is in a server whose searches are measured."""

# Types that other phases also write; the others tell how often the folder was loaded.
WRITTEN_BY_PHASES = ("Patient", "Encounter", "Observation")

VARIANTS = 100
OBSERVED_PATIENTS = 20


@dataclass(frozen=True, slots=True)
class Query:
    """One of the mix: its name, the pool its values come from ("" for none), and the search with `{names}` of values.

    `needs`: the search parameter that the server's CapabilityStatement must list for it ("" for none).
    """

    name: str
    pool: str
    search: str
    needs: str = ""


QUERIES = (
    Query("Patient by gender", "Patient", "Patient?gender={gender}&_count=20"),
    Query("Patient by birthdate=ge", "Patient", "Patient?birthdate=ge{birthdate}&_count=20"),
    Query("Patient by family prefix", "Patient", "Patient?family={prefix}&_count=20"),
    Query("Patient by name:contains", "Patient", "Patient?name:contains={middle}&_count=20"),
    Query("Patient _sort=birthdate", "", "Patient?_sort=birthdate&_count=20"),
    Query("Patient by _id", "Patient", "Patient?_id={id}&_count=20"),
    Query("Patient by death-date:missing", "", "Patient?death-date:missing=true&_count=20"),
    Query("Patient by gender:not", "Patient", "Patient?gender:not={gender}&_count=20"),
    Query("Patient _has Condition", "Condition", "Patient?_has:Condition:patient:code={code}&_count=20"),
    Query(
        "Patient _revinclude Condition", "Patient", "Patient?family={prefix}&_revinclude=Condition:patient&_count=20"
    ),
    Query("Observation by patient", "Observation", "Observation?patient={patient}&_count=50"),
    Query("Observation by code", "Observation", "Observation?code={code}&_count=20"),
    Query(
        "Observation by patient, code _sort=-date",
        "Observation",
        "Observation?patient={patient}&code={code}&_sort=-date&_count=20",
    ),
    Query("Observation by code, value", "Observation", "Observation?code={code}&value-quantity=gt{value}&_count=20"),
    Query("Observation by code-value", "Observation", "Observation?code-value-quantity={code}%24gt{value}&_count=20"),
    Query("Observation by category, date", "Observation", "Observation?category={category}&date=ge{date}&_count=20"),
    Query("Observation by patient.gender", "Observation", "Observation?patient.gender=female&code={code}&_count=20"),
    Query(
        "Condition by patient, status", "Condition", "Condition?patient={patient}&clinical-status={status}&_count=20"
    ),
    Query("Condition _sort=-_lastUpdated", "", "Condition?_sort=-_lastUpdated&_count=20"),
    Query(
        "Encounter by patient _include", "Condition", "Encounter?patient={patient}&_include=Encounter:patient&_count=20"
    ),
    Query("Encounter _sort=-date", "", "Encounter?_sort=-date&_count=20"),
    Query(
        "MedicationRequest by patient, status",
        "MedicationRequest",
        "MedicationRequest?patient={patient}&status={status}&_count=20",
    ),
    Query("Claim by patient _sort=-created", "Claim", "Claim?patient={patient}&_sort=-created&_count=20"),
    Query("ExplanationOfBenefit _summary=count", "", "ExplanationOfBenefit?_summary=count"),
)

MORE = (
    Query(
        "Observation by encounter.service-provider.name",
        "Organization",
        "Observation?encounter:Encounter.service-provider:Organization.name={prefix}&_count=20",
    ),
    Query("Condition by patient.name:contains", "Patient", "Condition?patient.name:contains={middle}&_count=20"),
    Query(
        "Patient _has Encounter _has Condition",
        "Condition",
        "Patient?_has:Encounter:patient:_has:Condition:encounter:code={code}&_count=20",
    ),
    Query(
        "Practitioner _has Encounter patient.family",
        "Patient",
        "Practitioner?_has:Encounter:practitioner:patient.family={prefix}&_count=20",
    ),
    Query(
        "Observation by component-code-value",
        "",
        "Observation?component-code-value-quantity=http%3A%2F%2Floinc.org%7C8480-6%24gt130&_count=20",
    ),
    Query("Organization by name:contains", "Organization", "Organization?name:contains={middle}&_count=20"),
    Query("Patient by address:contains", "Patient", "Patient?address:contains={city}&_count=20"),
    Query("Observation _sort=-date", "", "Observation?_sort=-date&_count=20"),
    Query("Observation _sort=code", "", "Observation?_sort=code&_count=20"),
    Query("Condition _sort=onset-date", "", "Condition?_sort=onset-date&_count=20"),
    Query("Patient _sort=-family", "", "Patient?_sort=-family&_count=20"),
    Query("Condition by _content", "Condition", "Condition?_content={word}&_count=20", needs="_content"),
)
"""What the phase `search-all` asks beside QUERIES."""

Values = Mapping[str, str]
"""Names in a query's text and what they become, percent-encoded."""

Pools = Mapping[str, list[Values]]


class Search:
    """Queries picked at random; every request of the phase is prepared before it starts."""

    name = "search"

    def __init__(self, target: Target, queries: Sequence[Query], pools: Pools, rng: random.Random) -> None:
        self._rng = rng
        self._requests = [
            [Request(target.request("GET", path), query.name, (200,)) for path in write_paths(query, pools)]
            for query in queries
        ]

    def ask(self) -> Request:
        """See `Phase.ask`."""
        return self._rng.choice(self._rng.choice(self._requests))

    def learn(self, request: Request, answer: Answer) -> bool:
        """See `Phase.learn`."""
        return True


def write_paths(query: Query, pools: Pools) -> list[str]:
    """The query with each of its pool's values, relative to the FHIR base."""
    return [query.search.format_map(values) for values in (pools[query.pool] if query.pool else [{}])]


async def fill(lane: Lane, folder: Folder) -> None:
    """Load the folder until the server holds it COPIES times."""
    type, each = next(
        (found for found in folder.types.most_common() if found[0] not in WRITTEN_BY_PHASES), ("Patient", 1)
    )
    held = int((await ask_json(lane, f"{type}?_summary=count")).get("total", 0))
    for _ in range(max(0, COPIES - held // each)):
        (samples,) = await post_folder([lane], folder)
        for status, text in samples.first_texts.items():
            raise ValueError(f"`{lane.target.url}` answered {status} while the folder was loaded. {text}")


async def list_queries(lane: Lane) -> list[Query]:
    """QUERIES and those of MORE that the server's CapabilityStatement allows."""
    statement = await ask_json(lane, "metadata")
    listed = {
        parameter["name"]
        for rest in statement.get("rest", ())
        for place in (rest, *rest.get("resource", ()))
        for parameter in place.get("searchParam", ())
    }
    return [*QUERIES, *(query for query in MORE if not query.needs or query.needs in listed)]


async def read_pools(lane: Lane, queries: Sequence[Query] = QUERIES) -> Pools:
    """Values that occur in the server's data. Raises ValueError when it lacks what the queries ask for."""
    conditions = await _read_resources(lane, "Condition?_count=200")
    if not conditions:
        raise ValueError(f"`{lane.target.url}` holds no Condition to search for: give `--folder` with data to load.")
    patients = list(dict.fromkeys(_find_patient(resource) for resource in conditions))[:VARIANTS]
    persons = await _read_resources(lane, f"Patient?_id={','.join(patients)}&_count=200")
    observations = [
        resource
        for patient in patients[:OBSERVED_PATIENTS]
        for resource in await _read_resources(lane, f"Observation?patient={patient}&_count=50")
    ]
    orders = await _read_resources(lane, "MedicationRequest?_count=200")
    claims = await _read_resources(lane, "Claim?_count=200")
    organizations = await _read_resources(lane, "Organization?_count=200")
    found: dict[str, list[Values]] = {
        "Patient": [_make_person_values(one) for one in persons if one.get("name") and one.get("birthDate")],
        "Observation": [
            _make_observation_values(one) for one in observations if "value" in one.get("valueQuantity", {})
        ],
        "Condition": [
            _make_values(
                one, code=_write_token(one["code"]), status=_find_status(one), word=_find_longest_word(one["code"])
            )
            for one in conditions
            if "code" in one
        ],
        "MedicationRequest": [_make_values(one, status=one["status"]) for one in orders],
        "Claim": [_make_values(one) for one in claims],
        "Organization": [_cut_name(one["name"]) for one in organizations if len(one.get("name", "")) > 4],
    }
    asked = {query.pool for query in queries}
    for type, values in found.items():
        if type in asked and not values:
            raise ValueError(f"`{lane.target.url}` holds no {type} to search for: give `--folder` with data to load.")
    return {type: values[:VARIANTS] for type, values in found.items()}


async def count_totals(lane: Lane, queries: Sequence[Query], pools: Pools) -> dict[str, int | None]:
    """How many resources the first form of each query finds (None: the server did not say); a check of sanity."""
    found: dict[str, int | None] = {}
    for query in queries:
        path = write_paths(query, pools)[0]
        try:
            bundle = await ask_json(lane, path if "_summary" in path else f"{path}&_total=accurate")
        except ValueError:
            bundle = {}
        found[query.name] = bundle.get("total")
    return found


async def _read_resources(lane: Lane, path: str) -> list[dict[str, Any]]:
    bundle = await ask_json(lane, path)
    return [entry["resource"] for entry in bundle.get("entry", ()) if entry.get("search", {}).get("mode") != "outcome"]


def _find_patient(resource: Mapping[str, Any]) -> str:
    reference: str = (resource.get("subject") or resource["patient"])["reference"]
    return reference.rpartition("/")[2]


def _write_token(concept: Mapping[str, Any]) -> str:
    coding = concept["coding"][0]
    return f"{coding.get('system', '')}|{coding['code']}"


def _find_longest_word(concept: Mapping[str, Any]) -> str:
    """The longest word that the concept is shown with."""
    text: str = concept.get("text") or concept["coding"][0].get("display", "unknown")
    return max(text.split(), key=len)


def _find_status(condition: Mapping[str, Any]) -> str:
    return str(condition["clinicalStatus"]["coding"][0]["code"]) if "clinicalStatus" in condition else "active"


def _make_values(resource: Mapping[str, Any], **given: str) -> Values:
    return {name: quote(value, safe="") for name, value in given.items()} | {"patient": _find_patient(resource)}


def _make_person_values(person: Mapping[str, Any]) -> Values:
    address = person.get("address", [{}])[0]
    return _cut_name(person["name"][0].get("family", "Smith")) | {
        "id": person["id"],
        "gender": person.get("gender", "unknown"),
        "birthdate": person["birthDate"],
        "city": quote(address.get("city", "Boston")[1:6], safe=""),
    }


def _cut_name(name: str) -> dict[str, str]:
    return {"prefix": quote(name[:3], safe=""), "middle": quote(name[1:4], safe="")}


def _make_observation_values(observation: Mapping[str, Any]) -> Values:
    return _make_values(
        observation,
        code=_write_token(observation["code"]),
        value=str(observation["valueQuantity"]["value"]),
        category=_write_token(observation["category"][0]) if observation.get("category") else "vital-signs",
        date=observation.get("effectiveDateTime", "2015-01-01")[:10],
    )
