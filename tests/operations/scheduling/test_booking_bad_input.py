"""What makes no sense in a request for times is refused with a sentence and where it stands; nothing is half-booked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from fhir_server.app import Knowledge
from tests.conftest import Client
from tests.operations.scheduling.booking_clinic import Clock, call, diagnostics, entries, practice, store, visit
from tests.operations.scheduling.test_booking_changes import ADA, BEN, PINE, appointments, book_series, url

pytestmark = pytest.mark.anyio

MONDAY = "start=2026-03-02&end=2026-03-02"


@pytest.fixture
async def clinic(known: Knowledge) -> AsyncIterator[Client]:
    async with practice(known) as client:
        yield client


@pytest.mark.parametrize(
    ("start", "end", "where", "said"),
    [
        ("2026-03-02T10:00:00", "2026-03-02T10:30:00", "Appointment.start", "`2026-03-02T10:00:00`"),
        ("2026-02-30T10:00:00-06:00", "2026-02-30T10:30:00-06:00", "Appointment.start", "`2026-02-30T10:00:00-06:00`"),
        ("2026-03-02T10:00:00-06:00", "", "Appointment.end", "is missing"),
        ("2026-03-02T10:30:00-06:00", "2026-03-02T10:00:00-06:00", "Appointment.end", "not after the start"),
    ],
)
async def test_times_that_are_none(clinic: Client, start: str, end: str, where: str, said: str) -> None:
    """An instant has an offset and a day of the calendar (https://hl7.org/fhir/R4/datatypes.html#instant)."""
    asked = visit(start, end or start, PINE, ADA)
    if not end:
        del asked["end"]
    for operation in ("$hold", "$book"):
        refused = await call(clinic, f"Appointment/{operation}", appointment_resource=asked)
        (issue,) = refused.json()["issue"]
        assert (refused.status_code, issue["expression"]) == (400, [where])
        assert said in issue["diagnostics"]
    assert await entries(clinic, "Appointment") == await entries(clinic, "Slot") == []


@pytest.mark.parametrize("name", ["practitioner", "location-reference", "organization", "patient-reference"])
async def test_who_is_not_here_is_said_of_the_parameter_that_names_them(clinic: Client, name: str) -> None:
    type = {"location-reference": "Location", "patient-reference": "Patient"}.get(name, name.title())
    refused = await clinic.get(f"Appointment/$find?{MONDAY}&{name}={type}/nobody")
    (issue,) = refused.json()["issue"]
    assert (refused.status_code, issue["code"], issue["expression"]) == (404, "not-found", [name])
    assert f"`{type}/nobody`" in issue["diagnostics"]


async def test_a_search_that_fits_no_schedule_says_so_and_not_that_they_are_closed(clinic: Client) -> None:
    await store(clinic, [{"resourceType": "Practitioner", "id": "oak"}])
    for asked, given in (
        ("practitioner=Practitioner/oak", ["practitioner"]),
        ("specialty=zzz", ["specialty"]),
        ("practitioner=Practitioner/pine&specialty=zzz", ["practitioner", "specialty"]),
    ):
        (outcome,) = await entries(clinic, f"Appointment/$find?{MONDAY}&{asked}")
        (issue,) = outcome["issue"]
        assert (issue["code"], issue["expression"]) == ("not-found", given)
        assert "No Schedule fits" in issue["diagnostics"]


async def test_a_schedule_of_no_known_zone_is_not_called_closed(clinic: Client) -> None:
    oak: dict[str, Any] = {"resourceType": "Schedule", "id": "oak", "actor": [{"reference": "Practitioner/oak"}]}
    await store(clinic, [{"resourceType": "Practitioner", "id": "oak"}, oak])
    (outcome,) = await entries(clinic, f"Appointment/$find?{MONDAY}&practitioner=Practitioner/oak")
    (issue,) = outcome["issue"]
    assert (issue["severity"], issue["code"]) == ("warning", "required")


async def test_horizon_and_notice_are_said_in_words_of_people(known: Knowledge) -> None:
    clock = Clock()
    async with practice(known, clock=clock, minimumNotice=90, horizon=14 * 1440) as client:
        late = visit("2026-04-02T10:00:00-05:00", "2026-04-02T10:30:00-05:00", PINE, ADA)
        refused = await call(client, "Appointment/$book", appointment_resource=late)
        assert "14 days ahead at most" in diagnostics(refused)
        soon = visit("2026-03-01T08:00:00-06:00", "2026-03-01T08:30:00-06:00", PINE, ADA)
        assert (await call(client, "Appointment/$book", appointment_resource=soon)).status_code == 201
        clock.set("2026-03-01T15:00:00Z")
        soon = visit("2026-03-01T10:00:00-06:00", "2026-03-01T10:30:00-06:00", PINE, BEN)
        assert "90 minutes of notice" in diagnostics(await call(client, "Appointment/$book", appointment_resource=soon))


async def test_a_reschedule_that_says_nothing_is_refused(clinic: Client) -> None:
    made = (await call(clinic, "Appointment/$book", appointment_resource=visit("10:00", "10:30", PINE, ADA))).json()
    refused = await call(clinic, url(made, "reschedule"), reason="why not")
    assert (refused.status_code, refused.json()["issue"][0]["code"]) == (400, "required")
    assert "`start`" in diagnostics(refused)


async def test_a_series_that_is_cancelled_twice_answers_with_its_members(clinic: Client) -> None:
    made = appointments(await book_series(clinic, [("frequency", "daily"), ("count", 3)]))
    first = await call(clinic, url(made[0], "cancel"), scope="all")
    again = await call(clinic, url(made[0], "cancel"), scope="all")
    assert (again.status_code, appointments(again)) == (200, appointments(first))
    moved = await call(clinic, url(made[0], "reschedule"), start="2026-03-05T11:00:00-06:00", scope="all")
    assert moved.status_code == 422 and "book anew" in diagnostics(moved)


async def test_a_wrong_weekday_names_its_part(clinic: Client) -> None:
    refused = await book_series(clinic, [("frequency", "weekly"), ("weekday", "xxx"), ("count", 2)])
    assert refused.json()["issue"][0]["expression"] == ["weekday"]
