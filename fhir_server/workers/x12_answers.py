"""What answers an interchange that came in: TA1 for its envelope, a 999 for each of its groups (005010X231A1)."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import NamedTuple

from fhir_server.requests.context import Context
from fhir_server.workers.posting.writes import find_zone
from fhir_server.workers.x12_intake import TakenGroup, TakenInterchange, TakenSet
from fhir_server.workers.x12_partners import allot_number, to_mapper_partner
from mappers.x12.segment import STANDARD, Segment, make_segment, render_segment
from mappers.x12.tables.acknowledgements import TABLE_999
from mappers.x12.tokenizer import split_set
from mappers.x12.write_acknowledgement import write_999, write_ta1
from mappers.x12.writer import ControlNumbers, Envelope, clean, write_interchange

KINDS = ("TA1", "999")
_ACKNOWLEDGEMENTS = "FA"


class InterchangeText(NamedTuple):
    """An interchange that answers another one, and its control number."""

    control_number: str
    text: bytes


async def answer_interchange(
    context: Context, taken: TakenInterchange, kinds: Collection[str] = KINDS
) -> InterchangeText | None:
    """The interchange that answers one; None where nothing is to be said.

    TA1 is said where ISA14 asks for it or the interchange is refused, a 999 of each group of an interchange that is
    not. Acknowledgements are never acknowledged.
    """
    ta1 = _write_ta1(taken) if "TA1" in kinds else None
    groups = [each for each in taken.groups if each.group.end.group.gs.at(1) != _ACKNOWLEDGEMENTS]
    if "999" not in kinds or taken.refused:
        groups = []
    if ta1 is None and not groups:
        return None
    moment = datetime.fromtimestamp(context.clock() / 1_000_000, find_zone(context))
    if taken.partner:
        number = await allot_number(context, taken.partner)
        envelope = to_mapper_partner(context.partners[taken.partner]).envelope
    else:
        number, envelope = _read_number(taken), _mirror_envelope(taken.interchange.isa)
    sets = [_write_999(each, count) for count, each in enumerate(groups, 1)]
    head = render_segment(ta1, envelope.delimiters) if ta1 is not None else ""
    text = write_interchange(envelope, ControlNumbers(number, number, moment), TABLE_999, sets, head)
    return InterchangeText(f"{number:09}", text.encode("latin-1"))


def _write_ta1(taken: TakenInterchange) -> Segment | None:
    interchange = taken.interchange
    wanted = taken.refused or interchange.end.interchange.wants_acknowledgement
    if not wanted or (interchange.answers and not interchange.groups):
        return None
    return write_ta1(interchange.isa, taken.faults)


def _write_999(taken: TakenGroup, count: int) -> list[Segment]:
    answers = [_read_answer(each) for each in taken.sets]
    return write_999(taken.group.end, answers, f"{count:04}")


def _read_answer(taken: TakenSet) -> list[Segment]:
    """The AK2 to IK5 that was stored with the set; one that refuses where there is none."""
    stored = list(split_set(taken.received.acknowledgement, STANDARD, 1, 0))
    if stored:
        return stored
    return [make_segment("AK2", clean(taken.set.code, 3), clean(taken.set.control_number, 9) or "0000"),
            make_segment("IK5", "R", "5")]  # fmt: skip


def _read_number(taken: TakenInterchange) -> int:
    digits = taken.interchange.isa.at(13)
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 9 else 0


def _mirror_envelope(isa: Segment) -> Envelope:
    """The envelope back to a sender whom no partner's file names: both sides exchanged."""
    sender, receiver = (clean(isa.at(element), 15) or "UNKNOWN" for element in (8, 6))
    own, other = (f"{clean(isa.at(element), 2) or 'ZZ':2}" for element in (7, 5))
    return Envelope(sender, receiver, own, other, usage="P" if isa.at(15) == "P" else "T")
