"""Our own check of written files finds each kind of fault (B13) and has none on what is right."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mappers.x12.elements import _make_pattern, check_elements
from mappers.x12.segment import Segment
from mappers.x12.structure import check_interchange
from tests.mappers.x12.test_x12_claim import SKELETON, make_secondary, write
from tests.mappers.x12.x12_claims import make_claim, make_item, make_response

RIGHT = "~".join(SKELETON.split("\n")[1:])


def test_a_right_file_has_no_fault() -> None:
    assert check_interchange(RIGHT) == ()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("HL*2*1*22*0", "HL*3*1*22*0", "HL01 is `3` where 2 is due"),
        ("HL*2*1*22*0", "HL*2*7*22*0", "HL02 `7` is the number of no level before this one"),
        ("HL*2*1*22*0", "HL*2*1*22*1", "HL04 is `1` but level 2 has no level below it"),
        ("HL*1**20*1", "HL*1**20*0", "HL04 is `0` but level 1 has levels below it"),
        ("SE*32", "SE*31", "SE01 declares `31` segments but 32 are there"),
        ("GE*1*1", "GE*1*2", "GE02 is `2` but GS06 is `1`"),
        ("IEA*1", "IEA*2", "IEA01 declares `2` groups but 1 are there"),
        ("UN*1***1:2", "UN*1***1:3", "Pointer `3` of line 1 names none of the claim's 2 diagnoses"),
        ("UN*1***1:2", "UN*1***0", "Pointer `0` of line 1"),
        ("CLM*PCN1*150", "CLM*PCN1*151", "CLM02 is 151 but its lines charge 150"),
        ("LX*2", "LX*3", "LX01 is `3` where 2 is due"),
        ("REF*6R*L2", "REF*6R*L1", "REF*6R `L1` stands on two lines"),
        ("HI*ABK:E119*ABF:I10~", "", "ends without its segment HI"),
        ("005010X222A1~B", "005010X223A2~B", "Transaction set 837 of guide `005010X223A2` is not known here"),
    ],
)
def test_each_fault_is_found(old: str, new: str, words: str) -> None:
    assert old in RIGHT
    assert any(words in fault.sentence for fault in check_interchange(RIGHT.replace(old, new)))


def test_a_control_number_that_stands_twice_is_found() -> None:
    start, end = RIGHT.index("CLM*PCN1"), RIGHT.index("SE*32")
    twice = RIGHT[:end] + RIGHT[start:end] + RIGHT[end:].replace("SE*32", "SE*46")
    assert any("CLM01 `PCN1` stands twice" in fault.sentence for fault in check_interchange(twice))


SECONDARY = write(make_secondary(make_response(make_claim(make_item(1, "99213", "100"))))).text


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("AMT*D*60~", "", "AMT*D of payer `67890` is missing; it is required after adjudication, also when 0"),
        ("AMT*D*60~", "AMT*D*50~", "paid 50 and adjusted 40 of a claim of 100: 10 missing"),
        ("SVD*67890*60*", "SVD*67890*-60*", "SVD02 is -60; a payer's amount for a line is not negative"),
        ("CAS*PR*2*20", "CAS*PR*2*10", "The line charges 100, was paid 60 and adjusted by 30: 10 missing"),
        (
            "~REF*F8*ICN1",
            "~DTP*573*D8*20260119~REF*F8*ICN1",
            "stands at the claim and at a line; one level alone has it",
        ),
    ],
)
def test_faults_of_another_payers_decision_are_found(old: str, new: str, words: str) -> None:
    assert check_interchange(SECONDARY) == ()
    assert old in SECONDARY
    assert any(words in fault.sentence for fault in check_interchange(SECONDARY.replace(old, new)))


_TEXTS = st.text(st.sampled_from("AZ09 .-:^*a~"), max_size=12) | st.sampled_from(
    ["", "1", "12.50", "123456789012345678901", "20260131", "20261399", "D8", "XX", "HC:99213:25"]
)


@given(
    st.sampled_from(["SV1", "NM1", "REF", "DTP", "CLM", "HI", "AMT", "N4", "CTP", "BHT"]), st.lists(_TEXTS, max_size=9)
)
def test_what_is_right_at_a_glance_is_right_element_by_element(segment_id: str, texts: list[str]) -> None:
    """The pattern of a whole segment never passes over a fault that the elements have, whichever are needed."""
    segment = Segment((segment_id, *texts))
    if _make_pattern(segment_id, ()).fullmatch("\x00".join(segment.elements)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("mappers.x12.elements._make_pattern", lambda *_: re.compile("(?!)"))
            assert list(check_elements(segment, None, "2300")) == []
