"""Calendar feeds over HTTP: secret links are made, listed and revoked; a feed tells who, when and where only."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import icalendar
import pytest

from fhir_server.app import Knowledge, Seams
from fhir_server.fhir.outcome import Forbidden
from fhir_server.operations.scheduling.calendar_links import MOST_LINKS
from fhir_server.search.query import EVERYTHING, NOTHING, Clause
from fhir_server.security.policy import AllowAll, Principal
from tests.conftest import Client, serving
from tests.operations.scheduling.booking_clinic import (
    Clock,
    Tree,
    call,
    doctors,
    patch_status,
    patients,
    post,
    room,
    store,
    visit,
)
from tests.workers.hl7v2_messages import choose_store

pytestmark = pytest.mark.anyio

PINE, ELM, ADA, ROOM = "Practitioner/pine", "Practitioner/elm", "Patient/ada", "Location/room-1"
NAMED = [
    {"resourceType": "Practitioner", "id": "pine", "name": [{"family": "Pine"}]},
    {"resourceType": "Practitioner", "id": "elm", "name": [{"family": "Elm"}]},
    {"resourceType": "Patient", "id": "ada", "name": [{"family": "Quill", "given": ["Ada", "May"]}]},
    {**room(), "name": "Room 1"},
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
        await store(client, [*doctors(), *patients(), *NAMED])
        yield client


async def make_link(client: Client, owner: str) -> tuple[str, str]:
    """(id, URL)."""
    answer = await client.fhir("POST", f"{owner}/$calendar-link")
    assert answer.status_code == 201, answer.text
    told = {each["name"]: each.get("valueString", each.get("valueUrl")) for each in answer.json()["parameter"]}
    return str(told["id"]), str(told["url"])


async def read_events(client: Client, url: str) -> list[Any]:
    answer = await client.fhir("GET", url)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/calendar; charset=utf-8"
    return list(icalendar.Calendar.from_ical(answer.text).walk("VEVENT"))


async def book(client: Client, start: str, end: str, *actors: str, **more: Any) -> Tree:
    return await post(client, visit(start, end, *actors, **more))


async def test_a_link_opens_the_feed_of_its_owner_in_its_zone(clinic: Client) -> None:
    made = await book(clinic, "10:00", "10:30", PINE, ADA, ROOM, comment="itching", description="rash")
    await book(clinic, "11:00", "11:30", ELM, ADA)
    _, url = await make_link(clinic, PINE)
    (event,) = await read_events(clinic, url)
    assert str(event["uid"]) == f"{made['id']}@test"
    assert (event["dtstart"].dt.isoformat(), event["dtstart"].params["TZID"]) == (
        "2026-03-02T10:00:00-06:00",
        "America/Chicago",
    )
    assert (str(event["summary"]), str(event["location"])) == ("A.M.Q.", "Room 1")
    text = (await clinic.fhir("GET", url)).text
    assert not any(word in text for word in ("Quill", "itching", "rash"))
    assert "BEGIN:VTIMEZONE" in text


async def test_the_feed_of_a_patient_room_and_schedule_has_their_visits_alone(clinic: Client) -> None:
    await book(clinic, "10:00", "10:30", PINE, ADA, ROOM)
    await book(clinic, "11:00", "11:30", ELM, ADA)
    await book(clinic, "12:00", "12:30", ELM, "Patient/ben", ROOM)
    counts = {}
    for owner in (PINE, ELM, ADA, "Patient/ben", ROOM, "Schedule/elm"):
        counts[owner] = len(await read_events(clinic, (await make_link(clinic, owner))[1]))
    assert counts == {PINE: 1, ELM: 2, ADA: 2, "Patient/ben": 1, ROOM: 2, "Schedule/elm": 2}


async def test_a_change_raises_the_sequence_and_what_is_cancelled_stays_thirty_days(
    clinic: Client, clock: Clock
) -> None:
    made = await book(clinic, "10:00", "10:30", PINE, ADA)
    _, url = await make_link(clinic, PINE)
    (before,) = await read_events(clinic, url)
    moved = await call(clinic, f"Appointment/{made['id']}/$reschedule", start="2026-03-02T11:00:00-06:00")
    assert moved.status_code == 200, moved.text
    (after,) = await read_events(clinic, url)
    assert after["uid"] == before["uid"] and after["sequence"] > before["sequence"]
    await patch_status(clinic, made, "cancelled")
    (cancelled,) = await read_events(clinic, url)
    assert str(cancelled["status"]) == "CANCELLED" and cancelled["sequence"] > after["sequence"]
    clock.set("2026-03-31T11:59:00Z")
    assert len(await read_events(clinic, url)) == 1
    clock.set("2026-03-31T12:01:00Z")
    assert await read_events(clinic, url) == []


async def test_a_hold_that_has_expired_is_cancelled_in_the_feed(clinic: Client, clock: Clock) -> None:
    held = await call(clinic, "Appointment/$hold", appointment_resource=visit("10:00", "10:30", PINE, ADA))
    assert held.status_code == 201, held.text
    _, url = await make_link(clinic, PINE)
    assert [str(each["status"]) for each in await read_events(clinic, url)] == ["TENTATIVE"]
    clock.set("2026-03-01T12:11:00Z")
    assert [str(each["status"]) for each in await read_events(clinic, url)] == ["CANCELLED"]


async def test_links_are_listed_without_their_keys_and_revoked(clinic: Client) -> None:
    (one, first), (two, second) = await make_link(clinic, PINE), await make_link(clinic, PINE)
    listed = (await clinic.fhir("GET", f"{PINE}/$calendar-link")).json()
    told = [{part["name"]: part for part in each["part"]} for each in listed["parameter"]]
    assert [each["id"]["valueString"] for each in told] == [one, two]
    keys = [parse_qs(urlsplit(url).query)["key"][0] for url in (first, second)]
    assert not any(secret.partition(".")[2] in str(listed) for secret in keys)
    assert (await clinic.fhir("DELETE", f"{PINE}/$calendar-link?id={one}")).status_code == 200
    assert (await clinic.fhir("GET", first)).status_code == 404
    assert (await clinic.fhir("GET", second)).status_code == 200
    assert (await clinic.fhir("DELETE", f"{PINE}/$calendar-link?id={one}")).status_code == 404


async def test_only_a_hash_of_the_key_is_stored(clinic: Client) -> None:
    _, url = await make_link(clinic, PINE)
    secret = parse_qs(urlsplit(url).query)["key"][0].partition(".")[2]
    values = (await clinic.server.context.unrestricted.list_values("calendar/")).values
    assert len(values) == 1 and secret.encode() not in values[0][1] and secret not in values[0][0]


async def test_a_key_that_opens_nothing_is_one_answer_whatever_the_reason(clinic: Client) -> None:
    id, url = await make_link(clinic, PINE)
    key = parse_qs(urlsplit(url).query)["key"][0]
    tries = {
        "of another owner": f"{ELM}/$calendar?key={key}",
        "of nobody": f"Practitioner/nobody/$calendar?key={key}",
        "another secret": f"{PINE}/$calendar?key={id}.x",
        "no secret": f"{PINE}/$calendar?key={id}",
        "no id": f"{PINE}/$calendar?key=.x",
        "another id": f"{PINE}/$calendar?key=ff.x",
        "a path": f"{PINE}/$calendar?key=../elm/{key}",
        "a NUL": f"{PINE}/$calendar?key=%00.x",
    }
    answers = {name: await clinic.fhir("GET", tried) for name, tried in tries.items()}
    assert {name: each.status_code for name, each in answers.items()} == dict.fromkeys(tries, 404)
    assert len({each.text for each in answers.values()}) == 1
    assert (await clinic.fhir("GET", f"{PINE}/$calendar")).status_code == 400


async def test_a_resource_has_a_bounded_number_of_links(clinic: Client) -> None:
    for _ in range(MOST_LINKS):
        await make_link(clinic, PINE)
    answer = await clinic.fhir("POST", f"{PINE}/$calendar-link")
    assert answer.status_code == 409 and "revoke" in answer.text
    assert (await clinic.fhir("POST", f"{ELM}/$calendar-link")).status_code == 201


async def test_who_is_not_here_has_no_link_and_a_deleted_one_no_feed(clinic: Client) -> None:
    assert (await clinic.fhir("POST", "Patient/nobody/$calendar-link")).status_code == 404
    id, url = await make_link(clinic, "Patient/dot")
    assert (await clinic.fhir("DELETE", "Patient/dot")).status_code in (200, 204)
    assert (await clinic.fhir("GET", url)).status_code == 404
    assert (await clinic.fhir("DELETE", f"Patient/dot/$calendar-link?id={id}")).status_code == 200


async def test_a_feed_cannot_stand_in_a_bundle(clinic: Client) -> None:
    _, url = await make_link(clinic, PINE)
    entry = {"request": {"method": "GET", "url": url.partition("/fhir/")[2]}}
    answer = await clinic.post("", json={"resourceType": "Bundle", "type": "batch", "entry": [entry]})
    assert answer.json()["entry"][0]["response"]["status"].startswith("400")
    assert "text/calendar" in answer.text and "by itself" in answer.text


class Careful(AllowAll):
    """Everybody but `anonymous` may call; `anonymous` may see nothing, `nurse` no Appointment."""

    def authorise(self, principal: Principal, interaction: str, type: str | None, id: str | None) -> None:
        if principal.name == "anonymous":
            raise Forbidden("No.")

    def restricts(self, principal: Principal) -> bool:
        return principal.name != "doctor"

    def restriction(self, principal: Principal, type: str) -> Clause:
        hidden = principal.name == "anonymous" or type == "Appointment"
        return NOTHING if hidden else EVERYTHING


async def test_a_feed_needs_no_token_and_shows_what_the_maker_of_its_link_may_see(
    known: Knowledge, store_uri: str
) -> None:
    async def authenticate(headers: Any) -> Principal:
        return Principal(headers.get("x-user", "anonymous"))

    seams = Seams(clock=Clock(), policy=Careful(), authenticate=authenticate)
    async with serving(known, seams, store=store_uri) as client:
        client.headers["x-user"] = "doctor"
        await store(client, [*doctors(), *patients(), *NAMED])
        await book(client, "10:00", "10:30", PINE, ADA)
        urls = {}
        for user in ("doctor", "nurse"):
            client.headers["x-user"] = user
            urls[user] = (await make_link(client, PINE))[1]
        del client.headers["x-user"]
        assert (await client.fhir("POST", f"{PINE}/$calendar-link")).status_code == 403
        assert len(await read_events(client, urls["doctor"])) == 1
        assert await read_events(client, urls["nurse"]) == []
