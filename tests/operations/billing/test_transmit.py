"""`Claim/$transmit` over HTTP: clean claims go out once as an 837P, the others are told of one by one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from fhir_server.app import Knowledge
from fhir_server.store.operations import Transaction
from fhir_server.workers.table import WORKERS
from mappers.x12.fault import find_errors
from mappers.x12.structure import check_interchange
from tests.conftest import Client
from tests.mappers.x12.test_x12_oracles import validate_by_pyx12
from tests.operations.billing.claims_clinic import claims_clinic, make_library, put, read, read_state, read_task
from tests.operations.payments.money_clinic import sentence
from tests.workers.teams import take_turn

pytestmark = pytest.mark.anyio

Tree = dict[str, Any]

PARTNER = """
name = "{name}"
formats = ["x12"]
[transports.folder]
{folder}
suffix = ".x12"
[x12]
envelope = "clearinghouse"
payers = {payers}
[x12.ours]
id = "RIVERBEND01"
name = "Riverbend Family Practice"
contact = "Billing Office"
phone = "555-555-0142"
[x12.theirs]
qualifier = "30"
id = "{id}"
name = "Example Clearinghouse"
"""


def write_partner(folder: Path, name: str, payers: list[str], out: str = "out") -> None:
    (folder / "partners").mkdir(exist_ok=True)
    place = folder / name
    for each in ("in", "done", "failed", "out"):
        (place / each).mkdir(parents=True)
    wanted = ("out",) if out else ("in", "done", "failed")
    lines = "\n".join(f'{each} = "{place}/{each}"' for each in wanted)
    text = PARTNER.format(
        name=name, id="990000001" if name == "house" else name.upper(), folder=lines, payers=payers
    ).replace("'", '"')
    (folder / "partners" / f"{name}.toml").write_text(text)


@asynccontextmanager
async def clinic(
    known: Knowledge, folder: Path, count: int = 1, uri: str = "memory://", **settings: Any
) -> AsyncIterator[tuple[Client, list[Tree]]]:
    """Valid claims, and a clearinghouse that takes all payers."""
    if not (folder / "partners").exists():
        write_partner(folder, "house", [])
    async with claims_clinic(known, uri, count, profiles=str(folder), **settings) as found:
        yield found


def ask(*claims: str, **values: str | bool) -> Tree:
    parts: list[Tree] = [{"name": "claim", "valueReference": {"reference": each}} for each in claims]
    for name, value in values.items():
        parts.append({"name": name, **({"valueBoolean": value} if isinstance(value, bool) else {"valueString": value})})
    return {"resourceType": "Parameters", "parameter": parts}


async def transmit(client: Client, *claims: str, **values: str | bool) -> list[Tree]:
    """What is told of each claim: reference, state, source, transmission, rules and sentences."""
    return told(await client.fhir("POST", "Claim/$transmit", json=ask(*claims, **values)))


def told(answer: httpx.Response) -> list[Tree]:
    assert answer.status_code == 200, answer.text
    found = []
    for each in answer.json()["parameter"]:
        case: Tree = {}
        for part in each["part"]:
            value = part.get("valueReference", {}).get("reference") or part.get("valueCode") or part.get("resource")
            case[part["name"]] = value
        found.append(case)
    return found


async def read_text(client: Client, transmission: str) -> str:
    task = await read(client, transmission)
    parts = {each["type"]["coding"][0]["code"]: each for each in task["input"]}
    answer = await client.fhir("GET", parts["text"]["valueReference"]["reference"])
    assert answer.headers["content-type"].startswith("application/EDI-X12")
    return answer.text


def segments(text: str, id: str) -> list[list[str]]:
    return [each.strip().split("*") for each in text.split("~") if each.strip().startswith(f"{id}*")]


async def count_deliveries(client: Client) -> int:
    system = "https://fhir-server.example/CodeSystem/message-task"
    found = await client.get("Task", params={"code": f"{system}|message-delivery", "_total": "accurate"})
    return int(found.json()["total"])


async def test_a_clean_claim_goes_out_as_an_837p_with_one_delivery(
    known: Knowledge, tmp_path: Path, store_uri: str
) -> None:
    async with clinic(known, tmp_path, uri=store_uri) as (client, (claim,)):
        answer = await client.fhir("POST", "Claim/c00000/$transmit")
        (case,) = told(answer)
        assert (case["reference"], case["state"]) == ("Claim/c00000", "sent")
        text = await read_text(client, case["transmission"])
        assert find_errors(check_interchange(text)) == ()
        # ST03 of an 837P is 005010X222A1; CLM01 the patient control number, CLM02 the total (005010X222A1, 2300)
        assert segments(text, "ST") == [["ST", "837", "0001", "005010X222A1"]]
        ((_, number, total, *_),) = segments(text, "CLM")
        assert number == "T00000" and float(total) == claim["total"]["value"]
        assert segments(text, "CLM")[0][5] == "11:B:1"
        task = await read(client, case["transmission"])
        assert [
            e["valueReference"]["reference"] for e in task["input"] if e["type"]["coding"][0]["code"] == "about"
        ] == ["Claim/c00000"]
        assert task["businessStatus"]["coding"][0]["code"] == "waiting"
        assert await read_state(client, "Claim/c00000") == "sent"
        stored = await read(client, "Claim/c00000")
        assert stored["status"] == "active"
        edited = await client.fhir("PUT", "Claim/c00000", json={**stored, "created": "2026-11-01"})
        assert edited.status_code == 422 and "in the state `sent`" in sentence(edited)


async def test_a_claim_that_is_sent_answers_its_transmission(known: Knowledge, tmp_path: Path) -> None:
    async with clinic(known, tmp_path) as (client, _):
        (first,) = await transmit(client, "Claim/c00000")
        (again,) = await transmit(client, "Claim/c00000")
        assert (again["transmission"], again["state"]) == (first["transmission"], "sent")
        assert await count_deliveries(client) == 1
        refused = await client.fhir("POST", "Claim/$transmit", json=ask("Claim/c00000", resubmit=True))
        assert refused.status_code == 400 and "`resubmit` needs a `frequency`" in sentence(refused)
        (lacking,) = await transmit(client, "Claim/c00000", resubmit=True, frequency="7")
        assert lacking["state"] == "sent" and lacking["transmission"] == first["transmission"]
        assert "original-number" in str(lacking["outcome"])
        (third,) = await transmit(client, "Claim/c00000", resubmit=True, frequency="1")
        assert third["transmission"] != first["transmission"]
        one, other = [segments(await read_text(client, each["transmission"]), "ISA")[0] for each in (first, third)]
        assert int(other[13]) > int(one[13])


@pytest.mark.parametrize("frequency", ["7", "8"])
async def test_replacement_and_void_name_the_payers_number_and_clm05_says_which(
    known: Knowledge, tmp_path: Path, frequency: str
) -> None:
    async with clinic(known, tmp_path) as (client, (claim,)):
        await transmit(client, "Claim/c00000")
        response = {
            "resourceType": "ClaimResponse",
            "id": "r",
            "identifier": [{"system": "https://fhir-server.example/identifier/payer-control-number", "value": "ICN77"}],
            "status": "active",
            "type": claim["type"],
            "use": "claim",
            "patient": claim["patient"],
            "created": "2026-11-20",
            "insurer": {"display": "Plan"},
            "request": {"reference": "Claim/c00000"},
            "outcome": "complete",
        }
        await put(client, response)
        (case,) = await transmit(client, "Claim/c00000", resubmit=True, frequency=frequency)
        text = await read_text(client, case["transmission"])
        # CLM05-3 is the frequency, REF*F8 the payer's number of the claim that is replaced or voided (2300)
        assert segments(text, "CLM")[0][5] == f"11:B:{frequency}"
        assert ["REF", "F8", "ICN77"] in segments(text, "REF")
        assert segments(text, "CLM")[0][1:3] == [claim["identifier"][0]["value"], f"{claim['total']['value']:g}"]
        assert validate_by_pyx12(text) == []
        assert await read_state(client, "Claim/c00000") == "sent"


async def test_a_corrected_claim_replaces_the_one_that_it_names(known: Knowledge, tmp_path: Path) -> None:
    """A new Claim with `related` (prior) goes out with frequency 7, its own number and the payer's of the first."""
    async with clinic(known, tmp_path) as (client, (claim,)):
        await transmit(client, "Claim/c00000")
        response = {
            "resourceType": "ClaimResponse", "id": "r", "status": "active", "type": claim["type"], "use": "claim",
            "identifier": [{"system": "https://fhir-server.example/identifier/payer-control-number", "value": "ICN77"}],
            "patient": claim["patient"], "created": "2026-11-20", "insurer": {"display": "Plan"},
            "request": {"reference": "Claim/c00000"}, "outcome": "complete",
        }  # fmt: skip
        await put(client, response)
        related = {"claim": {"reference": "Claim/c00000"}, "relationship": {"coding": [{"code": "prior"}]}}
        corrected = {**claim, "id": "new", "related": [related]}
        corrected["identifier"] = [{**claim["identifier"][0], "value": "T99"}]
        await put(client, corrected)
        (case,) = await transmit(client, "Claim/new", frequency="7")
        assert case["state"] == "sent", case
        text = await read_text(client, case["transmission"])
        assert segments(text, "CLM")[0][1] == "T99" and segments(text, "CLM")[0][5] == "11:B:7"
        assert ["REF", "F8", "ICN77"] in segments(text, "REF")


async def test_clean_claims_go_and_bad_ones_are_told_of_singly(known: Knowledge, tmp_path: Path) -> None:
    async with clinic(known, tmp_path, count=3) as (client, claims):
        await put(client, {**claims[1], "total": {"value": 1, "currency": "USD"}})
        cases = await transmit(client, *(f"Claim/{each['id']}" for each in claims), "Claim/none")
        assert [each.get("state") for each in cases] == ["sent", "held", "sent", None]
        assert "There is no `Claim/none`" in str(cases[3]["outcome"])
        assert cases[1]["outcome"]["issue"][0]["details"]["coding"][0]["code"] == "total"
        assert "total" in (await read_task(client, "Claim/c00001"))["statusReason"]["text"]
        assert cases[0]["transmission"] == cases[2]["transmission"] and "transmission" not in cases[1]
        text = await read_text(client, cases[0]["transmission"])
        assert sorted(each[1] for each in segments(text, "CLM")) == ["T00000", "T00002"]
        assert validate_by_pyx12(text) == []
        await put(client, claims[1])
        (mended,) = await transmit(client, "Claim/c00001")
        assert mended["state"] == "sent" and mended["transmission"] != cases[0]["transmission"]


async def test_a_claim_is_split_by_the_rules_before_it_goes(known: Knowledge, tmp_path: Path) -> None:
    async with clinic(known, tmp_path) as (client, (claim,)):
        items = [
            {**claim["item"][0], "id": f"L{n}", "sequence": n, "modifier": [{"coding": [{"code": "76"}]}]}
            for n in (1, 2)
        ]
        items[1]["locationCodeableConcept"] = {
            "coding": [{"system": "https://www.cms.gov/Medicare/Coding/place-of-service-codes", "code": "12"}]
        }
        total = {"value": round(2 * items[0]["net"]["value"], 2), "currency": "USD"}
        await put(client, {**claim, "item": items, "total": total})
        source, *children = await transmit(client, "Claim/c00000")
        assert source["state"] == "split" and (await read(client, "Claim/c00000"))["status"] == "cancelled"
        assert [each["state"] for each in children] == ["sent", "sent"], children
        assert {each["source"] for each in children} == {"Claim/c00000"}
        text = await read_text(client, children[0]["transmission"])
        # CLM05-1 is the place of service
        assert sorted(each[5] for each in segments(text, "CLM")) == ["11:B:1", "12:B:1"]
        again = await transmit(client, "Claim/c00000")
        assert [(e["reference"], e["state"], e.get("transmission")) for e in again] == [
            (e["reference"], e["state"], e.get("transmission")) for e in (source, *children)
        ]
        assert await count_deliveries(client) == 1


async def test_a_rule_holds_a_claim_whoever_sends_it(known: Knowledge, tmp_path: Path) -> None:
    async with clinic(known, tmp_path) as (client, _):
        rule = {"id": "stop", "because": "the office looks at these first", "then": {"action": "hold"}}
        await put(client, make_library("rules", "claim-split-rules", {"name": "riverbend", "rules": [rule]}))
        (case,) = await transmit(client, "Claim/c00000")
        assert case["state"] == "held" and "the office looks at these first" in str(case["outcome"])
        assert await count_deliveries(client) == 0


async def test_a_person_releases_a_hold_that_its_rule_lets_go(known: Knowledge, tmp_path: Path) -> None:
    """The rule names what releases it: an entry of `supportingInfo` that says why (docs/billing-rules.md)."""
    async with clinic(known, tmp_path) as (client, (claim,)):
        unless = [{"fact": "claim.information", "in": ["reviewed"]}]
        rule = {"id": "stop", "because": "the office looks first", "unless": unless, "then": {"action": "hold"}}
        await put(client, make_library("rules", "claim-split-rules", {"name": "riverbend", "rules": [rule]}))
        (case,) = await transmit(client, "Claim/c00000")
        assert case["state"] == "held"
        category = {"coding": [{"system": "https://clinic.example/review", "code": "reviewed"}]}
        note = {"sequence": 1, "category": category, "valueString": "Chart read by A. Hall: the modifier is right."}
        await put(client, {**claim, "supportingInfo": [note]})
        (case,) = await transmit(client, "Claim/c00000")
        assert case["state"] == "sent", case
        text = await read_text(client, case["transmission"])
        assert "CHART READ" not in text.upper()
        stored = await read(client, "Claim/c00000")
        assert stored["supportingInfo"] == [note]


async def test_a_claim_by_others_gets_numbers_and_charges(known: Knowledge, tmp_path: Path) -> None:
    async with clinic(known, tmp_path) as (client, (claim,)):
        await put(client, {**claim, "status": "cancelled"})
        bare = [{key: value for key, value in each.items() if key != "id"} for each in claim["item"]]
        other = {
            **claim,
            "id": "theirs",
            "status": "active",
            "identifier": [{"system": "urn:x", "value": "1"}],
            "item": bare,
        }
        await put(client, other)
        (case,) = await transmit(client, "Claim/theirs")
        assert case["state"] == "sent", case
        stored = await read(client, "Claim/theirs")
        number = stored["identifier"][0]["value"]
        assert len(number) == 17 and number.isalnum() and number.upper() == number
        assert [each["value"] for each in stored["identifier"][1:]] == ["1"]
        for item in stored["item"]:
            link = next(e for e in item["extension"] if e["url"].endswith("claim-item-charge"))
            charge = await read(client, link["valueReference"]["reference"])
            assert charge["status"] == "billed" and charge["priceOverride"]["value"] == item["net"]["value"]
        assert segments(await read_text(client, case["transmission"]), "CLM")[0][1] == number


async def test_the_payer_chooses_the_partner_and_without_one_the_claim_waits(known: Knowledge, tmp_path: Path) -> None:
    write_partner(tmp_path, "elsewhere", ["77777"])
    write_partner(tmp_path, "silent", ["88888"], out="")
    async with clinic(known, tmp_path) as (client, _):
        (case,) = await transmit(client, "Claim/c00000")
        assert case["state"] == "held" and "takes the payer" in str(case["outcome"])
        (case,) = await transmit(client, "Claim/c00000", partner="silent")
        assert case["state"] == "held" and "no folder `out`" in str(case["outcome"])
        (case,) = await transmit(client, "Claim/c00000", partner="elsewhere")
        assert case["state"] == "sent"
        task = await read(client, case["transmission"])
        assert task["groupIdentifier"]["value"] == "elsewhere"


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        (None, 400, "needs `claim`"),
        (ask("Patient/a00000"), 400, "needs `claim`"),
        (ask("Claim/c00000", frequency="2"), 400, "`frequency` is 1"),
        (ask("Claim/c00000", partner="nobody"), 400, "There is no partner `nobody`; partners are `house`"),
        (ask("Claim/c00000", colour="red"), 400, "no parameter `colour`"),
        (ask(*(f"Claim/{n}" for n in range(101))), 413, "at most 100 claims"),
    ],
)
async def test_a_request_that_makes_no_sense_says_why(
    known: Knowledge, tmp_path: Path, body: Tree | None, status: int, text: str
) -> None:
    async with clinic(known, tmp_path) as (client, _):
        answer = await client.fhir("POST", "Claim/$transmit", json=body)
        assert answer.status_code == status and text in sentence(answer), answer.text


async def test_parallel_calls_send_each_claim_once(known: Knowledge, tmp_path: Path, store_uri: str) -> None:
    async with clinic(known, tmp_path, count=4, uri=store_uri) as (client, claims):
        names = [f"Claim/{each['id']}" for each in claims]
        groups = (names[:3], names[1:], names, names[2:3])
        answers = await asyncio.gather(*(transmit(client, *each) for each in groups))
        by_claim: dict[str, set[str]] = {}
        for case in (case for each in answers for case in each):
            assert case["state"] == "sent", case
            by_claim.setdefault(case["reference"], set()).add(case["transmission"])
        assert sorted(by_claim) == names and all(len(each) == 1 for each in by_claim.values())
        texts = [await read_text(client, each) for each in {min(each) for each in by_claim.values()}]
        sent = sorted(each[1] for text in texts for each in segments(text, "CLM"))
        assert sent == ["T00000", "T00001", "T00002", "T00003"]
        assert await count_deliveries(client) == len(texts)


async def test_two_batches_at_one_moment_are_two_files(known: Knowledge, tmp_path: Path) -> None:
    """The clock of the clinic stands still; names are those of control numbers (traps: openemr#6900)."""
    async with clinic(known, tmp_path, count=2) as (client, _):
        cases = [await transmit(client, f"Claim/c0000{n}") for n in (0, 1)]
        await WORKERS["deliveries"].step(await take_turn(client.server.context, "deliveries", "a", []))
        files = sorted(each.name for each in (tmp_path / "house" / "out").iterdir())
        numbers = [int(name.removesuffix(".x12")) for name in files]
        assert len(files) == len(cases) == 2 and numbers[1] == numbers[0] + 1


async def test_the_worker_puts_the_837p_into_the_partners_folder(known: Knowledge, tmp_path: Path) -> None:
    async with clinic(known, tmp_path) as (client, _):
        (case,) = await transmit(client, "Claim/c00000")
        await WORKERS["deliveries"].step(await take_turn(client.server.context, "deliveries", "a", []))
        (file,) = (tmp_path / "house" / "out").iterdir()
        text = await read_text(client, case["transmission"])
        # the file is named by the control number, which is ISA13
        assert file.name == f"{segments(text, 'ISA')[0][13]}.x12" and file.read_text() == text
        assert (await read(client, case["transmission"]))["status"] == "completed"
        (again,) = await transmit(client, "Claim/c00000")
        assert again["transmission"] == case["transmission"]


async def test_a_claim_goes_on_after_retention_has_removed_its_delivery(
    known: Knowledge, tmp_path: Path, store_uri: str
) -> None:
    async with clinic(known, tmp_path, uri=store_uri) as (client, _):
        (case,) = await transmit(client, "Claim/c00000")
        id = case["transmission"].removeprefix("Task/")
        # as `workers/message_retention.py` removes what was acknowledged long ago
        gone = Transaction(purged=(f"Binary/{id}", f"Task/{id}"))
        await client.server.context.unrestricted.transact(gone)
        task = await read_task(client, "Claim/c00000")
        task["businessStatus"]["coding"][0]["code"] = "accepted"
        moved = await client.fhir("PUT", f"Task/{task['id']}", json=task)
        assert moved.status_code == 200, moved.text
        (again,) = await transmit(client, "Claim/c00000")
        assert (again["state"], again["transmission"]) == ("accepted", case["transmission"])
