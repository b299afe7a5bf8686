"""What a 999 or TA1 says of each claim of the interchange that it answers (005010X231A1)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from mappers.x12.envelope import TransactionSet, read_interchanges
from mappers.x12.fault import Fault
from mappers.x12.read_acknowledgement import (
    GroupAnswer,
    InterchangeAnswer,
    SetAnswer,
    describe_status,
    find_claims_at,
)
from mappers.x12.reader import read_set

_TOLD = 5
"""Faults of a claim that its reason tells; all of them are listed beside it."""


class ClaimAnswer(NamedTuple):
    """What became of a claim, by its patient control number (CLM01); `faults` are those that concern it."""

    number: str
    accepted: bool
    reason: str
    faults: tuple[Fault, ...] = ()


def apply_group_answer(sent: bytes, group: GroupAnswer) -> list[ClaimAnswer]:
    """The answers to the claims of a group of an interchange that was sent; a set that is not named fares as its group.

    Never raises; `sent` that has no such group gives none.
    """
    answered = {each.control_number: each for each in group.sets}
    found = []
    for received in _read_claim_sets(sent):
        if received.group.control_number.lstrip("0") == group.control_number.lstrip("0"):
            found += _apply_set_answer(received, answered.get(received.control_number), group)
    return found


def apply_interchange_answer(sent: bytes, answer: InterchangeAnswer) -> list[ClaimAnswer]:
    """The answers to all claims of an interchange that a TA1 refuses; none where it accepts."""
    if answer.accepted:
        return []
    reason = f"The interchange was {describe_status(answer.status)} (TA1, code {answer.code})."
    return [ClaimAnswer(number, False, reason) for each in _read_claim_sets(sent) for number in list_claims(each)]


def list_claims_of_batch(sent: bytes, reference: str) -> list[str]:
    """The patient control numbers of the sets whose BHT03 is this one."""
    found = []
    for received in _read_claim_sets(sent):
        bht = next((each for each in received.iterate_segments() if each.id == "BHT"), None)
        if bht is not None and bht.at(3) == reference:
            found += list_claims(received)
    return found


def list_claims(received: TransactionSet) -> list[str]:
    """The CLM01 of a set."""
    return [each.at(1) for each in received.iterate_segments() if each.id == "CLM"]


def _read_claim_sets(sent: bytes) -> Iterator[TransactionSet]:
    sets = (each for each in read_interchanges(sent) if isinstance(each, TransactionSet))
    return (each for each in sets if each.code == "837")


def _apply_set_answer(received: TransactionSet, answer: SetAnswer | None, group: GroupAnswer) -> list[ClaimAnswer]:
    accepted = group.status != "R" if answer is None else answer.accepted
    faults = _sort_faults(received, answer.faults) if answer is not None and answer.faults else {}
    status, codes = (group.status, group.codes) if answer is None else (answer.status, answer.codes)
    told = f"Its transaction set was {describe_status(status)}" + (f" (codes {', '.join(codes)})." if codes else ".")
    found = []
    for number in list_claims(received):
        own = faults.get(number, ())
        sentences = [each.sentence for each in own[:_TOLD]]
        if not accepted and faults and not own:
            sentences = ["The faults are those of other claims of the set: send this claim again without them."]
        found.append(ClaimAnswer(number, accepted, " ".join([told, *sentences]), tuple(own)))
    return found


def _sort_faults(received: TransactionSet, faults: tuple[Fault, ...]) -> dict[str, list[Fault]]:
    """The faults by the claims that they concern."""
    loops = read_set(received)
    found: dict[str, list[Fault]] = {}
    for fault in faults if loops is not None else ():
        for number in find_claims_at(loops, fault.place.index) if loops is not None else ():
            found.setdefault(number, []).append(fault)
    return found
