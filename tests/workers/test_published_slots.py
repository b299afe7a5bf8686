"""The worker that keeps free Slots: they are where `$find` says that there is time, and nothing else is touched."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fhir_server.app import Knowledge, Seams
from fhir_server.workers.published_slots import keep_free_slots
from mappers.scheduling.elements import slot_origin
from mappers.scheduling.extensions import PUBLISH_SLOTS
from tests.conftest import Client, serving
from tests.mappers.scheduling.scheduling_resources import parameters, role, schedule, slot
from tests.operations.scheduling.booking_clinic import (
    CHICAGO,
    Clock,
    Tree,
    call,
    entries,
    patch_status,
    patients,
    post,
    store,
    visit,
)
from tests.workers.hl7v2_messages import choose_store
from tests.workers.teams import take_turn

pytestmark = pytest.mark.anyio

PINE, ADA = "Practitioner/pine", "Patient/ada"
ASKS = {"url": PUBLISH_SLOTS, "valueBoolean": True}


def pine(*extensions: Tree) -> list[Tree]:
    """Open on Mondays from 08:00 to 10:00; visits of 30 minutes, a week ahead: four Slots on 2026-03-02."""
    week = parameters(duration=30, horizon=7 * 1440)
    return [
        {"resourceType": "Practitioner", "id": "pine"},
        role("pine-role", PINE, ("08:00:00", "10:00:00"), days=["mon"]),
        schedule("pine", PINE, extension=[CHICAGO, week, *extensions]),
    ]


@pytest.fixture(params=["memory", "sqlite", "mongo"])
def store_uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh store of each kind."""
    return choose_store(request, tmp_path)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def clinic(known: Knowledge, store_uri: str, clock: Clock) -> AsyncIterator[Client]:
    async with serving(known, Seams(clock=clock), store=store_uri) as client:
        await store(client, [*pine(ASKS), *patients()])
        yield client


async def work(client: Client) -> None:
    await keep_free_slots(await take_turn(client.server.context, "slots", "test"))


async def list_free(client: Client) -> list[str]:
    """The wall-clock starts in Chicago of the free Slots, by start."""
    found = await entries(client, "Slot?status=free&_sort=start&_count=100")
    return [f"{int(each['start'][11:13]) - 6:02}{each['start'][13:16]}" for each in found]


async def test_slots_are_kept_where_there_is_time(clinic: Client) -> None:
    await work(clinic)
    assert await list_free(clinic) == ["08:00", "08:30", "09:00", "09:30"]
    booked = await post(clinic, visit("08:30", "09:00", PINE, ADA))
    assert await list_free(clinic) == ["08:00", "09:00", "09:30"]  # in the transaction of the booking
    await work(clinic)
    assert await list_free(clinic) == ["08:00", "09:00", "09:30"]
    await patch_status(clinic, booked, "cancelled")
    await work(clinic)
    assert await list_free(clinic) == ["08:00", "08:30", "09:00", "09:30"]


async def test_a_step_without_change_writes_nothing(clinic: Client) -> None:
    for _ in range(3):
        await work(clinic)
    assert len((await clinic.get("Slot/_history?_count=100")).json()["entry"]) == 4


async def test_a_booking_across_two_slots_takes_both_and_leaves_the_others_where_they_are(clinic: Client) -> None:
    await work(clinic)
    await post(clinic, visit("08:15", "08:45", PINE, ADA))
    await work(clinic)
    assert await list_free(clinic) == ["09:00", "09:30"]


async def test_a_week_ahead_and_nothing_of_the_past(clinic: Client, clock: Clock) -> None:
    await work(clinic)
    clock.set("2026-03-02T14:40:00Z")  # 08:40 in Chicago
    await work(clinic)
    free = await entries(clinic, "Slot?status=free&_sort=start&_count=100")
    # until 14:40Z a week later, when Chicago has summer time: the visit at 14:30Z would end beyond it
    starts = ("02T15:00", "02T15:30", "09T13:00", "09T13:30", "09T14:00")
    assert [each["start"] for each in free] == [f"2026-03-{start}:00.000Z" for start in starts]


async def test_what_the_site_has_put_there_is_left_alone(clinic: Client) -> None:
    own = slot("own", "Schedule/pine", "2026-03-02T14:00:00Z", "2026-03-02T14:30:00Z", "free")
    night = slot("night", "Schedule/pine", "2026-03-03T02:00:00Z", "2026-03-03T02:30:00Z", "free")
    await store(clinic, [own, night])
    await work(clinic)
    assert len(await list_free(clinic)) == 5
    await store(clinic, pine())  # asks no more
    await work(clinic)
    assert {each["id"] for each in await entries(clinic, "Slot?status=free")} == {"own", "night"}


async def test_a_slot_that_an_appointment_of_the_past_names_is_entered_in_error(clinic: Client) -> None:
    await work(clinic)
    booked = await post(clinic, visit("08:30", "09:00", PINE, ADA))
    (named,) = booked["slot"]
    await patch_status(clinic, booked, "cancelled")
    await store(clinic, pine())
    await work(clinic)
    assert await list_free(clinic) == []
    left = await entries(clinic, "Slot")
    assert [(f"Slot/{each['id']}", each["status"]) for each in left] == [(named["reference"], "entered-in-error")]
    await store(clinic, pine(ASKS))
    await work(clinic)
    assert await list_free(clinic) == ["08:00", "08:30", "09:00", "09:30"]


async def test_find_and_the_kept_slots_agree_and_do_not_open_time(clinic: Client) -> None:
    await work(clinic)
    assert {slot_origin(each) for each in await entries(clinic, "Slot?status=free")} == {"published"}
    hours = role("pine-role", PINE, ("09:00:00", "10:00:00"), days=["mon"])
    await store(clinic, [hours])
    day = {"start": "2026-03-02", "end": "2026-03-02", "practitioner": PINE}
    found = (await call(clinic, "Appointment/$find", **day)).json()["entry"]
    assert [each["resource"]["start"][11:16] for each in found] == ["15:00", "15:15", "15:30"]
    await work(clinic)
    assert await list_free(clinic) == ["09:00", "09:30"]
