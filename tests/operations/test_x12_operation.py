"""`$x12`: what answers an 835, what is refused with which code, and what is kept (X12.5 TA1, 005010X231A1)."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fhir_server.app import Knowledge
from fhir_server.requests.request import Caller
from fhir_server.workers.formats import INTERPRETERS
from fhir_server.workers.message_log import replay
from fhir_server.workers.messages import Received
from mappers.x12.structure import check_interchange
from tests.conftest import Client, serving
from tests.mappers.x12.test_x12_oracles import validate_by_pyx12
from tests.mappers.x12.test_x12_tokenizer import isa
from tests.workers.x12_files import X12, file, group, pick, post, remittance, wrap, write_plan

pytestmark = pytest.mark.anyio

FHIR = "application/fhir+json"


@pytest.fixture
async def client(known: Knowledge, store_uri: str, tmp_path: Path) -> AsyncIterator[Client]:
    async with serving(known, store=store_uri, profiles=write_plan(tmp_path)) as client:
        yield client


async def find(client: Client, search: str) -> list[dict[str, Any]]:
    answer = (await client.fhir("GET", search)).json()
    return [each["resource"] for each in answer.get("entry", ())]


async def test_an_835_is_drafted_and_answered_with_a_999(client: Client) -> None:
    """IK5 A and AK9 A: 005010X231A1; the envelope's sides are exchanged."""
    answer = await post(client, file(group(remittance())))
    assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (202, "application/EDI-X12")
    assert check_interchange(answer.text) == ()
    assert answer.text[35:69].split("*")[0].strip() == "RECEIVER" and "*ZZ*SENDER         *" in answer.text
    assert pick(answer, "TA1", "AK1", "AK2", "IK5", "AK9") == [
        "AK1*HP*1*005010X221A1", "AK2*835*0001", "IK5*A", "AK9*A*1*1*1",
    ]  # fmt: skip
    (payment,) = await find(client, "PaymentReconciliation")
    assert (payment["status"], payment["paymentIdentifier"]["value"]) == ("draft", "T1")
    (task,) = await find(client, "Task?code=message-intake")
    assert payment["request"] == {"reference": f"Task/{task['id']}"}
    kept = (await client.fhir("GET", f"Binary/{task['id']}", headers={"Accept": FHIR})).json()
    assert base64.b64decode(kept["data"]).decode() == file(group(remittance()))


async def test_ta1_is_said_where_isa14_asks_for_it(client: Client) -> None:
    header = isa().replace("*0*T*", "*1*T*")
    answer = await post(client, file(group(remittance()), header=header))
    assert pick(answer, "TA1") == ["TA1*000000001*260115*1200*A*000"]
    assert check_interchange(answer.text) == ()


async def test_what_comes_again_gets_what_was_stored_and_posts_once(client: Client) -> None:
    """Also in another envelope and under other numbers: the same remittance has one draft."""
    first = await post(client, file(group(remittance())))
    again = await post(client, file(group(remittance())))
    assert pick(again, "AK2", "IK5", "AK9") == pick(first, "AK2", "IK5", "AK9")
    other = await post(client, file(group(remittance("0007"), number="9"), number="000000002"))
    assert pick(other, "IK5") == ["IK5*A"]
    assert len(await find(client, "PaymentReconciliation")) == 1
    assert len(await find(client, "Task?code=message-intake")) == 2


async def test_fhir_answers_with_the_tasks_in_their_order(client: Client) -> None:
    sets = [remittance("0001"), remittance("0002", trace="T2").replace("SE*14", "SE*15")]
    answer = await post(client, file(group(*sets)), accept=FHIR)
    bundle = answer.json()
    tasks = [each["resource"] for each in bundle["entry"]]
    assert (bundle["type"], [each["status"] for each in tasks]) == ("collection", ["completed", "rejected"])
    assert "SE01 declares `15` segments but 14" in tasks[1]["statusReason"]["text"]
    assert bundle["entry"][0]["fullUrl"].endswith(f"/Task/{tasks[0]['id']}")


async def test_posted_by_many_at_once_a_set_is_drafted_once(known: Knowledge, tmp_path: Path) -> None:
    """Four times the same file and four times in another envelope, over two servers on one store."""
    settings = {"store": f"sqlite:///{tmp_path}/fhir.db", "profiles": write_plan(tmp_path)}
    async with serving(known, None, **settings) as one, serving(known, None, **settings) as other:
        files = [file(group(remittance()))] * 4 + [
            file(group(remittance(number), number="9"), number=f"00000001{number[-1]}")
            for number in ("0002", "0003", "0004", "0005")
        ]
        clients = (one, other) * 4
        answers = await asyncio.gather(*(post(*each) for each in zip(clients, files, strict=True)))
        assert [pick(each, "IK5") for each in answers] == [["IK5*A"]] * 8
        assert len(await find(one, "PaymentReconciliation")) == 1
        assert len(await find(other, "Task?code=message-intake")) == 5


async def test_answers_are_what_another_program_takes(client: Client) -> None:
    """pyx12 validates TA1 and 999 by maps of its own."""
    bad = remittance("0002", trace="T2").replace("DTM*405*20260302", "DTM*405*20260332")
    header = isa().replace("*0*T*", "*1*T*")
    answer = await post(
        client, file(group(remittance(), bad, remittance("0003").replace("SE*14", "SE*3")), header=header)
    )
    assert pick(answer, "IK5") == ["IK5*A", "IK5*E*5", "IK5*R*4"]
    assert validate_by_pyx12(answer.text) == []


WRONG_SETS = {
    "a count that is wrong": (remittance().replace("SE*14", "SE*13"), ["IK5*R*4"]),
    "numbers that differ": (remittance().replace("SE*14*0001", "SE*14*0002"), ["IK5*R*3"]),
    "no SE": (remittance().partition("SE*")[0], ["IK5*R*2"]),
    "no number": (remittance("").replace("ST*835*~", "ST*835~"), ["IK5*R*7"]),
    "an unknown set": (wrap("834", "0001", "BGN*00*1*20260101~", "005010X220A1"), ["IK5*R*1"]),
    "an unknown version": (remittance().replace("ST*835*0001", "ST*835*0001*005010X999"), ["IK5*R*1"]),
    "a claim": (wrap("837", "0001", "BHT*0019*00*1*20260101*1200*CH~", "005010X222A1"), ["IK5*R*1"]),
    "a question": (wrap("270", "0001", "BHT*0022*13*1*20260101*1200~", "005010X279A1"), ["IK5*R*1"]),
    "another question": (wrap("276", "0001", "BHT*0010*13*1*20260101*1200~", "005010X212"), ["IK5*R*1"]),
}


@pytest.mark.parametrize("name", WRONG_SETS)
async def test_a_wrong_set_is_refused_with_its_code_and_kept_and_stops_no_other(client: Client, name: str) -> None:
    text, expected = WRONG_SETS[name]
    answer = await post(client, file(group(text, remittance("0009", trace="T9"))))
    assert pick(answer, "IK5") == [*expected, "IK5*A"] and pick(answer, "AK9") == ["AK9*P*2*2*1"]
    assert check_interchange(answer.text) == ()
    (refused,) = await find(client, "Task?business-status=refused")
    kept = (await client.fhir("GET", f"Binary/{refused['id']}", headers={"Accept": FHIR})).json()
    assert text in base64.b64decode(kept["data"]).decode()
    assert [each["paymentIdentifier"]["value"] for each in await find(client, "PaymentReconciliation")] == ["T9"]


WRONG_ENVELOPES = {
    "a count of groups": (file(group(remittance())).replace("IEA*1", "IEA*2"), "021"),
    "no IEA": (file(group(remittance())).partition("IEA")[0], "023"),
    "another number": (file(group(remittance())).replace("IEA*1*000000001", "IEA*1*000000002"), "001"),
    "a sender that nobody names": (file(group(remittance())).replace("SENDER  ", "STRANGER"), "006"),
    "another receiver": (file(group(remittance())).replace("RECEIVER", "NEIGHBOR"), "008"),
    "a test in place of production": (file(group(remittance())).replace("*0*T*", "*0*P*"), "020"),
    "an ISA that is too short": (file(group(remittance())).replace("SENDER  ", "SENDER "), "006"),
    "a segment outside of sets": (file(group(remittance()) + "REF*1~"), "022"),
}


@pytest.mark.parametrize("name", WRONG_ENVELOPES)
async def test_a_wrong_interchange_is_refused_whole_by_ta1(client: Client, name: str) -> None:
    """Its sets are kept, none is posted, and no 999 is said; once mended, the set is taken."""
    text, code = WRONG_ENVELOPES[name]
    answer = await post(client, text)
    assert pick(answer, "TA1", "AK1", "IK5") == [f"TA1*000000001*260115*1200*R*{code}"]
    assert check_interchange(answer.text) == ()
    assert await find(client, "PaymentReconciliation") == []
    (task,) = await find(client, "Task?business-status=refused")
    assert task["statusReason"]["text"].startswith("Its envelope was refused: ")
    told = (await post(client, text, accept=FHIR)).json()["entry"][-1]["resource"]
    assert told["resourceType"] == "OperationOutcome"
    assert pick(await post(client, file(group(remittance()))), "IK5") == ["IK5*A"]


async def test_a_wrong_group_is_refused_whole_by_its_999(client: Client) -> None:
    wrong = group(remittance("0001")).replace("GE*1*1", "GE*2*1")
    answer = await post(client, file(wrong, group(remittance("0002", trace="T2"), number="2")))
    assert pick(answer, "AK1", "AK2", "AK9") == [
        "AK1*HP*1*005010X221A1", "AK9*R*2*1*0*5", "AK1*HP*2*005010X221A1", "AK2*835*0002", "AK9*A*1*1*1",
    ]  # fmt: skip
    assert check_interchange(answer.text) == ()
    assert [each["paymentIdentifier"]["value"] for each in await find(client, "PaymentReconciliation")] == ["T2"]


async def test_what_was_refused_is_read_again_by_a_replay_under_its_own_task(client: Client) -> None:
    """What identifies a set is the hash of ST to SE, whatever is kept around it."""
    await post(client, file(group(remittance(), remittance(trace="T2"))))
    (task,) = await find(client, "Task?business-status=refused")
    context = client.server.context
    received = await replay(context, Caller("http://test/fhir"), task, INTERPRETERS)
    assert isinstance(received, Received)
    assert (received.id, received.state) == (task["id"], "acknowledged")
    assert received.acknowledgement.endswith(b"IK5*A~")
    assert {each["paymentIdentifier"]["value"] for each in await find(client, "PaymentReconciliation")} == {"T1", "T2"}


@pytest.mark.parametrize("accept", [X12, FHIR])
async def test_202_says_where_the_posting_of_an_835_goes_on(client: Client, accept: str) -> None:
    """202 for the request that drafts it, 200 for the same again; what posts nothing is 200 as well."""
    first = await post(client, file(group(remittance())), accept)
    assert first.status_code == 202 and first.headers["location"] == first.headers["content-location"]
    draft = (await client.get(first.headers["location"])).json()
    assert (draft["resourceType"], draft["status"], draft["outcome"]) == ("PaymentReconciliation", "draft", "queued")
    again = await post(client, file(group(remittance())), accept)
    elsewhere = await post(client, file(group(remittance("0007"), number="7"), number="000000007"), accept)
    unbalanced = await post(client, file(group(remittance("0002", amount="81", trace="T2"))), accept)
    for answer in (again, elsewhere, unbalanced):
        assert answer.status_code == 200 and "content-location" not in answer.headers


async def test_202_of_several_835s_is_a_search_of_them(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    sets = [remittance(f"000{n}", trace=f"T{n}") for n in (1, 2, 3)]
    answer = await post(client, file(group(*sets, remittance("0004", amount="81", trace="T4"))))
    assert answer.status_code == 202 and "location" not in answer.headers
    found = (await client.get(answer.headers["content-location"])).json()["entry"]
    assert sorted(each["resource"]["paymentIdentifier"]["value"] for each in found) == ["T1", "T2", "T3"]
    monkeypatch.setattr("fhir_server.operations.x12.x12._MOST_NAMED", 1)
    more = [remittance(f"000{n}", trace=f"U{n}") for n in (1, 2)]
    answer = await post(client, file(group(*more, number="2"), number="000000002"))
    found = (await client.get(answer.headers["content-location"])).json()["entry"]
    assert len(found) == 5 and all(each["resource"]["outcome"] == "queued" for each in found)


async def test_a_number_that_stands_twice_in_its_group_refuses_the_second(client: Client) -> None:
    answer = await post(client, file(group(remittance(), remittance(trace="T2"))))
    assert pick(answer, "IK5") == ["IK5*A", "IK5*R*23"]
    assert len(await find(client, "PaymentReconciliation")) == 1


async def test_faults_of_elements_are_told_and_accepted(client: Client) -> None:
    answer = await post(client, file(group(remittance().replace("DTM*405*20260302", "DTM*405*20260332"))))
    assert pick(answer, "IK3", "IK4", "IK5") == ["IK3*DTM*4*ST*8", "IK4*2**8*20260332", "IK5*E*5"]
    (task,) = await find(client, "Task?business-status=acknowledged")
    assert task["contained"][0]["issue"][0]["expression"] == ["ST/DTM/02"]


async def test_what_does_not_balance_is_accepted_by_the_999_and_not_drafted(client: Client) -> None:
    """A 999 is about the syntax; that BPR02 is not what the claims pay is told by a Task."""
    answer = await post(client, file(group(remittance(amount="81"))))
    assert pick(answer, "IK5") == ["IK5*A"]
    assert await find(client, "PaymentReconciliation") == []
    (task,) = await find(client, "Task?code=remittance")
    assert "1.00 too much" in str(task)


async def test_a_999_is_never_answered(client: Client) -> None:
    said = wrap("999", "0001", "AK1*HC*1*005010X222A1~AK9*A*1*1*1~", "005010X231A1")
    answer = await post(client, file(group(said, code="FA", version="005010X231A1")))
    assert (answer.status_code, answer.content) == (204, b"")


NO_FILES = ["", "junk", "ISA", "ISA*00*", "{}", "\x00\x1a", "ST*835*1~SE*2*1~", file(group(remittance())) + "more"]


@pytest.mark.parametrize("text", NO_FILES)
async def test_bytes_of_no_interchange_are_refused_before_anything_is_stored(client: Client, text: str) -> None:
    answer = await post(client, text)
    assert (answer.status_code, answer.json()["resourceType"]) == (400, "OperationOutcome")
    assert await find(client, "Task") == []


async def test_too_many_sets_are_refused_before_one_is_stored(client: Client) -> None:
    answer = await post(client, file(group(*(remittance(f"{number:04}") for number in range(500)))))
    assert (answer.status_code, answer.json()["issue"][0]["code"]) == (413, "too-costly")
    assert await find(client, "Task") == []


@pytest.mark.parametrize(("limit", "value"), [("SET_BYTES", 5000), ("SET_CLAIMS", 50)])
async def test_a_set_that_is_too_large_is_refused_and_kept(
    client: Client, monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    monkeypatch.setattr(f"mappers.x12.envelope.{limit}", value)
    large = remittance("0001", trace="T2").replace("SE*14", "CLP*PCN*1*0*0**12*I~" * 300 + "SE*314")
    answer = await post(client, file(group(large, remittance("0002"))))
    assert pick(answer, "IK5") == ["IK5*R*5", "IK5*A"]
    (task,) = await find(client, "Task?business-status=refused")
    assert "has more than" in task["statusReason"]["text"] and "send it as several sets" in task["statusReason"]["text"]
    kept = (await client.fhir("GET", f"Binary/{task['id']}", headers={"Accept": FHIR})).json()
    assert base64.b64decode(kept["data"]).decode() == file(group(large))


async def test_another_content_type_and_unknown_parameters_are_refused(client: Client) -> None:
    wrong = await client.fhir("POST", "$x12", content=b"{}", headers={"Content-Type": FHIR})
    assert wrong.status_code == 415
    text = file(group(remittance())).replace("SENDER  ", "RELAY   ")
    for query, says in (("?partner=south", "`south`"), ("?sender=1", "`sender`")):
        answer = await post(client, text, query=query)
        assert (answer.status_code, says in answer.text) == (400, True)
    assert pick(await post(client, text, query="?partner=plan"), "IK5") == ["IK5*A"]


async def test_numbers_that_come_again_with_another_text_are_refused_where_the_file_says_so(
    known: Knowledge, tmp_path: Path
) -> None:
    profiles = write_plan(tmp_path, 'duplicate_control_numbers = "refuse"')
    async with serving(known, store="memory://", profiles=profiles) as client:
        assert pick(await post(client, file(group(remittance()))), "IK5") == ["IK5*A"]
        assert pick(await post(client, file(group(remittance(trace="T2")))), "IK5") == ["IK5*R*5"]
