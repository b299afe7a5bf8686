"""What people who run scheduling systems reported, one test each: the S rows that pure functions can decide."""

from __future__ import annotations

import itertools
from datetime import date, time
from zoneinfo import ZoneInfo

from fhir_server.fhir.datetimes import format_instant
from mappers.scheduling.calendars import Calendar, Practice, build_calendar, read_practice
from mappers.scheduling.clashes import apply_override, find_clashes, find_refusals, note_override
from mappers.scheduling.elements import Resource, find_extension, reference_of
from mappers.scheduling.extensions import BOOKING_OVERRIDE, TIME_ZONE
from mappers.scheduling.free_times import FreeTime, FreeTimesRequest, compute_free_times, list_chunks
from mappers.scheduling.intervals import DAY, MINUTE, Interval
from mappers.scheduling.life_cycle import check_transition
from mappers.scheduling.locks import name_locks
from mappers.scheduling.occupied import list_occupied
from mappers.scheduling.parameters import SchedulingParameters
from mappers.scheduling.publication import count_left
from mappers.scheduling.series import SeriesRule, choose_alternatives, explain_occurrence, list_occurrences
from mappers.scheduling.slots import SlotContext, derive_slots
from mappers.scheduling.wall_clock import to_local
from tests.mappers.scheduling.scheduling_resources import WORKDAYS, appointment, at, parameters, role, schedule, slot

NOW = at("2026-01-01T00:00:00Z")
NONE: frozenset[str] = frozenset()


def practice_of(*resources: Resource, zone: str = "America/Chicago", grid: int = 30) -> Practice:
    found, issues = read_practice(resources, SchedulingParameters(zone=zone, grid=grid, horizon=1000 * 1440))
    assert issues == []
    return found


def clinic(**extra: list[Resource]) -> Practice:
    """Pine and Elm, weekdays from 09:00 to 17:00 in Chicago."""
    people = ("pine", "elm")
    roles = [role(name, f"Practitioner/{name}", ("09:00:00", "17:00:00"), days=WORKDAYS) for name in people]
    schedules = [schedule(name, f"PractitionerRole/{name}", extension=extra.get(name)) for name in people]
    return practice_of(*roles, *schedules)


def calendar(practice: Practice, name: str) -> Calendar:
    found, _ = build_calendar(practice.directory[f"Schedule/{name}"], NONE, practice)
    assert found is not None
    return found


def free(
    practice: Practice, names: tuple[str, ...], start: str, days: int = 1, store: tuple[Resource, ...] = ()
) -> list[FreeTime]:
    pool = tuple(calendar(practice, name) for name in names)
    request = FreeTimesRequest(Interval(at(start), at(start) + days * DAY), NOW, (pool,))
    occupied = list_occupied(store, (), practice, NOW)
    return [each for chunk in list_chunks(request) for each in compute_free_times(request, chunk, occupied)]


def book(store: list[Resource], new: Resource, practice: Practice) -> bool:
    """What a booking does inside its lock."""
    if find_clashes(new, list_occupied(store, (), practice, NOW), practice):
        return False
    store.append(new)
    return True


def visit(id: str, start: str, end: str, *actors: str, status: str = "booked") -> Resource:
    return appointment(id, f"2026-03-02T{start}:00-06:00", f"2026-03-02T{end}:00-06:00", *actors, status=status)


def test_s1_overlapping_unequal_bookings_are_one_race_at_capacity_k() -> None:
    starts = ["09:00", "09:05", "09:10", "09:15"]
    ends = ["09:30", "09:35", "09:40", "09:45"]
    for capacity in (1, 3):
        practice, store = clinic(pine=[parameters(capacity=capacity)]), list[Resource]()
        new = [visit(str(n), starts[n % 4], ends[n % 4], "Practitioner/pine") for n in range(200)]
        assert sum(book(store, each, practice) for each in new) == capacity
        locks = [name_locks(each, practice) for each in new]
        assert all(each == locks[0] for each in locks)  # all meet in one lock


def test_s2_the_rule_is_checked_at_every_way_into_booked() -> None:
    practice = clinic()
    first = visit("a1", "10:00", "10:30", "Practitioner/pine", status="pending")
    second = visit("a2", "10:00", "10:30", "Practitioner/pine", status="pending")
    confirmed = {**first, "status": "booked"}
    occupied = list_occupied((first, second), (), practice, NOW)
    assert find_clashes(confirmed, occupied, practice, first) == []
    occupied = list_occupied((confirmed, second), (), practice, NOW)
    (refusal,) = find_clashes({**second, "status": "booked"}, occupied, practice, second)
    assert refusal.others == ("Appointment/a1",)


def test_s4_capacity_belongs_to_the_actor_and_any_of_tries_the_others() -> None:
    practice, store, answers = clinic(), list[Resource](), []
    for number in range(3):
        times = free(practice, ("pine", "elm"), "2026-03-02T16:00:00Z", store=tuple(store))
        candidates = [each for each in times if each.start == at("2026-03-02T16:00:00Z")]
        for each in candidates:
            new = visit(str(number), "10:00", "10:30", each.calendars[0].actor)
            if book(store, new, practice):
                answers.append(each.calendars[0].actor)
                break
        else:
            answers.append("409")
    assert answers == ["Practitioner/elm", "Practitioner/pine", "409"]


def test_s5_ten_any_of_bookings_are_shared_evenly_in_a_stated_order() -> None:
    practice, store = clinic(), list[Resource]()
    for number in range(10):
        first = free(practice, ("pine", "elm"), "2026-03-02T06:00:00Z", store=tuple(store))[0]
        assert book(
            store,
            appointment(str(number), format_instant(first.start), format_instant(first.end), first.calendars[0].actor),
            practice,
        )
    taken = [each["participant"][0]["actor"]["reference"] for each in store]
    # equal minutes: by id, so elm goes first at each time
    assert taken == ["Practitioner/elm", "Practitioner/pine"] * 5


def test_s6_series_keep_their_wall_clock_time() -> None:
    rule = SeriesRule(date(2026, 3, 1), time(15), 90, ZoneInfo("America/Chicago"), count=3)
    found, _ = list_occurrences(rule)
    assert [format_instant(each.start or 0) for each in found] == [
        "2026-03-01T21:00:00.000Z",
        "2026-03-08T20:00:00.000Z",
        "2026-03-15T20:00:00.000Z",
    ]


def walls(zone: str, day: str, start: str) -> list[str]:
    """The wall-clock starts that a service which is always open offers on a day."""
    always = role("r", "Practitioner/p", availableTime=[{"allDay": True}])
    practice = practice_of(always, schedule("s", "PractitionerRole/r"), zone=zone)
    found = free(practice, ("s",), start, 2)
    local = [to_local(each.start, ZoneInfo(zone)) for each in found]
    return [each.strftime("%H:%M%z") for each in local if each.date() == date.fromisoformat(day)]


def test_s6_a_time_that_does_not_exist_is_not_offered_and_one_that_comes_twice_is_two() -> None:
    spring = walls("America/Chicago", "2026-03-08", "2026-03-08T06:00:00Z")
    assert "02:30-0500" not in spring and "02:30-0600" not in spring
    assert spring[3:5] == ["01:30-0600", "03:00-0500"]
    autumn = walls("America/Chicago", "2026-11-01", "2026-11-01T05:00:00Z")
    assert [each for each in autumn if each.startswith("01:30")] == ["01:30-0500", "01:30-0600"]
    howe = walls("Australia/Lord_Howe", "2026-04-05", "2026-04-04T13:00:00Z")
    assert howe[2:7] == ["01:00+1100", "01:30+1100", "01:30+1030", "02:00+1030", "02:30+1030"]
    assert len(walls("America/Phoenix", "2026-03-08", "2026-03-08T07:00:00Z")) == 48


def test_s7_unavailability_has_the_scope_of_where_it_stands() -> None:
    away = [{"description": "away", "during": {"start": "2026-12-24", "end": "2026-12-24"}}]
    hours = ("09:00:00", "10:00:00")
    denver = [{"url": TIME_ZONE, "valueCode": "America/Denver"}]
    practice = practice_of(
        role("north", "Practitioner/pine", hours, notAvailable=away),
        role("south", "Practitioner/pine", hours, location=[{"reference": "Location/south"}]),
        {"resourceType": "Location", "id": "south", "extension": denver},
        schedule("north", "PractitionerRole/north"),
        schedule("south", "PractitionerRole/south"),
    )
    assert free(practice, ("north",), "2026-12-24T06:00:00Z") == []
    assert format_instant(free(practice, ("south",), "2026-12-24T06:00:00Z")[0].start) == "2026-12-24T16:00:00.000Z"
    # what is booked in the north occupies the person in the south
    booked = appointment("a", "2026-12-24T16:00:00Z", "2026-12-24T16:30:00Z", "PractitionerRole/north")
    assert len(free(practice, ("south",), "2026-12-24T06:00:00Z", store=(booked,))) == 1


def test_s7_a_block_over_midnight_covers_both_days() -> None:
    night = [{"openingTime": "22:00:00", "closingTime": "02:00:00"}]
    room = {"resourceType": "Location", "id": "room", "hoursOfOperation": night}
    practice = practice_of(room, schedule("room", "Location/room"))
    starts = [format_instant(each.start)[11:16] for each in free(practice, ("room",), "2026-01-05T06:00:00Z", 1)]
    assert starts == ["06:00", "06:30", "07:00", "07:30", "04:00", "04:30", "05:00", "05:30"]
    over = appointment("a", "2026-01-06T05:30:00Z", "2026-01-06T06:30:00Z", "Location/room")
    assert find_refusals(over, list_occupied((), (), practice, NOW), practice, NOW) == []


def test_s9_staff_may_double_book_with_a_reason_that_is_kept() -> None:
    practice = clinic()
    there = visit("a", "10:00", "10:30", "Practitioner/pine")
    new = visit("b", "10:00", "10:30", "Practitioner/pine")
    refusals = find_refusals(new, list_occupied((there,), (), practice, NOW), practice, NOW)
    assert [each.code for each in apply_override(refusals, ["clash"], "")[2]] == ["required"]
    remaining, aside, issues = apply_override(refusals, ["clash"], "mother of Cy Reed asked")
    assert (remaining, len(aside), issues) == ([], 1, [])
    noted = note_override(new, ["clash"], "mother of Cy Reed asked", "Practitioner/elm")
    assert find_extension(noted, BOOKING_OVERRIDE) is not None
    context = SlotContext((), frozenset(), lambda: "s", NOW, overbooked=True)
    assert derive_slots(noted, practice, context).writes[0]["overbooked"] is True
    starts = {each.start for each in free(practice, ("pine",), "2026-03-02T06:00:00Z", store=(there, noted))}
    assert at("2026-03-02T16:00:00Z") not in starts


def test_s10_a_patient_is_at_one_place_at_a_time() -> None:
    practice = clinic()
    there = visit("a", "10:00", "10:30", "Practitioner/pine", "Patient/ada")
    new = visit("b", "10:15", "10:45", "Practitioner/elm", "Patient/ada")
    (refusal,) = find_clashes(new, list_occupied((there,), (), practice, NOW), practice)
    assert (refusal.actor, refusal.others) == ("Patient/ada", ("Appointment/a",))


def test_s13_leaving_an_occupying_status_frees_the_slots() -> None:
    practice, numbers = clinic(), itertools.count()
    site = slot("site", "Schedule/elm", "2026-03-02T16:00:00Z", "2026-03-02T16:30:00Z", "free")
    context = SlotContext((site,), frozenset(), lambda: f"n{next(numbers)}", NOW)
    booked = derive_slots(visit("a", "10:00", "10:30", "Practitioner/pine", "Practitioner/elm"), practice, context)
    stored = SlotContext(booked.writes, frozenset(), lambda: "x", NOW)
    freed = derive_slots({**booked.appointment, "status": "cancelled"}, practice, stored, booked.appointment)
    assert [(reference_of(each), each["status"]) for each in freed.writes] == [("Slot/site", "free")]
    assert freed.deletes == ("Slot/n0",)
    refused = check_transition("cancelled", "booked")
    assert refused is not None
    assert "book anew" in refused.diagnostics


def test_s14_a_refusal_lists_the_statuses_allowed_next() -> None:
    issue = check_transition("noshow", "arrived")
    assert issue is not None
    assert "allowed: booked (with override), entered-in-error" in issue.diagnostics
    assert check_transition("noshow", "booked") is not None
    assert check_transition("noshow", "booked", override=True) is None
    assert check_transition("booked", "arrived") is None and check_transition("arrived", "fulfilled") is None


def test_s15_a_series_answers_per_occurrence_with_three_alternatives() -> None:
    practice = clinic()
    rule = SeriesRule(date(2026, 3, 3), time(10), 30, ZoneInfo("America/Chicago"), count=12)
    found, _ = list_occurrences(rule)
    seventh = found[6].start
    assert seventh is not None
    taken = appointment("x", format_instant(seventh), format_instant(seventh + 30 * MINUTE), "Practitioner/pine")
    occupied, issues = list_occupied((taken,), (), practice, NOW), []
    for each in found:
        assert each.start is not None and each.end is not None
        new = appointment("new", format_instant(each.start), format_instant(each.end), "Practitioner/pine")
        times = free(practice, ("pine",), f"{each.day.isoformat()}T06:00:00Z", store=(taken,))
        issue = explain_occurrence(
            each, find_refusals(new, occupied, practice, NOW), choose_alternatives(times, each.start)
        )
        issues += [issue] if issue else []
    (only,) = issues
    assert only.expression == ("occurrence[6]",)
    assert "Occurrence 7 on 2026-04-14" in only.diagnostics and "`Appointment/x`" in only.diagnostics
    # 10:00 in Chicago is 15:00Z by then; the nearest are half an hour before and after, and one hour before
    nearest = [f"2026-04-14T{clock}:00.000Z" for clock in ("14:00", "14:30", "15:30")]
    assert f"Free instead: {', '.join(nearest)}." in only.diagnostics


def test_s19_capacity_is_what_is_left_now() -> None:
    practice = clinic(pine=[parameters(capacity=3)])
    store = (visit("a", "10:00", "10:30", "Practitioner/pine"), visit("b", "10:00", "10:30", "Practitioner/pine"))
    time_of_visit = Interval(at("2026-03-02T16:00:00Z"), at("2026-03-02T16:30:00Z"))
    for count, left in ((0, 3), (1, 2), (2, 1)):
        occupied = list_occupied(store[:count], (), practice, NOW)
        assert count_left(calendar(practice, "pine"), time_of_visit, occupied) == left


def test_s20_a_refusal_is_a_conflict() -> None:
    practice, store = clinic(), list[Resource]()
    assert book(store, visit("a", "10:00", "10:30", "Practitioner/pine", status="pending"), practice)
    second = visit("b", "10:00", "10:30", "Practitioner/pine", status="pending")
    (refusal,) = find_clashes(second, list_occupied(store, (), practice, NOW), practice)
    assert (refusal.issue.severity, refusal.issue.code) == ("error", "conflict")
