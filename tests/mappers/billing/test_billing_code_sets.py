"""The published forms of code sets, their sorted files, and looking up without loading."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mappers.billing.code_set_files import READERS, Period, read_hcpcs, read_icd_10_cm, read_mue, read_ptp
from mappers.billing.code_sets import SortedFile, SortedRows, find_rows, open_code_sets, write_sorted_file

# The headings are those of the published files; the rows are invented.
PTP = """\
CPT only copyright notice\t\t\t\t\t\t
Column1/Column2 Edits\t\t\t\t\t\t
Column 1\tColumn 2\t*=in existence\tEffective\tDeletion\tModifier\tPTP Edit Rationale
\t\tprior to 1996\tDate\tDate\t0=not allowed\t
\t\t\t\t*=no data\t1=allowed\t
\t\t\t\t\t9=not applicable\t
10001\t20001\t\t20200101\t*\t1\tMisuse of column two code
10001\t20002\t*\t19960101\t20191231\t0\tMore extensive procedure
1000X
"""
MUE = """\
"HCPCS/
CPT Code",Practitioner Services MUE Values,MUE Adjudication Indicator,MUE Rationale
10001,1,2 Date of Service Edit: Policy,Code Descriptor
20001,4,3 Date of Service Edit: Clinical,"Clinical, data"
20002,x,1 Line Edit,None
"""
ICD = """\
00001 A00     0 Heading                                                      Heading of a category
00002 A000    1 Short                                                        Long description
00003 E119    1 Short                                                        Long description
no order
"""


def hcpcs_line(code: str, kind: str, added: str, ended: str) -> str:
    line = f"{code:<5}00100{kind}" + "Long description".ljust(80) + "Short".ljust(28)
    return line.ljust(268) + added + "20200101" + ended.ljust(8) + "N\n"


def hcpcs_modifier(code: str) -> str:
    return hcpcs_line(code, "7", "20000101", "")


def test_ptp_gives_pairs_with_indicator_and_days() -> None:
    reading = read_ptp(PTP.splitlines(keepends=True))
    assert reading.rows == [
        ("10001+20001", "1", "2020-01-01", "9999-12-31"),
        ("10001+20002", "0", "1996-01-01", "2019-12-31"),
    ]
    assert reading.faults == ["Line 9 of the PTP file lacks column 2, effective date or modifier indicator."]


def test_mue_gives_units_and_adjudication_indicator() -> None:
    reading = read_mue(MUE.splitlines(keepends=True), Period("2026-01-01", "2026-03-31"))
    assert reading.rows == [
        ("10001", "1", "2", "2026-01-01", "2026-03-31"),
        ("20001", "4", "3", "2026-01-01", "2026-03-31"),
    ]
    assert reading.faults == ["Line 4 of the MUE file lacks units or adjudication indicator."]


def test_icd_10_cm_tells_headings_from_codes() -> None:
    reading = read_icd_10_cm(ICD.splitlines(keepends=True), Period("2025-10-01", "2026-09-30"))
    assert [row[:2] for row in reading.rows] == [("A00", "0"), ("A000", "1"), ("E119", "1")]
    assert len(reading.faults) == 1 and "Line 4" in reading.faults[0]


def test_hcpcs_reads_procedures_and_modifiers_and_passes_over_continuations() -> None:
    lines = [
        hcpcs_line("J0001", "3", "20100101", ""),
        hcpcs_line("J0001", "4", "20100101", ""),
        hcpcs_line("J0002", "3", "20100101", "20151231"),
        hcpcs_modifier("RT"),
        "short\n",
    ]
    reading = read_hcpcs(lines)
    assert reading.rows == [
        ("J0001", "1", "2010-01-01", "9999-12-31"),
        ("J0002", "1", "2010-01-01", "2015-12-31"),
        ("RT", "1", "2000-01-01", "9999-12-31"),
    ]
    assert len(reading.faults) == 1


def test_rows_are_in_force_from_their_first_to_their_last_day(tmp_path: Path) -> None:
    path = tmp_path / "ptp"
    assert write_sorted_file(read_ptp(PTP.splitlines()).rows, path) == 2
    loaded = SortedFile(path)
    assert list(find_rows(loaded, "10001+20002", date(2019, 12, 31))) == [("0", "1996-01-01", "2019-12-31")]
    assert list(find_rows(loaded, "10001+20002", date(2020, 1, 1))) == []
    loaded.close()


def test_a_folder_holds_the_sets_that_a_site_has_compiled(tmp_path: Path) -> None:
    write_sorted_file(read_icd_10_cm(ICD.splitlines()).rows, tmp_path / "icd-10-cm")
    loaded = open_code_sets(tmp_path)
    assert loaded.hcpcs is None and loaded.icd_10_cm is not None
    assert loaded.icd_10_cm.find("E119") == [("1", "0001-01-01", "9999-12-31")]


KEYS = st.text("ABC019+", min_size=1, max_size=4)


@given(rows=st.lists(st.tuples(KEYS, st.text("xyz", max_size=3), st.just("z")), max_size=40), wanted=KEYS)
def test_a_sorted_file_finds_what_rows_in_memory_find(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, str]], wanted: str
) -> None:
    path = tmp_path_factory.mktemp("sets") / "rows"
    write_sorted_file(rows, path)
    loaded = SortedFile(path)
    for key in {wanted, *(row[0] for row in rows)}:
        assert loaded.find(key) == sorted(set(SortedRows(rows).find(key)))
    loaded.close()


class CountingText(bytes):
    """The text of a file, which counts how often the end of a line was looked for."""

    looks = 0

    def find(self, *arguments: Any) -> int:
        self.looks += 1
        return super().find(*arguments)


def test_looking_up_does_not_read_the_file(tmp_path: Path) -> None:
    path = tmp_path / "large"
    write_sorted_file(
        ((f"{n:05d}+{n * 7 % 100000:05d}", "1", "2000-01-01", "9999-12-31") for n in range(100_000)), path
    )
    loaded = SortedFile(path)
    loaded.close()
    text = CountingText(path.read_bytes())
    loaded._text = text
    for n in range(0, 100_000, 1000):
        text.looks = 0
        assert loaded.find(f"{n:05d}+{n * 7 % 100000:05d}")
        assert 0 < text.looks < 2 * 20  # bisection: less than 2^17 lines, at most two looks for the ends of each


@pytest.mark.parametrize("name", READERS)
@given(text=st.text())
def test_whatever_the_text_a_reader_gives_sentences(name: str, text: str) -> None:
    reading = READERS[name](text.splitlines(), Period())
    assert all(fault.endswith(".") for fault in reading.faults)
