"""What stands in the way of an Appointment: clashes, capacity and buffers; for operations the Schedule's rules too."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import NamedTuple

from fhir_server.fhir.datetimes import format_instant
from fhir_server.fhir.outcome import Issue
from mappers.scheduling.calendars import Calendar, Practice, build_calendar, list_open_of
from mappers.scheduling.elements import Resource, code_of, list_types, members, read_times, reference_of, target_of
from mappers.scheduling.extensions import BOOKING_OVERRIDE
from mappers.scheduling.free_times import count_visits
from mappers.scheduling.intervals import MINUTE, Interval, subtract, unite
from mappers.scheduling.locks import check_length
from mappers.scheduling.occupied import Occupation, Occupied, Taking, find_full, list_takings, reserve
from mappers.scheduling.wall_clock import list_grid

# What `override` may name, and the refusals that each sets aside.
OVERRIDES = {
    "clash": frozenset(("clash", "buffer", "capacity")),
    "buffer": frozenset(("buffer",)),
    "hours": frozenset(("hours", "grid")),
    "notice": frozenset(("notice", "horizon")),
}


class Refusal(NamedTuple):
    """One thing in the way: its kind (a value of `OVERRIDES`), the actor, what is there already, and the issue."""

    kind: str
    actor: str
    others: tuple[str, ...]
    issue: Issue


def find_clashes(
    appointment: Resource, occupied: Occupied, practice: Practice, old: Resource | None = None
) -> list[Refusal]:
    """Who of the participants is taken: practitioners, rooms, devices and patients alike; at most one refusal an actor.

    `old` is the stored version. A pending one that is confirmed is not held up by requests for the same time.
    """
    confirming = old is not None and code_of(old) == "pending"
    own = {reference_of(appointment), *(target_of(slot) for slot in members(appointment, "slot"))}
    found = []
    for taking in list_takings(appointment, practice):
        others = [
            each
            for each in occupied.actors.get(taking.actor, ())
            if each.reference not in own and (each.firm or not confirming)
        ]
        if refusal := _find_clash(taking, others):
            found.append(refusal)
    return found


def _find_clash(taking: Taking, others: Iterable[Occupation]) -> Refusal | None:
    rule, reserved = taking.parameters, reserve(taking.time, taking.parameters)
    near = [each for each in others if each.low < reserved.end and reserved.start < each.high]
    if not near:
        return None
    blocks = [each for each in find_full(near, rule.capacity) if each.overlaps(reserved)]
    if not blocks:
        return None
    bare = [each._replace(low=each.start, high=each.end) for each in near]
    real = [each for each in find_full(bare, rule.capacity) if each.overlaps(taking.time)]
    among = [
        each
        for each in (bare if real else near)
        if any(each.low < b.end and b.start < each.high for b in real or blocks)
    ]
    names = tuple(dict.fromkeys(each.reference for each in among))
    start, end = min(each.start for each in among), max(each.end for each in among)
    listed = ", ".join(f"`{name}`" for name in names)
    span = f"from {format_instant(start)} to {format_instant(end)} by {listed}"
    if real and rule.capacity > 1:
        text = f"All {rule.capacity} places of `{taking.actor}` are taken {span}."
    elif real:
        text = f"`{taking.actor}` is taken {span}."
    else:
        text = f"The buffers of `{taking.actor}` do not fit: it is taken {span}."
    issue = Issue("error", "conflict", text, (f"Appointment.participant[{taking.position}]",))
    return Refusal("clash" if real else "buffer", taking.actor, names, issue)


def hide_names(refusal: Refusal, hidden: Collection[str]) -> Refusal:
    """The refusal with no word of these Appointments and Slots but that the time is taken."""
    text = refusal.issue.diagnostics
    for name in refusal.others:
        if name in hidden:
            text = text.replace(f"`{name}`", "what you may not see")
    others = tuple(name for name in refusal.others if name not in hidden)
    return refusal._replace(others=others, issue=replace(refusal.issue, diagnostics=text))


def find_refusals(
    appointment: Resource, occupied: Occupied, practice: Practice, now: int, old: Resource | None = None
) -> list[Refusal]:
    """All that an operation is held to: clashes, and by each Schedule hours, grid, notice, horizon, most per day."""
    time = read_times(appointment)
    wrong = time if isinstance(time, Issue) else check_length(time)
    if wrong:
        return [Refusal("time", "", (), wrong)]
    found = find_clashes(appointment, occupied, practice, old)
    types = list_types(appointment)
    for taking in list_takings(appointment, practice):
        if taking.schedule is None:
            continue
        calendar, issues = build_calendar(taking.schedule, types, practice)
        path = f"Appointment.participant[{taking.position}]"
        if calendar is None:
            found += [Refusal("zone", taking.actor, (), issue) for issue in issues]
            continue
        found += [
            Refusal(kind, taking.actor, (), Issue("error", "business-rule", f"{text}.", (path,)))
            for kind, text in _list_rule_breaks(calendar, taking.time, occupied, now)
        ]
    return found


def _list_rule_breaks(calendar: Calendar, time: Interval, occupied: Occupied, now: int) -> list[tuple[str, str]]:
    """(kind, sentence without its full stop) of each rule of a calendar that a visit does not keep."""
    rule, name, start = calendar.parameters, calendar.actor, format_instant(time.start)
    opened = list_open_of(calendar, time, occupied.opened.get(calendar.schedule, ()))
    opened = subtract(opened, unite(occupied.closed.get(calendar.schedule, ())))
    visits = count_visits(calendar, time.start, occupied)[1]
    most = rule.most_per_day
    checks = (
        ("hours", opened != [time], f"`{name}` is not open from {start} to {format_instant(time.end)}"),
        (
            "grid",
            next(list_grid(Interval(time.start, time.start + 1), rule.grid, calendar.zone), None) is None,
            f"Visits of `{name}` start every {rule.grid} minutes from midnight, not at {start}",
        ),
        (
            "notice",
            time.start < now + rule.minimum_notice * MINUTE,
            f"The start {start} is past"
            if time.start < now
            else f"`{name}` needs {format_minutes(rule.minimum_notice)} of notice",
        ),
        (
            "horizon",
            time.start > now + rule.horizon * MINUTE,
            f"`{name}` takes visits {format_minutes(rule.horizon)} ahead at most",
        ),
        ("capacity", most is not None and visits >= most, f"`{name}` has the most visits of that day, {most}, already"),
    )
    return [(kind, text) for kind, broken, text in checks if broken]


def format_minutes(minutes: int) -> str:
    """`90 days` for 129600: minutes in the largest unit of which they are a whole number."""
    unit, size = next((each for each in (("day", 1440), ("hour", 60)) if minutes % each[1] == 0), ("minute", 1))
    number = minutes // size
    return f"{number} {unit}" if number == 1 else f"{number:,} {unit}s"


def apply_override(
    refusals: Iterable[Refusal], kinds: Collection[str], reason: str
) -> tuple[list[Refusal], list[Refusal], list[Issue]]:
    """(refusals that remain, refusals set aside, what is wrong with the override itself)."""
    issues = [
        Issue("error", "value", f"`{kind}` cannot be overridden; there are {', '.join(OVERRIDES)}.", ("override",))
        for kind in kinds
        if kind not in OVERRIDES
    ]
    if kinds and not reason.strip():
        issues.append(Issue("error", "required", "An override needs a reason; say why in `reason`.", ("reason",)))
    allowed = frozenset().union(*(OVERRIDES.get(kind, frozenset()) for kind in kinds))
    every = list(refusals)
    return [r for r in every if r.kind not in allowed], [r for r in every if r.kind in allowed], issues


def note_override(appointment: Resource, kinds: Iterable[str], reason: str, who: str) -> Resource:
    """The Appointment with who (a reference, or a name) set which rule aside, and why."""
    person = {"reference": who} if "/" in who else {"display": who}
    parts: list[Resource] = [{"url": "kind", "valueCode": kind} for kind in sorted(kinds)]
    parts += [{"url": "reason", "valueString": reason}, {"url": "who", "valueReference": person}]
    note = {"url": BOOKING_OVERRIDE, "extension": parts}
    return {**appointment, "extension": [*members(appointment, "extension"), note]}


def check_actors(appointment: Resource, practice: Practice, known: Collection[str] = ()) -> list[Issue]:
    """Issues for times without sense and for unknown participants; `known` are references beside the practice's."""
    times = read_times(appointment)
    issues = [times] if isinstance(times, Issue) else []
    for position, person in enumerate(members(appointment, "participant")):
        actor, path = target_of(person.get("actor")), f"Appointment.participant[{position}].actor"
        if actor and actor not in practice.directory and actor not in known:
            text = f"`{actor}` is not known here; create it first, or name one that is."
            issues.append(Issue("error", "not-found", text, (path,)))
    return issues
