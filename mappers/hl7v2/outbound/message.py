"""A message of an event about a resource: the entry point, the header, and the table of what each family writes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from mappers.hl7v2.changes import Resource
from mappers.hl7v2.er7 import USUAL, Message, Segment, write_message
from mappers.hl7v2.issues import Issue, has_errors, refuse
from mappers.hl7v2.outbound.adt import write_adt
from mappers.hl7v2.outbound.appointments import write_siu
from mappers.hl7v2.outbound.charges import write_dft
from mappers.hl7v2.outbound.fields import Fields
from mappers.hl7v2.outbound.medications import write_prescription
from mappers.hl7v2.outbound.receiver import Envelope, Index, Receiver, Writing
from mappers.hl7v2.outbound.results import write_oru
from mappers.hl7v2.outbound.times import write_moment
from mappers.hl7v2.partner import find_zone
from mappers.hl7v2.tables import read_table

FAMILIES: dict[str, Callable[[Resource, Writing], list[Segment]]] = {
    "ADT": write_adt,
    "SIU": write_siu,
    "ORU": write_oru,
    "DFT": write_dft,
    "RDE": write_prescription,
    "OMP": write_prescription,
}
"""What writes the segments after MSH."""

EVENTS = {
    "ADT": frozenset({"A04", "A08", "A28", "A31", "A40"}),
    "ORU": frozenset({"R01"}),
    "DFT": frozenset({"P03"}),
    "RDE": frozenset({"O11", "O25"}),
    "OMP": frozenset({"O09"}),
    "SIU": frozenset({"S12", "S13", "S14", "S15", "S17", "S26"}),
}
"""The events that are written."""

WITH_EVN = frozenset({"ADT", "DFT"})
"""The families whose structure has EVN after MSH."""


class Written(NamedTuple):
    """The ER7 text, "" where it cannot be written, and issues: what the message does not say."""

    text: str
    issues: tuple[Issue, ...]


def write_event(
    event: tuple[str, str], focus: str, resources: Iterable[Resource], receiver: Receiver, envelope: Envelope
) -> Written:
    """Writes a message such as `("ADT", "A08")` about the resource `focus` (`Patient/1`).

    `resources` are what the message may speak of, or the entries of a Bundle. Pure: the same arguments give the same
    text.
    """
    name, code = event
    index = Index(resources)
    writing = Writing(receiver, index, name, code, find_zone(receiver.partner.zone), envelope)
    resource = index.find({"reference": focus})
    if code not in EVENTS.get(name, ()):
        known = ", ".join(f"{family}^{each}" for family, events in EVENTS.items() for each in sorted(events))
        writing.issues.append(refuse("201", f"{name}^{code} is not written; {known} are."))
    elif resource is None:
        writing.issues.append(refuse("204", f"{focus} is not among the resources that are given."))
    else:
        segments = FAMILIES[name](resource, writing)
        _tell_unused(writing)
        if not has_errors(writing.issues):
            evn = [_write_evn(writing, envelope)] if name in WITH_EVN else []
            message = Message((_write_header(writing, envelope), *evn, *segments), USUAL)
            return Written(write_message(message), tuple(writing.issues))
    return Written("", tuple(writing.issues))


def _write_header(writing: Writing, envelope: Envelope) -> Segment:
    """MSH: sender, receiver, the clock in the receiver's zone with its offset, type, control number, version."""
    receiver = writing.receiver
    msh = Fields("MSH", writing)
    for number, text in enumerate((*receiver.sending, *receiver.receiving), 3):
        msh.put(number, *text.split("^"))
    moment = envelope.clock.astimezone(writing.zone).isoformat(timespec="seconds")
    msh.put(7, write_moment(moment))
    structure = next(row[2] for row in read_table("events.tsv") if row[:2] == (writing.message, writing.event))
    msh.put(9, writing.message, writing.event, structure)
    msh.put(10, envelope.control)
    msh.put(11, receiver.processing)
    msh.put(12, receiver.version)
    msh.put(18, "UNICODE UTF-8")
    marks = USUAL.component + USUAL.repetition + USUAL.escape + USUAL.subcomponent
    return Segment("MSH", (marks, *msh.segment().values[2:]))


def _write_evn(writing: Writing, envelope: Envelope) -> Segment:
    """EVN: the event and when it was written."""
    evn = Fields("EVN", writing)
    evn.put(1, writing.event)
    evn.put(2, write_moment(envelope.clock.astimezone(writing.zone).isoformat(timespec="seconds")))
    return evn.segment()


def _tell_unused(writing: Writing) -> None:
    """Adds an issue for each resource that is given and of which the message says nothing."""
    spoken = {id(given) for _, given in writing.copies}
    for resource in writing.index.resources:
        if id(resource) not in spoken:
            name = f"{resource['resourceType']}/{resource.get('id', '')}"
            writing.tell(f"{name} is not part of {writing.message}^{writing.event}.")
