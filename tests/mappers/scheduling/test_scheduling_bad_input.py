"""Whatever stands in the resources, the functions answer with issues and never with an exception."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mappers.scheduling.calendars import build_calendar, read_practice
from mappers.scheduling.clashes import check_actors, find_refusals
from mappers.scheduling.elements import Resource
from mappers.scheduling.free_times import FreeTimesRequest, compute_free_times, find_reasons, list_chunks, widen_chunk
from mappers.scheduling.intervals import DAY, Interval
from mappers.scheduling.locks import name_locks
from mappers.scheduling.occupied import list_occupied
from mappers.scheduling.parameters import SchedulingParameters
from mappers.scheduling.slots import SlotContext, derive_slots
from tests.mappers.scheduling.scheduling_resources import appointment, at, parameters, role, schedule, slot

NOW = at("2026-03-01T00:00:00Z")
SETTING = SchedulingParameters(zone="America/Chicago")
NONSENSE: st.SearchStrategy[Any] = st.sampled_from(
    [
        None,
        "",
        "x",
        0,
        -1,
        1.5,
        True,
        [],
        {},
        ["x"],
        [{}],
        [[]],
        {"reference": 7},
        {"start": 3},
        "9999-12-31T23:59:59Z",
        "0001-01-01T00:00:00Z",
        "2026-13-01T00:00:00Z",
        {"coding": "x"},
        {"coding": [{"code": 5}]},
        "Practitioner/",
    ]
)


def resources() -> list[Resource]:
    times = ("2026-03-02T16:00:00Z", "2026-03-02T16:30:00Z")
    away = [{"description": "x", "during": {"start": "2026-12-24", "end": "2026-12-26"}}]
    return [
        role(
            "r",
            "Practitioner/pine",
            ("09:00:00", "17:00:00"),
            notAvailable=away,
            location=[{"reference": "Location/l"}],
        ),
        schedule(
            "pine",
            "PractitionerRole/r",
            extension=[parameters("new", duration=20, capacity=2, zone="America/Denver")],
            planningHorizon={"start": "2026-01-01", "end": "2026-12-31"},
        ),
        {
            "resourceType": "Location",
            "id": "l",
            "physicalType": {"coding": [{"code": "bu"}]},
            "hoursOfOperation": [{"daysOfWeek": ["mon"], "openingTime": "08:00:00", "closingTime": "20:00:00"}],
        },
        appointment("a", *times, "PractitionerRole/r", "Patient/ada", slot=[{"reference": "Slot/s"}]),
        slot("s", "Schedule/pine", *times),
    ]


def places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value but the type and id of the resources."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    found = [path] if path else []
    for key, value in items:
        if key not in ("resourceType", "id") or len(path) > 1:
            found += places(value, (*path, key))
    return found


PLACES = [path for path in places(resources()) if len(path) > 1]


def use_everything(every: list[Resource]) -> None:
    """Each function once, over what is there."""
    practice, _ = read_practice(every[:3], SETTING)
    occupied = list_occupied(every[3:4], every[4:], practice, NOW)
    new = every[3]
    check_actors(new, practice)
    find_refusals({**new, "id": "b"}, occupied, practice, NOW, new)
    name_locks(new, practice)
    derive_slots(new, practice, SlotContext((every[4],), frozenset(), lambda: "n", NOW))
    calendar, _ = build_calendar(every[1], frozenset({"urn:example:types|new"}), practice)
    if calendar:
        request = FreeTimesRequest(Interval(NOW, NOW + 3 * DAY), NOW, ((calendar,),))
        for chunk in list_chunks(request):
            widen_chunk(request, chunk, practice)
            list(compute_free_times(request, chunk, occupied))
            find_reasons(request, chunk, occupied)


def test_the_resources_as_they_are_work() -> None:
    use_everything(resources())


@settings(max_examples=600)
@given(st.lists(st.tuples(st.sampled_from(PLACES), NONSENSE), min_size=1, max_size=3))
def test_nonsense_anywhere_is_no_exception(changes: list[tuple[tuple[Any, ...], Any]]) -> None:
    every = copy.deepcopy(resources())
    for path, value in changes:
        target: Any = every
        try:
            for key in path[:-1]:
                target = target[key]
            target[path[-1]] = value
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change took this place away
    use_everything(every)


@pytest.mark.parametrize("start", ["0001-01-01T00:00:00Z", "9999-12-31T23:00:00Z"])
def test_the_ends_of_the_calendar_are_no_exception(start: str) -> None:
    every = resources()
    every[3] = {**every[3], "start": start, "end": start.replace("T23:00", "T23:30").replace("T00:00:00", "T00:30:00")}
    use_everything(every)


def test_a_window_of_all_time_ends_at_the_horizon() -> None:
    practice, _ = read_practice(resources()[:3], SETTING)
    calendar, _ = build_calendar(resources()[1], frozenset(), practice)
    assert calendar is not None
    request = FreeTimesRequest(Interval(-(2**61), 2**61), NOW, ((calendar,),))
    assert len(list(list_chunks(request))) <= 92


def test_an_appointment_of_centuries_is_refused_at_once() -> None:
    practice, _ = read_practice(resources()[:3], SETTING)
    long = appointment("a", "1000-01-01T00:00:00Z", "9000-01-01T00:00:00Z", "Practitioner/pine")
    (refusal,) = find_refusals(long, list_occupied((), (), practice, NOW), practice, NOW)
    assert refusal.issue.code == "too-costly"
