"""Free times: brute force minute by minute, the order, paging, holds, and why nothing is found."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fhir_server.fhir.datetimes import format_instant
from mappers.scheduling.calendars import Calendar, Practice, build_calendar, read_practice
from mappers.scheduling.clashes import find_refusals
from mappers.scheduling.elements import Resource
from mappers.scheduling.extensions import HOLD_EXPIRES, SLOT_ORIGIN
from mappers.scheduling.free_times import (
    FreeTime,
    FreeTimesRequest,
    Position,
    compute_free_times,
    explain_nothing,
    find_reasons,
    find_window_reasons,
    list_chunks,
)
from mappers.scheduling.hours import Holiday
from mappers.scheduling.intervals import MINUTE, Interval
from mappers.scheduling.occupied import list_occupied
from mappers.scheduling.parameters import SchedulingParameters
from mappers.scheduling.wall_clock import to_local
from tests.mappers.scheduling.scheduling_resources import (
    WORKDAYS,
    appointment,
    at,
    parameters,
    role,
    schedule,
    slot,
)

NONE: frozenset[str] = frozenset()
MONDAY = "2026-03-02"
SETTING = SchedulingParameters(zone="America/Chicago", grid=30)


def practice_of(*resources: Resource, holidays: tuple[Holiday, ...] = ()) -> Practice:
    practice, issues = read_practice(resources, SETTING, holidays)
    assert issues == []
    return practice


def clinic(**extra: Any) -> list[Resource]:
    """Pine and Elm, weekdays 09:00 to 11:00 in Chicago, and a room that is always open."""
    return [
        role("pine", "Practitioner/pine", ("09:00:00", "11:00:00"), days=WORKDAYS),
        role("elm", "Practitioner/elm", ("09:00:00", "11:00:00"), days=WORKDAYS),
        schedule("pine", "PractitionerRole/pine", **extra),
        schedule("elm", "PractitionerRole/elm", **extra),
        schedule("room", "Location/room"),
        {"resourceType": "Location", "id": "room", "physicalType": {"coding": [{"code": "ro"}]}},
    ]


def calendar(practice: Practice, name: str, types: frozenset[str] = NONE) -> Calendar:
    found, issues = build_calendar(practice.directory[f"Schedule/{name}"], types, practice)
    assert found is not None
    assert issues == []
    return found


@dataclass(frozen=True)
class Case:
    """A practice and what is in its store."""

    practice: Practice
    appointments: tuple[Resource, ...] = ()
    slots: tuple[Resource, ...] = ()
    now: int = at("2026-03-01T00:00:00Z")

    def request(self, *pools: tuple[str, ...], start: str = MONDAY, days: int = 1, **more: Any) -> FreeTimesRequest:
        low = at(f"{start}T00:00:00-06:00")
        every = tuple(tuple(calendar(self.practice, name) for name in pool) for pool in pools)
        return FreeTimesRequest(Interval(low, low + days * 1440 * MINUTE), self.now, every, **more)

    def free(self, request: FreeTimesRequest, position: Position | None = None) -> Iterator[FreeTime]:
        occupied = list_occupied(self.appointments, self.slots, self.practice, self.now)
        for chunk in list_chunks(request, position):
            yield from compute_free_times(request, chunk, occupied, position)

    def reasons(self, request: FreeTimesRequest) -> set[str]:
        occupied = list_occupied(self.appointments, self.slots, self.practice, self.now)
        chunks = [find_reasons(request, chunk, occupied) for chunk in list_chunks(request)]
        return find_window_reasons(request).union(*chunks)


def shown(found: Iterator[FreeTime]) -> list[tuple[str, ...]]:
    """Chicago times with the Schedules."""
    zone = ZoneInfo("America/Chicago")
    return [
        (to_local(each.start, zone).strftime("%H:%M"), *(one.schedule.split("/")[1] for one in each.calendars))
        for each in found
    ]


def test_any_of_is_ordered_by_start_then_booked_minutes_then_schedule() -> None:
    taken = appointment("a", f"{MONDAY}T10:00:00-06:00", f"{MONDAY}T10:30:00-06:00", "Practitioner/elm")
    case = Case(practice_of(*clinic()), (taken,))
    assert shown(case.free(case.request(("elm", "pine")))) == [
        ("09:00", "pine"),
        ("09:00", "elm"),
        ("09:30", "pine"),
        ("09:30", "elm"),
        ("10:00", "pine"),
        ("10:30", "pine"),
        ("10:30", "elm"),
    ]


def test_all_of_needs_provider_and_room() -> None:
    taken = appointment("a", f"{MONDAY}T09:00:00-06:00", f"{MONDAY}T10:00:00-06:00", "Location/room")
    case = Case(practice_of(*clinic()), (taken,))
    assert shown(case.free(case.request(("pine",), ("room",)))) == [
        ("10:00", "pine", "room"),
        ("10:30", "pine", "room"),
    ]


def test_one_calendar_is_not_taken_for_two_pools() -> None:
    case = Case(practice_of(*clinic()))
    assert shown(case.free(case.request(("pine",), ("pine", "elm"))))[0] == ("09:00", "pine", "elm")
    assert list(case.free(case.request(("pine",), ("pine",)))) == []


def test_buffers_belong_to_each_calendar() -> None:
    """The room needs 30 minutes before a visit; its own buffer goes against its own visits, not Pine's."""
    room = schedule("room", "Location/room", extension=[parameters(bufferBefore=30)])
    resources = [*clinic()[:4], room, clinic()[5]]
    other = appointment("a", f"{MONDAY}T08:30:00-06:00", f"{MONDAY}T09:00:00-06:00", "Practitioner/pine")
    assert shown(
        Case(practice_of(*resources), (other,)).free(Case(practice_of(*resources)).request(("pine",), ("room",)))
    )[0] == ("09:00", "pine", "room")
    used = appointment("b", f"{MONDAY}T08:30:00-06:00", f"{MONDAY}T09:00:00-06:00", "Location/room")
    case = Case(practice_of(*resources), (used,))
    assert shown(case.free(case.request(("pine",), ("room",))))[0] == ("09:30", "pine", "room")


def test_pages_follow_each_other_without_repeats_or_gaps() -> None:
    case = Case(practice_of(*clinic()))
    request = case.request(("pine", "elm"), days=3)
    every = list(case.free(request))
    assert len(every) == 2 * 4 * 3
    walked: list[FreeTime] = []
    position = None
    while page := [each for each, _ in zip(case.free(request, position), range(5), strict=False)]:
        walked += page
        position = Position(page[-1].start, page[-1].calendars[0].schedule)
    assert walked == every


def test_a_page_whose_last_time_was_taken_meanwhile_misses_nothing() -> None:
    case = Case(practice_of(*clinic()))
    request = case.request(("pine", "elm"))
    position = Position(at(f"{MONDAY}T09:00:00-06:00"), "Schedule/gone")
    assert shown(case.free(request, position))[:2] == [("09:00", "elm"), ("09:00", "pine")]
    last = Position(at(f"{MONDAY}T10:30:00-06:00"), "Schedule/gone")
    assert shown(case.free(request, last)) == [("10:30", "elm"), ("10:30", "pine")]


def test_a_hold_is_free_the_moment_it_expires() -> None:
    expires = {"url": HOLD_EXPIRES, "valueInstant": "2026-03-01T12:10:00Z"}
    times = (f"{MONDAY}T09:00:00-06:00", f"{MONDAY}T09:30:00-06:00")
    hold = appointment(
        "h", *times, "Practitioner/pine", status="pending", extension=[expires], slot=[{"reference": "Slot/h"}]
    )
    held = slot("h", "Schedule/pine", *times, status="busy-tentative", extension=[expires])
    for now, first in (("2026-03-01T12:09:59.999Z", "09:30"), ("2026-03-01T12:10:00Z", "09:00")):
        for appointments in ((hold,), ()):
            case = Case(practice_of(*clinic()), appointments, (held,), at(now))
            assert shown(case.free(case.request(("pine",))))[0] == (first, "pine")


def test_a_slot_that_an_appointment_names_is_not_counted_beside_it() -> None:
    """At capacity 2 one visit with its Slot takes one place, not two."""
    times = (f"{MONDAY}T09:00:00-06:00", f"{MONDAY}T09:30:00-06:00")
    resources = practice_of(*clinic(extension=[parameters(capacity=2)]))
    visit = appointment("a", *times, "Practitioner/pine", slot=[{"reference": "Slot/s"}])
    busy = slot("s", "Schedule/pine", *times)
    assert shown(Case(resources, (visit,), (busy,)).free(Case(resources).request(("pine",))))[0] == ("09:00", "pine")
    assert shown(Case(resources, (), (busy,)).free(Case(resources).request(("pine",))))[0] == ("09:30", "pine")


@pytest.mark.parametrize(
    ("status", "more", "first"),
    [
        ("busy", {}, "09:30"),
        ("busy-unavailable", {}, "09:30"),
        ("busy-tentative", {}, "09:30"),
        ("entered-in-error", {}, "09:00"),
        ("free", {}, "09:00"),
    ],
)
def test_slots_are_exceptions(status: str, more: dict[str, Any], first: str) -> None:
    exception = slot("s", "Schedule/pine", f"{MONDAY}T09:00:00-06:00", f"{MONDAY}T09:30:00-06:00", status, **more)
    case = Case(practice_of(*clinic()), (), (exception,))
    assert shown(case.free(case.request(("pine",))))[0] == (first, "pine")


def test_a_free_slot_of_the_site_opens_time_and_one_of_ours_does_not() -> None:
    early = slot("s", "Schedule/pine", f"{MONDAY}T07:00:00-06:00", f"{MONDAY}T07:30:00-06:00", "free")
    case = Case(practice_of(*clinic()), (), (early,))
    assert shown(case.free(case.request(("pine",))))[0] == ("07:00", "pine")
    ours = {**early, "extension": [{"url": SLOT_ORIGIN, "valueCode": "published"}]}
    case = Case(practice_of(*clinic()), (), (ours,))
    assert shown(case.free(case.request(("pine",))))[0] == ("09:00", "pine")


def test_declined_participants_and_freeing_statuses_take_no_time() -> None:
    times = (f"{MONDAY}T09:00:00-06:00", f"{MONDAY}T09:30:00-06:00")
    declined = appointment("a", *times, "Practitioner/pine")
    declined["participant"][0]["status"] = "declined"
    others = [
        appointment(s, *times, "Practitioner/pine", status=s) for s in ("cancelled", "noshow", "proposed", "waitlist")
    ]
    case = Case(practice_of(*clinic()), (declined, *others))
    assert shown(case.free(case.request(("pine",))))[0] == ("09:00", "pine")


@pytest.mark.parametrize(
    ("case", "start", "reason"),
    [
        ({}, "2026-03-07", "closed"),  # a Saturday
        ({}, "2026-12-01", "horizon"),
        ({"now": at("2026-03-02T16:59:00Z")}, MONDAY, "notice"),
        ({"booked": True}, MONDAY, "booked"),
        ({"most": 1}, MONDAY, "capacity"),
        ({"capacity": 2}, MONDAY, "capacity"),
    ],
)
def test_when_nothing_is_found_the_reason_is_told(case: dict[str, Any], start: str, reason: str) -> None:
    rows: dict[str, Any] = {"mostPerDay": 1} if "most" in case else {"capacity": 2} if "capacity" in case else {}
    end = "09:30" if "most" in case else "11:00"
    count = case.get("capacity", 1 if case.keys() & {"booked", "most"} else 0)
    visits = tuple(
        appointment(str(n), f"{MONDAY}T09:00:00-06:00", f"{MONDAY}T{end}:00-06:00", "Practitioner/pine")
        for n in range(count)
    )
    practice = practice_of(*clinic(extension=[parameters(**rows)]))
    full = Case(practice, visits, now=case.get("now", at("2026-03-01T00:00:00Z")))
    request = full.request(("pine",), start=start)
    assert list(full.free(request)) == []
    assert reason in full.reasons(request)
    assert explain_nothing({reason})[0].severity == "information"


def test_a_window_in_the_past_has_no_chunks_and_is_told() -> None:
    case = Case(practice_of(*clinic()), now=at("2026-05-01T00:00:00Z"))
    request = case.request(("pine",))
    assert list(list_chunks(request)) == []
    assert "past" in explain_nothing(case.reasons(request))[0].diagnostics


def test_a_schedule_without_a_zone_is_an_issue() -> None:
    practice, _ = read_practice(clinic(), SchedulingParameters())
    found, (issue,) = build_calendar(practice.directory["Schedule/pine"], NONE, practice)
    assert found is None
    assert "No time zone is known for `Schedule/pine`" in issue.diagnostics


# Brute force: everything below asks minute by minute whether each rule holds, without intervals.

ZONES = {"America/Chicago": "2026-03-07", "Australia/Lord_Howe": "2026-04-04", "Europe/Berlin": "2026-10-24"}
ZONES |= {"America/Phoenix": "2026-03-07", "Australia/Lord_Howe ": "2026-10-03", "America/Chicago ": "2026-10-31"}


@dataclass(frozen=True)
class World:
    """One provider and one room with visits, on three days around a clock change."""

    zone: str
    spans: tuple[tuple[int, int], ...]  # minutes after midnight, over midnight when the end is not after the start
    rules: tuple[SchedulingParameters, ...]  # of the provider and of the room
    visits: tuple[tuple[int, int, int], ...]  # which actors (1, 2, 3), start and length in minutes
    holiday: int
    closed: tuple[int, int]
    most: int | None


def rule(buffers: tuple[int, int], capacity: int) -> SchedulingParameters:
    return SchedulingParameters(20, 20, buffers[0], buffers[1], capacity)


ten = st.integers(0, 2).map(lambda n: n * 10)
rules = st.builds(rule, st.tuples(ten, ten), st.integers(1, 2))
clock = st.integers(0, 47).map(lambda n: n * 30)
worlds = st.builds(
    World,
    zone=st.sampled_from(sorted(ZONES)),
    spans=st.lists(st.tuples(clock, clock), min_size=1, max_size=2).map(tuple),
    rules=st.tuples(rules, rules),
    visits=st.lists(
        st.tuples(st.integers(1, 3), st.integers(0, 400).map(lambda n: n * 10), st.sampled_from([20, 30, 45])),
        max_size=12,
    ).map(tuple),
    holiday=st.integers(-1, 2),
    closed=st.tuples(st.integers(0, 4000), st.integers(1, 300)),
    most=st.sampled_from([None, None, 3]),
)


def clock_text(minutes: int) -> str:
    return f"{minutes // 60:02}:{minutes % 60:02}:00"


@settings(max_examples=120, suppress_health_check=[HealthCheck.too_slow])
@given(worlds)
def test_brute_force_minute_by_minute_finds_the_same(world: World) -> None:
    zone, day = ZoneInfo(world.zone.strip()), date.fromisoformat(ZONES[world.zone])
    spans = [span for span in world.spans if span[0] != span[1]] or [(540, 660)]
    low = at(f"{(day - timedelta(days=1)).isoformat()}T12:00:00Z")
    actors = ("Practitioner/pine", "Location/room")
    extension = [
        [
            parameters(
                duration=20, grid=20, bufferBefore=r.buffer_before, bufferAfter=r.buffer_after, capacity=r.capacity
            )
        ]
        for r in world.rules
    ]
    if world.most:
        extension[0].append(parameters(mostPerDay=world.most))
    away = [low + world.closed[0] * MINUTE, low + sum(world.closed) * MINUTE]
    during = {"start": format_instant(away[0]), "end": format_instant(away[1])}
    hours = [(clock_text(start), clock_text(end)) for start, end in spans]
    resources = [
        role("pine", actors[0], *hours, notAvailable=[{"description": "away", "during": during}]),
        schedule("pine", "PractitionerRole/pine", extension=extension[0]),
        schedule("room", actors[1], extension=extension[1]),
        {"resourceType": "Location", "id": "room"},
    ]
    shut = day + timedelta(days=world.holiday)
    holidays = (Holiday(shut, "fair"),) if world.holiday >= 0 else ()
    practice, _ = read_practice(resources, SchedulingParameters(zone=world.zone.strip()), holidays)
    visits = []
    for number, (who, start, length) in enumerate(world.visits):
        present = [actor for bit, actor in ((1, actors[0]), (2, actors[1])) if who & bit]
        begin = low + start * MINUTE
        visits.append(
            appointment(str(number), format_instant(begin), format_instant(begin + length * MINUTE), *present)
        )
    pools = tuple((build_calendar(practice.directory[f"Schedule/{n}"], NONE, practice)[0],) for n in ("pine", "room"))
    window = Interval(low, low + 3 * 1440 * MINUTE)
    request = FreeTimesRequest(window, low, pools)  # type: ignore[arg-type]
    occupied = list_occupied(visits, (), practice, low)
    found = [f.start for chunk in list_chunks(request) for f in compute_free_times(request, chunk, occupied)]

    def is_open(minute: int) -> bool:
        wall = to_local(minute, zone)
        if wall.date() == shut and holidays:
            return False
        if away[0] <= minute < away[1]:
            return False
        now = wall.hour * 60 + wall.minute
        return any(a <= now < b if a < b else now >= a or now < b for a, b in spans)

    def room_is_open(minute: int) -> bool:
        return not (holidays and to_local(minute, zone).date() == shut)

    def fits(bit: int, rules: SchedulingParameters, start: int) -> bool:
        taken = [
            (
                low + s * MINUTE - rules.buffer_before * MINUTE,
                low + (s + length) * MINUTE + rules.buffer_after * MINUTE,
            )
            for who, s, length in world.visits
            if who & bit
        ]
        needed = range(start - rules.buffer_before * MINUTE, start + (20 + rules.buffer_after) * MINUTE, MINUTE)
        return all(sum(a <= minute < b for a, b in taken) < rules.capacity for minute in needed)

    def starting_on(local_day: date) -> int:
        return sum(who & 1 and to_local(low + s * MINUTE, zone).date() == local_day for who, s, _ in world.visits)

    expected = []
    for start in range(window.start, window.end - 20 * MINUTE + 1, MINUTE):
        wall = to_local(start, zone)
        visit = range(start, start + 20 * MINUTE, MINUTE)
        if (
            (wall.hour * 60 + wall.minute) % 20 == 0
            and all(is_open(minute) and room_is_open(minute) for minute in visit)
            and fits(1, world.rules[0], start)
            and fits(2, world.rules[1], start)
            and (world.most is None or starting_on(wall.date()) < world.most)
        ):
            expected.append(start)
    assert found == expected
    # and a booking is held to the same: of all times on the grid, those found have nothing in the way
    for start in range(window.start, window.end - 20 * MINUTE, 50 * MINUTE):
        new = appointment("new", format_instant(start), format_instant(start + 20 * MINUTE), *actors)
        assert (find_refusals(new, occupied, practice, low) == []) == (start in set(found))


def test_the_type_decides_the_length() -> None:
    practice = practice_of(*clinic(extension=[parameters("new", duration=60)]))
    types = frozenset({"urn:example:types|new"})
    found = calendar(practice, "pine", types)
    request = FreeTimesRequest(Case(practice).request(("pine",)).window, 0, ((found,),))
    assert shown(Case(practice).free(request)) == []
    request = FreeTimesRequest(request.window, at("2026-03-01T00:00:00Z"), ((found,),))
    assert shown(Case(practice).free(request)) == [("09:00", "pine"), ("09:30", "pine"), ("10:00", "pine")]
