"""A capacity rule for the tests of decisions and rules: Appointments of one actor overlap at most `capacity` times."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import orjson

from fhir_server.fhir.outcome import Conflict, Issue
from fhir_server.fhir.resource import parse
from fhir_server.search.query import And, Bound, DateRange, Equals
from fhir_server.writes.action import Action
from fhir_server.writes.deciding import Decide, Decision
from fhir_server.writes.rules import ALLOWED, Change, Rule, Ruling
from fhir_server.writes.state import State

OCCUPYING = ("booked", "pending")


def appointment(start: str, end: str, actor: str = "Practitioner/pine", status: str = "booked") -> dict[str, Any]:
    return {
        "resourceType": "Appointment",
        "status": status,
        "start": start,
        "end": end,
        "participant": [{"actor": {"reference": actor}, "status": "accepted"}],
    }


def microseconds(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1_000_000)


def actor_of(tree: Mapping[str, Any]) -> str:
    reference: str = tree["participant"][0]["actor"]["reference"]
    return reference


def count_overlaps(trees: Iterable[Mapping[str, Any]]) -> int:
    """The largest number of occupying appointments at one moment; ends are open."""
    edges = []
    for tree in trees:
        if tree["status"] in OCCUPYING:
            edges += [(microseconds(tree["start"]), 1), (microseconds(tree["end"]), -1)]
    most = now = 0
    for _, step in sorted(edges):
        now += step
        most = max(most, now)
    return most


async def read_day(state: State, tree: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The actor's appointments that begin in two days around, by the search parameter `date`; locks actor and day."""
    day = 86_400_000_000
    start = microseconds(tree["start"])
    state.lock([f"{actor_of(tree)} {tree['start'][:10]}"])
    tests = (Bound("low", "ge", start - day), Bound("low", "lt", start + day))
    where = And((Equals("actor", (actor_of(tree),)), DateRange("date", tests)))
    return [dict(found.tree) for found in await state.search("Appointment", where)]


def book(tree: Mapping[str, Any], capacity: int) -> Decide[str]:
    """A decision that creates the appointment where there is room. Raises Conflict where there is none."""

    async def decide(state: State) -> Decision[str]:
        others = await read_day(state, tree)
        if count_overlaps([*others, tree]) > capacity:
            raise Conflict("The time is taken.")
        fresh = state.context.new_id()
        text = parse(orjson.dumps(tree))
        return Decision(fresh, (Action("POST", "Appointment", fresh, text=text),))

    return decide


def rule_of(capacity: int) -> Rule:
    """The same as a rule: no write may leave more than `capacity` appointments of an actor at one time."""

    async def rule(state: State, change: Change) -> Ruling:
        tree = change.new
        if tree is None or tree["status"] not in OCCUPYING:
            return ALLOWED
        others = [other for other in await read_day(state, tree) if other["id"] != change.id]
        if count_overlaps([*others, tree]) > capacity:
            return Ruling((Issue("error", "conflict", f"{actor_of(tree)} is taken then.", ("Appointment.start",)),))
        return ALLOWED

    return rule
