"""TA1 and 999 written for what was received (X12.5 TA1; 005010X231A1)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mappers.x12.envelope import GroupEnd, TransactionSet
from mappers.x12.fault import Fault, find_errors
from mappers.x12.loop import Loop
from mappers.x12.segment import Segment, make_segment
from mappers.x12.tables.acknowledgements import TABLE_999
from mappers.x12.writer import clean, write_loops, write_set

SEGMENT_FAULTS = 100
"""So many faulty segments are listed of one set; IK5 says the rest."""


@dataclass(frozen=True, slots=True)
class SetResult:
    """What came of a received set: what AK2 repeats, and its faults."""

    code: str
    control_number: str
    version: str
    faults: tuple[Fault, ...]

    @property
    def status(self) -> str:
        """IK501: R(ejected) for a fault of the set itself, E (accepted with errors) for one within, else A(ccepted)."""
        levels = {fault.level for fault in find_errors(self.faults)}
        return "R" if "set" in levels else "E" if levels else "A"


def make_result(received: TransactionSet, faults: Iterable[Fault]) -> SetResult:
    """The result of a set with all its faults (those of `read_set`, which include its envelope's)."""
    return SetResult(received.code, received.control_number, received.st.at(3), tuple(faults))


def write_ta1(isa: Segment, faults: Iterable[Fault]) -> Segment:
    """TA1 for the interchange of an ISA: A with 000, else R with the first fault's code."""
    errors = find_errors(faults)
    # what is wrong with the ISA may not be wrong with its answer
    number, day, time = (clean(isa.at(element), size) for element, size in ((13, 9), (9, 6), (10, 4)))
    code = errors[0].code if errors else "000"
    return make_segment("TA1", number or "000000000", day, time, "R" if errors else "A", code)


def write_set_answer(result: SetResult) -> list[Segment]:
    """AK2 to IK5, the part of a 999 that answers one set; it can be kept until its group has ended."""
    root = Loop("ST")
    _add_result(root.open("2000"), result)
    return list(write_loops(root, TABLE_999))


def write_999(end: GroupEnd, answers: Sequence[Sequence[Segment]], control_number: str) -> list[Segment]:
    """The 999 for a group, from ST to SE; `answers`: those of its sets, in the order in which the sets came.

    A group that is broken itself is refused as a whole: AK9 says R and why, and no set is named.
    """
    gs, errors = end.group.gs, find_errors(end.faults)
    root = Loop("ST")
    root.add("AK1", clean(gs.at(1), 2), clean(gs.at(6), 9), clean(gs.at(8), 12))
    statuses = ["R"] * end.received if errors else [_get_status(answer) for answer in answers]
    codes = list(dict.fromkeys(fault.code for fault in errors))[:5]
    declared = end.declared if end.declared.isascii() and end.declared.isdigit() else "0"
    accepted = len(statuses) - statuses.count("R")
    answer = root.open("AK9")
    answer.add("AK9", _rate_group(statuses, bool(errors)), declared[:6], str(end.received), str(accepted), *codes)
    head, *tail = write_set(TABLE_999, root, control_number)
    body = [tail[0], *(segment for each in answers if not errors for segment in each), *tail[1:-1]]
    return [head, *body, make_segment("SE", str(len(body) + 2), control_number)]


def _get_status(answer: Sequence[Segment]) -> str:
    """IK501 of the answer to a set."""
    return next((segment.at(1) for segment in answer if segment.id == "IK5"), "R")


def _rate_group(statuses: Sequence[str], broken: bool) -> str:
    """AK901: R when the group is broken or no set is accepted, P when some are, E when all are but some with errors."""
    if broken or (statuses and set(statuses) == {"R"}):
        return "R"
    if "R" in statuses:
        return "P"
    return "E" if "E" in statuses else "A"


def _add_result(loop: Loop, result: SetResult) -> None:
    loop.add("AK2", clean(result.code, 3), clean(result.control_number, 9) or "0000", clean(result.version, 35))
    by_segment: dict[tuple[str, int, str], list[Fault]] = {}
    for fault in find_errors(result.faults):
        if fault.level in ("segment", "element"):
            place = fault.place
            by_segment.setdefault((place.segment, place.index, place.loop), []).append(fault)
    for key in list(by_segment)[:SEGMENT_FAULTS]:
        _add_segment_faults(loop, key, by_segment[key])
    codes = [fault.code for fault in find_errors(result.faults) if fault.level == "set"]
    codes += ["5"] if by_segment else []
    loop.add("IK5", result.status, *dict.fromkeys(codes[:5]))


def _add_segment_faults(loop: Loop, key: tuple[str, int, str], faults: Sequence[Fault]) -> None:
    """IK3 for each fault of the segment itself, and one with code 8 above the IK4 of its elements."""
    segment, index, loop_id = key
    start = ("IK3", clean(segment, 3) or "ZZZ", str(index), clean(loop_id, 6))
    for code in dict.fromkeys(fault.code for fault in faults if fault.level == "segment"):
        loop.open("2100").add(*start, code)
    elements = [fault for fault in faults if fault.level == "element"]
    if elements:
        inner = loop.open("2100")
        inner.add(*start, "8")
        for fault in elements:
            place = fault.place
            position = (str(place.element), str(place.component or ""), str(place.repetition or ""))
            inner.open("2110").add("IK4", position, "", fault.code, clean(fault.value, 99))
