"""The Synthea bundles through `POST [base]`: all there, byte for byte, all references resolved, and found again.

https://hl7.org/fhir/R4/http.html#transaction
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import orjson
import pytest

from fhir_server.app import Knowledge, Seams
from tests.conftest import Client, serving
from tests.corpora.corpus import JSON, Sent, differing, entries, files, references, rewritten, walk

pytestmark = pytest.mark.anyio

Tree = dict[str, Any]


@dataclass
class Loaded:
    """By `Type/id`: the text that is to be there (as sent, references rewritten), and the text that is."""

    expected: dict[str, bytes] = field(default_factory=dict)
    stored: dict[str, bytes] = field(default_factory=dict)

    def of(self, type: str) -> list[Tree]:
        """The stored resources of a type, parsed."""
        return [orjson.loads(raw) for name, raw in self.stored.items() if name.startswith(f"{type}/")]


async def load(client: Client, paths: Iterable[Path]) -> Loaded:
    """Post each bundle and read every resource back. A resource that two bundles hold is made twice."""
    loaded, count = Loaded(), 0
    for path in paths:
        raw = path.read_bytes()
        answer = await client.post("/", content=raw, headers=JSON)
        assert answer.status_code == 200, answer.text[:500]
        sent = entries(raw)
        locations = dict(located(sent, answer.json()))
        loaded.expected |= {locations[each.full_url]: rewritten(each.raw, locations) for each in sent}
        count += len(sent)
    assert len(loaded.expected) == count
    for reference in loaded.expected:
        loaded.stored[reference] = (await client.fhir("GET", f"/{reference}", headers=JSON)).content
    return loaded


def located(sent: list[Sent], answer: Tree) -> Iterator[tuple[str, str]]:
    """Where each entry went, full URL and `Type/id`; the answer has the order of the bundle."""
    for each, entry in zip(sent, answer["entry"], strict=True):
        response = entry["response"]
        reference, version = response["location"].removeprefix("http://test/fhir/").split("/_history/")
        assert (response["status"], version, response["etag"]) == ("201 Created", "1", 'W/"1"')
        assert reference.split("/")[0] == each.type
        yield each.full_url, reference


async def check_kept(client: Client, loaded: Loaded) -> None:
    """Everything is there once, as it was sent but for ids and rewritten references, with one version each."""
    counts = Counter(reference.split("/")[0] for reference in loaded.expected)
    for type, count in counts.items():
        assert (await client.fhir("GET", f"/{type}?_summary=count")).json()["total"] == count
    for reference, stored in loaded.stored.items():
        assert differing(loaded.expected[reference], stored) == [], reference
        local = [target for target in references(orjson.loads(stored)) if not target.startswith("#")]
        assert [target for target in local if target not in loaded.stored] == []
    versions = [entry for page in await walk(client, "/_history?_count=500") for entry in page["entry"]]  # type: ignore[attr-defined]
    assert Counter(entry["resource"]["resourceType"] for entry in versions) == counts
    assert {entry["resource"]["meta"]["versionId"] for entry in versions} == {"1"}


def plain(text: str) -> str:
    """As R4 compares strings: without case and accents."""
    return "".join(each for each in unicodedata.normalize("NFD", text.casefold()) if not unicodedata.combining(each))


def named(text: str) -> Callable[[Tree], bool]:
    """Whether some part of a name starts with the text (search.html#string)."""

    def parts(name: Tree) -> Iterator[str]:
        for part in ("family", "text", "given", "prefix", "suffix"):
            value = name.get(part, [])
            yield from [value] if isinstance(value, str) else value

    def holds(patient: Tree) -> bool:
        return any(plain(part).startswith(plain(text)) for name in patient["name"] for part in parts(name))

    return holds


def coded(resource: Tree, element: str) -> set[str]:
    """`system|code` of each coding of a CodeableConcept element, repeated or not."""
    concepts = resource.get(element, [])
    concepts = concepts if isinstance(concepts, list) else [concepts]
    return {f"{coding['system']}|{coding['code']}" for concept in concepts for coding in concept.get("coding", ())}


async def total(client: Client, search: str) -> int:
    """The total of a search, checked against a walk of all its pages."""
    found: list[str] = []
    for page in await walk(client, f"{search}&_count=200&_total=accurate"):
        matches = [entry for entry in page.get("entry", ()) if entry["search"]["mode"] == "match"]  # type: ignore[attr-defined]
        found += [entry["fullUrl"] for entry in matches]
    assert len(set(found)) == len(found) == page["total"]
    return len(found)


async def check_found(client: Client, loaded: Loaded) -> None:
    """Everyday searches answer what plain loops over the JSON count."""
    patients, observations, conditions = loaded.of("Patient"), loaded.of("Observation"), loaded.of("Condition")
    for patient in patients[:12]:
        family = patient["name"][0]["family"]
        assert await total(client, f"/Patient?name={family[:4]}") == sum(map(named(family[:4]), patients)) >= 1
        by_birth = sum(each["birthDate"] < patient["birthDate"] for each in patients)
        assert await total(client, f"/Patient?birthdate=lt{patient['birthDate']}") == by_birth
        await check_observations(client, f"Patient/{patient['id']}", observations)
    codes = Counter(code for condition in conditions for code in coded(condition, "code"))
    for code, _ in codes.most_common(5):
        ill = {each["subject"]["reference"] for each in conditions if code in coded(each, "code")}
        assert await total(client, f"/Patient?_has:Condition:patient:code={code}") == len(ill)
    women = {f"Patient/{each['id']}" for each in patients if each["gender"] == "female"}
    theirs = sum(each["subject"]["reference"] in women for each in conditions)
    assert await total(client, "/Condition?patient.gender=female") == theirs
    status = Counter(each["status"] for each in loaded.of("MedicationRequest"))
    assert await total(client, "/MedicationRequest?status:not=active") == status.total() - status["active"]
    # Synthea's instants carry their zone; days are UTC where the practice has set none.
    day = date(2012, 1, 1).isoformat()
    begun = sum(each["period"]["end"][:4] >= "2012" for each in loaded.of("Encounter") if safe(each["period"]["end"]))
    uncertain = sum(not safe(each["period"]["end"]) for each in loaded.of("Encounter"))
    assert begun <= await total(client, f"/Encounter?date=ge{day}") <= begun + uncertain


def safe(instant: str) -> bool:
    """Whether the year is the same in every time zone."""
    return instant[5:10] not in ("01-01", "12-31")


async def check_observations(client: Client, patient: str, observations: list[Tree]) -> None:
    own = [each for each in observations if each["subject"]["reference"] == patient]
    codes = Counter(code for each in own for code in coded(each, "code"))
    for code, count in codes.most_common(3):
        assert await total(client, f"/Observation?patient={patient}&code={code}") == count
        values = sorted(
            each["valueQuantity"]["value"] for each in own if code in coded(each, "code") and "valueQuantity" in each
        )
        if values:
            middle = values[len(values) // 2]
            search = f"/Observation?patient={patient}&code={code}&value-quantity=gt{middle}"
            assert await total(client, search) == sum(value > middle for value in values)
    assert await total(client, f"/{patient}/Observation?code:missing=false") == len(own)


async def test_the_three_smallest(known: Knowledge, store_uri: str) -> None:
    async with serving(known, Seams(definitions=None), store=store_uri) as client:
        loaded = await load(client, files("synthea")[:3])
        await check_kept(client, loaded)
        await check_found(client, loaded)


@pytest.mark.long
async def test_all_bundles(known: Knowledge, store_uri: str) -> None:
    paths = files("synthea")
    assert len(paths) == 34
    async with serving(known, Seams(definitions=None), store=store_uri) as client:
        loaded = await load(client, paths)
        await check_kept(client, loaded)
        await check_found(client, loaded)
