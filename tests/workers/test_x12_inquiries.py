"""270 out by `$transmit` and for a day's visits, 271 in matched by TRN02 (005010X279A1; ces-1 of R4)."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fhir_server.__main__ import cli
from fhir_server.app import Knowledge
from fhir_server.requests.request import Caller
from fhir_server.store.operations import Transaction
from fhir_server.workers.x12_visits import ask_for_day
from mappers.x12.structure import check_interchange
from tests.conftest import Client, serving
from tests.mappers.x12.test_x12_eligibility import make_request
from tests.mappers.x12.x12_claims import make_coverage, make_resources
from tests.workers.test_x12_files import write_site
from tests.workers.x12_files import file, group, post, wrap

pytestmark = pytest.mark.anyio

CALLER = Caller("http://test/fhir")
ZONE = "America/New_York"


async def fill(client: Client) -> None:
    """Jane, her coverage, her payer and the clinic that asks, with a request `ask`."""
    request = {**make_request(), "id": "ask"}
    for resource in (*make_resources().values(), request):
        answer = await client.put(f"{resource['resourceType']}/{resource['id']}", json=resource)
        assert answer.status_code == 201, answer.text


@pytest.fixture
async def client(known: Knowledge, store_uri: str, tmp_path: Path) -> AsyncIterator[Client]:
    profiles = write_site(tmp_path)
    async with serving(known, store=store_uri, profiles=profiles, references="allow", time_zone=ZONE) as client:
        await fill(client)
        yield client


async def find(client: Client, search: str) -> list[dict[str, Any]]:
    answer = (await client.fhir("GET", search)).json()
    return [each["resource"] for each in answer.get("entry", ())]


async def transmit(client: Client, id: str = "ask") -> Any:
    return await client.fhir("POST", f"CoverageEligibilityRequest/{id}/$transmit")


async def read_270(client: Client, task: dict[str, Any]) -> list[str]:
    """The segments that a delivery sends; our own reader has no fault to find."""
    stored = (await client.fhir("GET", f"Binary/{task['id']}", headers={"Accept": "application/fhir+json"})).json()
    text = base64.b64decode(stored["data"]).decode()
    assert check_interchange(text) == ()
    return text.split("~")


def say_271(*people: str, trace: str = "000000001", number: str = "000000001", above: str = "") -> str:
    """A 271 whose subscribers these are; `above`: AAA of the payer."""
    levels = "".join(f"HL*{place}*2*22*0~{each}" for place, each in enumerate(people, 3))
    body = (
        f"BHT*0022*11*{trace}*20260120*1200~HL*1**20*1~{above}NM1*PR*2*ACME HEALTH*****PI*12345~HL*2*1*21*1~"
        f"NM1*1P*2*GOOD CLINIC*****XX*1700000007~{levels}"
    )
    text = wrap("271", "0001", body, "005010X279A1")
    return file(group(text, code="HB", version="005010X279A1"), number=number)


def say_person(*benefits: str, trace: str = "000000001", member: str = "MEM123") -> str:
    """2000C of Jane, with its EBs."""
    said = "".join(f"{each}~" for each in benefits)
    return f"TRN*2*{trace}*9SUBMITTER~NM1*IL*1*DOE*JANE****MI*{member}~{said}"


async def test_a_request_goes_out_once_for_each_version(client: Client) -> None:
    first, again = await transmit(client), await transmit(client)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["id"] == again.json()["id"]
    task = first.json()
    assert first.headers["location"].split("/_history")[0].endswith(f"Task/{task['id']}")
    assert task["focus"]["reference"] == "CoverageEligibilityRequest/ask/_history/1"
    segments = await read_270(client, task)
    assert "TRN*1*000000001*9RECEIVER" in " ".join(segments) or "TRN*1*000000001*90RECEIVER" in segments
    assert "NM1*IL*1*DOE*JANE****MI*MEM123" in segments
    stored = (await client.fhir("GET", "CoverageEligibilityRequest/ask")).json()
    await client.put("CoverageEligibilityRequest/ask", json={**stored, "servicedDate": "2026-04-01"})
    assert (await transmit(client)).status_code == 201
    assert len(await find(client, "Task?code=message-delivery")) == 2


@pytest.mark.parametrize(
    ("change", "status", "says"),
    [
        ({"status": "draft"}, 422, "only an `active` one is sent"),
        ({"provider": {"reference": "Practitioner/nobody"}}, 422, "needs a name and an NPI"),
        ({"insurance": [{"coverage": {"reference": "Coverage/none"}}]}, 422, "is not among the resources"),
    ],
)
async def test_what_cannot_be_sent_is_told(client: Client, change: dict[str, Any], status: int, says: str) -> None:
    await client.put("CoverageEligibilityRequest/bad", json={**make_request(), "id": "bad", **change})
    answer = await transmit(client, "bad")
    assert (answer.status_code, says in answer.text) == (status, True), answer.text
    assert (await transmit(client, "none")).status_code == 404
    assert await find(client, "Task?code=message-delivery") == []


async def test_a_271_becomes_the_response_to_its_request(client: Client) -> None:
    """EB of the 271: 1 in force, B copay in and out of network; each item has a category or a product (ces-1)."""
    delivery = (await transmit(client)).json()
    said = say_person("EB*1*IND*30", "EB*B**98***27*10*****Y", "EB*B**98***27*30*****N", "EB*F******100******HC:99213")
    for _ in range(2):
        assert "IK5*A" in (await post(client, say_271(said))).text
    (response,) = await find(client, "CoverageEligibilityResponse")
    assert response["request"]["reference"] == "CoverageEligibilityRequest/ask"
    assert (response["outcome"], response["patient"]["reference"]) == ("complete", "Patient/jane")
    (insurance,) = response["insurance"]
    assert (insurance["inforce"], insurance["coverage"]["reference"]) == (True, "Coverage/cov")
    assert [("category" in each) != ("productOrService" in each) for each in insurance["item"]] == [True] * 4
    money = [
        (each["network"]["coding"][0]["code"], each["benefit"][0]["allowedMoney"]["value"])
        for each in insurance["item"][1:3]
    ]
    assert money == [("in", 10), ("out", 30)]
    task = (await client.fhir("GET", f"Task/{delivery['id']}")).json()
    (message,) = await find(client, "Task?code=message-intake")
    assert task["output"][-1]["valueReference"]["reference"] == f"Task/{message['id']}"
    assert await find(client, "Task?code=eligibility") == []


async def test_a_second_answer_is_taken_after_retention_has_removed_the_first(known: Knowledge, tmp_path: Path) -> None:
    """References are enforced, and the delivery names the first 271, which is gone by then."""
    async with serving(known, store="memory://", profiles=write_site(tmp_path), time_zone=ZONE) as client:
        await fill(client)
        delivery = (await transmit(client)).json()
        await post(client, say_271(say_person("EB*1**30")))
        (first,) = await find(client, "Task?code=message-intake")
        # as `workers/message_retention.py` removes what is done
        gone = Transaction(purged=(f"Binary/{first['id']}", f"Task/{first['id']}"))
        await client.server.context.unrestricted.transact(gone)
        assert "IK5*A" in (await post(client, say_271(say_person("EB*6**30"), number="000000002"))).text
        assert len(await find(client, "CoverageEligibilityResponse")) == 2
        task = (await client.fhir("GET", f"Task/{delivery['id']}")).json()
        (second,) = await find(client, "Task?code=message-intake")
        assert task["output"][-1]["valueReference"]["reference"] == f"Task/{second['id']}"


@pytest.mark.parametrize("trace", ["000004711", "X"])
async def test_a_271_to_no_question_of_ours_is_a_task(client: Client, trace: str) -> None:
    await transmit(client)
    await post(client, say_271(say_person("EB*1**30", trace=trace), trace=trace))
    assert await find(client, "CoverageEligibilityResponse") == []
    (task,) = await find(client, "Task?code=eligibility")
    assert f"`{trace}`" in task["description"] and "JANE DOE" in task["description"]


async def test_a_refusal_before_anybody_is_named_is_matched_by_bht03(client: Client) -> None:
    """AAA of the payer's level (42: unable to respond at the current time)."""
    await transmit(client)
    await post(client, say_271(above="AAA*Y**42*P~"))
    (response,) = await find(client, "CoverageEligibilityResponse")
    assert (response["outcome"], response["error"][0]["code"]["coding"][0]["code"]) == ("error", "42")


async def test_insurance_that_has_changed_is_a_task(client: Client) -> None:
    await transmit(client)
    other = "EB*R**30~LS*2120~NM1*PRP*2*BEST INSURANCE*****PI*67890~LE*2120"
    await post(client, say_271(say_person("EB*6**30", other, member="MEM999")))
    (task,) = await find(client, "Task?code=eligibility")
    assert task["focus"]["reference"] == "Coverage/cov"
    for words in ("not in force", "`MEM999` instead of `MEM123`", "BEST INSURANCE 67890"):
        assert words in task["description"]


def make_visit(id: str, start: str, patient: str = "Patient/jane", status: str = "booked") -> dict[str, Any]:
    return {
        "resourceType": "Appointment",
        "id": id,
        "status": status,
        "start": start,
        "end": start.replace(":00:00", ":30:00"),
        "participant": [
            {"actor": {"reference": patient}, "status": "accepted"},
            {"actor": {"reference": "Practitioner/smith"}, "status": "accepted"},
        ],
    }


async def test_the_visits_of_a_day_are_asked_about_once_with_the_day_of_the_practice(client: Client) -> None:
    """21:00 in New York on 2 March is 3 March in UTC: the 270 asks for 2 March."""
    ended = {**make_coverage("old"), "period": {"end": "2026-02-28"}}
    visits = [
        make_visit("late", "2026-03-02T21:00:00-05:00"),
        make_visit("early", "2026-03-02T09:00:00-05:00"),
        make_visit("tomorrow", "2026-03-03T09:00:00-05:00", "Patient/bo"),
        make_visit("off", "2026-03-02T10:00:00-05:00", "Patient/bo", status="cancelled"),
        make_visit("bare", "2026-03-02T11:00:00-05:00", "Patient/nobody"),
    ]
    for each in (ended, *visits):
        assert (await client.put(f"{each['resourceType']}/{each['id']}", json=each)).status_code == 201
    context = client.server.context
    asked = await ask_for_day(context, CALLER, date(2026, 3, 2))
    assert [(each.patient, each.coverage, each.made, bool(each.reason)) for each in asked] == [
        ("Patient/jane", "Coverage/cov", True, False), ("Patient/nobody", "", False, True),
    ]  # fmt: skip
    (task,) = await find(client, "Task?code=message-delivery")
    segments = await read_270(client, task)
    assert "DTP*291*D8*20260302" in segments and "NM1*1P*1*SMITH*ADAM****XX*1700000015" in segments
    again = await ask_for_day(context, CALLER, date(2026, 3, 2))
    assert [each.task for each in again] == [each.task for each in asked] and not again[0].made
    assert len(await find(client, "CoverageEligibilityRequest?patient=Patient/jane")) == 2


def test_the_command_prints_whom_it_asked_about(known: Knowledge, tmp_path: Path) -> None:
    profiles, store = write_site(tmp_path), f"sqlite:///{tmp_path}/fhir.db"

    async def store_visit() -> None:
        async with serving(known, store=store, profiles=profiles, references="allow") as client:
            await fill(client)
            visit = make_visit("one", "2026-03-02T09:00:00Z")
            assert (await client.put("Appointment/one", json=visit)).status_code == 201

    asyncio.run(store_visit())
    environment = {"FHIR_PROFILES": profiles, "COLUMNS": "200"}
    for says in ("asked: Task/", "asked before: Task/"):
        answer = CliRunner().invoke(cli, ["eligibility", "--day", "2026-03-02", "--store", store], env=environment)
        assert (answer.exit_code, says in answer.output) == (0, True), answer.output
    nobody = CliRunner().invoke(cli, ["eligibility", "--day", "2026-03-04", "--store", store], env=environment)
    assert (nobody.exit_code, "Nobody comes" in nobody.output) == (0, True)
    wrong = CliRunner().invoke(cli, ["eligibility", "--day", "monday", "--store", store], env=environment)
    assert wrong.exit_code == 2
