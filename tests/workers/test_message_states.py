"""The table of states, and retention: nothing that is open is ever removed (docs/messages.md)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.app import Knowledge, Seams
from fhir_server.fhir.datetimes import DAY, format_instant
from fhir_server.fhir.outcome import Conflict
from fhir_server.requests.request import Caller
from fhir_server.store.operations import Transaction
from fhir_server.store.protocol import Committed
from fhir_server.workers.message_codes import CONTROL_SYSTEM, PARTNER_SYSTEM
from fhir_server.workers.message_log import close
from fhir_server.workers.message_retention import remove_expired, select_removable
from fhir_server.workers.message_states import STATES, MessageState, code_state, move_task, read_state
from fhir_server.workers.messages import receive
from mappers.billing.claim_states import move_task as move_claim
from tests.conftest import Client, serving
from tests.workers.plain_messages import PLAIN, message

pytestmark = pytest.mark.anyio

CALLER = Caller("http://test/fhir")
NOW = 1_800_000_000_000_000
WRITTEN = {
    "waiting": "requested",
    "claimed": "accepted",
    "sent-unanswered": "in-progress",
    "acknowledged": "completed",
    "refused": "rejected",
    "parked": "on-hold",
}
"""State and Task.status as the message log's requirement lists them."""

TASK_STATUSES = {
    *("draft", "requested", "received", "accepted", "rejected", "ready", "cancelled"),
    *("in-progress", "on-hold", "failed", "completed", "entered-in-error"),
}
"""https://hl7.org/fhir/R4/valueset-task-status.html"""


def make_task(state: MessageState, age: int = 0, partner: str = "lab") -> dict[str, Any]:
    """A Task that came into its state so many days ago."""
    return {
        "resourceType": "Task",
        "id": f"{state}-{age}",
        "identifier": [{"system": CONTROL_SYSTEM, "value": "1"}],
        "groupIdentifier": {"system": PARTNER_SYSTEM, "value": partner},
        "status": STATES[state].status,
        "businessStatus": code_state(state),
        "lastModified": format_instant(NOW - age * DAY),
    }


def test_each_state_has_the_status_that_is_asked_for() -> None:
    assert {state: row.status for state, row in STATES.items() if state in WRITTEN} == WRITTEN
    assert all(row.status in TASK_STATUSES for row in STATES.values())
    assert all(following in STATES for row in STATES.values() for following in row.next)


@given(st.sampled_from(list(STATES)), st.sampled_from(list(STATES)))
def test_a_task_moves_as_the_table_says(before: MessageState, after: MessageState) -> None:
    task = make_task(before, age=3)
    if after in STATES[before].next:
        moved = move_task(task, after, NOW, "Because.")
        assert (read_state(moved), moved["status"]) == (after, STATES[after].status)
        assert moved["lastModified"] == format_instant(NOW) and moved["statusReason"]["text"] == "Because."
    else:
        with pytest.raises(Conflict, match=f"is in the state `{before}` and cannot become `{after}`"):
            move_task(task, after, NOW)


def test_a_clock_that_was_set_back_moves_no_task_to_before_it_was_made() -> None:
    """inv-1 of Task: `lastModified` is not before `authoredOn`."""
    moved = move_task({**make_task("waiting"), "authoredOn": format_instant(NOW + DAY)}, "parked", NOW)
    assert moved["lastModified"] == format_instant(NOW + DAY)
    sent = move_claim({"authoredOn": "2026-03-02T12:00:00-05:00"}, "sent", "2026-03-02T13:00:00.000Z")
    assert sent["lastModified"] == "2026-03-02T12:00:00-05:00"


def test_a_new_state_has_no_old_reason() -> None:
    parked = move_task(make_task("waiting"), "parked", NOW, "The folder is full.")
    assert "statusReason" not in move_task(parked, "waiting", NOW)


def test_what_is_open_is_never_removed() -> None:
    """A pruner in the field deleted what waited and what had failed: parked for 40 days, retention 30 days, is kept."""
    tasks = [make_task(state, age=40) for state in STATES]
    removable = {read_state(task) for task in select_removable(tasks, {"lab": 30}, NOW)}
    assert removable == {"acknowledged", "closed", "expired"}


def test_retention_counts_days_of_the_partner() -> None:
    tasks = [make_task("acknowledged", age) for age in (0, 29, 30, 31, 400)]
    assert [each["id"] for each in select_removable(tasks, {"lab": 30}, NOW)] == ["acknowledged-31", "acknowledged-400"]
    assert select_removable(tasks, {"clinic": 30}, NOW) == []


def test_a_state_that_the_table_lacks_is_never_removed() -> None:
    stranger = {**make_task("acknowledged", 400), "businessStatus": {"text": "done"}}
    assert select_removable([stranger], {"lab": 30}, NOW) == []


@pytest.fixture(params=["memory", "sqlite"])
async def clocked(
    request: pytest.FixtureRequest, known: Knowledge, tmp_path: Any
) -> AsyncIterator[tuple[Client, list[int]]]:
    """A server whose clock stands where the list says."""
    time = [NOW]
    uri = "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/fhir.db"
    async with serving(known, seams=replace(Seams(), clock=lambda: time[0]), store=uri) as client:
        yield client, time


async def test_retention_removes_texts_and_histories_and_tells(clocked: tuple[Client, list[int]]) -> None:
    client, time = clocked
    context = client.server.context
    texts = ("patient 1 Keller", "refuse this", "refuse that", "patient 2 Meier")
    ids = [(await receive(context, CALLER, message(text, str(n)), PLAIN)).id for n, text in enumerate(texts[:3])]
    await close(context, CALLER, ids[2], "Sent by mistake.")
    time[0] += 40 * DAY
    ids.append((await receive(context, CALLER, message(texts[3], "3"), PLAIN)).id)
    removed = await remove_expired(context, CALLER, {"lab": 30})
    assert {(each.id, each.number, each.state) for each in removed} == {
        (ids[0], "0", "acknowledged"),
        (ids[2], "2", "closed"),
    }
    for type in ("Task", "Binary"):
        found = [(await client.fhir("GET", f"{type}/{id}/_history")).status_code for id in ids]
        assert found == [404, 200, 404, 200]
    assert (await client.fhir("GET", "Patient?_summary=count")).json()["total"] == 2
    assert (await client.fhir("GET", f"Provenance/{ids[0]}")).status_code == 200
    assert await remove_expired(context, CALLER, {"lab": 30}) == []


async def test_a_retention_that_was_cut_short_is_finished(
    clocked: tuple[Client, list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, time = clocked
    context = client.server.context
    id = (await receive(context, CALLER, message("patient 1 Keller"), PLAIN)).id
    time[0] += 40 * DAY
    transact = context.unrestricted.transact

    async def die(transaction: Transaction) -> Committed:
        if transaction.purged:
            raise KeyboardInterrupt
        return await transact(transaction)

    monkeypatch.setattr(context.unrestricted, "transact", die)
    with pytest.raises(KeyboardInterrupt):
        await remove_expired(context, CALLER, {"lab": 30})
    monkeypatch.setattr(context.unrestricted, "transact", transact)
    assert [each.id for each in await remove_expired(context, CALLER, {"lab": 30})] == [id]
    assert [(await client.fhir("GET", f"{each}/{id}")).status_code for each in ("Task", "Binary")] == [404, 404]


async def test_retention_goes_on_where_its_run_ended(clocked: tuple[Client, list[int]]) -> None:
    client, time = clocked
    context = client.server.context
    for number in range(5):
        await receive(context, CALLER, message(f"patient {number} Keller", str(number)), PLAIN)
    time[0] += 40 * DAY
    runs = [len(await remove_expired(context, CALLER, {"lab": 30}, most=2)) for _ in range(4)]
    assert runs == [2, 2, 1, 0]
