"""A message becomes changes of resources: the entry point of the mapper, and the table of what each family maps."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from mappers.hl7v2.admissions import map_adt
from mappers.hl7v2.changes import Changes
from mappers.hl7v2.charges import map_dft
from mappers.hl7v2.context import Context
from mappers.hl7v2.datatypes.times import choose_zone
from mappers.hl7v2.er7 import Message, Segment
from mappers.hl7v2.events import read_events
from mappers.hl7v2.groups import Group, build_groups, find_structure
from mappers.hl7v2.issues import Issue, has_errors, refuse
from mappers.hl7v2.medications import map_prescriptions
from mappers.hl7v2.merges import Merge
from mappers.hl7v2.orders import map_oru
from mappers.hl7v2.partner import Partner
from mappers.hl7v2.provenance import find_recorded, msh_to_provenance
from mappers.hl7v2.rows import list_unmapped
from mappers.hl7v2.schedules import map_siu

VERSIONS = re.compile(r"2\.(?:[2-8]|3\.1|5\.1|7\.1|8\.[12])")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Mapping:
    """What a message says: the changes, the merges, when it was recorded, and the issues found so far."""

    context: Context
    merges: tuple[Merge, ...] = ()
    recorded: datetime | None = None

    @property
    def changes(self) -> Changes:
        return self.context.changes

    @property
    def issues(self) -> tuple[Issue, ...]:
        return tuple(self.context.issues)


def find_event(message: Message) -> tuple[str, str]:
    """Message type and event of MSH-9; before 2.3 the event may stand in EVN-1 alone."""
    header = message.header
    return header.text(9, 1), header.text(9, 2) or message.segment("EVN").text(1)


def map_message(message: Message, partner: Partner, received: datetime = EPOCH) -> Mapping:
    """Maps a message of a partner. `received` is an aware datetime, used where the message tells no time."""
    name, event = find_event(message)
    header = message.header
    zone = choose_zone(header.text(7), partner.zone)
    seed = f"{partner.name}|{header.raw(3)}|{header.raw(4)}|{header.text(10)}"
    context = Context(partner, name, event, zone, Changes(seed), [*message.issues])
    check_header(message, context)
    told = read_events().get((name, event))
    structure = find_structure(told.structure) if told else None
    if told is None or structure is None or has_errors(context.issues):
        return Mapping(context)
    grouped = build_groups(message, structure)
    context.issues.extend(issue for issue in grouped.issues if issue.location.segment in told.segments)
    merges = FAMILIES[name](grouped.root, context)
    msh_to_provenance(message, received, context)
    list_unmapped(message.segments, context)
    recorded = find_recorded(message, context)
    return Mapping(context, tuple(merges), recorded.instant if recorded else None)


def check_header(message: Message, context: Context) -> None:
    """What MSH forbids: an unknown type, event, version or processing id, another receiver, no control number."""
    header, partner = message.header, context.partner
    name, event = context.message, context.event
    events = [each for kind, each in read_events() if kind == name]
    if not events:
        names = ", ".join(FAMILIES)
        context.refuse("200", f"Messages of type `{name[:20]}` are not supported; {names} are.", header.place(9))
    elif event not in events:
        text = f"The event `{event[:20]}` of {name} is not supported; {', '.join(events)} are."
        context.refuse("201", text, header.place(9, 1, 2))
    if not VERSIONS.fullmatch(header.text(12)):
        text = f"Version `{header.text(12)[:20]}` is not supported; 2.2 to 2.8 are."
        context.refuse("203", text, header.place(12))
    if header.text(11) not in partner.processing:
        accepted = ", ".join(sorted(partner.processing))
        text = f"The processing id `{header.text(11)[:20]}` is not accepted here; {accepted} is."
        context.refuse("202", text, header.place(11))
    if partner.receivers and not any(_is_for(header, *each) for each in partner.receivers):
        text = f"The message is for `{header.text(5)[:40]}` at `{header.text(6)[:40]}`, which is not this server."
        context.issues.append(refuse("207", text, header.place(5), rejected=True))
    if not header.text(10):
        context.refuse("101", "MSH-10 is empty: a message needs a control number.", header.place(10))


def _is_for(header: Segment, application: str, facility: str) -> bool:
    """Whether MSH-5 and MSH-6 name a receiver by namespace or universal id; an empty name fits all."""
    names = ((application, 5), (facility, 6))
    return all(not name or name in (header.text(number, 1), header.text(number, 2)) for name, number in names)


FAMILIES: dict[str, Callable[[Group, Context], list[Merge]]] = {
    "ADT": map_adt,
    "DFT": map_dft,
    "OMP": map_prescriptions,
    "ORU": map_oru,
    "RDE": map_prescriptions,
    "SIU": map_siu,
}
