"""Keeps real free Slots for Schedules that ask for it, for apps that search for `Slot?status=free`.

Week by week, from now to 30 days ahead, the Slots that are missing are written and those that fit no more are removed;
it is decided again when an Appointment came between. Nothing depends on when this worker comes: bookings look at
Appointments.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

import orjson

from fhir_server.fhir.outcome import FhirError
from fhir_server.fhir.resource import parse
from fhir_server.scheduling.availability import list_calendars
from fhir_server.scheduling.settle import find
from fhir_server.scheduling.site import read_site
from fhir_server.scheduling.surroundings import PUBLISHED, read_surroundings
from fhir_server.search.entries import SEPARATOR
from fhir_server.search.query import And, Bound, Clause, DateRange, Equals, Not, Query, Scope, StartsWith
from fhir_server.store.protocol import HistoryQuery
from fhir_server.workers.worker import StepResult, Turn
from fhir_server.writes.action import Action
from fhir_server.writes.deciding import Decision, decide_and_commit
from fhir_server.writes.state import State
from mappers.scheduling.elements import Resource, members, read_times, reference_of, target_of
from mappers.scheduling.free_times import FreeTimesRequest, compute_free_times, list_chunks, widen_chunk
from mappers.scheduling.intervals import DAY, MINUTE, Interval
from mappers.scheduling.publication import asks_for_slots, plan_published_slots

AHEAD = 30 * DAY
"""How far ahead free Slots are kept, where the horizon of the Schedule is not nearer."""

_WEEK = 7 * DAY
_AGAIN = 5 * MINUTE
_AT_ONCE = 200
_FOLLOWED = ("Appointment", "HealthcareService", "Location", "PractitionerRole", "Schedule", "Slot")
_FREE = And((PUBLISHED, StartsWith("status", f"free{SEPARATOR}")))


async def keep_free_slots(turn: Turn) -> StepResult:
    """Bring the free Slots of all Schedules that ask for them up to date, if anything has changed or time went on."""
    context, now = turn.context, turn.context.clock()
    page = await context.unrestricted.history(HistoryQuery(_FOLLOWED, count=1))
    newest = page.versions[0].last_updated if page.versions else 0
    seen, looked, position = context.snapshots.get("published slots", (None, 0, ""))
    if seen == newest and 0 <= now - looked < _AGAIN:
        return StepResult(0, position)
    practice = await read_site(State(context, turn.caller))
    asking = [each for own in practice.schedules.values() for each in own if asks_for_slots(each)]
    calendars, issues = list_calendars(context, asking, frozenset(), practice)
    for issue in issues:
        turn.log("warning", "a Schedule has no free Slots", reason=issue.diagnostics)
    done = 0
    for calendar in calendars:
        end = now + min(AHEAD, calendar.parameters.horizon * MINUTE)
        for start in range(now, end, _WEEK):
            await turn.check()
            done += await _keep_week(turn, calendar.schedule, Interval(start, min(start + _WEEK, end)))
    done += await _remove(turn, And((_FREE, DateRange("start", (Bound("low", "lt", now),)))))
    schedules = tuple(each.schedule for each in calendars)
    done += await _remove(turn, And((_FREE, Not(Equals("schedule", schedules)))) if schedules else _FREE)
    # what this step has written is newer than `newest`, so that the next one looks once more for what came between
    position = f"{len(calendars)} Schedules"
    context.snapshots["published slots"] = (newest, now, position)
    return StepResult(0, f"{position}, {done} Slots changed" if done else position)


async def _keep_week(turn: Turn, schedule: str, window: Interval) -> int:
    """How many Slots were written or removed. What cannot be written now is told in the log and tried again."""

    async def decide(state: State) -> Decision[int]:
        actions = await _plan_week(state, schedule, window)
        return Decision(len(actions), actions, bundle=False)

    try:
        return (await decide_and_commit(turn.context, turn.caller, decide)).answer
    except FhirError as error:
        turn.log("warning", "free Slots were left as they are", schedule=schedule, status=error.status)
        return 0


async def _plan_week(state: State, schedule: str, window: Interval) -> Sequence[Action]:
    practice = await read_site(state)
    resource = practice.directory.get(schedule)
    calendars, _ = list_calendars(state.context, [resource] if resource else [], frozenset(), practice)
    if not calendars:
        return ()
    request = FreeTimesRequest(window, state.context.clock(), (tuple(calendars),))

    wide = widen_chunk(request, window, practice)
    around = await read_surroundings(partial(find, state), [calendars[0].actor], wide, practice, request.now)
    chunks = list_chunks(request)
    times = [time for chunk in chunks for time in compute_free_times(request, chunk, around.occupied)]
    writes, deletes = plan_published_slots(schedule, times, [each for each in around.slots if _begins(each, window)])
    # the id follows from Schedule and time, so that another process writes the same Slot
    puts = [Action("PUT", "Slot", each["id"], id=each["id"], text=parse(orjson.dumps(each))) for each in writes]
    return (*puts, *await _plan_removals(state, deletes))


def _begins(slot: Resource, window: Interval) -> bool:
    times = read_times(slot)
    return isinstance(times, Interval) and window.start <= times.start < window.end


async def _plan_removals(state: State, slots: Iterable[Resource]) -> list[Action]:
    """Slots are deleted; one that an Appointment of the past still names stays, as entered in error."""
    versions = {reference_of(each): int(each["meta"]["versionId"]) for each in slots}
    if not versions:
        return []
    naming = await state.search("Appointment", Equals("slot", tuple(versions)))
    named = {target_of(slot) for each in naming for slot in members(dict(each.tree), "slot")}
    return [
        Action("PATCH", "Slot", "", id=name.partition("/")[2], patch=_void, if_match=version)
        if name in named
        else Action("DELETE", "Slot", "", id=name.partition("/")[2], if_match=version)
        for name, version in versions.items()
    ]


def _void(tree: Resource) -> Resource:
    return {**tree, "status": "entered-in-error"}


async def _remove(turn: Turn, where: Clause) -> int:
    """Remove the Slots that match: those of the past, and those of Schedules that ask no more."""
    done = 0
    while True:
        await turn.check()

        async def decide(state: State) -> Decision[int]:
            page = await turn.context.unrestricted.search(Query((Scope("Slot", where),), count=_AT_ONCE))
            actions = await _plan_removals(state, [orjson.loads(each.raw or b"{}") for each in page.matches])
            return Decision(len(actions), actions, bundle=False)

        try:
            removed = (await decide_and_commit(turn.context, turn.caller, decide)).answer
        except FhirError as error:
            turn.log("warning", "free Slots were left as they are", status=error.status)
            return done
        done += removed
        if removed < _AT_ONCE:
            return done
