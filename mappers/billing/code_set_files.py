"""The published forms of code sets, read into rows: NCCI PTP and MUE, ICD-10-CM, HCPCS (https://www.cms.gov).

Each reader takes the lines of one file and gives `(rows, faults)`; a fault is a sentence with the line's number.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from mappers.billing.code_sets import OPEN_END

Row = tuple[str, ...]
START = "0001-01-01"

_CODE = re.compile(r"[0-9A-Z][0-9]{3}[0-9A-Z]", re.ASCII).fullmatch
_DAY = re.compile(r"[0-9]{8}", re.ASCII).fullmatch


class Reading(NamedTuple):
    """What a published file gives: rows to sort, and a sentence for each line that could not be read."""

    rows: list[Row]
    faults: list[str]


class Period(NamedTuple):
    """First and last day of a file that states none itself, as ISO dates."""

    start: str = START
    end: str = OPEN_END


ALWAYS = Period()


def _day(text: str, absent: str) -> str:
    return f"{text[:4]}-{text[4:6]}-{text[6:8]}" if _DAY(text) else absent


def read_ptp(lines: Iterable[str], period: Period = ALWAYS) -> Reading:
    """NCCI practitioner PTP text: column 1, column 2, prior to 1996, effective, deletion (`*`), indicator, rationale.

    The heading goes over several lines; every line before the first pair of codes belongs to it.
    """
    rows: list[Row] = []
    faults = []
    for number, line in enumerate(lines, 1):
        cells = [cell.strip() for cell in line.rstrip("\r\n").split("\t")]
        if not _CODE(cells[0]):
            if rows and any(cells):
                faults.append(f"Line {number} of the PTP file has no code in column 1: `{line.strip()[:40]}`.")
            continue
        if len(cells) < 6 or not _CODE(cells[1]) or not _DAY(cells[3]) or cells[5] not in ("0", "1", "9"):
            faults.append(f"Line {number} of the PTP file lacks column 2, effective date or modifier indicator.")
            continue
        rows.append((f"{cells[0]}+{cells[1]}", cells[5], _day(cells[3], START), _day(cells[4], period.end)))
    return Reading(rows, faults)


def read_mue(lines: Iterable[str], period: Period = ALWAYS) -> Reading:
    """NCCI practitioner MUE as CSV: code, `Practitioner Services MUE Values`, `MUE Adjudication Indicator`."""
    rows: list[Row] = []
    faults: list[str] = []
    for number, cells in enumerate(_read_csv(lines, faults), 1):
        if not cells or not _CODE(cells[0].strip()):
            if rows and any(cells):
                faults.append(f"Line {number} of the MUE file has no code: `{','.join(cells)[:40]}`.")
            continue
        if len(cells) < 3 or not cells[1].strip().isdigit() or cells[2].strip()[:1] not in ("1", "2", "3"):
            faults.append(f"Line {number} of the MUE file lacks units or adjudication indicator.")
            continue
        rows.append((cells[0].strip(), cells[1].strip(), cells[2].strip()[0], *period))
    return Reading(rows, faults)


def _read_csv(lines: Iterable[str], faults: list[str]) -> Iterator[list[str]]:
    """The rows of a CSV; what the reader cannot go on with ends it and is a fault."""
    try:
        yield from csv.reader(lines)
    except csv.Error as error:
        faults.append(f"The file is no CSV from some line on ({error}); a quote may not be closed.")


def read_icd_10_cm(lines: Iterable[str], period: Period = ALWAYS) -> Reading:
    """ICD-10-CM order file: number 1–5, code 7–13, `1` for billable in 15, descriptions; no dots."""
    rows: list[Row] = []
    faults = []
    for number, line in enumerate(lines, 1):
        code, flag = line[6:13].strip(), line[14:15]
        if not line.strip():
            continue
        if not line[:5].isdigit() or not re.fullmatch(r"[A-Z][0-9][0-9A-Z]{1,5}", code) or flag not in ("0", "1"):
            faults.append(f"Line {number} of the ICD-10-CM file has no code and billable flag in columns 7 to 15.")
            continue
        rows.append((code, flag, *period))
    return Reading(rows, faults)


def read_hcpcs(lines: Iterable[str], period: Period = ALWAYS) -> Reading:
    """HCPCS text: code 1–5, record 11 (3 procedure, 7 modifier), add date 269–276, termination date 285–292."""
    rows: list[Row] = []
    faults = []
    for number, line in enumerate(lines, 1):
        code, kind = line[:5].strip(), line[10:11]
        if not line.strip() or kind in ("4", "8"):
            continue
        if kind not in ("3", "7") or len(line.rstrip("\r\n")) < 276 or not _DAY(line[268:276]):
            faults.append(f"Line {number} of the HCPCS file is no procedure or modifier record with an add date.")
            continue
        rows.append((code, "1", _day(line[268:276], START), _day(line[284:292], period.end)))
    return Reading(rows, faults)


READERS: dict[str, Callable[[Iterable[str], Period], Reading]] = {
    "ptp": read_ptp,
    "mue": read_mue,
    "icd-10-cm": read_icd_10_cm,
    "hcpcs": read_hcpcs,
}
