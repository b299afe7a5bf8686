"""The CMS-1500: which text stands where, read back from the PDF by pypdf, which draws nothing of ours.

Lines and columns are those of the form's grid (NUCC, version 02/12), written here a second time by hand.
"""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pypdf import PdfReader

from mappers.billing.claim_to_form import Form, claim_to_form
from mappers.billing.form_layout import BOXES, LINE_BOXES, MARGINS, find_box
from mappers.billing.form_pdf import draw_form
from mappers.x12 import codes
from mappers.x12.claim_to_837p import claim_to_loops
from mappers.x12.partner import ClaimSource
from mappers.x12.resource import make_concept
from tests.mappers.x12.test_x12_oracles import STRANGE, replace_at
from tests.mappers.x12.x12_claims import (
    PARTNER,
    generate_source,
    make_claim,
    make_coverage,
    make_item,
    make_resources,
    make_response,
    make_skeleton,
    make_source,
    reference,
)

Grid = dict[tuple[int, int], str]


def read_grid(body: bytes, margins: tuple[float, float] = MARGINS) -> list[Grid]:
    """The texts of each page by line and column: 12 points a line, 7.2 a column, from the upper left corner."""
    pages = []
    for page in PdfReader(io.BytesIO(body)).pages:
        grid: Grid = {}

        def note(text: str, _cm: Any, matrix: list[float], _font: Any, _size: Any, grid: Grid = grid) -> None:
            if text.strip():
                column, line = (matrix[4] - margins[0]) / 7.2 + 1, (792 - margins[1] - matrix[5]) / 12
                assert abs(column - round(column)) < 0.01 and abs(line - round(line)) < 0.01, (text, matrix)
                grid[round(line), round(column)] = text.strip()

        assert [float(each) for each in page.mediabox] == [0, 0, 612, 792]
        page.extract_text(visitor_text=note)
        pages.append(grid)
    return pages


def fill(source: ClaimSource) -> Form:
    form = claim_to_form(source, PARTNER)
    assert form.pages, form.issues
    return form


def print_grid(source: ClaimSource) -> list[Grid]:
    return read_grid(draw_form(fill(source).pages))


def test_the_skeleton_of_the_map_on_paper() -> None:
    """The claim of `x12.md`, each text at the place where the form has the box."""
    (grid,) = print_grid(make_source())
    assert grid == {
        (2, 41): "ACME HEALTH",
        (8, 31): "X", (8, 50): "MEM123",  # group health plan: commercial with a group number; 1a
        (10, 1): "DOE, JANE", (10, 31): "01", (10, 34): "02", (10, 37): "1980", (10, 47): "X", (10, 50): "DOE, JANE",
        (12, 1): "2 ELM ST", (12, 33): "X", (12, 50): "2 ELM ST",
        (14, 1): "BOSTON", (14, 26): "MA", (14, 50): "BOSTON", (14, 74): "MA",
        (16, 1): "02109", (16, 50): "02109",
        (18, 50): "GRP1",
        (20, 41): "X", (20, 53): "01", (20, 56): "02", (20, 59): "1980", (20, 75): "X",
        (22, 41): "X", (24, 41): "X", (24, 50): "ACME HEALTH", (26, 57): "X",
        (29, 7): "SIGNATURE ON FILE", (29, 55): "SIGNATURE ON FILE",
        (36, 57): "X", (37, 42): "0", (38, 3): "E119", (38, 16): "I10", (40, 50): "PA77",
        (44, 1): "01", (44, 4): "10", (44, 7): "26", (44, 10): "01", (44, 13): "10", (44, 16): "26", (44, 19): "11",
        (44, 25): "99213", (44, 33): "25", (44, 45): "AB", (44, 52): "100 00", (44, 61): "1", (44, 68): "1700000015",
        (46, 1): "01", (46, 4): "10", (46, 7): "26", (46, 10): "01", (46, 13): "10", (46, 16): "26", (46, 19): "11",
        (46, 25): "81002", (46, 45): "A", (46, 53): "50 00", (46, 61): "1", (46, 68): "1700000015",
        (56, 1): "123456789", (56, 19): "X", (56, 23): "PCN1", (56, 38): "X", (56, 54): "150 00",
        (58, 23): "GOOD CLINIC", (58, 50): "GOOD CLINIC", (59, 23): "1 MAIN ST", (59, 50): "1 MAIN ST",
        (60, 1): "SIGNATURE ON FILE", (60, 23): "BOSTON MA 02108-1234", (60, 50): "BOSTON MA 02108-1234",
        (61, 23): "1700000007", (61, 50): "1700000007", (61, 63): "ZZ207Q00000X",
    }  # fmt: skip


def test_a_page_has_six_lines_and_its_own_total() -> None:
    """Lines of 1.00 to 14.00: 21.00, 57.00 and 27.00; diagnoses on each page, what was paid on the first."""
    items = [make_item(number, "99213", str(number)) for number in range(1, 15)]
    paid = {"category": make_concept("", "patient-paid"), "valueQuantity": {"value": 5}}
    pages = print_grid(make_source(make_claim(*items, supportingInfo=[{"sequence": 1, **paid}])))
    assert [page[56, 55] for page in pages] == ["21 00", "57 00", "27 00"]
    assert [sum((44 + 2 * n, 25) in page for n in range(6)) for page in pages] == [6, 6, 2]
    assert [page[38, 3] for page in pages] == ["E119"] * 3
    assert [page.get((56, 66)) for page in pages] == ["5 00", None, None]


def test_a_dependent_an_accident_dates_a_drug_and_a_facility() -> None:
    drug = {
        "sequence": 1,
        "productOrService": make_concept(codes.NDC, "00026-0635-12"),
        "quantity": {"value": "1.5", "code": "mL"},
    }
    more = {"productOrService": make_concept(codes.HCPCS[0], "J1550"), "detail": [drug]}
    emergency = {"extension": [{"url": codes.EMERGENCY, "valueBoolean": True}]}
    period = {"servicedPeriod": {"start": "2026-01-10", "end": "2026-01-12"}, "quantity": {"value": 3}}
    item = {**make_item(1, "99213", "1234.50"), **more, **emergency, **period}
    del item["servicedDate"]
    team = [("primary", "smith"), ("supervisor", "pine"), ("referring", "pine")]
    information = [
        {"category": make_concept("", "onset"), "timingDate": "2025-12-29"},
        {"category": make_concept("", "initial-treatment"), "timingDate": "2025-12-30"},
        {"category": make_concept("", "hospitalized"), "timingPeriod": {"start": "2026-01-01", "end": "2026-01-03"}},
        {"category": make_concept("", "employmentimpacted"), "timingPeriod": {"start": "2026-01-02"}},
        {"category": make_concept("", "info"), "valueString": "See chart"},
    ]
    claim = make_claim(
        item,
        patient=reference("Patient/bo"),
        facility=reference("Location/ward"),
        accident={"type": make_concept("", "MVA"), "locationAddress": {"state": "TX"}},
        careTeam=[
            {"sequence": n, "provider": reference(f"Practitioner/{name}"), "role": make_concept("", role)}
            for n, (role, name) in enumerate(team, 1)
        ],
        supportingInfo=information,
        extension=[{"url": codes.ASSIGNMENT, "valueCode": "C"}, {"url": codes.BENEFITS, "valueCode": "N"}],
    )
    coverage = make_coverage("cov", patient="bo", relationship=make_concept("", "child"))
    source = make_source(claim, coverage)
    form = fill(source)
    (grid,) = read_grid(draw_form(form.pages))
    expected = {
        (10, 1): "DOE, BO", (10, 42): "X", (12, 42): "X", (10, 50): "DOE, JANE",  # the child of the insured
        (22, 35): "X", (22, 45): "TX", (20, 41): "X", (24, 41): "X",  # 10: a motor accident in Texas
        (32, 2): "12", (32, 5): "29", (32, 8): "2025", (32, 16): "431",  # 14
        (32, 31): "454", (32, 37): "12", (32, 40): "30", (32, 43): "2025",  # 15
        (32, 54): "01", (32, 57): "02", (32, 60): "2026",  # 16
        (34, 54): "01", (34, 60): "2026", (34, 71): "03",  # 18
        (34, 1): "DN", (34, 4): "RUTH A PINE JR", (34, 33): "1700000023",  # 17: referring goes before supervising
        (36, 1): "SEE CHART",
        (43, 1): "N400026063512   ML1.5",  # the shaded half
        (44, 4): "10", (44, 13): "12", (44, 22): "Y", (44, 25): "J1550", (44, 51): "1234 50", (44, 61): "3",
        (56, 43): "X",  # 27: not assigned
        (58, 23): "NORTH SURGERY CENTER", (61, 23): "1700000023", (58, 50): "GOOD CLINIC",
    }  # fmt: skip
    assert {place: grid.get(place) for place in expected} == expected
    assert (29, 55) not in grid and (56, 38) not in grid  # 13: benefits are not assigned
    assert [each.diagnostics for each in form.issues] == ["Box 17 has room for one provider beside the rendering one."]


def test_another_payer_and_a_replacement() -> None:
    """9 to 9d, 11d and 29 for a secondary claim of 150.00 of which 90.00 are paid; 22 for a replacement."""
    claim = make_skeleton()
    claim["insurance"] = [
        {"sequence": 1, "focal": False, "coverage": reference("Coverage/cov2"),
         "claimResponse": reference("ClaimResponse/r1")},
        {"sequence": 2, "focal": True, "coverage": reference("Coverage/cov")},
    ]  # fmt: skip
    second = {**make_coverage("cov2", payer="best", subscriberId="B9"), "class": []}
    source = ClaimSource(claim, make_resources(second, make_response(claim)), "7", "ICN7")
    (grid,) = print_grid(source)
    expected = {
        (18, 1): "DOE, JANE", (20, 1): "B9", (26, 1): "BEST INSURANCE", (26, 52): "X",
        (56, 65): "90 00", (38, 50): "7", (38, 62): "ICN7",
    }  # fmt: skip
    assert {place: grid.get(place) for place in expected} == expected


def test_medicare_has_its_own_instructions() -> None:
    """CMS Pub. 100-04, chapter 26: where Medicare pays first, 11 is NONE and 4, 6, 7 and 11a to d stay empty."""
    coverage = make_coverage("cov", type=make_concept("https://nahdo.org/sopt", "1"))
    (grid,) = print_grid(make_source(None, coverage))
    assert grid[8, 1] == "X" and grid[8, 50] == "MEM123" and grid[18, 50] == "NONE"
    empty = {(10, 50), (12, 33), (12, 50), (14, 50), (16, 50), (20, 53), (24, 50), (26, 52), (26, 57), (61, 63)}
    assert empty & grid.keys() == set()


def test_what_does_not_fit_is_told_or_refused() -> None:
    """The account number has 14 places on paper and 17 in an 837P; an amount that is cut would be another amount."""
    number = "A1B2C3D4E5F6G7H8I"
    claim = {**make_skeleton(), "identifier": [{"system": codes.PATIENT_CONTROL_NUMBER, "value": number}]}
    form = fill(make_source(claim))
    assert form.pages[0]["account"] == number[:14]
    assert [each.diagnostics for each in form.issues] == [f"`{number}` is cut to 14 characters in box 26."]
    dear = claim_to_form(make_source(make_claim(make_item(1, "99213", "1234567.00"))), PARTNER)
    assert dear.pages == () and "box 24F has room for 8" in dear.issues[0].diagnostics
    others = [{"sequence": n, "focal": n == 3, "coverage": reference(f"Coverage/cov{n}")} for n in (1, 2, 3)]
    coverages = [make_coverage(f"cov{n}") for n in (1, 2, 3)]
    many = claim_to_form(make_source({**make_skeleton(), "insurance": others}, *coverages), PARTNER)
    assert many.pages == () and "2 other payers" in many.issues[0].diagnostics
    assert claim_to_form(ClaimSource({}, {}), PARTNER).pages == ()


def test_margins_move_the_whole_page() -> None:
    pages = fill(make_source()).pages
    assert read_grid(draw_form(pages, (30, 10)), (30, 10)) == read_grid(draw_form(pages))


def test_boxes_never_overlap() -> None:
    """On a page with six lines no two boxes have a place in common, and none leaves the 79 columns and 66 lines."""
    names = [*BOXES, *(f"line.{number}.{name}" for number in range(1, 7) for name in LINE_BOXES)]
    taken: dict[tuple[int, int], str] = {}
    for name in names:
        box = find_box(name)
        for column in range(box.column, box.column + box.width):
            assert 1 <= column <= 79 and 1 <= box.line <= 66, name
            assert taken.setdefault((box.line, column), name) == name, (name, taken[box.line, column])


@pytest.mark.parametrize("seed", range(120))
def test_every_valid_claim_is_printed_or_says_why(seed: int) -> None:
    """Totals of the pages add up to CLM02; every line is on one page."""
    source = generate_source(seed)
    form = claim_to_form(source, PARTNER)
    loops, _ = claim_to_loops(source, PARTNER)
    assert loops is not None
    assert form.pages, form.issues
    cents = sum(int(page["total"].replace(" ", "")) for page in form.pages)
    assert cents == round(float(loops.claim.segment("CLM").at(2)) * 100)
    lines = sum(f"line.{n}.procedure" in page for page in form.pages for n in range(1, 7))
    assert lines == len(source.claim["item"])
    assert draw_form(form.pages).startswith(b"%PDF-")


@settings(max_examples=300)
@given(seed=st.integers(0, 60), path=st.lists(st.integers(0, 20), min_size=1, max_size=6), new=STRANGE)
def test_a_strange_resource_is_printed_or_refused_with_a_sentence(seed: int, path: list[int], new: object) -> None:
    """Never an exception, whatever stands where."""
    source = generate_source(seed)
    tree = replace_at({"claim": source.claim, "resources": dict(source.resources)}, path, new)
    if not isinstance(tree["claim"], dict) or not isinstance(tree["resources"], dict):
        return
    known = {key: value for key, value in tree["resources"].items() if isinstance(value, dict)}
    form = claim_to_form(ClaimSource(tree["claim"], known, source.frequency), PARTNER)
    assert draw_form(form.pages) if form.pages else all(each.diagnostics for each in form.issues) and form.issues
