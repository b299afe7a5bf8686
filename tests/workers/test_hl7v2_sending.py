"""Changes become deliveries: one for each partner, resource and version, in commit order, none back to its sender."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
import pytest

from fhir_server.app import Knowledge
from fhir_server.partners import Partner
from fhir_server.store.protocol import Changes, Expired
from fhir_server.workers import feed, hl7v2_sending
from fhir_server.workers.hl7v2_sending import begin_sends, leave_segments_out, step_sending
from fhir_server.workers.message_queue import read_feed_lag
from fhir_server.workers.message_states import read_state
from fhir_server.workers.worker import StepResult
from tests.conftest import Client, serving
from tests.workers.hl7v2_messages import MRN, choose_store, msh, north, pid, take, with_partners
from tests.workers.teams import Failing, Killed, Lines, take_turn

pytestmark = pytest.mark.anyio

ROWS: list[dict[str, Any]] = [
    {"type": "Patient", "change": "new", "event": "ADT^A28"},
    {"type": "Patient", "event": "ADT^A31", "leave_out": ["PD1"]},
    {"type": "Appointment", "filter": "status=booked", "event": "SIU^S12"},
]


def sent_to(name: str, rows: list[dict[str, Any]] | None = None) -> Partner:
    """A partner that is sent changes by MLLP."""
    partner = north(name.upper()).model_dump(by_alias=True)
    partner["transports"] = {"mllp": {"host": "127.0.0.1", "port": 8210}}
    partner["hl7v2"]["out"] = {
        "transport": "mllp",
        "sending": {"application": "PMS", "facility": "CLINIC"},
        "receiving": {"application": "EHR", "facility": name.upper()},
        "send": rows or ROWS,
    }
    return Partner.model_validate(partner)


@pytest.fixture(params=["memory", "sqlite", "mongo"])
async def client(request: pytest.FixtureRequest, known: Knowledge, tmp_path: Path) -> AsyncIterator[Client]:
    async with serving(known, store=choose_store(request, tmp_path)) as client:
        with_partners(client, sent_to("north"), sent_to("south"))
        await begin_sends(client.server.context)
        yield client


@pytest.fixture
async def memory(known: Knowledge) -> AsyncIterator[Client]:
    async with serving(known, store="memory://") as client:
        with_partners(client, sent_to("north"))
        await begin_sends(client.server.context)
        yield client


def person(id: str = "ada", family: str = "Adler", **members: Any) -> dict[str, Any]:
    name = {"family": family, "given": ["Ada"]}
    number = {"system": MRN, "value": f"N-{id}"}
    return {"resourceType": "Patient", "id": id, "identifier": [number], "name": [name], **members}


async def put(client: Client, resource: dict[str, Any]) -> None:
    answer = await client.fhir("PUT", f"{resource['resourceType']}/{resource['id']}", json=resource)
    assert answer.status_code in (200, 201), answer.text


async def queue(client: Client, owner: str = "a", store: Any = None, lines: Lines | None = None) -> StepResult:
    """Read the feed to its end."""
    context = client.server.context
    if store is not None:
        context = dataclasses.replace(context, unrestricted=store)
    turn = await take_turn(context, "sending", owner, lines)
    while (result := await step_sending(turn)).done:
        pass
    return result


async def deliveries(client: Client, partner: str = "") -> list[dict[str, Any]]:
    """The Tasks of deliveries in the order of their ids."""
    bundle = (await client.fhir("GET", "Task?code=message-delivery&_count=500")).json()
    tasks = sorted((each["resource"] for each in bundle.get("entry", ())), key=lambda task: str(task["id"]))
    return [task for task in tasks if partner in ("", task["groupIdentifier"]["value"])]


def about(tasks: list[dict[str, Any]]) -> list[str]:
    return [task["focus"]["reference"].replace("/_history", "") for task in tasks]


async def read_text(client: Client, task: dict[str, Any]) -> str:
    binary = (await client.fhir("GET", f"Binary/{task['id']}", headers={"Accept": "application/fhir+json"})).json()
    return base64.b64decode(binary["data"]).decode()


async def test_each_change_is_one_delivery_to_each_partner_in_commit_order(client: Client) -> None:
    await put(client, person())
    await put(client, person("bob"))
    await put(client, person(family="Baker"))
    await put(client, {"resourceType": "Organization", "id": "o", "name": "Lab"})
    assert await read_feed_lag(client.server.context) is None
    assert (await queue(client)).lag == 0
    assert await read_feed_lag(client.server.context) == 0
    for name in ("north", "south"):
        tasks = await deliveries(client, name)
        assert about(tasks) == ["Patient/ada/1", "Patient/bob/1", "Patient/ada/2"]
        assert [task["for"]["reference"] for task in tasks] == ["Patient/ada", "Patient/bob", "Patient/ada"]
        assert {read_state(task) for task in tasks} == {"waiting"}
        texts = [await read_text(client, task) for task in tasks]
        assert [text.split("|")[8] for text in texts] == ["ADT^A28^ADT_A05", "ADT^A28^ADT_A05", "ADT^A31^ADT_A05"]
        numbers = [text.split("|")[9] for text in texts]
        assert numbers == [task["identifier"][1]["value"] for task in tasks] and max(map(len, numbers)) <= 20
        assert "Baker" in texts[2] and f"|EHR|{name.upper()}|" in texts[0]


async def test_a_feed_that_is_read_again_makes_nothing(client: Client) -> None:
    await put(client, person())
    await queue(client)
    before = await deliveries(client)
    store = client.server.context.unrestricted
    position = await store.get_value("feed/sending")
    assert await store.put_value_if("feed/sending", orjson.dumps(dataclasses.asdict(feed.Position())), position)
    await queue(client, "b")
    assert await deliveries(client) == before and len(before) == 2


async def test_what_was_written_before_a_partner_had_a_table_is_not_sent(client: Client) -> None:
    await put(client, person())
    with_partners(client, sent_to("north"), sent_to("east"))
    moment = client.server.context.clock
    later = dataclasses.replace(client.server.context, clock=lambda: moment() + 1_000_000)
    await begin_sends(later)
    await queue(client)
    assert [task["groupIdentifier"]["value"] for task in await deliveries(client)] == ["north"]


async def test_two_processes_that_both_think_they_hold_the_worker_make_each_delivery_once(client: Client) -> None:
    """They read batches that overlap, and are not equal."""
    for number in range(6):
        await put(client, person(f"p{number % 2}", f"Name{number}"))
    context = client.server.context
    turns = [await take_turn(context, "sending", owner) for owner in "abc"]
    first = asyncio.gather(*(step_sending(turn) for turn in turns[:2]), return_exceptions=True)
    await put(client, person("p0", "Name6"))
    await asyncio.gather(first, step_sending(turns[2]), return_exceptions=True)
    await queue(client, "d")
    expected = [f"Patient/p{number % 2}/{number // 2 + 1}" for number in range(7)]
    for name in ("north", "south"):
        assert about(await deliveries(client, name)) == expected


@pytest.mark.parametrize("batch", [1, 2, 3, 200])
async def test_a_version_of_a_partner_does_not_go_back_and_the_next_change_does(
    client: Client, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    """However the feed is cut: within the transaction of the message, before it or behind it."""
    monkeypatch.setattr(feed, "BATCH", batch)
    taken = await take(client, msh("ADT^A31", "M1") + "EVN|A31|20240305115900-0600\r" + pid(f7="19700102"))
    assert taken.state == "acknowledged", taken.reason
    patient = (await client.fhir("GET", "Patient")).json()["entry"][0]["resource"]
    own = f"Patient/{patient['id']}"
    await put(client, {**patient, "birthDate": "1970-01-03"})
    again = await take(client, msh("ADT^A31", "M2", "20240306120000-0600") + "EVN|A31|20240306115900-0600\r"
                       + pid(f7="19700104"))  # fmt: skip
    assert again.state == "acknowledged", again.reason
    await put(client, {**patient, "birthDate": "1970-01-05"})
    await queue(client)
    assert about(await deliveries(client, "north")) == [f"{own}/2", f"{own}/4"]
    assert about(await deliveries(client, "south")) == [f"{own}/{number}" for number in (1, 2, 3, 4)]


async def test_a_message_that_cannot_be_written_waits_for_a_person_and_holds_nothing_up(client: Client) -> None:
    await put(client, person())
    nobody = {"status": "accepted", "actor": {"display": "somebody"}}
    appointment = {"resourceType": "Appointment", "id": "v", "status": "booked", "participant": [nobody]}
    moments = {"start": "2026-05-04T10:00:00Z", "end": "2026-05-04T10:30:00Z"}
    merged = person("eva", link=[{"type": "seealso", "other": {"reference": "Patient/ada"}}])
    with_partners(client, sent_to("north", [{"type": "Patient", "filter": "link:missing=false", "event": "ADT^A40"},
                                            {"type": "Appointment", "event": "SIU^S12"}]))  # fmt: skip
    await put(client, merged)
    await put(client, {**appointment, **moments})
    lines: Lines = []
    await queue(client, lines=lines)
    parked, waiting = await deliveries(client)
    assert (read_state(parked), read_state(waiting)) == ("parked", "waiting")
    assert "MRG-1 needs one" in parked["statusReason"]["text"]
    assert [fields["item"] for _, text, fields in lines if text == "message cannot be written"] == ["Patient/eva/1"]


async def test_what_a_message_does_not_say_stands_in_its_task(memory: Client) -> None:
    await put(memory, person(photo=[{"title": "portrait"}]))
    await queue(memory)
    (task,) = await deliveries(memory)
    told = [issue["diagnostics"] for issue in task["contained"][0]["issue"]]
    assert any("Patient.photo" in each for each in told)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_killed_at_any_call_of_the_store_each_version_is_one_delivery_in_order(
    known: Knowledge, after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "BATCH", 3)
    monkeypatch.setattr(hl7v2_sending, "CHUNK", 2)
    at, reached = 1, True
    while reached:
        async with serving(known, store="memory://") as client:
            with_partners(client, sent_to("north"))
            await begin_sends(client.server.context)
            for number in range(5):
                await put(client, person(f"p{number % 2}", f"Name{number}"))
            failing = Failing(client.server.context.unrestricted, at, after)
            with suppress(Killed):
                await queue(client, "a", failing)
            await queue(client, "b")
            expected = [f"Patient/p{number % 2}/{number // 2 + 1}" for number in range(5)]
            assert about(await deliveries(client)) == expected
            reached, at = failing.reached, at + 1
    assert at > 10


class Forgetful:
    """A store that gives up its token once, as an oplog that has moved on does."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.expires = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def read_changes(self, after: str | None, limit: int = 1000) -> Changes:
        if after is not None and self.expires:
            self.expires = False
            raise Expired("The oplog has moved on.")
        return await self._store.read_changes(after, limit)  # type: ignore[no-any-return]


async def test_where_the_feed_has_expired_what_is_current_is_sent_and_nothing_twice(client: Client) -> None:
    """A version of a partner is no more sent back in a walk than before."""
    await put(client, person())
    await queue(client)
    await put(client, person("bob"))
    await take(client, msh("ADT^A31", "M1") + "EVN|A31|20240305115900-0600\r" + pid(f7="19700102"))
    before = about(await deliveries(client, "north"))
    lines: Lines = []
    await queue(client, "b", Forgetful(client.server.context.unrestricted), lines)
    assert any("expired" in text for _, text, _ in lines)
    assert before == ["Patient/ada/1"]
    assert about(await deliveries(client, "north")) == ["Patient/ada/1", "Patient/bob/1"]
    assert len(await deliveries(client, "south")) == 3


def test_segments_that_are_left_out_are_gone_and_no_other() -> None:
    text = "MSH|^~\\&|A\rPID|1||x\u2028NK1\rNK1|1\rPV1|1\r"
    assert leave_segments_out(text, ("NK1",)) == "MSH|^~\\&|A\rPID|1||x\u2028NK1\rPV1|1\r"
    assert leave_segments_out(text, ()) == text
