"""Samples of X12 read into loops and written again byte for byte; what the tables find wrong in them (x12.md)."""

from __future__ import annotations

from pathlib import Path

import pytest

from mappers.x12.envelope import TransactionSet, read_interchanges
from mappers.x12.loop import Loop
from mappers.x12.reader import Loops, explain_unread, read_loops, read_set
from mappers.x12.segment import make_segment, render_segment
from mappers.x12.tables import TABLES, find_table
from mappers.x12.tables.claim import TABLE_837P
from mappers.x12.tables.segments import ELEMENTS
from mappers.x12.writer import write_loops
from tests.mappers.x12.test_x12_tokenizer import file, group

# What is wrong in a sample, as X12 path and code; all others have no fault. No 835 sample has the payer's technical
# contact (PER*BL), three have no valid BPR16; three 837Ps separate components by `>` where ISA16 says `:`.
FAULTS = {
    "835_005010X221A1_cob-contractural-adjustment.835": {("ST/BPR/16", "1"), ("1000A/PER", "3")},
    "835_005010X221A1_managed-care.835": {("ST/BPR/16", "8"), ("1000A/PER", "3")},
    "835_005010X221A1_medicare-part-a.835": {("1000A/PER", "3")},
    "835_005010X221A1_secondary-payment.835": {("ST/BPR/16", "1"), ("1000A/PER", "3")},
    "837_005010X222A2_demo.example12.837": {("2300/HI", "2"), ("2300/HI", "3")},
    "837_005010X222A2_demo.example6.837": {("2300/HI", "2"), ("2300/HI", "3")},
    "837_005010X222A2_demo.example9.837": {("2300/HI", "2"), ("2300/HI", "3")},
}


def read_sample(path: Path) -> tuple[TransactionSet, Loops]:
    (received,) = [e for e in read_interchanges(path.read_bytes()) if isinstance(e, TransactionSet)]
    loops = read_set(received)
    assert loops is not None
    return received, loops


def samples(shared: Path) -> list[Path]:
    found = sorted((shared / "data" / "x12").iterdir())
    assert len(found) >= 18
    return found


def test_every_sample_is_read_into_loops_and_written_byte_for_byte(shared: Path) -> None:
    for path in samples(shared):
        received, loops = read_sample(path)
        delimiters = received.interchange.delimiters
        written = "".join(render_segment(segment, delimiters) for segment in write_loops(loops.root, loops.table))
        assert written.rstrip("\n").encode() == received.raw, path.name
        assert received.raw in path.read_bytes()


def test_faults_of_the_samples_are_those_listed(shared: Path) -> None:
    for path in samples(shared):
        _, loops = read_sample(path)
        assert {(fault.place.path, fault.code) for fault in loops.faults} == FAULTS.get(path.name, set()), path.name


def test_loops_of_a_sample_stand_where_its_levels_say(shared: Path) -> None:
    """The coordination-of-benefits sample: a dependent's claim of three lines, each adjudicated by the other payer."""
    _, loops = read_sample(shared / "data" / "x12" / "837_005010X222A2_demo.cob.example3.B.837")
    (billing,) = loops.root.loops("2000A")
    (subscriber,) = billing.loops("2000B")
    (patient,) = subscriber.loops("2000C")
    (claim,) = patient.loops("2300")
    assert subscriber.loop("2010BA").segment("NM1").at(9) == "222334444"
    assert patient.loop("2010CA").segment("NM1").at(4) == "TED"
    assert claim.loop("2310B").segment("PRV").at(3) == "204C00000X"
    (other,) = claim.loops("2320")
    assert other.value("AMT", "D") == "39.15"
    assert other.loop("2330B").segment("NM1").at(9) == "999996666"
    assert [line.loop("2430").segment("SVD").at(2) for line in claim.loops("2400")] == ["40.00", "15.00", "21.04"]


def test_every_segment_of_the_tables_has_its_elements() -> None:
    ids = {row.id for table in TABLES.values() for loop in table.loops.values() for row in loop.segments}
    assert ids - ELEMENTS.keys() == set()


@pytest.mark.parametrize(
    ("code", "version", "same"),
    [
        ("837", "005010X222A2", "005010X222A1"),
        ("837", "005010X222", "005010X222A1"),
        ("835", "005010X221", "005010X221A1"),
    ],
)
def test_errata_are_read_by_the_table_of_the_guide(code: str, version: str, same: str) -> None:
    assert find_table(code, version) is TABLES[code, same]


def read_837(body: str) -> Loops:
    text = f"ST*837*0001*005010X222A1~BHT*0019*00*1*20260115*1200*CH~{body}"
    segments = [make_segment(*piece.split("*")) for piece in text.split("~") if piece]
    return read_loops(segments, TABLE_837P)


def find_codes(loops: Loops, path: str) -> set[str]:
    return {fault.code for fault in loops.faults if fault.place.path == path}


HEAD = "NM1*41*2*A*****46*1~PER*IC*B*TE*5555551212~NM1*40*2*C*****46*2~HL*1**20*1~"


@pytest.mark.parametrize(
    ("body", "path", "code"),
    [
        ("ZZZ*1~", "ST/ZZZ", "1"),
        ("SVC*HC:1*1*1~", "ST/SVC", "2"),
        ("NM1*41*2*A*****46*1~NM1*40*2*C*****46*2~", "1000A/PER", "3"),
        (HEAD + "NM1*85*2*A~N4*B~REF*EI*1~", "2010AA/N3", "3"),
        (HEAD + "NM1*85*2*A~N3*1~N3*2~", "2010AA/N3", "5"),
        (HEAD + "NM1*85*2*A~N3*1~N4*B~REF*EI*1~NM1*85*2*A~", "2010AA/NM1", "4"),
        (HEAD + "NM1*85*2*A~REF*1~", "2010AA/REF/02", "1"),
        (HEAD + "NM1*85*2*A~REF*QQ*1~", "2010AA/REF/01", "7"),
        (HEAD + "NM1*85*22*A~", "2010AA/NM1/02", "5"),
        (HEAD + "NM1*85*2*A*****XX*1~", "2010AA/NM1/09", "4"),
        (HEAD + "NM1*85*2*A*1*2*3*4*5*66*7*8*9*10~", "2010AA/NM1/13", "3"),
        (HEAD + "NM1*85*2*Zoë~", "2010AA/NM1/03", "6"),
        (HEAD + "HL*2*1*22*0~SBR*P~CLM*1*1.0.0~", "2300/CLM/02", "6"),
        (HEAD + "HL*2*1*22*0~SBR*P~CLM*1*1~AMT*F5*1e9~", "2300/AMT/02", "6"),
    ],
)  # fmt: skip
def test_a_fault_has_its_place_and_the_code_of_a_999(body: str, path: str, code: str) -> None:
    loops = read_837(body)
    assert code in find_codes(loops, path), loops.faults


def test_what_fits_nowhere_is_kept_where_it_stood() -> None:
    body = HEAD + "ZZZ*1~NM1*85*2*A~YYY*2~N3*1~"
    loops = read_837(body)
    ids = [segment.id for segment in write_loops(loops.root, TABLE_837P)]
    assert ids == ["ST", "BHT", "NM1", "PER", "NM1", "HL", "ZZZ", "NM1", "YYY", "N3"]


def test_loops_are_written_in_the_order_of_the_table() -> None:
    root = Loop("ST")
    claim = root.open("2000A").open("2000B").open("2300")
    claim.open("2400").add("LX", "1")
    claim.content.insert(0, make_segment("CLM", "1"))
    claim.open("2310B").add("NM1", "82", "1")
    claim.add("REF", "G1", "7")
    claim.add("DTP", "431", "D8", "20260101")
    assert [segment.id for segment in write_loops(root, TABLE_837P)] == ["CLM", "DTP", "REF", "NM1", "LX"]


def test_faults_of_one_set_are_listed_up_to_a_limit() -> None:
    loops = read_837("ZZZ*1~" * 2_000)
    assert len(loops.faults) == 501
    assert loops.faults[-1].sentence == "There are more than 500 faults; no more are listed."


@pytest.mark.parametrize(
    ("set_text", "code", "words"),
    [
        ("ST*834*0001*005010X220A1~SE*2*0001~", "1", "834 of guide `005010X220A1` is not known"),
        ("ST*837*0001*005010X223A2~SE*2*0001~", "1", "837 of guide `005010X223A2` is not known"),
        ("ST**0001*005010X222A1~SE*2*0001~", "6", "(none)"),
    ],
)
def test_an_unknown_transaction_or_version_is_explained(set_text: str, code: str, words: str) -> None:
    (received,) = [e for e in read_interchanges(file(group(set_text))) if isinstance(e, TransactionSet)]
    assert read_set(received) is None
    fault = explain_unread(received)
    assert (fault.code, words in fault.sentence) == (code, True)
