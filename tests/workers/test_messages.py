"""One intake: a message is stored once with what it says, and what is refused is kept (docs/messages.md)."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from fhir_server.app import Knowledge
from fhir_server.fhir.outcome import Conflict, Unprocessable
from fhir_server.requests.context import Context
from fhir_server.requests.request import Caller
from fhir_server.store.operations import Transaction
from fhir_server.store.protocol import Committed, StoreUnavailable, TooLargeForStore
from fhir_server.workers.interpreters import Interpretation, Interpreter, Refusal, map_alone
from fhir_server.workers.message_deliveries import Delivery, make_delivery, prepare_sending
from fhir_server.workers.message_log import Filters, close, find_messages, preview, read_message, replay
from fhir_server.workers.message_states import move_task
from fhir_server.workers.message_tasks import LARGEST_MESSAGE, IncomingMessage, put
from fhir_server.workers.messages import Received, receive
from fhir_server.writes.deciding import Decision, decide_and_commit
from fhir_server.writes.state import State
from tests.conftest import Client, serving
from tests.workers.plain_messages import INTERPRETERS, PLAIN, message, refuse

pytestmark = pytest.mark.anyio

CALLER = Caller("http://test/fhir")
ROOT = Path(__file__).resolve().parents[2]
TWO_LINES = "patient 4711 Keller\nweight 4711 70.5"


@pytest.fixture(params=["memory", "sqlite", "mongo"])
async def client(request: pytest.FixtureRequest, known: Knowledge, tmp_path: Path) -> AsyncIterator[Client]:
    uris: dict[str, Callable[[], str]] = {
        "memory": lambda: "memory://",
        "sqlite": lambda: f"sqlite:///{tmp_path}/fhir.db",
        "mongo": lambda: request.getfixturevalue("new_mongo_uri")(),
    }
    async with serving(known, store=uris[request.param]()) as client:
        yield client


@pytest.fixture
async def memory(known: Knowledge) -> AsyncIterator[Client]:
    async with serving(known, store="memory://") as client:
        yield client


async def take(client: Client, incoming: IncomingMessage, interpreter: Interpreter = PLAIN) -> Received:
    return await receive(client.server.context, CALLER, incoming, interpreter)


async def resources(client: Client, type: str) -> list[dict[str, Any]]:
    bundle = (await client.fhir("GET", f"{type}?_count=100")).json()
    return [entry["resource"] for entry in bundle.get("entry", ())]


async def versions(client: Client) -> int:
    return len((await client.fhir("GET", "_history?_count=1000")).json()["entry"])


def state(task: dict[str, Any]) -> str:
    code: str = task["businessStatus"]["coding"][0]["code"]
    return code


def part(task: dict[str, Any], code: str) -> list[dict[str, Any]]:
    parts = [*task.get("input", ()), *task.get("output", ())]
    return [each for each in parts if each["type"]["coding"][0]["code"] == code]


async def test_a_message_is_stored_with_what_it_says(client: Client) -> None:
    received = await take(client, message(TWO_LINES))
    (patient,) = await resources(client, "Patient")
    (weight,) = await resources(client, "Observation")
    (task,) = await resources(client, "Task")
    (binary,) = await resources(client, "Binary")
    (provenance,) = await resources(client, "Provenance")
    made = [f"Patient/{patient['id']}", f"Observation/{weight['id']}"]
    assert received.state == "acknowledged" and not received.repeated
    assert base64.b64decode(binary["data"]) == TWO_LINES.encode() and binary["contentType"] == "text/plain"
    assert (task["status"], state(task)) == ("completed", "acknowledged")
    assert task["code"]["coding"][0]["code"] == "message-intake"
    digest = hashlib.sha256(TWO_LINES.encode()).hexdigest()
    assert task["identifier"][0]["value"] == f"lab/0001/{digest}"
    assert task["for"] == {"reference": made[0]}
    assert part(task, "text")[0]["valueReference"] == {"reference": f"Binary/{binary['id']}"}
    assert [each["valueReference"]["reference"] for each in part(task, "result")] == made
    assert base64.b64decode(part(task, "acknowledgement")[0]["valueBase64Binary"]) == received.acknowledgement
    assert [each["reference"] for each in provenance["target"]] == made
    assert provenance["entity"][0]["what"]["reference"] == f"Binary/{binary['id']}"
    for query in (f"output=Patient/{patient['id']}", f"input=Binary/{binary['id']}"):
        assert (await client.fhir("GET", f"Task?{query}")).json()["entry"][0]["resource"]["id"] == task["id"]


async def test_a_message_that_comes_three_times_is_one_task_and_one_acknowledgement(client: Client) -> None:
    first = await take(client, message(TWO_LINES))
    before = await versions(client)
    again = [await take(client, message(TWO_LINES)) for _ in range(2)]
    assert [each.acknowledgement for each in again] == [first.acknowledgement] * 2
    assert all(each.repeated for each in again)
    assert await versions(client) == before
    assert len(await resources(client, "Task")) == 1


async def test_a_message_that_comes_eight_times_at_once_is_one_task_and_one_acknowledgement(client: Client) -> None:
    received = await asyncio.gather(*(take(client, message(TWO_LINES)) for _ in range(8)))
    assert len({each.acknowledgement for each in received}) == 1
    assert [each.repeated for each in received].count(False) == 1
    for type in ("Task", "Binary", "Provenance", "Patient", "Observation"):
        assert len(await resources(client, type)) == 1


async def test_two_contexts_on_mongo_make_one_task(known: Knowledge, new_mongo_uri: Callable[[], str]) -> None:
    await race_two_contexts(known, new_mongo_uri())


async def test_two_contexts_on_sqlite_make_one_task(known: Knowledge, tmp_path: Path) -> None:
    await race_two_contexts(known, f"sqlite:///{tmp_path}/fhir.db")


async def race_two_contexts(known: Knowledge, uri: str) -> None:
    """Ten messages, each delivered by both servers at once, three times each."""
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(serving(known, store=uri)) for _ in range(2)]
        for number in range(10):
            incoming = message(f"patient {number} Keller\nweight {number} 70", number=str(number))
            received = await asyncio.gather(*(take(server, incoming) for server in servers * 3))
            assert len({each.acknowledgement for each in received}) == 1
        assert len(await resources(servers[0], "Task")) == len(await resources(servers[0], "Observation")) == 10


PROCESS = """
import asyncio, sys
from fhir_server.app import open_server
from fhir_server.requests.request import Caller
from fhir_server.settings import Settings
from fhir_server.workers.messages import receive
from tests.workers.plain_messages import PLAIN, message

async def main():
    async with open_server(Settings(store=sys.argv[1]), log=lambda *_, **__: None, create=True) as server:
        print("ready", flush=True)
        sys.stdin.readline()
        for number in range(20):
            text = f"patient {number} Keller\\nweight {number} 70"
            received = await receive(server.context, Caller("http://test/fhir"), message(text, str(number)), PLAIN)
            print(received.id, received.acknowledgement.decode(), sys.argv[2] * (not received.repeated), flush=True)

asyncio.run(main())
"""


async def test_two_processes_on_sqlite_take_each_message_once(known: Knowledge, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/fhir.db"
    pipe = asyncio.subprocess.PIPE
    processes = []
    for name in "ab":
        arguments = (sys.executable, "-c", PROCESS, uri, name)
        processes.append(await asyncio.create_subprocess_exec(*arguments, cwd=ROOT, stdin=pipe, stdout=pipe))
        assert processes[-1].stdout is not None
        assert await asyncio.wait_for(processes[-1].stdout.readline(), 60) == b"ready\n"
    answers = await asyncio.wait_for(asyncio.gather(*(each.communicate(b"\n") for each in processes)), 120)
    first, second = (output.decode().splitlines() for output, _ in answers)
    assert len(first) == 20
    assert [line.split()[:4] for line in first] == [line.split()[:4] for line in second]
    owners = [line.split()[4:] for line in (*first, *second)]
    assert sum(map(len, owners)) == 20
    async with serving(known, store=uri) as client:
        assert len(await resources(client, "Task")) == len(await resources(client, "Observation")) == 20


async def test_what_is_refused_is_kept_and_tried_again(client: Client) -> None:
    """The weight is of a patient that the message lacks: the store refuses the whole."""
    stranger = message(
        'entry {"resource": {"resourceType": "Observation", "status": "final", "code": {"text": "w"}, '
        '"subject": {"reference": "Patient/9"}}, "request": {"method": "POST", "url": "Observation"}}'
    )
    received = await take(client, stranger)
    assert received.state == "refused" and "Patient/9" in received.reason
    assert received.acknowledgement == refuse(stranger, received.reason)
    (task,) = await resources(client, "Task")
    assert (task["status"], state(task), task["statusReason"]["text"]) == ("rejected", "refused", received.reason)
    assert base64.b64decode((await resources(client, "Binary"))[0]["data"]) == stranger.raw
    assert await resources(client, "Observation") == []
    await client.put("Patient/9", json={"resourceType": "Patient", "id": "9"})
    received = await take(client, stranger)
    assert received.state == "acknowledged"
    (task,) = await resources(client, "Task")
    assert state(task) == "acknowledged" and "statusReason" not in task and task["meta"]["versionId"] == "2"
    assert len(await resources(client, "Observation")) == 1


async def test_a_refusal_of_the_interpreter_is_kept(client: Client) -> None:
    received = await take(client, message("refuse this"))
    assert received.state == "refused" and received.reason == "The line `refuse this` is not taken."
    (task,) = await resources(client, "Task")
    assert state(task) == "refused" and len(await resources(client, "Binary")) == 1


async def test_a_broken_interpreter_loses_nothing(client: Client) -> None:
    received = await take(client, message("patient 1 Keller\nfault x"))
    assert received.state == "refused" and "KeyError" in received.reason and received.acknowledgement
    assert await resources(client, "Patient") == [] and len(await resources(client, "Binary")) == 1


async def test_an_interpreter_that_can_not_even_refuse_loses_nothing(memory: Client) -> None:
    def breaks(*_: object) -> Any:
        raise ValueError("broken")

    received = await take(memory, message("patient 1 Keller"), Interpreter(map_alone(breaks), breaks))
    assert received.state == "refused" and received.acknowledgement == b""
    assert "No acknowledgement could be written" in received.reason
    assert len(await resources(memory, "Binary")) == 1


async def test_the_same_number_with_another_text_is_another_message_with_a_warning(client: Client) -> None:
    first = await take(client, message("patient 1 Keller"))
    second = await take(client, message("patient 2 Meier"))
    assert second.state == "acknowledged" and first.issues == ()
    (issue,) = second.issues
    assert issue.severity == "warning" and f"Task/{first.id}" in issue.diagnostics
    tasks = await resources(client, "Task")
    assert len(tasks) == 2
    assert [len(task.get("contained", ())) for task in tasks if task["id"] == second.id] == [1]
    other = await take(client, message("patient 3 Huber", partner="clinic"))
    assert other.issues == ()


async def test_a_partner_that_never_gives_a_number_twice_is_refused(client: Client) -> None:
    await take(client, message("patient 1 Keller", refuse_reused=True))
    second = await take(client, message("patient 2 Meier", refuse_reused=True))
    assert second.state == "refused" and "has sent the control number `0001` before" in second.reason
    assert len(await resources(client, "Patient")) == 1 and len(await resources(client, "Binary")) == 2


async def test_a_corrected_text_may_have_the_number_of_one_that_was_refused(memory: Client) -> None:
    assert (await take(memory, message("refuse it", refuse_reused=True))).state == "refused"
    assert (await take(memory, message("patient 2 Meier", refuse_reused=True))).state == "acknowledged"


async def test_of_two_texts_with_one_number_at_once_one_is_warned_of(client: Client) -> None:
    texts = [f"patient {number} Keller" for number in range(4)]
    received = await asyncio.gather(*(take(client, message(text)) for text in texts))
    assert [len(each.issues) for each in received].count(0) == 1


async def test_of_several_texts_with_one_number_at_once_one_is_taken_where_the_partner_says_so(client: Client) -> None:
    texts = [f"patient {number} Keller" for number in range(4)]
    received = await asyncio.gather(*(take(client, message(text, refuse_reused=True)) for text in texts))
    assert [each.state for each in received].count("acknowledged") == 1


@pytest.mark.parametrize("number", ["", " ", "a|b,c$d\\e", "\x00\x0b\r", "x" * 5000, "ü/ß"])
async def test_any_control_number_is_kept(client: Client, number: str) -> None:
    received = [await take(client, message("patient 1 Keller", number)) for _ in range(2)]
    assert [each.repeated for each in received] == [False, True]
    assert len(await resources(client, "Task")) == 1


async def test_a_text_that_is_too_large_is_known_by_its_hash_and_its_beginning(
    memory: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fhir_server.workers.messages.LARGEST_MESSAGE", 1000)
    large = message("patient 1 Keller\n" * 100)
    received = await take(memory, large)
    assert received.state == "refused" and "longer than 1000 bytes" in received.reason
    (task,) = await resources(memory, "Task")
    assert base64.b64decode(part(task, "beginning")[0]["valueBase64Binary"]) == large.raw[:256]
    assert task["identifier"][0]["value"].endswith(hashlib.sha256(large.raw).hexdigest())
    assert await resources(memory, "Binary") == []


async def test_the_largest_message_fits_every_store(client: Client) -> None:
    text = "refuse " + "x" * (LARGEST_MESSAGE - 7)
    refused = Interpreter(map_alone(lambda _: Refusal("It is not taken.", b"no")), lambda *_: b"no")
    received = await take(client, message(text), refused)
    assert received.state == "refused" and received.reason == "It is not taken."
    assert base64.b64decode((await resources(client, "Binary"))[0]["data"]) == text.encode()


async def test_what_is_too_large_for_the_store_leaves_its_hash(memory: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    store, transact = memory.server.context.unrestricted, memory.server.context.unrestricted.transact

    async def small(transaction: Transaction) -> Committed:
        if any(write.type == "Binary" for write in transaction.writes):
            raise TooLargeForStore("The document is larger than the store takes.")
        return await transact(transaction)

    monkeypatch.setattr(store, "transact", small)
    received = await take(memory, message("patient 1 Keller"))
    assert received.state == "refused" and "larger than the store takes" in received.reason
    (task,) = await resources(memory, "Task")
    assert len(part(task, "beginning")) == 1 and await resources(memory, "Patient") == []


CALLS = ("transact", "read", "read_many", "search")


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_a_crash_at_any_call_of_the_store_loses_and_doubles_nothing(
    memory: Client, monkeypatch: pytest.MonkeyPatch, name: str, after: bool
) -> None:
    """The n-th call of each kind fails, before or after its work: delivered again, the message is there once."""
    store = memory.server.context.unrestricted
    original = getattr(store, name)
    for position in range(6):
        calls = 0

        async def failing(*arguments: Any, position: int = position, **named: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == position + 1 and not after:
                raise StoreUnavailable("The disk is full.")
            result = await original(*arguments, **named)
            if calls == position + 1:
                raise StoreUnavailable("The disk is full.")
            return result

        incoming = message(f"patient {position + 1} Keller\nweight {position + 1} 70", str(position))
        monkeypatch.setattr(store, name, failing)
        with suppress(StoreUnavailable):
            await take(memory, incoming)
        monkeypatch.setattr(store, name, original)
        patients = await resources(memory, "Patient")
        assert len(patients) in (position, position + 1)
        assert len(await resources(memory, "Observation")) == len(patients) == len(await resources(memory, "Task"))
        assert (await take(memory, incoming)).state == "acknowledged"
        for type in ("Patient", "Observation", "Task", "Binary", "Provenance"):
            assert len(await resources(memory, type)) == position + 1


async def test_a_patient_that_is_there_is_named_and_deletions_are_told(memory: Client) -> None:
    await memory.put(
        "Slot/1",
        json={
            "resourceType": "Slot",
            "id": "1",
            "status": "free",
            "schedule": {"display": "x"},
            "start": "2026-01-01T08:00:00Z",
            "end": "2026-01-01T09:00:00Z",
        },
    )
    await take(memory, message("patient 1 Keller"))
    (patient,) = await resources(memory, "Patient")
    text = 'patient 1 Keller\nentry {"request": {"method": "DELETE", "url": "Slot/1"}}'
    received = await take(memory, message(text, "0002"))
    assert received.state == "acknowledged"
    (task,) = [each for each in await resources(memory, "Task") if each["id"] == received.id]
    assert task["for"]["reference"] == f"Patient/{patient['id']}"
    assert [each["valueString"] for each in part(task, "deletion")] == ["DELETE Slot/1"]


async def test_messages_are_found_by_what_they_are_known_by(client: Client) -> None:
    context = client.server.context
    await take(client, message("patient 1 Keller", "a|1"))
    await take(client, message("refuse this", "2", partner="clinic"))
    (patient,) = await resources(client, "Patient")

    async def found(**filters: str) -> list[str]:
        tasks, more = await find_messages(context, CALLER, Filters(**filters), 10)
        assert not more
        return sorted(task["groupIdentifier"]["value"] for task in tasks)

    assert await found() == ["clinic", "lab"]
    assert await found(partner="lab") == ["lab"]
    assert await found(state="refused") == ["clinic"]
    assert await found(number="a|1") == ["lab"]
    assert await found(patient=f"Patient/{patient['id']}") == ["lab"]
    assert await found(since="2020-01-01") == ["clinic", "lab"]
    assert await found(until="2020-01-01") == []
    assert (await find_messages(context, CALLER, Filters(), 1))[1]


async def test_a_replay_interprets_again(client: Client) -> None:
    context = client.server.context
    refused = await take(client, message("refuse this"))
    task = await read_message(context, CALLER, refused.id)
    taken = {"plain": Interpreter(map_alone(lambda _: Interpretation((), b"taken")), refuse)}
    before = await versions(client)
    said = await preview(context, CALLER, task, taken)
    assert isinstance(said, Interpretation) and await versions(client) == before
    received = await replay(context, CALLER, task, taken)
    assert isinstance(received, Received)
    assert (received.id, received.state) == (refused.id, "acknowledged")
    assert len(await resources(client, "Task")) == 1
    task = await read_message(context, CALLER, refused.id)
    with pytest.raises(Conflict, match="was accepted"):
        await replay(context, CALLER, task, INTERPRETERS)
    again = await replay(context, CALLER, task, INTERPRETERS, again=True)
    assert isinstance(again, Received) and again.state == "refused"
    assert state((await resources(client, "Task"))[0]) == "acknowledged"


async def test_a_person_closes_what_was_refused_and_nothing_that_was_taken(memory: Client) -> None:
    context = memory.server.context
    refused, taken = await take(memory, message("refuse this")), await take(memory, message("patient 1 Keller", "2"))
    closed = await close(context, CALLER, refused.id, "The lab has sent a corrected one.")
    assert (closed["status"], closed["statusReason"]["text"]) == ("cancelled", "The lab has sent a corrected one.")
    with pytest.raises(Conflict, match="cannot become `closed`"):
        await close(context, CALLER, taken.id, "x")
    with pytest.raises(Conflict, match="with a reason"):
        await close(context, CALLER, refused.id, " ")


async def add_delivery(context: Context, delivery: Delivery) -> int:
    async def decide(reads: State) -> Decision[int]:
        actions = await make_delivery(reads, delivery)
        return Decision(len(actions), actions)

    return (await decide_and_commit(context, CALLER, decide)).answer


async def test_a_delivery_is_sent_to_where_its_partner_is(known: Knowledge, tmp_path: Path) -> None:
    (tmp_path / "partners").mkdir()
    (tmp_path / "out").mkdir()
    file = f'name = "lab"\nformats = ["hl7v2"]\n[transports.folder]\nout = "{tmp_path}/out"\nsuffix = ".hl7"\n'
    (tmp_path / "partners" / "lab.toml").write_text(file)
    async with serving(known, store="memory://", profiles=str(tmp_path)) as client:
        context = client.server.context
        await client.put("Patient/1", json={"resourceType": "Patient", "id": "1"})
        await add_delivery(context, Delivery("lab", "hl7v2", "folder", "Patient/1", 1, "77", b"MSH|x\r", "text/plain"))
        await add_delivery(context, Delivery("lab", "hl7v2", "pigeon", "Patient/1", 2, "78", b"MSH|y\r", "text/plain"))
        await add_delivery(context, Delivery("gone", "hl7v2", "folder", "Patient/1", 2, "79", b"MSH|z\r", "text/plain"))
        tasks = {task["identifier"][1]["value"]: task for task in await resources(client, "Task")}
        transport, endpoint, number, payload = await prepare_sending(context, tasks["77"])
        assert (await transport.deliver(endpoint, number, payload)).outcome == "delivered"
        assert (tmp_path / "out" / "77.hl7").read_bytes() == b"MSH|x\r"
        for number, says in (("78", "no transport `pigeon`"), ("79", "no partner `gone`")):
            with pytest.raises(Unprocessable, match=says):
                await prepare_sending(context, tasks[number])


async def test_a_delivery_exists_once_for_partner_resource_and_version(client: Client) -> None:
    await client.put("Patient/1", json={"resourceType": "Patient", "id": "1"})
    delivery = Delivery(
        "lab", "hl7v2", "folder", "Patient/1", 1, "77", b"MSH|x\r", "x-application/hl7-v2+er7", "Patient/1"
    )
    context = client.server.context
    made = await asyncio.gather(*(add_delivery(context, delivery) for _ in range(4)))
    assert sorted(made) == [0, 0, 0, 2]
    (task,) = await resources(client, "Task")
    assert (task["status"], state(task)) == ("requested", "waiting")
    assert task["identifier"][0]["value"] == "lab/Patient/1/1" and task["focus"]["reference"] == "Patient/1/_history/1"
    assert json.loads((await client.fhir("GET", "Binary?_count=5")).text)["entry"][0]["resource"]["id"] == task["id"]


async def test_what_a_message_made_may_be_deleted_and_its_task_is_found_and_changed_as_before(client: Client) -> None:
    context = client.server.context
    received = await take(client, message(TWO_LINES))
    for type in ("Observation", "Patient"):
        (made,) = await resources(client, type)
        reference = f"{type}/{made['id']}"
        assert (await client.fhir("DELETE", reference)).status_code == 204
        assert (await client.fhir("GET", reference)).status_code == 410
        bundle = (await client.fhir("GET", f"Task?output={reference}")).json()
        assert f"output={reference}" in bundle["link"][0]["url"].replace("%2F", "/")
        assert [each["resource"]["id"] for each in bundle["entry"]] == [received.id]
    task = await read_message(context, CALLER, received.id)
    again = await replay(context, CALLER, task, INTERPRETERS, again=True)
    assert isinstance(again, Received) and again.state == "acknowledged"


async def test_the_text_of_a_message_and_what_another_task_names_are_not_deleted(client: Client) -> None:
    received = await take(client, message("patient 4711 Keller"))
    (patient,) = await resources(client, "Patient")
    answer = await client.fhir("DELETE", f"Binary/{received.id}")
    assert answer.status_code == 409
    assert f"`Task/{received.id}` (Task.input[0].value.reference)" in answer.text.replace("valueReference", "value")
    output = {"type": {"text": "made"}, "valueReference": {"reference": f"Patient/{patient['id']}"}}
    other = {"resourceType": "Task", "status": "completed", "intent": "order", "output": [output]}
    task = (await client.fhir("POST", "Task", json=other)).json()
    answer = await client.fhir("DELETE", f"Patient/{patient['id']}")
    assert answer.status_code == 409
    assert f"`Task/{task['id']}`" in answer.text and f"`Task/{received.id}`" not in answer.text


async def test_what_a_delivery_is_about_may_be_deleted(client: Client) -> None:
    context, patient = client.server.context, "Patient/1"
    await client.put(patient, json={"resourceType": "Patient", "id": "1"})
    delivery = Delivery("lab", "hl7v2", "folder", patient, 1, "77", b"MSH|x\r", "text/plain", patient, about=(patient,))
    assert await add_delivery(context, delivery) == 2
    assert (await client.fhir("DELETE", patient)).status_code == 204
    (task,) = await resources(client, "Task")
    await edit_task(context, task)
    assert [each["valueReference"]["reference"] for each in part((await resources(client, "Task"))[0], "about")] == [
        patient
    ]


async def edit_task(context: Context, task: dict[str, Any]) -> None:
    """Parked, as a worker does when the partner is gone."""

    async def decide(reads: State) -> Decision[None]:
        return Decision(None, (put(move_task(task, "parked", context.clock(), "no partner")),))

    await decide_and_commit(context, CALLER, decide)
