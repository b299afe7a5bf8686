"""TA1 and 999 written for what was received (X12.5 TA1; 005010X231A1)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mappers.x12.envelope import GroupEnd, InterchangeEnd, TransactionSet
from mappers.x12.fault import Fault, find_errors
from mappers.x12.loop import Loop
from mappers.x12.segment import Segment, make_segment
from mappers.x12.tables.acknowledgements import TABLE_999
from mappers.x12.writer import clean, write_set

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


def write_ta1(end: InterchangeEnd) -> Segment:
    """TA1 for an interchange: A with 000, else R with the first fault's code."""
    isa, errors = end.interchange.isa, find_errors(end.faults)
    code = errors[0].code if errors else "000"
    return make_segment("TA1", isa.at(13), isa.at(9), isa.at(10), "R" if errors else "A", code)


def write_999(end: GroupEnd, results: Sequence[SetResult], control_number: str) -> list[Segment]:
    """The 999 for a group, from ST to SE; `results` in the order in which the sets came."""
    gs = end.group.gs
    root = Loop("ST")
    root.add("AK1", gs.at(1), gs.at(6), gs.at(8))
    for result in results:
        _add_result(root.open("2000"), result)
    statuses = [result.status for result in results]
    accepted = len(statuses) - statuses.count("R")
    codes = list(dict.fromkeys(fault.code for fault in find_errors(end.faults)))[:5]
    declared = end.declared if end.declared.isascii() and end.declared.isdigit() else "0"
    answer = root.open("AK9")
    answer.add("AK9", _rate_group(end, statuses), declared[:6], str(end.received), str(accepted), *codes)
    return write_set(TABLE_999, root, control_number)


def _rate_group(end: GroupEnd, statuses: Sequence[str]) -> str:
    """AK901: R when the group is broken or no set is accepted, P when some are, E when all are but some with errors."""
    if find_errors(end.faults) or (statuses and set(statuses) == {"R"}):
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
