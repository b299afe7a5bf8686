"""MSH and EVN become the Provenance of all that a message made. https://hl7.org/fhir/R4/provenance.html"""

from __future__ import annotations

from datetime import UTC, datetime

from mappers.hl7v2.changes import Resource
from mappers.hl7v2.context import Cell, Context
from mappers.hl7v2.datatypes.codes import build_concept
from mappers.hl7v2.datatypes.identifiers import build_identifier
from mappers.hl7v2.datatypes.people import xcn_to_practitioner
from mappers.hl7v2.datatypes.times import Moment, read_moment
from mappers.hl7v2.er7 import Message
from mappers.hl7v2.rows import Draft, fill

AGENT = "provenance-participant-type"
CONTACTS = (12, 16, 20)
"""Fields of SCH that name who asked for, answers for, and entered an appointment."""


def msh_to_provenance(message: Message, received: datetime, context: Context) -> None:
    """Adds the Provenance; its targets are filled in when the bundle is written. `received` is an aware datetime."""
    header, event = message.header, message.segment("EVN")
    draft = Draft({"resourceType": "Provenance", "target": []})
    fill(draft, header, "Provenance", context)
    fill(draft, event, "Provenance", context)
    provenance = draft.resource
    recorded = find_recorded(message, context)
    provenance["recorded"] = recorded.value if recorded else received.astimezone(UTC).isoformat(timespec="seconds")
    occurred = read_moment(header.text(7), context.zone)
    if occurred and "_occurredDateTime" not in provenance:
        provenance.setdefault("occurredDateTime", occurred.value)
    name = "^".join(text for text in (context.message, context.event, header.text(9, 3)) if text)
    provenance["activity"] = {"text": name}
    agents = provenance.setdefault("agent", [])
    if not agents:
        display = header.text(3) or context.partner.name
        agents.append({"type": build_concept(AGENT, "author"), "who": {"display": display}})
    sch = message.segment("SCH")
    for number in CONTACTS:
        kind = "enterer" if number == 20 else "informant"
        for index, value in enumerate(sch.repetitions(number), 1):
            who = xcn_to_practitioner(value, Cell(context, sch.place(number, index)))
            if who:
                agents.append({"type": build_concept(AGENT, kind), "who": who})
    what: Resource = {"identifier": build_identifier(header.text(10) or "-", f"{context.partner.root}/message")}
    if header.text(3):
        what["display"] = header.text(3)
    provenance["entity"] = [{"role": "source", "what": what}]
    context.changes.add(provenance, None)


def find_recorded(message: Message, context: Context) -> Moment | None:
    """When the event was recorded, EVN-2 or MSH-7, by which messages are ordered; None without a time of day."""
    for text in (message.segment("EVN").text(2), message.header.text(7)):
        moment = read_moment(text, context.zone) if text else None
        if moment and moment.instant:
            return moment
    return None
