"""Charges become draft claims over HTTP, each charge once; what a cancelled claim gives back is billed again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from fhir_server.app import Knowledge, Seams
from fhir_server.search.query import EVERYTHING, Clause, StartsWith
from fhir_server.security.policy import AllowAll, Principal
from mappers.billing import codes
from tests.conftest import Client, serving
from tests.faults.process import serving_process
from tests.operations.charges.visits import (
    US,
    assemble,
    charge,
    claims,
    list_charges,
    parties,
    patient,
    practice,
    procedure,
    read,
    sentence,
    store,
    told,
    visit,
)
from tests.operations.scheduling.booking_clinic import Clock

pytestmark = pytest.mark.anyio

ENCOUNTER = "Encounter/e"


async def test_the_charges_of_an_encounter_become_one_draft_claim(known: Knowledge, store_uri: str) -> None:
    async with practice(known, store_uri) as client:
        await store(
            client, [visit("e", "a"), charge("1", "a", encounter=ENCOUNTER), charge("2", "a", "93000", 45.5, ENCOUNTER)]
        )
        answer = await assemble(client, encounter=ENCOUNTER)
        (claim,) = claims(answer)
        assert (claim["status"], claim["provider"]["reference"], claim["total"]["value"]) == ("draft", US, 145.5)
        assert list_charges(claim) == ["ChargeItem/1", "ChargeItem/2"]
        assert claim["insurance"][0]["coverage"] == {"reference": "Coverage/a"}
        assert [(await read(client, f"ChargeItem/{each}"))["status"] for each in "12"] == ["billed", "billed"]
        assert await read(client, f"Claim/{claim['id']}") == claim


async def test_asking_again_makes_nothing_and_answers_the_draft(known: Knowledge, store_uri: str) -> None:
    async with practice(known, store_uri) as client:
        await store(client, [charge("1", "a")])
        first = claims(await assemble(client, patient="Patient/a"))
        again = claims(await assemble(client, patient="Patient/a"))
        assert first == again and len(first) == 1
        assert (await client.get("Claim?_total=accurate")).json()["total"] == 1


async def test_procedures_of_a_finished_visit_are_charged_by_the_price_list(known: Knowledge, store_uri: str) -> None:
    async with practice(known, store_uri) as client:
        done = [procedure("p", "e", "a"), procedure("q", "e", "a", "93000"), procedure("r", "e", "a", "11111")]
        await store(client, [visit("e", "a"), *done])
        answer = await assemble(client, encounter=ENCOUNTER)
        (claim,) = claims(answer)
        assert claim["total"]["value"] == 165.5 and len(claim["item"]) == 2
        assert ["`Procedure/r`" in each for each in told(answer)] == [True]
        made = [await read(client, each) for each in list_charges(claim)]
        assert {each["identifier"][0]["value"] for each in made} == {"Procedure/p", "Procedure/q"}
        assert {each["status"] for each in made} == {"billed"} and {each["enteredDate"] for each in made} == {
            "2026-03-02"
        }
        await assemble(client, encounter=ENCOUNTER)
        assert (await client.get("ChargeItem?_total=accurate")).json()["total"] == 2


async def test_procedures_of_a_visit_that_goes_on_are_not_charged_yet(known: Knowledge) -> None:
    async with practice(known) as client:
        await store(client, [visit("e", "a", status="in-progress"), procedure("p", "e", "a")])
        answer = await assemble(client, encounter=ENCOUNTER)
        assert claims(answer) == []
        assert told(answer) == ["`Encounter/e` is `in-progress`: its Procedures are charged when it is `finished`."]


async def test_a_period_takes_the_charges_of_its_days_and_tells_what_it_leaves(known: Knowledge) -> None:
    async with practice(known) as client:
        later = charge("late", "b", occurrenceDateTime="2026-03-09")
        await store(client, [charge("1", "a"), charge("2", "b"), later, charge("3", "c")])
        answer = await assemble(client, start="2026-03-02", end="2026-03-02")
        assert sorted(map(list_charges, claims(answer))) == [["ChargeItem/1"], ["ChargeItem/2"]]
        assert [each for each in told(answer) if "`Patient/c` has no coverage in force on 2026-03-02" in each]
        statuses = [(await read(client, f"ChargeItem/{each}"))["status"] for each in ("late", "3")]
        assert statuses == ["billable", "billable"]


@pytest.mark.parametrize(
    ("asked", "status", "text"),
    [
        ({}, 400, "needs `encounter`, `patient`, or `start` and `end`"),
        ({"start": "2026-03-02"}, 400, "needs `encounter`, `patient`, or `start` and `end`"),
        ({"start": "2026-03-03", "end": "2026-03-02"}, 400, "`end` lies before `start`"),
        ({"start": "soon", "end": "2026-03-02"}, 400, "`start`"),
        ({"patient": "Patient/none"}, 404, "There is no `Patient/none`"),
        ({"encounter": "Patient/a"}, 400, "such as `Encounter/1`"),
        ({"encounter": "Encounter/none"}, 404, "There is no `Encounter/none`"),
        ({"visit": "1"}, 400, "no parameter `visit`"),
        ({"encounter": "Encounter/nobody"}, 422, "`Encounter/nobody` names no patient"),
        ({"encounter": ENCOUNTER, "patient": "Patient/b"}, 422, "`Encounter/e` is of `Patient/a`, not of `Patient/b`"),
    ],
)
async def test_a_request_that_makes_no_sense_says_why(
    known: Knowledge, asked: dict[str, str], status: int, text: str
) -> None:
    async with practice(known) as client:
        nobody = {name: value for name, value in visit("nobody", "").items() if name != "subject"}
        await store(client, [nobody, visit("e", "a")])
        refused = await assemble(client, **asked)
        assert refused.status_code == status and text in sentence(refused), refused.text


async def test_without_a_billing_provider_the_encounter_names_it_or_the_charge_stays(known: Knowledge) -> None:
    async with practice(known, billing_provider="") as client:
        named = {**visit("e", "a"), "serviceProvider": {"reference": US}}
        await store(client, [named, charge("1", "a", encounter=ENCOUNTER), charge("2", "b")])
        answer = await assemble(client, start="2026-03-02", end="2026-03-02")
        (claim,) = claims(answer)
        assert claim["provider"]["reference"] == US
        assert ["Nobody bills `ChargeItem/2`" in each for each in told(answer)] == [True]


async def cancel_and_assemble(client: Client) -> None:
    await store(client, [charge("1", "a")])
    (first,) = claims(await assemble(client, patient="Patient/a"))
    await store(client, [{**first, "status": "cancelled"}])
    assert (await read(client, "ChargeItem/1"))["status"] == "billable"
    (second,) = claims(await assemble(client, patient="Patient/a"))
    assert second["identifier"] != first["identifier"] and list_charges(second) == ["ChargeItem/1"]
    back = await client.put(f"Claim/{first['id']}", json=first)
    assert back.status_code == 422 and f"is billed by `Claim/{second['id']}` already" in sentence(back)
    assert (await client.delete(f"Claim/{second['id']}")).status_code in (200, 204)
    assert (await read(client, "ChargeItem/1"))["status"] == "billable"


async def test_a_cancelled_claim_gives_its_charges_back_and_they_are_billed_again(
    known: Knowledge, store_uri: str
) -> None:
    async with practice(known, store_uri) as client:
        await cancel_and_assemble(client)


async def test_a_charge_made_anew_after_it_was_deleted_gets_another_control_number(known: Knowledge) -> None:
    async with practice(known) as client:
        await store(client, [visit("e", "a"), procedure("p", "e", "a")])
        (first,) = claims(await assemble(client, encounter=ENCOUNTER))
        for each in (f"Claim/{first['id']}", list_charges(first)[0]):
            assert (await client.delete(each)).status_code in (200, 204)
        (second,) = claims(await assemble(client, encounter=ENCOUNTER))
        assert second["id"] != first["id"] and second["identifier"] != first["identifier"]


async def test_a_billed_charge_is_not_made_billable_while_its_claim_stands(known: Knowledge) -> None:
    async with practice(known) as client:
        await store(client, [charge("1", "a")])
        (claim,) = claims(await assemble(client, patient="Patient/a"))
        for answer in (await client.put("ChargeItem/1", json=charge("1", "a")), await client.delete("ChargeItem/1")):
            assert answer.status_code == 422, answer.text
            assert f"`ChargeItem/1` is billed by `Claim/{claim['id']}`" in sentence(answer)


def write_claim(id: str, *charges: str, **more: Any) -> dict[str, Any]:
    """A Claim of patient a that others write, a line for each charge."""
    link = [{"url": codes.CHARGE_ITEM, "valueReference": {"reference": f"ChargeItem/{each}"}} for each in charges]
    code = {"coding": [{"system": codes.CPT, "code": "99213"}]}
    items = [{"sequence": n, "extension": [each], "productOrService": code} for n, each in enumerate(link, 1)]
    return {
        "resourceType": "Claim",
        "id": id,
        "status": "active",
        "use": "claim",
        "type": {"coding": [{"code": "professional"}]},
        "patient": {"reference": "Patient/a"},
        "created": "2026-03-02",
        "provider": {"reference": US},
        "priority": {"coding": [{"code": "normal"}]},
        "insurance": [{"sequence": 1, "focal": True, "coverage": {"reference": "Coverage/a"}}],
        "item": items,
        **more,
    }


async def test_a_claim_written_by_others_bills_its_charges(known: Knowledge, store_uri: str) -> None:
    async with practice(known, store_uri) as client:
        await store(client, [charge("1", "a"), charge("2", "a"), write_claim("x", "1", "2")])
        assert [(await read(client, f"ChargeItem/{each}"))["status"] for each in "12"] == ["billed", "billed"]
        assert claims(await assemble(client, patient="Patient/a")) == []
        await store(client, [write_claim("x", "2")])
        (claim,) = claims(await assemble(client, patient="Patient/a"))
        assert list_charges(claim) == ["ChargeItem/1"]
        twice = await client.put("Claim/y", json=write_claim("y", "1"))
        assert twice.status_code == 422 and "`ChargeItem/1` is billed by" in sentence(twice)
        prior = [{"claim": {"reference": "Claim/x"}, "relationship": {"coding": [{"code": "prior"}]}}]
        assert (await client.put("Claim/z", json=write_claim("z", "2", related=prior))).status_code == 201


async def test_a_charge_that_an_invoice_bills_is_not_given_back(known: Knowledge) -> None:
    """What a rule of splitting made the patient pay is not billed to a payer as well when the claim is cancelled."""
    async with practice(known) as client:
        await store(client, [charge("1", "a"), write_claim("x", "1")])
        line = {"chargeItemReference": {"reference": "ChargeItem/1"}}
        invoice = {"resourceType": "Invoice", "id": "i", "status": "issued", "subject": {"reference": "Patient/a"}}
        await store(client, [{**invoice, "lineItem": [line]}])
        told = await client.put(
            "Claim/x", json=write_claim("x", "1", status="cancelled"), headers={"Prefer": "return=OperationOutcome"}
        )
        assert "`ChargeItem/1` stays `billed`: `Invoice/i` bills it" in sentence(told)
        assert (await read(client, "ChargeItem/1"))["status"] == "billed"
        refused = await client.put("ChargeItem/1", json=charge("1", "a"))
        assert refused.status_code == 422 and "is billed by `Invoice/i`" in sentence(refused)
        await store(client, [{**invoice, "status": "cancelled", "lineItem": [line]}])
        assert (await client.put("ChargeItem/1", json=charge("1", "a"))).status_code == 200


async def test_two_claims_of_one_transaction_do_not_bill_a_charge_twice(known: Knowledge) -> None:
    async with practice(known) as client:
        await store(client, [charge("1", "a")])
        entries = [
            {"resource": write_claim(id, "1"), "request": {"method": "PUT", "url": f"Claim/{id}"}} for id in "xy"
        ]
        answer = await client.post("", json={"resourceType": "Bundle", "type": "transaction", "entry": entries})
        assert answer.status_code == 422 and "`ChargeItem/1` is billed by" in sentence(answer)


async def test_a_charge_that_a_procedure_gave_before_is_kept_and_not_billed(known: Knowledge, store_uri: str) -> None:
    """A DFT charge of the same encounter, code, modifiers and day meets the one that assembly made."""
    async with practice(known, store_uri) as client:
        await store(client, [visit("e", "a"), procedure("p", "e", "a")])
        (claim,) = claims(await assemble(client, encounter=ENCOUNTER))
        late = charge("late", "a", encounter=ENCOUNTER, occurrenceDateTime="2026-03-02T10:05:00Z")
        other = charge("other", "a", "93000", encounter=ENCOUNTER)
        await store(client, [late, other])
        assert [(await read(client, f"ChargeItem/{each}"))["status"] for each in ("late", "other")] == [
            "not-billable",
            "billable",
        ]
        (task,) = (await client.get("Task?code=charge-review")).json()["entry"]
        assert task["resource"]["focus"] == {"reference": list_charges(claim)[0]}
        (second,) = [each for each in claims(await assemble(client, encounter=ENCOUNTER)) if each["id"] != claim["id"]]
        assert list_charges(second) == ["ChargeItem/other"]


async def race(client: Client) -> None:
    """Overlapping and unequal: by patient, by encounter, by period, with charges and with Procedures."""
    made = [charge(str(n), "a", price=10.0 + n, encounter=ENCOUNTER if n % 2 else "") for n in range(6)]
    await store(client, [visit("e", "a"), visit("f", "b"), procedure("p", "f", "b"), *made])
    kinds: list[dict[str, str]] = [
        {"patient": "Patient/a"},
        {"encounter": ENCOUNTER},
        {"encounter": "Encounter/f"},
        {"start": "2026-03-01", "end": "2026-03-03"},
    ]
    answers = await asyncio.gather(*(assemble(client, **kinds[n % 4]) for n in range(12)))
    assert {each.status_code for each in answers} == {200}, [each.text for each in answers]
    everything = (await client.get("Claim?_count=100")).json()["entry"]
    billed = [each for entry in everything for each in list_charges(entry["resource"])]
    assert len(billed) == len(set(billed)) == 7
    # 10 + 11 + … + 15, and 120 from the price list
    assert sum(entry["resource"]["total"]["value"] for entry in everything) == 75 + 120


async def test_many_at_once_bill_each_charge_once(known: Knowledge, store_uri: str) -> None:
    async with practice(known, store_uri) as client:
        await race(client)


async def test_many_at_once_on_mongo(known: Knowledge, new_mongo_uri: Callable[[], str]) -> None:
    async with practice(known, new_mongo_uri()) as client:
        await race(client)


async def test_a_cancelled_claim_gives_its_charges_back_on_mongo(
    known: Knowledge, new_mongo_uri: Callable[[], str]
) -> None:
    async with practice(known, new_mongo_uri()) as client:
        await cancel_and_assemble(client)


@pytest.mark.external
@pytest.mark.long
@pytest.mark.parametrize("kind", ["sqlite", "mongo"])
async def test_two_processes_bill_each_charge_once(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Three rounds over one store: two processes assemble the same visits by unequal, overlapping requests."""
    path, provider = tmp_path / "fhir.db", {"billing_provider": US}
    options = ("--store", request.getfixturevalue("new_mongo_uri")()) if kind == "mongo" else ()
    with serving_process(path, *options, **provider) as one, serving_process(path, *options, **provider) as two:
        async with one.client() as first, two.client() as second:
            for each in parties():
                assert (await first.put(f"/{each['resourceType']}/{each['id']}", json=each)).status_code == 201
            for number in range(1, 4):
                visits = [visit(f"v{number}", "a"), visit(f"w{number}", "b")]
                done = [procedure(f"p{number}", f"v{number}", "a"), procedure(f"q{number}", f"w{number}", "b", "93000")]
                own = charge(f"c{number}", "a", encounter=f"Encounter/v{number}")
                for each in (*visits, *done, own):
                    answer = await first.put(f"/{each['resourceType']}/{each['id']}", json=each)
                    assert answer.status_code == 201, answer.text
                urls = (f"encounter=Encounter/v{number}", "patient=Patient/b", "start=2026-03-02&end=2026-03-02")
                answers = await asyncio.gather(
                    *((first, second)[n % 2].post(f"/Claim/$assemble?{urls[n % 3]}") for n in range(24))
                )
                assert {each.status_code for each in answers} == {200}, [each.text for each in answers]
                found = (await second.get("/Claim?_count=100")).json()["entry"]
                billed = [each for entry in found for each in list_charges(entry["resource"])]
                # The visit with a charge of its own gets no further one from its Procedure.
                assert len(billed) == len(set(billed)) == 2 * number
                assert sum(entry["resource"]["total"]["value"] for entry in found) == number * 145.5


@pytest.mark.external
@pytest.mark.long
async def test_a_server_killed_while_it_assembles_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """200 patients go in ten transactions; the process dies after one of the first, and the request is sent again."""
    path, provider = tmp_path / "fhir.db", {"billing_provider": US}
    url, names = "/Claim/$assemble?start=2026-03-02&end=2026-03-02", [f"p{number}" for number in range(200)]
    made = [each for name in names for each in (*patient(name), charge(name, name))]
    with serving_process(path, **provider) as one:
        async with one.client() as client:
            entries = [
                {"resource": each, "request": {"method": "PUT", "url": f"{each['resourceType']}/{each['id']}"}}
                for each in [*parties(), *made]
            ]
            bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
            assert (await client.post("/", json=bundle)).status_code == 200
            asked = asyncio.ensure_future(client.post(url))
            while not (await client.get("/Claim?_summary=count")).json()["total"]:
                await asyncio.sleep(0.005)
            one.kill()
            with suppress(httpx.HTTPError):
                await asked
    with serving_process(path, **provider) as again:
        async with again.client() as client:
            before = (await client.get("/Claim?_summary=count")).json()["total"]
            assert 0 < before < 200 and before % 20 == 0
            answer = await client.post(url)
            assert answer.status_code == 200
            found = (await client.get("/Claim?_count=1000")).json()["entry"]
            billed = sorted(each for entry in found for each in list_charges(entry["resource"]))
            assert billed == sorted(f"ChargeItem/{name}" for name in names)
            assert len(claims(answer)) == 200


class HideSent(AllowAll):
    """Claims that are drafts are all that may be seen of claims."""

    def restricts(self, principal: Principal) -> bool:
        return True

    def restriction(self, principal: Principal, type: str) -> Clause:
        return StartsWith("status", "draft\x1f") if type == "Claim" else EVERYTHING


async def test_a_refusal_names_no_claim_that_is_hidden(known: Knowledge) -> None:
    """The charge is billed by a claim that the caller may not see, and so is the control number taken by it."""
    number = {"system": codes.PATIENT_CONTROL_NUMBER, "value": "A1"}
    async with practice(known) as open_clinic:
        await store(open_clinic, [charge("1", "a")])
        (claim,) = claims(await assemble(open_clinic, patient="Patient/a"))
    secret = {**{key: value for key, value in claim.items() if key != "meta"}, "id": "secret", "status": "active"}
    seams = Seams(clock=Clock("2026-03-02T12:00:00Z"), policy=HideSent())
    async with serving(known, seams, store="memory://", billing_provider=US) as client:
        await store(client, [*parties(), charge("1", "a"), {**secret, "identifier": [number]}])
        assert (await client.get("Claim/secret")).status_code == 404
        second = {**secret, "id": "second", "status": "draft", "identifier": []}
        del second["identifier"]
        refused = await client.fhir("PUT", "Claim/second", json=second)
        assert refused.status_code == 422 and "is billed by another Claim already" in sentence(refused)
        bare = {**second, "identifier": [number], "item": [{**second["item"][0], "extension": []}]}
        del bare["item"][0]["extension"]
        taken = await client.fhir("PUT", "Claim/second", json=bare)
        assert taken.status_code == 422 and "Another Claim has the patient control number `A1`" in sentence(taken)
        freed = await client.fhir("PUT", "ChargeItem/1", json={**charge("1", "a"), "status": "billable"})
        assert freed.status_code == 422 and "is billed by another Claim." in sentence(freed)
        assert "secret" not in refused.text + taken.text + freed.text
