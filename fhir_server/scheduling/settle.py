"""One rule for every door: what is in the way of an Appointment as it will be, and what becomes of its Slots.

Plain writes and operations both come here, so that a time that one of them takes is taken for the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import NamedTuple, cast

import orjson

from fhir_server.fhir.json_tree import decode
from fhir_server.fhir.outcome import Issue, Unprocessable
from fhir_server.fhir.resource import Text
from fhir_server.scheduling.surroundings import Surroundings, Wanted, read_days, tag
from fhir_server.search.query import Equals, Query
from fhir_server.writes.action import Action
from fhir_server.writes.state import State
from mappers.scheduling.calendars import Practice, longest_buffer
from mappers.scheduling.clashes import Refusal, find_clashes, find_refusals, hide_names
from mappers.scheduling.elements import Resource, code_of, list_types, members, read_times, reference_of, target_of
from mappers.scheduling.intervals import DAY, MINUTE, Interval
from mappers.scheduling.life_cycle import frees_slots
from mappers.scheduling.locks import name_locks
from mappers.scheduling.occupied import OCCUPYING, Taking, is_request, list_takings, occupies, reserve
from mappers.scheduling.slots import SlotChanges, SlotContext, derive_slots, release_slots

_KEPT = "booking answers are kept"

MOST_PARTICIPANTS = 1000
"""Participants of an Appointment that takes time: whose Schedule it is depends on all of them, for each of them."""


class Visit(NamedTuple):
    """An Appointment as it will be, and as it is stored (None: it is new).

    `operation`: it is held to hours, grid, notice and horizon as well.
    """

    new: Resource
    old: Resource | None
    practice: Practice
    now: int
    operation: bool = False


class Settled(NamedTuple):
    """What is in the way, and what was read to know it; `write_slots` says what follows when it is written."""

    visit: Visit
    refusals: tuple[Refusal, ...]
    surroundings: Surroundings
    quiet: bool = False
    """Nothing of it concerns Slots."""


class Consequences(NamedTuple):
    """The Appointment with its Slots named, and the writes beside it."""

    appointment: Resource
    actions: tuple[Action, ...] = ()


async def settle(state: State, visit: Visit) -> Settled:
    """Lock the actors and days of a visit and look what is in its way. The status is not checked here.

    Raises Unprocessable for more participants than one may have.
    """
    new, old, now = visit.new, visit.old, visit.now
    _check_size(new)
    end = _end_of(new)
    past = end is not None and end <= now
    if not occupies(new, now) or (past and not visit.operation and (old is None or not _moves(visit))):
        return Settled(visit, (), Surroundings(), quiet=not _frees(visit))
    fresh = _list_fresh(visit)
    if not fresh:
        return Settled(visit, (), Surroundings(), quiet=_keeps_slots(visit))
    names = name_locks(new, visit.practice)
    if isinstance(names, Issue):
        return Settled(visit, (Refusal("time", "", (), names),), Surroundings())
    state.lock(names)
    actors = [each.actor for each in fresh]
    look = _Look(state, reference_of(new))
    around = await read_days(look, partial(find, state), actors, _widen(fresh, visit), visit.practice, now)
    refusals = list(_list_refusals(visit, fresh, around, past))
    return Settled(visit, tuple(await _hide_names(state, refusals)) if refusals else (), around)


def _check_size(new: Resource) -> None:
    count = len(members(new, "participant"))
    if count > MOST_PARTICIPANTS and code_of(new) in OCCUPYING:
        text = f"The Appointment has {count:,} participants, more than the {MOST_PARTICIPANTS:,} that one may have."
        raise Unprocessable(text, code="too-costly", expression=("Appointment.participant",))


async def _hide_names(state: State, refusals: list[Refusal]) -> list[Refusal]:
    """The refusals without the names of what the caller may not see, which takes its time all the same."""
    names = {name for refusal in refusals for name in refusal.others}
    if not names or not state.context.policy.restricts(state.caller.principal):
        return refusals
    shown = await state.context.reader(state.caller).read_many(names)
    return [hide_names(refusal, names - set(shown)) for refusal in refusals]


async def find(state: State, wanted: Wanted) -> Sequence[Resource]:
    """All resources that match. Appointments are asserted, Slots are not.

    A Slot that the site writes at the same moment might as well come after the booking, which it does not undo; one
    that the booking changes is asserted by that write.
    """
    found = await state.search_types(wanted, asserted=("Appointment",), brief=True)
    return [dict(each.tree) for each in found]


class _Look:
    """Looks at days for one visit. Appointments are asserted, Slots are not, as in `find`."""

    def __init__(self, state: State, own: str) -> None:
        self._state, self._own = state, own
        # where answers are not kept for the next booking, one search for all actors costs less than one for each
        self.apart = state.context.snapshots.get(_KEPT, True) or state.count_pending("Appointment") > 1

    async def ask(self, query: Query) -> Sequence[Resource] | None:
        found = await self._state.look(query, ("Appointment",), self._own)
        self._state.context.snapshots[_KEPT] = self._state.seen is not None
        return cast("Sequence[Resource] | None", found)  # nothing here changes a resource that it was given


def _list_refusals(visit: Visit, fresh: Sequence[Taking], around: Surroundings, past: bool) -> Iterable[Refusal]:
    # several may ask for one time; what confirms one of them is not held up by the others
    asking = visit.new if is_request(visit.new) else visit.old
    if visit.operation:
        return find_refusals(visit.new, around.occupied, visit.practice, visit.now, asking)
    if past or not around.occupied.actors:
        return ()
    actors = {each.actor for each in fresh}
    clashes = find_clashes(visit.new, around.occupied, visit.practice, asking)
    return [each for each in clashes if each.actor in actors]


def _list_fresh(visit: Visit) -> list[Taking]:
    """The times that the visit takes and its stored version did not take already."""
    takings = list_takings(visit.new, visit.practice)
    old = visit.old
    if old is None or not occupies(old, visit.now) or (is_request(old) and not is_request(visit.new)):
        return takings
    before = {each.actor: each for each in list_takings(old, visit.practice)}
    return [each for each in takings if each._replace(position=0) != _at_start(before.get(each.actor))]


def _at_start(taking: Taking | None) -> Taking | None:
    return taking._replace(position=0) if taking else None


def _widen(takings: Sequence[Taking], visit: Visit) -> Interval:
    """What has to be read: the times with all buffers; whole days around where most visits of a day are counted."""
    times = [reserve(each.time, each.parameters) for each in takings]
    low, high = min(each.start for each in times), max(each.end for each in times)
    if visit.operation and any(each.parameters.most_per_day for each in takings):
        low, high = low - DAY, high + DAY
    reach = longest_buffer(visit.practice) * MINUTE
    return Interval(low - reach, high + reach)


def _end_of(appointment: Resource) -> int | None:
    times = read_times(appointment) if "end" in appointment else None
    return times.end if isinstance(times, Interval) else None


def _moves(visit: Visit) -> bool:
    old = visit.old or {}
    same = (read_times(old), list_types(old)) == (read_times(visit.new), list_types(visit.new))
    return not same or code_of(old) not in OCCUPYING


def _keeps_slots(visit: Visit) -> bool:
    """Whether a visit at the same time with the same people names the Slots that it had."""
    new, old = visit.new, visit.old or {}
    kinds = {code_of(each) == "pending" for each in (new, old)}
    same = list_takings(new, visit.practice) == list_takings(old, visit.practice)
    return same and len(kinds) == 1 and new.get("slot", old.get("slot")) == old.get("slot")


def _frees(visit: Visit) -> bool:
    """Whether the visit gives Slots back that its stored version had."""
    old = visit.old
    if old is None or not members(old, "slot"):
        return False
    status = code_of(visit.new)
    return frees_slots(status, _end_of(visit.new), visit.now) and code_of(old) != status


async def plan_slots(state: State, settled: Settled, overbooked: bool = False) -> Consequences:
    """The Slots that are written with the visit, and the Appointment that names them."""
    visit = settled.visit
    new, old = tag(visit.new), visit.old
    if settled.quiet:
        carried = old.get("slot") if old and "slot" not in new and code_of(new) in OCCUPYING else None
        return Consequences({**new, "slot": carried} if carried else new)
    slots, others = await _read_slots(state, new, old, settled.surroundings)
    context = SlotContext(slots, others, state.context.new_id, visit.now, overbooked)
    return _plan_writes(derive_slots(new, visit.practice, context, old), slots)


async def plan_release(state: State, old: Resource, now: int) -> Consequences:
    """What becomes of the Slots of an Appointment that is deleted."""
    slots, others = await _read_slots(state, old, old, Surroundings())
    return _plan_writes(release_slots(old, SlotContext(slots, others, state.context.new_id, now)), slots)


def _plan_writes(changes: SlotChanges, slots: Iterable[Resource]) -> Consequences:
    stored = {reference_of(each): each for each in slots}
    writes = [write_resource(tag(each), stored.get(reference_of(each))) for each in changes.writes]
    deletions = (name.partition("/") for name in changes.deletes)
    deletes = [Action("DELETE", type, "", id=id, decided=True) for type, _, id in deletions]
    return Consequences(changes.appointment, (*writes, *deletes))


async def _read_slots(
    state: State, new: Resource, old: Resource | None, around: Surroundings
) -> tuple[tuple[Resource, ...], frozenset[str]]:
    """The Slots around and those that the Appointment names, and which of them other bookings name."""
    slots = {reference_of(slot): slot for slot in around.slots}
    named = [target_of(slot) for each in (old, new) for slot in members(each, "slot")]
    for name in dict.fromkeys(named):
        if name not in slots and name.startswith("Slot/"):
            stored = await state.read("Slot", name.partition("/")[2])
            if stored is not None:
                slots[name] = dict(stored.tree)
    if not slots and not named:
        return (), frozenset()
    before = tuple(target_of(slot) for slot in members(old, "slot"))
    appointments = list(around.appointments)
    if before:
        appointments += await find(state, {"Appointment": Equals("slot", before)})
    own = reference_of(new)
    others = [each for each in appointments if reference_of(each) != own and code_of(each) in OCCUPYING]
    return tuple(slots.values()), frozenset(target_of(slot) for each in others for slot in members(each, "slot"))


def write_resource(new: Resource, old: Resource | None) -> Action:
    """A new resource under its id, or the change of a stored one that leaves its other members as they are written.

    A new busy Slot has nothing of the client but times that were read, and is valid; one that is held has the expiry as
    the client wrote it.
    """
    type, id = new["resourceType"], new["id"]
    if old is None:
        text = Text(orjson.dumps(new), new)
        if type == "Schedule":  # two writers make the same one, and the second is to find it
            return Action("PUT", type, id, id=id, text=text, decided=True)
        return Action("POST", type, id, text=text, decided=True, is_valid=type == "Slot" and new["status"] == "busy")
    changed = {name: new[name] for name in new if old.get(name) != new[name]}
    gone = old.keys() - new.keys()

    def patch(tree: Resource) -> Resource:
        rest = {name: value for name, value in tree.items() if name not in gone}
        return {**rest, **decode(orjson.dumps(changed))}

    return Action("PATCH", type, id, id=id, patch=patch, decided=True)
