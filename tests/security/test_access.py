"""A hidden type is as if it had never been stored: every interaction, operation and search path, on every store.

The oracle is a second server without any policy, which holds the visible resources alone: both must answer alike.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from fhir_server.app import Knowledge, Seams
from fhir_server.interactions.table import INTERACTIONS
from fhir_server.operations import OPERATIONS
from fhir_server.search.query import EVERYTHING, NOTHING, Clause, StartsWith
from fhir_server.security.policy import AllowAll, Principal
from fhir_server.store.operations import Transaction, Write
from tests.conftest import Client, serving

pytestmark = pytest.mark.anyio

START = 1_795_000_000_000_000

Pair = tuple[Client, Client]


class HideObservations(AllowAll):
    """No Observation, no inactive Patient and no ValueSet may be seen."""

    def restricts(self, principal: Principal) -> bool:
        return True

    def restriction(self, principal: Principal, type: str) -> Clause:
        if type == "Patient":
            return StartsWith("active", "true\x1f")
        return NOTHING if type in ("Observation", "ValueSet", "Appointment") else EVERYTHING


def patient(id: str, active: bool, **rest: Any) -> dict[str, Any]:
    return {"resourceType": "Patient", "id": id, "active": active, "name": [{"family": "Quill"}], **rest}


def observation(id: str, subject: str, **rest: Any) -> dict[str, Any]:
    code = {"coding": [{"system": "http://loinc.org", "code": "8302-2"}]}
    return {
        "resourceType": "Observation",
        "id": id,
        "status": "final",
        "code": code,
        "category": [{"coding": [{"code": "vital-signs"}]}],
        "subject": {"reference": f"Patient/{subject}"},
        "effectiveDateTime": "2026-03-01",
        "identifier": [{"system": "urn:o", "value": id}],
        **rest,
    }


VALUE_SET = {
    "resourceType": "ValueSet",
    "id": "heights",
    "url": "http://example.org/heights",
    "status": "active",
    "compose": {"include": [{"system": "http://snomed.info/sct", "concept": [{"code": "1"}]}]},
}
VISIBLE: list[dict[str, Any]] = [
    patient("ada", True),
    patient("bo", True, managingOrganization={"reference": "Organization/clinic"}),
    {"resourceType": "Organization", "id": "clinic", "name": "North"},
    {"resourceType": "Encounter", "id": "visit", "status": "finished", "class": {"code": "AMB"},
     "subject": {"reference": "Patient/ada"}},
    {"resourceType": "Condition", "id": "flu", "subject": {"reference": "Patient/ada"},
     "code": {"coding": [{"system": "http://snomed.info/sct", "code": "1"}]}},
    {"resourceType": "DiagnosticReport", "id": "report", "status": "final", "code": {"text": "x"},
     "subject": {"reference": "Patient/ada"}, "result": [{"reference": "Observation/height"}]},
    {"resourceType": "List", "id": "list", "status": "current", "mode": "working",
     "entry": [{"item": {"reference": "Observation/height"}}, {"item": {"reference": "Patient/hidden"}},
               {"item": {"reference": "Patient/ada"}}]},
    {"resourceType": "Encounter", "id": "secret-visit", "status": "planned", "class": {"code": "AMB"},
     "subject": {"reference": "Patient/hidden"}},
    {"resourceType": "Practitioner", "id": "quill"},
    {"resourceType": "PractitionerRole", "id": "role", "practitioner": {"reference": "Practitioner/quill"},
     "availableTime": [{"daysOfWeek": ["mon"], "availableStartTime": "09:00:00", "availableEndTime": "11:00:00"}]},
    {"resourceType": "Schedule", "id": "monday", "actor": [{"reference": "PractitionerRole/role"}],
     "extension": [{"url": "http://hl7.org/fhir/StructureDefinition/timezone", "valueCode": "Africa/Abidjan"}]},
]  # fmt: skip
HIDDEN: list[dict[str, Any]] = [
    patient("hidden", False),
    observation("height", "ada", encounter={"reference": "Encounter/visit"}, meta={"tag": [{"code": "secret"}]}),
    observation("weight", "hidden", derivedFrom=[{"reference": "Observation/height"}]),
    VALUE_SET,
    {
        "resourceType": "Appointment",
        "id": "secret",
        "status": "proposed",
        "participant": [{"status": "accepted", "actor": {"reference": "Patient/hidden"}}],
    },
]

BUNDLE = {"resourceType": "Bundle", "type": "batch", "entry": [
    {"request": {"method": "GET", "url": url}}
    for url in ("Observation/height", "Patient/hidden", "Observation", "Patient?_has:Observation:subject:code=8302-2")
]}  # fmt: skip


def transaction(*urls: str) -> dict[str, Any]:
    return {
        "resourceType": "Bundle",
        "type": "transaction",
        "entry": [{"request": {"method": "GET", "url": url}} for url in urls],
    }


Call = tuple[str, str, object, dict[str, str]]
"""Method, URL, body, headers."""


def get(urls: str) -> list[Call]:
    """A GET of each line."""
    return [("GET", url.strip(), None, {}) for url in urls.strip().splitlines()]


def send(method: str, url: str, body: object = None, **headers: str) -> list[Call]:
    return [(method, url, body, {name.replace("_", "-"): value for name, value in headers.items()})]


PARAMETERS = {
    "resourceType": "Parameters",
    "parameter": [{"name": "start", "valueDateTime": "2026-03-02T10:00:00Z"}],
}
STRAY = {
    "resourceType": "Encounter",
    "status": "finished",
    "class": {"code": "AMB"},
    "subject": {"reference": "Patient/ada"},
}
AMEND = [{"op": "replace", "path": "/status", "value": "amended"}]

PAYING = {
    "resourceType": "Parameters",
    "parameter": [
        {"name": "amount", "valueDecimal": 1},
        {"name": "key", "valueString": "k"},
        {"name": "request", "valueString": "Observation/height"},
    ],
}

STOPPING = {"resourceType": "Parameters", "parameter": [{"name": "reason", "valueString": "a rash"}]}

BOOKING = {
    "resourceType": "Parameters",
    "parameter": [{"name": "appointment-reference", "valueString": "Appointment/secret"}],
}


def visit(id: str, status: str, patient: str) -> dict[str, Any]:
    """An Appointment on a Monday at nine."""
    actors = (f"Patient/{patient}", "Practitioner/quill")
    return {
        "resourceType": "Appointment",
        **({"id": id} if id else {}),
        "status": status,
        "start": "2026-11-23T09:00:00Z",
        "end": "2026-11-23T09:30:00Z",
        "participant": [{"status": "accepted", "actor": {"reference": actor}} for actor in actors],
    }


def book(patient: str) -> dict[str, Any]:
    return {
        "resourceType": "Parameters",
        "parameter": [{"name": "appointment-resource", "resource": visit("", "proposed", patient)}],
    }


REQUESTS: dict[str, list[Call]] = {
    "$activate": send("POST", "MedicationRequest/secret/$activate") + send("POST", "MedicationRequest/rx/$activate"),
    "$new-rx": get("MedicationRequest/secret/$new-rx"),
    "$renew": [
        *send("POST", "MedicationRequest/secret/$renew"),
        *send("POST", "MedicationRequest/rx/$renew"),
        *send("POST", "Task/none/$renew"),
        *send("POST", "Task/refill/$renew"),
    ],
    "$discontinue": send("POST", "MedicationRequest/secret/$discontinue", STOPPING),
    "$find": get("""
        Appointment/$find?practitioner=Practitioner/quill&start=2026-11-23T08:00:00Z&end=2026-11-23T12:00:00Z
        Appointment/$find?practitioner=Practitioner/none&start=2026-11-23T08:00:00Z&end=2026-11-23T12:00:00Z
        Appointment/$find?start=2026-11-23T08:00:00Z&end=2026-11-23T12:00:00Z&patient-reference=Patient/hidden"""),
    **{
        f"${code}": [
            *send("POST", f"Appointment/${code}", BOOKING),
            *send("POST", f"Appointment/${code}", book("ada")),
            *send("POST", f"Appointment/${code}", book("hidden")),
        ]
        for code in ("hold", "book")
    },
    "$assemble": [
        ("POST", f"Claim/$assemble?{asked}", None, {})
        for asked in ("patient=Patient/hidden", "patient=Patient/ada", "encounter=Encounter/secret-visit")
    ],
    "$balance": get("""
        Patient/hidden/$balance
        Patient/ada/$balance"""),
    "$ledger": get("""
        Account/$ledger?patient=Patient/hidden
        Account/$ledger?patient=Patient/ada
        Account/$ledger?claim=Observation/height"""),
    "$statement": get("Account/none/$statement"),
    "$ar-aging": get("$ar-aging?by=patient"),
    "$financial-summary": get("$financial-summary?start=2020-01-01"),
    "$provider-adjustments": get("$provider-adjustments"),
    "$denials": get("$denials?start=2020-01-01"),
    "$productivity": get("$productivity?start=2020-01-01"),
    "$pay": send("POST", "Patient/hidden/$pay", PAYING) + send("POST", "Patient/ada/$pay", PAYING),
    "$post": send("POST", "PaymentReconciliation/$post", PAYING),
    "$refund": send("POST", "PaymentReconciliation/none/$refund", PAYING),
    "$reverse": send("POST", "PaymentReconciliation/none/$reverse", PAYING),
    "$adjust": send("POST", "Claim/none/$adjust", PAYING),
    "$split": send("POST", "Claim/none/$split"),
    "$scrub": send("POST", "Claim/none/$scrub") + send("POST", "Claim/$scrub", {"resourceType": "Claim"}),
    "$cms1500": get("Claim/none/$cms1500") + send("POST", "Claim/$cms1500", {"resourceType": "Claim"}),
    "read": get("""
        Observation/height
        Patient/hidden
        Patient/ada"""),
    "vread": get("""
        Observation/height/_history/1
        Patient/hidden/_history/1
        Patient/ada/_history/1"""),
    "history-instance": get("""
        Observation/height/_history
        Patient/hidden/_history
        Patient/ada/_history"""),
    "history-type": get("""
        Observation/_history
        Patient/_history
        Patient/_history?_count=1"""),
    "history-system": get("""
        _history
        _history?_count=3"""),
    "search-type": get("""
        Observation
        Observation?_id=height
        Observation?_summary=count
        Patient?_total=accurate
        Patient?active=false
        Patient?active:not=true
        Patient?_sort=family&_count=1
        Patient?_sort=-_lastUpdated
        Patient?_elements=name
        Patient?_has:Observation:subject:code=8302-2
        Patient?_has:Observation:subject:_id=height
        Encounter?_has:Observation:encounter:code=8302-2
        Encounter?subject:Patient.family=quill
        Encounter?subject.active=false
        Encounter?_filter=subject.family eq quill
        Encounter?_include=Encounter:subject
        DiagnosticReport?result.code=8302-2
        DiagnosticReport?result:Observation._id=height
        DiagnosticReport?result.subject:Patient.family=quill
        DiagnosticReport?_include=DiagnosticReport:result
        DiagnosticReport?_include=*
        DiagnosticReport?_include=*&_include:iterate=*&_revinclude=*&_revinclude:iterate=*
        Patient?_revinclude=Observation:subject
        Patient?_revinclude:iterate=*
        Patient?_list=list
        Observation?_list=list
        Observation?_contained=both&code=8302-2
        Condition?code:in=http://example.org/heights
        Condition?code:not-in=http://example.org/heights""")
    + send("POST", "Observation/_search")
    + send("POST", "Patient/_search", "active=false", content_type="application/x-www-form-urlencoded"),
    "search-system": get("""
        ?_type=Observation,Patient
        ?_lastUpdated=gt2000&_type=Patient,Observation,Encounter,List,Organization,ValueSet&_count=50""")
    + send("POST", "_search?_type=Observation"),
    "search-compartment": get("""
        Patient/ada/Observation
        Patient/ada/*
        Patient/hidden/Encounter
        Encounter/visit/Observation""")
    + send("POST", "Patient/ada/Observation/_search"),
    "capabilities": [],
    "batch": send("POST", "", BUNDLE),
    "transaction": [
        *send(
            "POST", "", transaction("Patient/ada", "Observation?code=8302-2", "Patient?_total=accurate&active=false")
        ),
        *send("POST", "", transaction("Observation/height")),
        *send("POST", "", transaction("Patient/hidden")),
        *send("POST", "", transaction("Observation/height/_history/1")),
        *send("POST", "", transaction("DiagnosticReport?_include=*", "Encounter?subject.active=false")),
    ],
    "create": send("POST", "Observation", observation("height", "ada"), if_none_exist="identifier=urn:o|height"),
    "update": send("PUT", "Encounter?subject.active=false", STRAY),
    "patch": send("PATCH", "Observation?identifier=urn:o|height", AMEND, content_type="application/json-patch+json"),
    "delete": send("DELETE", "Patient?active=false") + send("DELETE", "Observation?code=8302-2"),
    "$meta": get("""
        Observation/height/$meta
        Patient/hidden/_history/1/$meta
        Observation/$meta
        Patient/$meta
        $meta"""),
    "$everything": get("""
        Patient/ada/$everything
        Patient/hidden/$everything
        Patient/$everything
        Encounter/visit/$everything"""),
    "$lastn": get("Observation/$lastn?patient=ada&category=vital-signs"),
    **{
        f"${code}": send("POST", f"Appointment/secret/${code}", PARAMETERS)
        for code in ("cancel", "reschedule", "check-in", "no-show")
    },
    "$calendar-link": [
        *send("POST", "Patient/hidden/$calendar-link"),
        *get("Patient/hidden/$calendar-link"),
        *send("DELETE", "Patient/hidden/$calendar-link?id=1"),
    ],
    "$calendar": get("""
        Patient/hidden/$calendar?key=1.2
        Patient/ada/$calendar?key=1.2"""),
    "$schedule-report": get("Schedule/$schedule-report?start=2026-03-02&end=2026-03-03"),
    "$bulk-publish": get("""
        $bulk-publish
        $bulk-publish?file=Slot"""),
    "$open-time": get("Schedule/secret/$open-time?start=2026-03-02T10:00:00Z&end=2026-03-02T10:30:00Z"),
    "$transmit": send("POST", "CoverageEligibilityRequest/secret/$transmit", PARAMETERS)
    + send("POST", "Claim/none/$transmit"),
    "$purge": send("POST", "Observation/height/$purge") + send("POST", "Patient/hidden/$purge"),
}
"""By interaction or operation."""

UNREAD = {"$launch", "$meta-add", "$meta-delete", "$reindex", "$job", "$hl7v2", "$x12"}
"""Operations that answer with nothing stored but what the caller itself writes, by an id."""


@pytest.fixture(params=["memory", "sqlite", "mongodb"])
async def pair(known: Knowledge, request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Pair]:
    """A server whose policy hides what the other one does not hold. Visible resources have the same ids and times."""
    uris: dict[str, Callable[[str], str]] = {
        "memory": lambda name: "memory://",
        "sqlite": lambda name: f"sqlite:///{tmp_path}/{name}.db",
        "mongodb": lambda name: str(request.getfixturevalue("new_mongo_uri")()),
    }
    uri = uris[request.param]
    seams = Seams(clock=lambda: START, policy=HideObservations(), definitions=None)
    settings: dict[str, Any] = {"references": "allow", "purge": True, "conditional_delete": "multiple"}
    async with (
        serving(known, seams, store=uri("restricted"), **settings) as restricted,
        serving(known, Seams(clock=lambda: START, definitions=None), store=uri("plain"), **settings) as plain,
    ):
        for resource in VISIBLE:
            for client in (restricted, plain):
                url = f"{resource['resourceType']}/{resource['id']}"
                assert (await client.put(url, json=resource)).status_code == 201
        for resource in HIDDEN:
            url = f"{resource['resourceType']}/{resource['id']}"
            assert (await restricted.put(url, json=resource)).status_code == 201
        yield restricted, plain


_VARYING = re.compile(r'"last(?:Updated|Modified)":"[^"]*"|__page=[^"]*|[0-9a-f]{8}-[0-9a-f-]{27}')


def normalise(response: httpx.Response) -> tuple[int, str]:
    """Status and text without what differs between any two answers: ids of new things, times, page links.

    The id of a proposed Appointment begins with `-` and is signed with a secret of the server.
    """
    text = re.sub(
        r'"lastUpdated":"[^"]*"|"lastModified":"[^"]*"|__page=[^"]*|[0-9a-f]{8}-[0-9a-f-]{27}|(?<=["/])-[\w.-]{20,}',
        "",
        response.text,
    )
    return response.status_code, text


def list_asked() -> Iterator[tuple[str, int, int]]:
    """What one pair of servers is asked: the reads of an interaction together, each other request by itself."""
    for code, requests in REQUESTS.items():
        size = max(len(requests), 1) if all(method == "GET" for method, *_ in requests) else 1
        for first in range(0, len(requests), size):
            yield code, first, first + size


@pytest.mark.parametrize(("code", "first", "end"), tuple(list_asked()))
async def test_nothing_of_what_is_hidden_is_told(pair: Pair, code: str, first: int, end: int) -> None:
    for method, url, body, headers in REQUESTS[code][first:end]:
        answers = []
        for client in pair:
            options: dict[str, Any] = {"headers": headers}
            options["content" if isinstance(body, str) else "json"] = body
            answers.append(normalise(await client.fhir(method, url, **options)))
        assert answers[0] == answers[1], url


async def test_a_hidden_appointment_takes_its_time_and_is_not_told(pair: Pair) -> None:
    restricted, _ = pair
    assert (await restricted.put("Appointment/taken", json=visit("taken", "booked", "ada"))).status_code == 201
    for code in ("hold", "book"):
        answer = await restricted.post(f"Appointment/${code}", json=book("ada"))
        assert answer.status_code == 409
        assert "Appointment/taken" not in answer.text


async def test_page_links_of_a_history_leave_hidden_versions_out(pair: Pair) -> None:
    """Pages may be shorter than `_count`; together they are the same versions."""
    walks = []
    for client in pair:
        versions, url = [], "_history?_count=2"
        while url:
            page = (await client.fhir("GET", url)).json()
            versions += [(each["fullUrl"], each["response"]["etag"]) for each in page.get("entry", ())]
            url = next((link["url"] for link in page["link"] if link["relation"] == "next"), "")
        walks.append(sorted(versions))
    assert walks[0] == walks[1] and len(walks[0]) == len(VISIBLE)


async def test_a_deletion_is_hidden_with_what_was_deleted(pair: Pair) -> None:
    restricted, plain = pair
    store = restricted.server.context.unrestricted
    await store.transact(Transaction((Write("DELETE", "Observation", "height"), Write("DELETE", "Patient", "hidden"))))
    for url in ("_history", "Patient/_history", "Patient/hidden", "Observation/height", "Patient/hidden/_history"):
        assert normalise(await restricted.fhir("GET", url)) == normalise(await plain.fhir("GET", url)), url


def test_the_table_has_every_interaction_and_operation() -> None:
    codes = {each.code for each in INTERACTIONS} | {f"${code}" for code in OPERATIONS}
    assert codes - UNREAD == set(REQUESTS)


CALLS_OF_UNRESTRICTED = {
    "access_control.py": 1,
    "api/admission.py": 1,
    "api/authorization.py": 6,
    "api/health.py": 2,
    "api/login.py": 7,
    "interactions/explain.py": 1,
    "interactions/transaction.py": 1,
    "operations/charges/assemble.py": 1,
    "operations/core/launch.py": 1,
    "scheduling/availability.py": 1,
    "operations/scheduling/bulk_publish.py": 1,
    "operations/scheduling/calendar.py": 1,
    "operations/scheduling/calendar_link.py": 1,
    "operations/scheduling/calendar_links.py": 5,
    "operations/scheduling/find.py": 1,
    "operations/scheduling/open_time.py": 1,
    "operations/scheduling/schedule_report.py": 1,
    "operations/scheduling/sheet.py": 1,
    "scheduling/site.py": 1,
    "requests/context.py": 1,
    "requests/merges.py": 6,
    "writes/apply_rules.py": 1,
    "writes/deciding.py": 2,
    "writes/plan.py": 2,
    "writes/resolve_targets.py": 1,
    "writes/state.py": 1,
    "writes/stored_matches.py": 1,
}
"""Files beside the workers that use the store itself, and how often: none of it may reach an answer."""


def test_the_store_itself_is_used_where_it_is_listed() -> None:
    package = Path(__file__).resolve().parents[2] / "fhir_server"
    calls = {
        path.relative_to(package).as_posix(): count
        for path in package.rglob("*.py")
        if (count := path.read_text(encoding="utf-8").count(".unrestricted"))
    }
    assert {path: count for path, count in calls.items() if not path.startswith("workers/")} == CALLS_OF_UNRESTRICTED
