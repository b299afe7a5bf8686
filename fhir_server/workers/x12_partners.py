"""A partner's file as the X12 mappers take it, who takes what concerns a payer, and the next control number."""

from __future__ import annotations

from collections.abc import Mapping

from fhir_server.fhir.outcome import Unprocessable
from fhir_server.partners import Partner
from fhir_server.partners.x12 import X12Section, X12Side
from fhir_server.requests.context import Context
from mappers.x12 import codes
from mappers.x12 import partner as mapper
from mappers.x12.fault import Fault, place_segment
from mappers.x12.segment import Delimiters, Segment
from mappers.x12.writer import Envelope

FORMAT = "x12"

LARGEST_NUMBER = 999_999_999
"""ISA13 has nine digits; 1 follows the largest."""


def get_section(partner: Partner) -> X12Section:
    """The table `x12` of a partner. Raises Unprocessable where its file has none."""
    if partner.x12 is None:
        raise Unprocessable(f"The file of the partner `{partner.name}` has no table `x12`; add it (docs/partners.md).")
    return partner.x12


def to_mapper_partner(partner: Partner) -> mapper.Partner:
    """The partner as `mappers/x12/partner.py` has it. Raises Unprocessable where its file has no table `x12`."""
    section = get_section(partner)
    ours, theirs = section.ours, section.theirs
    separators = Delimiters(**section.separators.model_dump())
    envelope = Envelope(
        ours.id,
        theirs.id,
        ours.qualifier,
        theirs.qualifier,
        ours.group_id or "",
        theirs.group_id or "",
        section.usage,
        section.requests_ta1,
        separators,
    )
    submitter = mapper.Party(
        ours.name, ours.electronic_id or ours.id, ours.contact, ours.phone, ours.email, ours.person
    )
    receiver = mapper.Party(theirs.name, theirs.electronic_id or theirs.id)
    described = section.described_procedures
    return mapper.Partner(
        envelope,
        submitter,
        receiver,
        section.filing_codes,
        section.assignments,
        codes.DESCRIBED if described is None else frozenset(described),
    )


def choose_partner(partners: Mapping[str, Partner], payer: str) -> Partner:
    """Who takes what concerns a payer: a partner that names its id, else the one that takes all payers.

    Raises Unprocessable where there is none, or where several would do.
    """
    speaking = [each for each in partners.values() if each.x12 is not None]
    exact = [each for each in speaking if each.x12 is not None and payer in each.x12.payers]
    found = exact or [each for each in speaking if each.x12 is not None and not each.x12.payers]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(f"`{each.name}`" for each in found)
        raise Unprocessable(f"Several partners take the payer `{payer}`: {names}; name one.")
    raise Unprocessable(f"No partner's table `x12` takes the payer `{payer}`; add it to the `payers` of one.")


def find_sender(partners: Mapping[str, Partner], isa: Segment, name: str = "") -> tuple[Partner | None, Fault | None]:
    """Whose interchange it is, by both sides of ISA, and why it cannot be taken, with the code of TA1-05.

    `name`: the partner where that is known by the way that it came; then ISA05 and ISA06 may be anybody's.
    """
    speaking = [each for each in partners.values() if each.x12 is not None and (not name or each.name == name)]
    senders = [each for each in speaking if name or _is_side(get_section(each).theirs, isa, 5)]
    if not senders:
        text = f"No partner's table `x12` names the sender `{isa.at(5)}` `{isa.at(6).strip()}` (ISA05, ISA06)."
        return None, Fault(text, place_segment(isa, "", 6), "interchange", "006")
    ours = [each for each in senders if _is_side(get_section(each).ours, isa, 7)]
    if not ours:
        text = f"The receiver `{isa.at(7)}` `{isa.at(8).strip()}` (ISA07, ISA08) is not us to `{senders[0].name}`."
        return senders[0], Fault(text, place_segment(isa, "", 8), "interchange", "008")
    found = next((each for each in ours if get_section(each).usage == isa.at(15)), None)
    if found is None:
        text = f"ISA15 is `{isa.at(15)}`; with `{ours[0].name}`, `{get_section(ours[0]).usage}` is exchanged."
        return ours[0], Fault(text, place_segment(isa, "", 15), "interchange", "020")
    return found, None


def _is_side(side: X12Side, isa: Segment, element: int) -> bool:
    return (side.qualifier, side.id) == (isa.at(element), isa.at(element + 1).strip())


async def allot_number(context: Context, partner: str) -> int:
    """The next control number of what goes to a partner (ISA13 and GS06): never one twice, gaps are possible."""
    key = f"x12-number/{partner}"
    while True:
        before = await context.unrestricted.get_value(key)
        number = int(before or b"0") % LARGEST_NUMBER + 1
        if await context.unrestricted.put_value_if(key, str(number).encode(), before):
            return number
