"""The tables are sound, cover what they should, and are walked fast enough."""

from __future__ import annotations

import csv
import re
from dataclasses import fields
from pathlib import Path

from mappers.hl7v2.coverage import find_coverage, write_coverage
from mappers.hl7v2.events import read_events
from mappers.hl7v2.mapping import FAMILIES
from mappers.hl7v2.partner import Partner
from mappers.hl7v2.rows import FILES, read_rows, read_steps
from mappers.hl7v2.tables import read_table

DOCS = Path(__file__).resolve().parents[3] / "docs"

SUPPORTED = """ADT: A01 A02 A03 A04 A05 A06 A07 A08 A09 A10 A11 A12 A13 A14 A18 A28 A29 A31 A34 A35 A36 A40 A41 A42
DFT: P03 P11
OMP: O09
ORU: R01
RDE: O11 O25
SIU: S12 S13 S14 S15 S16 S17 S18 S19 S20 S21 S22 S23 S24 S26"""

# Maps of the guide for what is mapped; the others are about resources that no family makes.
WHOLE = frozenset(
    ["PID[Patient]", "PD1[Patient]", "NK1[RelatedPerson]", "NK1[Patient]", "PV2[Encounter]", "DG1[Condition]"]
)


def test_the_supported_events() -> None:
    found: dict[str, list[str]] = {}
    for message, event, *_ in read_table("events.tsv"):
        found.setdefault(message, []).append(event)
    assert "\n".join(f"{name}: {' '.join(events)}" for name, events in found.items()) == SUPPORTED


def test_every_row_can_be_read_and_names_a_field() -> None:
    assert sum(map(len, read_rows().values())) > 250
    for file in FILES:
        for cells in read_table(f"{file}.tsv"):
            assert len(cells) == 8 and re.fullmatch(r"[A-Z][A-Z0-9]{2}-\d+(\.\d+)?", cells[1]), cells
            assert cells[2] == "-" or read_steps(cells[2])


def test_every_segment_of_a_table_is_read_by_a_family() -> None:
    segments = {cells[1][:3] for file in FILES for cells in read_table(f"{file}.tsv")}
    assert segments - frozenset().union(*(event.segments for event in read_events().values())) == set()
    assert {name for name, _ in read_events()} == set(FAMILIES)


def test_coverage_counts_the_official_rows() -> None:
    rows = {row.map: row for row in find_coverage()}
    assert all(row.official == row.mapped + len(row.missing) for row in rows.values())
    assert {name for name in WHOLE if rows[name].missing} == set()
    assert "PV1-53" in rows["PV1[Encounter]"].missing
    assert re.search(r"\nall: \d+ of \d+ fields \(\d+ %\)$", write_coverage())


def test_the_official_table_is_that_of_the_guide(shared: Path) -> None:
    """PID-8 is mapped to gender by the guide itself, and no row is ours."""
    folder = shared / "definitions" / "v2-to-fhir" / "segments"
    (sheet,) = folder.glob("*PID[[]Patient[]]*")
    with sheet.open(encoding="utf-8-sig", newline="") as lines:
        mapped = {row[1] for row in list(csv.reader(lines))[2:] if row[9].strip()}
    assert {field for title, field, _ in read_table("official.tsv") if title == "PID[Patient]"} == mapped


def test_the_pages_name_every_event() -> None:
    """Ranges count: `A01 to A14`."""
    for message in FAMILIES:
        text = (DOCS / "messages" / f"{message.lower()}.md").read_text(encoding="utf-8")
        named = set(re.findall(r"\b[A-Z]\d\d\b", text))
        assert {row[1] for row in read_table("events.tsv") if row[0] == message} - named == set(), message


def test_the_page_of_the_mapper_names_the_tables_and_the_configuration() -> None:
    text = (DOCS / "mappers" / "hl7v2.md").read_text(encoding="utf-8")
    names = {"events", "structures", "timings", "families", "concepts", "official", "decisions", *FILES}
    assert {name for name in names if f"`{name}.tsv`" not in text} == set()
    assert {each.name for each in fields(Partner) if f"`{each.name}`" not in text} == set()
