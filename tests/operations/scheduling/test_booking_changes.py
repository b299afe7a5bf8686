"""`$reschedule`, `$cancel`, `$check-in`, `$no-show`, and series, over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from fhir_server.app import Knowledge
from tests.conftest import Client
from tests.operations.scheduling.booking_clinic import (
    Clock,
    Tree,
    call,
    diagnostics,
    entries,
    post,
    practice,
    visit,
)

pytestmark = pytest.mark.anyio

PINE, ELM, ADA, BEN = "Practitioner/pine", "Practitioner/elm", "Patient/ada", "Patient/ben"


@pytest.fixture
async def clinic(known: Knowledge, store_uri: str) -> AsyncIterator[Client]:
    async with practice(known, store_uri) as client:
        yield client


def url(appointment: Tree, operation: str) -> str:
    return f"Appointment/{appointment['id']}/${operation}"


async def test_reschedule_moves_time_and_slots_and_is_repeatable(clinic: Client) -> None:
    made = await post(clinic, visit("10:00", "10:30", PINE, ADA))
    moved = await call(clinic, url(made, "reschedule"), start="2026-03-02T11:00:00-06:00")
    assert moved.status_code == 200, moved.text
    tree = moved.json()
    assert (tree["start"], tree["end"]) == ("2026-03-02T17:00:00.000Z", "2026-03-02T17:30:00.000Z")
    (slot,) = await entries(clinic, "Slot")
    assert (slot["start"], tree["slot"]) == ("2026-03-02T17:00:00.000Z", [{"reference": f"Slot/{slot['id']}"}])
    again = await call(
        clinic, "Appointment/$reschedule", appointment_reference=made["id"], start="2026-03-02T11:00:00-06:00"
    )
    assert (again.status_code, again.json()) == (200, tree)
    await post(clinic, visit("10:00", "10:30", PINE, BEN))


async def test_reschedule_to_another_doctor_or_a_taken_time(clinic: Client) -> None:
    made = await post(clinic, visit("10:00", "10:30", PINE, ADA))
    await post(clinic, visit("11:00", "11:30", PINE, BEN))
    taken = await call(clinic, url(made, "reschedule"), start="2026-03-02T11:00:00-06:00")
    assert taken.status_code == 409 and "Free instead" in diagnostics(taken)
    moved = await call(clinic, url(made, "reschedule"), start="2026-03-02T11:00:00-06:00", practitioner=ELM)
    assert moved.status_code == 200, moved.text
    assert ELM in str(moved.json()["participant"]) and PINE not in str(moved.json()["participant"])
    (slot,) = [(await clinic.get(each["reference"])).json() for each in moved.json()["slot"]]
    assert slot["schedule"] == {"reference": "Schedule/elm"}


async def test_s13_a_cancelled_one_is_booked_anew(clinic: Client) -> None:
    made = await post(clinic, visit("10:00", "10:30", PINE, ADA))
    cancelled = await call(clinic, url(made, "cancel"), reason="feels better")
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled"), cancelled.text
    assert cancelled.json()["cancelationReason"] == {"text": "feels better"}
    assert await entries(clinic, "Slot") == []
    again = await call(clinic, url(made, "cancel"))
    assert (again.status_code, again.json()) == (200, cancelled.json())
    moved = await call(clinic, url(made, "reschedule"), start="2026-03-02T11:00:00-06:00")
    assert moved.status_code == 422 and "book anew" in diagnostics(moved)
    booked = await call(clinic, "Appointment/$book", appointment_resource=visit("10:00", "10:30", PINE, ADA))
    assert booked.status_code == 201


async def test_check_in_and_no_show_follow_the_life_cycle(known: Knowledge, store_uri: str) -> None:
    clock = Clock()
    async with practice(known, store_uri, clock) as clinic:
        first, second = [await post(clinic, visit(at, f"{at[:3]}30", PINE)) for at in ("10:00", "11:00")]
        for _ in range(2):
            here = await call(clinic, url(first, "check-in"))
            assert (here.status_code, here.json()["status"], here.json()["meta"]["versionId"]) == (
                200,
                "checked-in",
                "2",
            )
        clock.set("2026-03-02T17:10:00Z")
        missed = await call(clinic, url(second, "no-show"))
        assert (missed.json()["status"], "slot" in missed.json()) == ("noshow", False), missed.text
        refused = await call(clinic, url(second, "check-in"))
        assert refused.status_code == 422 and "booked (with override)" in diagnostics(refused)
        back = await call(
            clinic, "Appointment/$book", appointment_reference=second["id"], override="notice", reason="came after all"
        )
        assert (back.status_code, back.json()["status"]) == (200, "booked"), back.text


async def test_bad_changes_are_said(clinic: Client) -> None:
    made = await post(clinic, visit("10:00", "10:30", PINE, ADA))
    nobody = await call(clinic, "Appointment/no/$cancel")
    twice = await call(clinic, url(made, "cancel"), appointment_reference=made["id"])
    backwards = await call(clinic, url(made, "reschedule"), end="2026-03-02T09:00:00-06:00")
    scope = await call(clinic, url(made, "cancel"), scope="some")
    lone = await call(clinic, url(made, "cancel"), scope="all")
    past = await call(clinic, url(made, "reschedule"), start="2026-02-02T10:00:00-06:00")
    answers = (nobody, twice, backwards, scope, lone, past)
    assert [each.status_code for each in answers] == [404, 400, 400, 400, 422, 422], [each.text for each in answers]
    assert all(each.json()["issue"][0].get("expression") for each in answers)
    assert (await clinic.get(f"Appointment/{made['id']}")).json()["meta"]["versionId"] == "1"


SERIES = [("frequency", "weekly"), ("weekday", "tue"), ("count", 12)]


async def book_series(client: Client, rule: list[Any], **more: Any) -> httpx.Response:
    first = visit("2026-03-03T10:00:00-06:00", "2026-03-03T10:30:00-06:00", PINE, ADA)
    return await call(client, "Appointment/$book", ("series", rule), appointment_resource=first, **more)


def appointments(answer: httpx.Response) -> list[Tree]:
    return [e["resource"] for e in answer.json()["entry"] if e["resource"]["resourceType"] == "Appointment"]


async def test_s6_a_series_keeps_its_wall_clock_time(clinic: Client) -> None:
    booked = await book_series(clinic, SERIES)
    assert booked.status_code == 201, booked.text
    starts = [each["start"] for each in appointments(booked)]
    assert len(starts) == 12 and starts[:2] == ["2026-03-03T10:00:00-06:00", "2026-03-10T15:00:00.000Z"]
    again = await book_series(clinic, SERIES)
    assert again.status_code == 200, again.text
    assert len(await entries(clinic, "Appointment?_count=50")) == 12


async def test_s15_a_series_answers_for_each_occurrence(clinic: Client) -> None:
    await post(clinic, visit("2026-04-14T10:00:00-05:00", "2026-04-14T10:30:00-05:00", PINE))  # the 7th Tuesday
    refused = await book_series(clinic, SERIES)
    assert refused.status_code == 409
    (issue,) = refused.json()["issue"]
    assert issue["expression"] == ["occurrence[6]"]
    assert "Occurrence 7 on 2026-04-14" in issue["diagnostics"] and issue["diagnostics"].count(".000Z") >= 3
    assert len(await entries(clinic, "Appointment")) == 1
    partial = await book_series(clinic, SERIES, partial=True)
    assert partial.status_code == 201 and len(appointments(partial)) == 11
    assert "occurrence[6]" in partial.text


async def test_part_of_a_series_is_moved_and_cancelled(clinic: Client) -> None:
    made = appointments(await book_series(clinic, [("frequency", "daily"), ("count", 5)]))
    # an hour later each, over times that other members still have
    moved = await call(clinic, url(made[1], "reschedule"), start="2026-03-05T10:00:00-06:00", scope="following")
    assert moved.status_code == 200, moved.text
    assert [each["start"][:13] for each in appointments(moved)] == [f"2026-03-0{day}T16" for day in (5, 6, 7)] + [
        "2026-03-08T15"
    ]
    cancelled = await call(clinic, url(made[3], "cancel"), scope="following")
    assert [each["status"] for each in appointments(cancelled)] == ["cancelled"] * 2
    everything = await call(clinic, url(made[0], "cancel"), scope="all")
    assert {each["status"] for each in appointments(everything)} == {"cancelled"}
    assert await entries(clinic, "Slot") == []


async def test_series_without_sense_are_refused(clinic: Client) -> None:
    for rule, code, where in (
        ([("frequency", "daily"), ("count", 10000)], "too-costly", "count"),
        ([("frequency", "hourly"), ("count", 2)], "value", "frequency"),
        ([("frequency", "daily")], "value", "count"),
        ([("frequency", "daily"), ("until", "2026-02-30")], "value", "until"),
    ):
        refused = await book_series(clinic, rule)
        issue = refused.json()["issue"][0]
        assert (refused.status_code in (400, 422), issue["code"], issue["expression"]) == (True, code, [where])
    assert await entries(clinic, "Appointment") == []
