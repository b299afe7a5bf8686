"""TA1 and 999 written for what is received and read for what was sent (X12.5 TA1, 005010X231A1)."""

from __future__ import annotations

from datetime import datetime

import pytest

from mappers.x12.envelope import (
    GroupEnd,
    InterchangeAcknowledgement,
    InterchangeEnd,
    TransactionSet,
    read_interchanges,
)
from mappers.x12.read_acknowledgement import describe_status, find_claims_at, read_999, ta1_to_answer
from mappers.x12.reader import Loops, explain_unread, read_set
from mappers.x12.segment import STANDARD, Segment, render_segment
from mappers.x12.structure import check_interchange
from mappers.x12.tables.acknowledgements import TABLE_999
from mappers.x12.write_acknowledgement import make_result, write_999, write_set_answer, write_ta1
from mappers.x12.writer import ControlNumbers, Envelope, write_interchange
from tests.mappers.x12.test_x12_claim import SKELETON, make_dependent, write
from tests.mappers.x12.x12_claims import make_source

RIGHT = "~".join(SKELETON.split("\n")[1:])
NUMBERS = ControlNumbers(7, 8, datetime(2026, 1, 16, 9, 5))


def answer(text: str) -> str:
    """The acknowledgement of a file of one group: TA1 and 999."""
    results: list[list[Segment]] = []
    lines: list[str] = []
    for event in read_interchanges(text):
        if isinstance(event, TransactionSet):
            loops = read_set(event)
            faults = loops.faults if loops else (*event.faults, explain_unread(event))
            results.append(write_set_answer(make_result(event, faults)))
        elif isinstance(event, GroupEnd):
            sets = write_999(event, results, "0001")
        elif isinstance(event, InterchangeEnd):
            lines.append(render_segment(write_ta1(event.interchange.isa, event.faults), STANDARD))
    return write_interchange(Envelope("RECEIVER01", "SUBMITTER01"), NUMBERS, TABLE_999, [sets], "".join(lines))


def test_what_is_right_is_accepted() -> None:
    text = answer(RIGHT)
    assert check_interchange(text) == ()
    assert text.split("~")[1:-1] == [
        "TA1*000000001*260115*1200*A*000",
        "GS*FA*RECEIVER01*SUBMITTER01*20260116*0905*8*X*005010X231A1",
        "ST*999*0001*005010X231A1",
        "AK1*HC*1*005010X222A1",
        "AK2*837*0001*005010X222A1",
        "IK5*A",
        "AK9*A*1*1*1",
        "SE*6*0001",
        "GE*1*8",
        "IEA*1*000000007",
    ]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "SV1*HC:99213:25*100*UN",
            "SV1*HC:99213:25*1OO*UN",
            ["IK3*SV1*25*2400*8", "IK4*2**6*1OO", "IK5*E*5", "AK9*E*1*1*1"],
        ),
        ("N3*1 MAIN ST.~", "", ["IK3*N3*11*2010AA*3", "IK5*R*4*5", "AK9*R*1*1*0"]),
        ("HL*1**20*1~", "ZZZ*1~HL*1**20*1~", ["IK3*ZZZ*6*1000B*1", "IK5*R*4*5", "AK9*R*1*1*0"]),
        ("SE*32*0001", "SE*31*0001", ["IK5*R*4", "AK9*R*1*1*0"]),
        ("SE*32*0001", "SE*32*0002", ["IK5*R*3", "AK9*R*1*1*0"]),
        ("SE*32*0001~", "", ["IK3*SE*31*SE*I7", "IK5*R*2*5", "AK9*R*1*1*0"]),
        ("ST*837*", "ST*834*", ["AK2*834*0001*005010X222A1", "IK5*R*1", "AK9*R*1*1*0"]),
        ("GE*1*1", "GE*1*9", ["AK1*HC*1*005010X222A1", "AK9*R*1*1*0*4"]),
        ("GE*1*1", "GE*3*1", ["AK1*HC*1*005010X222A1", "AK9*R*3*1*0*5"]),
        ("IEA*1*000000001", "IEA*1*000000009", ["TA1*000000001*260115*1200*R*001", "IK5*A", "AK9*A*1*1*1"]),
    ],
)
def test_what_is_wrong_is_answered_with_its_code(old: str, new: str, expected: list[str]) -> None:
    assert old in RIGHT
    text = answer(RIGHT.replace(old, new, 1))
    assert check_interchange(text) == ()
    written = text.split("~")
    assert [segment for segment in expected if segment not in written] == [], written


def test_one_bad_set_of_two_is_refused_alone() -> None:
    start, end = RIGHT.index("ST*837"), RIGHT.index("GE*")
    second = RIGHT[start:end].replace("*0001*", "*0002*", 1).replace("SE*32*0001", "SE*9*0002")
    text = answer(RIGHT[:end] + second + "GE*2*1~IEA*1*000000001~")
    assert [s for s in text.split("~") if s[:3] in ("IK5", "AK9")] == ["IK5*A", "IK5*R*4", "AK9*P*2*2*1"]


def read_sent(text: str) -> Loops:
    (received,) = [event for event in read_interchanges(text) if isinstance(event, TransactionSet)]
    loops = read_set(received)
    assert loops is not None
    return loops


def make_999(body: str) -> Loops:
    count = body.count("~") + 2
    text = f"ST*999*0001*005010X231A1~{body}SE*{count}*0001~"
    head = RIGHT[: RIGHT.index("GS*")] + "GS*FA*R*S*20260116*0905*8*X*005010X231A1~"
    return read_sent(head + text + "GE*1*8~IEA*1*000000001~")


def test_a_999_is_read_with_places_and_sentences() -> None:
    loops = make_999(
        "AK1*HC*1*005010X222A1~AK2*837*0001*005010X222A1~IK3*SV1*25*2400*8~CTX*CLM01:PCN1~IK4*1:2*234*7*9921X~"
        "IK3*N3*9*2010AA*3~IK5*R*5~AK2*837*0002~IK5*A~AK9*P*2*2*1~"
    )
    assert loops.faults == ()
    group = read_999(loops)
    assert (group.group_code, group.control_number, group.version, group.status, group.accepted) == (
        "HC", "1", "005010X222A1", "P", False,
    )  # fmt: skip
    first, second = group.sets
    assert (first.control_number, first.status, first.codes, first.accepted) == ("0001", "R", ("5",), False)
    assert (second.control_number, second.status, second.accepted, second.faults) == ("0002", "A", True, ())
    assert [(f.place.path, f.place.index, f.code) for f in first.faults] == [
        ("2400/SV1/01-2", 25, "7"),
        ("2010AA/N3", 9, "3"),
    ]
    assert [f.sentence for f in first.faults] == [
        "SV101-2 `9921X` in loop 2400 has a code that is not allowed (code 7).",
        "Segment N3 in loop 2010AA is missing (code 3).",
    ]


def test_what_we_write_we_read() -> None:
    loops = read_sent(answer(RIGHT.replace("SV1*HC:99213:25*100*UN", "SV1*HC:99213:25*1OO*UN")))
    (result,) = read_999(loops).sets
    assert (result.status, [f.place.path for f in result.faults]) == ("E", ["2400/SV1/02"])


@pytest.mark.parametrize(
    ("status", "accepted", "words"),
    [
        ("A", True, "accepted"),
        ("E", True, "accepted with errors"),
        ("R", False, "rejected"),
        ("?", False, "no known status"),
    ],
)
def test_a_ta1_is_read(status: str, accepted: bool, words: str) -> None:
    text = RIGHT[: RIGHT.index("GS*")] + f"TA1*000000905*260115*1200*{status}*000~IEA*0*000000001~"
    (event,) = [e for e in read_interchanges(text) if isinstance(e, InterchangeAcknowledgement)]
    read = ta1_to_answer(event.ta1)
    assert (read.control_number, read.status, read.code, read.accepted) == ("000000905", status, "000", accepted)
    assert words in describe_status(status)


def test_a_fault_is_brought_to_the_claims_it_concerns() -> None:
    loops = read_sent(write(make_source(), make_dependent(), make_dependent("PCN3")).text)
    places: dict[tuple[str, str], list[int]] = {}
    for segment, loop in loops.root.walk():
        places.setdefault((segment.id, loop), []).append(segment.ordinal)
    at = {key: [find_claims_at(loops, ordinal) for ordinal in ordinals] for key, ordinals in places.items()}
    assert at["BHT", "ST"] == [("PCN1", "PCN2", "PCN3")]
    assert at["N3", "2010AA"] == [("PCN1", "PCN2", "PCN3")]
    assert at["DMG", "2010BA"] == [("PCN1",), ("PCN2", "PCN3")]
    assert at["DMG", "2010CA"] == [("PCN2", "PCN3")]
    assert at["CLM", "2300"] == [("PCN1",), ("PCN2",), ("PCN3",)]
    assert at["SV1", "2400"] == [("PCN1",), ("PCN1",), ("PCN2",), ("PCN3",)]
