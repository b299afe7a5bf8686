"""A partner's file as the HL7 v2 mapper takes it, and whose message a header says that it is."""

from __future__ import annotations

from collections.abc import Iterable

from fhir_server.partners import Partner, Partners
from fhir_server.partners.hl7v2 import Hl7v2Section, Hl7v2Side
from fhir_server.requests.context import Context
from mappers.hl7v2 import partner as mapper
from mappers.hl7v2.character_sets import CHARACTER_SETS
from mappers.hl7v2.er7 import Segment
from mappers.hl7v2.rows import read_row

FORMAT = "hl7v2"


def read_section(partner: Partner) -> Hl7v2Section:
    """The table `hl7v2` of a partner; an empty one where its file has none."""
    return partner.hl7v2 or Hl7v2Section()


def find_mapper_partner(context: Context, name: str) -> mapper.Partner | None:
    """The partner as `mappers/hl7v2/partner.py` has it; None where no partner of that name speaks HL7 v2."""
    known: dict[str, mapper.Partner] = context.snapshots.setdefault(FORMAT, {})
    if name not in known:
        partner = context.partners.get(name)
        if partner is None or FORMAT not in partner.formats:
            return None
        known[name] = to_mapper_partner(partner, makes_slots=context.settings.booking == "off")
    return known[name]


def to_mapper_partner(partner: Partner, makes_slots: bool = True) -> mapper.Partner:
    """The partner as the mapper takes it. `makes_slots`: no booking rule makes the Slots of an appointment."""
    section = read_section(partner)
    translations = {
        name: {code: mapper.Target(each.code, each.system, each.display) for code, each in rows.items()}
        for name, rows in partner.translations.items()
    }
    permissions = {
        event: {kind: "" if told == "none" else told for kind, told in rows.items()}
        for event, rows in section.permissions.items()
    }
    return mapper.Partner(
        name=partner.name,
        zone=partner.zone,
        default_authority=partner.systems.get(partner.default_authority, ""),
        authorities=partner.systems,
        code_systems=section.code_systems,
        translations=translations,
        permissions=permissions,
        custom_fields=tuple(mapper.CustomField(**each.model_dump()) for each in section.custom_fields),
        ignored=frozenset(section.ignored),
        processing=frozenset(section.processing),
        receivers=frozenset((each.application, each.facility) for each in section.receivers),
        character_set=section.character_set,
        patient_to_insured=section.patient_to_insured,
        severity_is_criticality=section.severity_is_criticality,
        enhanced=section.acknowledgements == "as-asked",
        makes_slots=makes_slots,
    )


def list_faults(partners: Partners) -> list[str]:
    """What is wrong with tables `hl7v2` beyond their schema, a sentence each."""
    faults = []
    speaking = {name: each for name, each in partners.items() if FORMAT in each.formats}
    for name, partner in speaking.items():
        section = read_section(partner)
        if section.character_set and section.character_set not in CHARACTER_SETS:
            known = ", ".join(CHARACTER_SETS)
            faults.append(f"`character_set` of the partner `{name}` is `{section.character_set}`; use one of {known}.")
        for row in section.custom_fields:
            try:
                read_row((row.resource, row.field, row.path, row.convert, row.vocabulary, "", "", ""))
            except ValueError as error:
                faults.append(f"`custom_fields` of the partner `{name}`: {error}")
    open_ones = [name for name, each in speaking.items() if not read_section(each).senders]
    if len(open_ones) > 1:
        names = ", ".join(f"`{name}`" for name in open_ones)
        faults.append(f"The partners {names} all lack `senders`; at most one may take the messages of anybody.")
    return faults


def choose_partner(partners: Partners, header: Segment) -> str:
    """The name of the partner whose `senders` name MSH-3 and MSH-4, the one that names most; "" where none does.

    A partner without `senders` takes what no other does.
    """
    best, name = -1, ""
    for partner in partners.values():
        if FORMAT in partner.formats:
            score = _count_named(read_section(partner).senders, header)
            if score > best:
                best, name = score, partner.name
    return name


def _count_named(senders: Iterable[Hl7v2Side], header: Segment) -> int:
    """How many of MSH-3 and MSH-4 the senders name; 0 for no senders, -1 where they name others."""
    sides = tuple(senders)
    if not sides:
        return 0
    scores = [
        bool(side.application) + bool(side.facility)
        for side in sides
        if _is_named(side.application, header, 3) and _is_named(side.facility, header, 4)
    ]
    return max(scores, default=-1)


def _is_named(name: str, header: Segment, field: int) -> bool:
    """Whether a field has the name as namespace or universal id; an empty one fits all."""
    return not name or name in (header.text(field, 1), header.text(field, 2))
