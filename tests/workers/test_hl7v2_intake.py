"""HL7 v2 messages through the message log: stored once, refused with the reason, in the order of their events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fhir_server.app import Knowledge
from fhir_server.workers.hl7v2_intake import split_answers
from tests.conftest import Client, serving
from tests.workers.hl7v2_messages import (
    MRN,
    choose_store,
    code,
    msh,
    north,
    pid,
    read_codes,
    resources,
    segment,
    take,
    visit,
    with_partners,
)

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["memory", "sqlite", "mongo"])
async def client(request: pytest.FixtureRequest, known: Knowledge, tmp_path: Path) -> AsyncIterator[Client]:
    async with serving(known, store=choose_store(request, tmp_path), invariants="enforce") as client:
        with_partners(client, north())
        yield client


@pytest.fixture
async def memory(known: Knowledge) -> AsyncIterator[Client]:
    async with serving(known, store="memory://") as client:
        with_partners(client, north())
        yield client


async def test_a_message_is_stored_with_its_log_and_acknowledged(client: Client) -> None:
    text = msh("ADT^A01", "M1") + "EVN|A01|20240305115900-0600\r" + pid(f7="19700102", f8="F") + visit("V77")
    received = await take(client, text)
    assert (received.state, read_codes(received.acknowledgement)) == ("acknowledged", ["AA"]), received.reason
    assert "MSA|AA|M1\r" in received.acknowledgement.decode()
    (patient,) = await resources(client, "Patient")
    (encounter,) = await resources(client, "Encounter")
    assert patient["identifier"][0] | {"type": None} == {"system": MRN, "value": "123", "type": None}
    assert (encounter["status"], encounter["subject"]["reference"]) == ("in-progress", f"Patient/{patient['id']}")
    (task,) = await resources(client, "Task")
    assert task["for"] == {"reference": f"Patient/{patient['id']}"}
    assert task["groupIdentifier"]["value"] == "north"


async def test_a_message_that_comes_again_gets_the_same_acknowledgement_and_writes_nothing(client: Client) -> None:
    text = msh("ADT^A01", "M1") + pid() + visit("V77")
    first = await take(client, text)
    before = len((await client.fhir("GET", "_history?_count=1000")).json()["entry"])
    again = await asyncio.gather(*(take(client, text) for _ in range(3)))
    assert {each.acknowledgement for each in again} == {first.acknowledgement}
    assert all(each.repeated for each in again)
    assert len((await client.fhir("GET", "_history?_count=1000")).json()["entry"]) == before


async def test_messages_about_one_patient_at_once_leave_the_newest_in_force(client: Client) -> None:
    """Sixteen updates of two patients, in no order, over as many connections; every sex but the last is older."""
    texts = []
    for patient in ("1", "2"):
        for minute in (3, 7, 1, 5, 0, 6, 2, 4):
            time = f"202403051200{minute:02d}-0600"
            texts.append(msh("ADT^A08", f"{patient}-{minute}", time) + pid(patient, f8="F" if minute == 7 else "M"))
    received = await asyncio.gather(*(take(client, text) for text in texts))
    assert {code(each) for each in received} == {"AA"}
    patients = await resources(client, "Patient")
    assert [each["gender"] for each in patients] == ["female", "female"]


async def test_who_many_messages_mention_first_at_once_is_one_resource(client: Client) -> None:
    """Twelve visits of twelve patients with one of two physicians and one of three payers, over as many connections."""
    texts = []
    for number in range(12):
        doctor, payer = f"170000000{number % 2}^WREN^IVO^^^DR^^^NPI", f"PAY{number % 3}^^^PAYERS"
        insurance = segment("IN1", f1="1", f2="PPO", f3=payer, f4=f"PAYER {number % 3}")
        texts.append(msh("ADT^A01", f"M{number}") + pid(str(number)) + visit(f"V{number}", f7=doctor) + insurance)
    received = await asyncio.gather(*(take(client, text) for text in texts))
    assert {code(each) for each in received} == {"AA"}
    counts = {type: len(await resources(client, type)) for type in ("Patient", "Encounter", "Practitioner")}
    assert counts == {"Patient": 12, "Encounter": 12, "Practitioner": 2}
    names = sorted(each["name"] for each in await resources(client, "Organization"))
    assert names == ["NORTH", "PAYER 0", "PAYER 1", "PAYER 2"]


async def test_two_messages_of_one_control_number_at_once_are_told_apart(client: Client) -> None:
    """Of five texts with one control number the first to be stored has no remark, and each other one a duplicate's."""
    texts = [msh("ADT^A08", "SAME") + pid(str(number)) for number in range(5)]
    received = await asyncio.gather(*(take(client, text) for text in texts))
    assert {code(each) for each in received} == {"AA"}
    told = [[issue.code for issue in each.issues].count("duplicate") for each in received]
    assert sorted(told) == [0, 1, 1, 1, 1]


async def test_a_number_of_two_partners_is_two_patients_and_a_later_event_finds_its_visit(memory: Client) -> None:
    """Trap V12."""
    with_partners(memory, north(), north("SOUTH", "urn:oid:9"))
    bare = "PID|1||123||QUILL^ADA\r"
    for facility in ("NORTH", "SOUTH"):
        received = await take(memory, msh("ADT^A01", "1", f4=facility) + bare + visit("V1"))
        assert code(received) == "AA", received.reason
    assert len(await resources(memory, "Patient")) == 2
    await take(memory, msh("ADT^A03", "2", "20240305130000-0600") + bare + visit("V1"))
    statuses = [each["status"] for each in await resources(memory, "Encounter")]
    assert sorted(statuses) == ["finished", "in-progress"]


@pytest.mark.parametrize(
    ("text", "answer", "condition"),
    [
        (msh("ORM^O01") + pid(), "AR", "200"),
        (msh("ADT^A60") + pid(), "AR", "201"),
        (msh("ADT^A08", f12="3.0") + pid(), "AR", "203"),
        (msh("ADT^A08", f11="T") + pid(), "AR", "202"),
        (msh("ADT^A08", f18="UNICODE UTF-16") + pid(), "AR", "103"),
        (msh("ADT^A08", f3="WHO") + pid(), "AR", "207"),
        (msh("ADT^A08"), "AE", "100"),
        (msh("ADT^A08") + "PID|1||||QUILL^ADA\r", "AE", "101"),
        ("PID|1||123\r", "AE", "100"),
        ("", "AE", "100"),
    ],
)
async def test_what_is_refused_is_kept_and_answered_with_the_reason(
    memory: Client, text: str, answer: str, condition: str
) -> None:
    """Trap V19 is the fifth."""
    received = await take(memory, text)
    assert (received.state, code(received)) == ("refused", answer)
    acknowledgement = received.acknowledgement.decode()
    assert f"|{condition}^" in acknowledgement and received.reason
    (task,) = await resources(memory, "Task")
    assert task["statusReason"]["text"] == received.reason
    assert await resources(memory, "Patient") == []


async def test_what_was_refused_is_processed_again(memory: Client) -> None:
    with_partners(memory)
    text = msh("ADT^A08", "M1") + pid()
    assert code(await take(memory, text, "north")) == "AR"
    with_partners(memory, north())
    received = await take(memory, text)
    assert (code(received), received.repeated) == ("AA", False)
    (task,) = await resources(memory, "Task")
    assert task["meta"]["versionId"] == "2"


@pytest.mark.parametrize(
    ("accept", "application", "event", "codes"),
    [
        ("", "", "ADT^A08", ["AA"]),
        ("AL", "AL", "ADT^A08", ["CA", "AA"]),
        ("AL", "NE", "ADT^A08", ["CA"]),
        ("NE", "NE", "ADT^A08", []),
        ("NE", "ER", "ADT^A08", []),
        ("NE", "AL", "ADT^A60", ["AR"]),
        ("AL", "AL", "ADT^A60", ["CR"]),
        ("ER", "ER", "ADT^A60", ["CR"]),
        ("SU", "SU", "ADT^A60", []),
    ],
)
async def test_the_message_says_which_acknowledgements_it_wants(
    memory: Client, accept: str, application: str, event: str, codes: list[str]
) -> None:
    """Trap V20."""
    received = await take(memory, msh(event, f15=accept, f16=application) + pid())
    assert read_codes(received.acknowledgement) == codes
    assert len(split_answers(received.acknowledgement)) == len(codes)


async def test_a_partner_that_knows_one_acknowledgement_gets_one(memory: Client) -> None:
    with_partners(memory, north(acknowledgements="original"))
    assert read_codes((await take(memory, msh("ADT^A08", f15="AL", f16="NE") + pid())).acknowledgement) == ["AA"]


async def test_what_the_validator_refuses_is_ae_with_its_reason(memory: Client) -> None:
    """What a custom field maps wrongly is no fault of the server."""
    field = {"field": "ZPD-1", "resource": "Patient", "path": "gender", "convert": "text"}
    with_partners(memory, north(custom_fields=[field]))
    received = await take(memory, msh("ADT^A08") + pid() + "ZPD|no code of R4\r")
    assert (received.state, code(received)) == ("refused", "AE"), received
    assert "gender" in received.reason and b"207^" in received.acknowledgement


async def test_what_breaks_an_invariant_all_the_same_is_ae_with_its_key_and_can_come_again(
    memory: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mapper takes out what breaks an invariant; if it overlooks one, the write refuses it: per-1 of a stay."""
    text = msh("ADT^A03", "M1") + pid() + visit("V1", f44="20240305", f45="20240303")
    with monkeypatch.context() as overlooking:
        overlooking.setattr("mappers.hl7v2.bundle.mend_resource", lambda resource: (resource, []))
        received = await take(memory, text)
    assert (received.state, code(received)) == ("refused", "AE"), received
    assert "per-1" in received.reason and b"per-1" in received.acknowledgement
    assert await resources(memory, "Encounter") == []
    (task,) = await resources(memory, "Task")
    assert task["statusReason"]["text"] == received.reason
    again = await take(memory, text)
    assert (again.state, code(again), again.repeated) == ("acknowledged", "AA", False), again.reason
    (encounter,) = await resources(memory, "Encounter")
    assert encounter["period"] == {"start": "2024-03-05"}


async def test_results_leave_the_patient_alone_and_a_table_lets_them(memory: Client) -> None:
    """Trap V11."""
    await take(memory, msh("ADT^A08", "1") + pid(f5="QUILL^ADA"))
    oru = pid(f5="QUILL^ADA^X") + "OBR|1|P1|F1|1-1^x^LN\rOBX|1|NM|2-2^y^LN||7|mg|||||F\r"
    received = await take(memory, msh("ORU^R01", "2") + oru)
    assert any("do not change a known Patient" in issue.diagnostics for issue in received.issues)
    (patient,) = await resources(memory, "Patient")
    assert patient["name"][0]["given"] == ["ADA"]
    with_partners(memory, north(permissions={"ORU": {"Patient": "change"}}))
    await take(memory, msh("ORU^R01", "3") + oru)
    (patient,) = await resources(memory, "Patient")
    assert patient["name"][0]["given"] == ["ADA", "X"]
    (observation,) = await resources(memory, "Observation")
    assert observation["valueQuantity"]["value"] == 7


async def test_a_translation_keeps_the_original(memory: Client) -> None:
    """Trap V22."""
    with_partners(memory, north(translations={"PID-16": {"ZZ9": {"system": "urn:x", "code": "W"}}}))
    await take(memory, msh("ADT^A08") + pid(f16="ZZ9^local^L"))
    (patient,) = await resources(memory, "Patient")
    codes = [each["code"] for each in patient["maritalStatus"]["coding"]]
    assert codes == ["W", "ZZ9"]


async def test_segments_that_nothing_maps_are_listed_in_the_task(memory: Client) -> None:
    received = await take(memory, msh("ADT^A08") + pid() + "ZZZ|what is this\r")
    (task,) = await resources(memory, "Task")
    texts = [each["diagnostics"] for each in task["contained"][0]["issue"]]
    assert any("ZZZ" in text for text in texts)
    assert code(received) == "AA" and b"ZZZ" not in received.acknowledgement


async def test_octets_without_a_character_set_are_read_as_latin_1(memory: Client) -> None:
    """Trap V7."""
    await take(memory, msh("ADT^A08").encode() + b"PID|1||7^^^MRN||M\xfcller^Cy\r")
    (patient,) = await resources(memory, "Patient")
    assert patient["name"][0]["family"] == "Müller"


MARITAL = "https://north.example/ConceptMap/marital"


async def test_a_concept_map_translates_as_it_is_stored_and_unknown_codes_stay_and_are_listed(client: Client) -> None:
    with_partners(client, north(concept_maps={"PID-16": MARITAL, "DG1-3": "https://north.example/ConceptMap/absent"}))
    target = {"code": "W", "equivalence": "equivalent", "display": "Widowed"}
    element = [{"code": "ZZ9", "target": [target]}, {"code": "ZZ8", "target": [{"equivalence": "unmatched"}]}]
    group = [{"source": "urn:north", "target": "http://terminology.hl7.org/CodeSystem/v3-MaritalStatus"}]
    group[0]["element"] = element  # type: ignore[assignment]
    concept_map = {"resourceType": "ConceptMap", "id": "marital", "url": MARITAL, "status": "active", "group": group}
    assert (await client.fhir("PUT", "ConceptMap/marital", json=concept_map)).status_code == 201

    async def take_code(value: str, number: str) -> tuple[list[str], list[str]]:
        received = await take(client, msh("ADT^A08", number) + pid(number, f16=f"{value}^local^L"))
        assert code(received) == "AA", received.reason
        (patient,) = await resources(client, f"Patient?identifier={number}")
        told = [
            issue.diagnostics for issue in received.issues if "PID" in issue.diagnostics or "Map" in issue.diagnostics
        ]
        return [each["code"] for each in patient["maritalStatus"]["coding"]], told

    codes, told = await take_code("ZZ9", "1")
    assert codes == ["W", "ZZ9"], "the original is the second coding"
    assert [each for each in told if "ConceptMap/absent` for DG1-3 is not stored" in each]
    codes, told = await take_code("ZZ8", "2")
    assert codes == ["ZZ8"] and any("`ZZ8` of PID-16 is not in the table" in each for each in told)
    target["code"] = "D"
    assert (await client.fhir("PUT", "ConceptMap/marital", json=concept_map)).status_code == 200
    assert (await take_code("ZZ9", "3"))[0] == ["D", "ZZ9"], "a changed map holds from the next message on"
    with_partners(
        client,
        north(concept_maps={"PID-16": MARITAL}, translations={"PID-16": {"ZZ9": {"system": "urn:x", "code": "S"}}}),
    )
    assert (await take_code("ZZ9", "4"))[0] == ["S", "ZZ9"], "the partner's own table wins"
