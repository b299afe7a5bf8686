"""Claim to 837P: skeleton of x12.md, envelopes (B21), levels (B13), choices (B19), other payers (B9, B10), refusals."""

from __future__ import annotations

import copy
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from mappers.x12 import claim_to_837p, codes
from mappers.x12.claim_to_837p import Written837, write_837p
from mappers.x12.partner import ClaimSource, Partner, Party
from mappers.x12.resource import make_concept
from mappers.x12.segment import Delimiters
from mappers.x12.writer import Envelope
from tests.mappers.x12.x12_claims import (
    NUMBERS,
    PARTNER,
    address,
    adjudicate,
    make_claim,
    make_coverage,
    make_item,
    make_resources,
    make_response,
    make_skeleton,
    make_source,
    npi,
    reference,
)

# The skeleton of x12.md, which pyx12 and linuxforhealth-x12 both accept, with this project's invented NPIs
SKELETON = """
ISA*00*          *00*          *ZZ*SUBMITTER01    *ZZ*RECEIVER01     *260115*1200*^*00501*000000001*0*T*:
GS*HC*SUBMITTER01*RECEIVER01*20260115*1200*1*X*005010X222A1
ST*837*0001*005010X222A1
BHT*0019*00*000000001000*20260115*1200*CH
NM1*41*2*GOOD CLINIC*****46*SUBMITTER01
PER*IC*BILLING OFFICE*TE*5555551212
NM1*40*2*CLEARINGHOUSE*****46*RECEIVER01
HL*1**20*1
PRV*BI*PXC*207Q00000X
NM1*85*2*GOOD CLINIC*****XX*1700000007
N3*1 MAIN ST.
N4*BOSTON*MA*021081234
REF*EI*123456789
HL*2*1*22*0
SBR*P*18*GRP1******CI
NM1*IL*1*DOE*JANE****MI*MEM123
N3*2 ELM ST
N4*BOSTON*MA*02109
DMG*D8*19800102*F
NM1*PR*2*ACME HEALTH*****PI*12345
CLM*PCN1*150***11:B:1*Y*A*Y*Y
REF*G1*PA77
HI*ABK:E119*ABF:I10
NM1*82*1*SMITH*ADAM****XX*1700000015
PRV*PE*PXC*207Q00000X
LX*1
SV1*HC:99213:25*100*UN*1***1:2
DTP*472*D8*20260110
REF*6R*L1
LX*2
SV1*HC:81002*50*UN*1***1
DTP*472*D8*20260110
REF*6R*L2
SE*32*0001
GE*1*1
IEA*1*000000001
"""


def write(*sources: ClaimSource, partner: Partner = PARTNER) -> Written837:
    written = write_837p(sources, partner, NUMBERS, lambda place: f"{place + 1:04}")
    assert written.check == ()
    return written


def segments(*sources: ClaimSource, partner: Partner = PARTNER) -> list[str]:
    written = write(*sources, partner=partner)
    assert written.text, written.faults
    return written.text.rstrip("~").split("~")


def find(lines: list[str], start: str) -> list[str]:
    return [line for line in lines if line.startswith(start)]


def test_the_skeleton_of_the_map() -> None:
    assert segments(make_source()) == SKELETON.split("\n")[1:-1]


PRACTICE = Party("Good Clinic", "123456789", "Ann Hall", "5555551212")
ENVELOPES = {
    "practice direct": (
        Partner(Envelope("123456789", "12345", "30", "ZZ"), PRACTICE, Party("Acme Health", "12345")),
        [
            "ISA*00*          *00*          *30*123456789      *ZZ*12345          *260115*1200*^*00501*000000001*0*T*:",
            "GS*HC*123456789*12345*20260115*1200*1*X*005010X222A1",
            "NM1*41*2*GOOD CLINIC*****46*123456789",
            "PER*IC*ANN HALL*TE*5555551212",
            "NM1*40*2*ACME HEALTH*****46*12345",
        ],
    ),
    "clearinghouse": (
        Partner(
            Envelope("CLINIC7", "HOUSE", "ZZ", "ZZ", "CLINIC7G", "HOUSEG", "P", True),
            PRACTICE,
            Party("Claim House", "HOUSE"),
        ),
        [
            "ISA*00*          *00*          *ZZ*CLINIC7        *ZZ*HOUSE          *260115*1200*^*00501*000000001*1*P*:",
            "GS*HC*CLINIC7G*HOUSEG*20260115*1200*1*X*005010X222A1",
            "NM1*41*2*GOOD CLINIC*****46*123456789",
            "PER*IC*ANN HALL*TE*5555551212",
            "NM1*40*2*CLAIM HOUSE*****46*HOUSE",
        ],
    ),
    "billing company": (
        Partner(
            Envelope("BILLCO", "HOUSE"),
            Party("Bill & Co", "BC01", "Lee Fox", "5555550000", "lee@bill.example"),
            Party("Claim House", "HOUSE"),
        ),
        [
            "ISA*00*          *00*          *ZZ*BILLCO         *ZZ*HOUSE          *260115*1200*^*00501*000000001*0*T*:",
            "GS*HC*BILLCO*HOUSE*20260115*1200*1*X*005010X222A1",
            "NM1*41*2*BILL & CO*****46*BC01",
            "PER*IC*LEE FOX*TE*5555550000*EM*lee@bill.example",
            "NM1*40*2*CLAIM HOUSE*****46*HOUSE",
        ],
    ),
}


@pytest.mark.parametrize("kind", ENVELOPES)
def test_each_element_of_each_kind_of_envelope(kind: str) -> None:
    """Submitter and receiver are never taken for each other, and the billing provider is the practice in all (B21)."""
    partner, expected = ENVELOPES[kind]
    lines = segments(make_source(), partner=partner)
    assert [lines[n] for n in (0, 1, 4, 5, 6)] == expected
    assert len(lines[0]) == 105
    assert find(lines, "NM1*85") == ["NM1*85*2*GOOD CLINIC*****XX*1700000007"]


def test_other_delimiters_are_written_and_read() -> None:
    envelope = Envelope("A", "B", delimiters=Delimiters("|", ">", "^", "'", "\n"))
    written = write(make_source(), partner=Partner(envelope, PARTNER.submitter, PARTNER.receiver))
    assert "SV1|HC>99213>25|100|UN|1|||1>2'\n" in written.text


def make_dependent(number: str = "PCN2", relation: str = "child") -> ClaimSource:
    claim = make_claim(
        make_item(1, "99213", "75"),
        identifier=[{"system": codes.PATIENT_CONTROL_NUMBER, "value": number}],
        patient=reference("Patient/bo"),
        insurance=[{"sequence": 1, "focal": True, "coverage": reference("Coverage/bo")}],
    )
    return make_source(claim, make_coverage("bo", patient="bo", relationship=make_concept("", relation)))


def test_subscriber_and_dependent_share_the_levels_above_them() -> None:
    """B13: numbers, parents and children of HL, and what each level has."""
    lines = segments(make_source(), make_dependent(), make_dependent("PCN3"))
    assert find(lines, "HL") == ["HL*1**20*1", "HL*2*1*22*0", "HL*3*1*22*1", "HL*4*3*23*0"]
    assert find(lines, "SBR") == ["SBR*P*18*GRP1******CI", "SBR*P**GRP1******CI"]
    start = lines.index("HL*4*3*23*0")
    assert lines[start + 1 : start + 6] == [
        "PAT*19", "NM1*QC*1*DOE*BO", "N3*2 ELM ST", "N4*BOSTON*MA*02109", "DMG*D8*20120304*M",
    ]  # fmt: skip
    assert [line.split("*")[1] for line in find(lines, "CLM")] == ["PCN1", "PCN2", "PCN3"]


@pytest.mark.parametrize(
    ("relation", "code"), [("spouse", "01"), ("child", "19"), ("other", "G8"), ("parent", "G8"), ("common", "53")]
)
def test_relationships(relation: str, code: str) -> None:
    assert find(segments(make_dependent(relation=relation)), "PAT") == [f"PAT*{code}"]


def numbered(claim: dict[str, Any], number: str) -> dict[str, Any]:
    return {**claim, "identifier": [{"system": codes.PATIENT_CONTROL_NUMBER, "value": number}]}


def test_no_more_than_100_claims_stand_under_one_subscriber() -> None:
    lines = segments(*(make_source(numbered(make_skeleton(), f"PCN{n}")) for n in range(101)))
    assert find(lines, "HL") == ["HL*1**20*1", "HL*2*1*22*0", "HL*3*1*22*0"]


@pytest.mark.parametrize("frequency", ["7", "8"])
def test_replacement_and_void_name_the_payers_claim(frequency: str) -> None:
    lines = segments(make_source(payer_claim_number="ICN9", frequency=frequency))
    assert find(lines, "CLM") == [f"CLM*PCN1*150***11:B:{frequency}*Y*A*Y*Y"]
    assert "REF*F8*ICN9" in lines
    refused = write(make_source(frequency=frequency))
    assert refused.text == ""
    (fault,) = refused.faults[0]
    assert (fault.place.path, fault.expression) == ("2300/REF/02", "Claim.related.reference")


def test_an_original_claim_names_no_number_of_the_payer() -> None:
    assert find(segments(make_source(payer_claim_number="ICN9")), "REF*F8") == []


def extended(url: str, value: object) -> dict[str, Any]:
    kind = "valueBoolean" if isinstance(value, bool) else "valueCode"
    return {"extension": [{"url": url, kind: value}]}


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (extended(codes.ASSIGNMENT, "C"), "Y*C*Y*Y"),
        (extended(codes.ASSIGNMENT, False), "Y*C*Y*Y"),
        (extended(codes.ASSIGNMENT, "B"), "Y*B*Y*Y"),
        (extended(codes.BENEFITS, "N"), "Y*A*N*Y"),
        (extended(codes.BENEFITS, "W"), "Y*A*W*Y"),
        (extended(codes.RELEASE, "I"), "Y*A*Y*I"),
        (extended(codes.SIGNATURE, "P"), "Y*A*Y*Y*P"),
    ],
)
def test_assignment_and_release_come_from_the_claim(more: dict[str, Any], expected: str) -> None:
    assert find(segments(make_source({**make_skeleton(), **more})), "CLM") == [f"CLM*PCN1*150***11:B:1*{expected}"]


def test_assignment_comes_from_the_coverage_or_the_payers_default_where_the_claim_says_nothing() -> None:
    coverage = make_coverage("cov", **extended(codes.ASSIGNMENT, "C"))
    assert "*Y*C*Y*Y" in find(segments(make_source(None, coverage)), "CLM")[0]
    partner = Partner(PARTNER.envelope, PARTNER.submitter, PARTNER.receiver, assignments={"12345": "B"})
    assert "*Y*B*Y*Y" in find(segments(make_source(), partner=partner), "CLM")[0]


@pytest.mark.parametrize(
    ("accident", "clm", "dates"),
    [
        (
            {"date": "2026-01-05", "type": make_concept("", "MVA"), "locationAddress": {"state": "TX"}},
            "AA:::TX",
            ["DTP*439*D8*20260105"],
        ),
        ({"date": "2026-01-05", "type": make_concept("", "WPA")}, "EM", ["DTP*439*D8*20260105"]),
        ({"type": make_concept("", "SPT")}, "OA", []),
    ],
)
def test_accidents(accident: dict[str, Any], clm: str, dates: list[str]) -> None:
    lines = segments(make_source({**make_skeleton(), "accident": accident}))
    assert find(lines, "CLM")[0].endswith(f"*Y*A*Y*Y**{clm}")
    assert find(lines, "DTP*439") == dates


def test_anesthesia_is_counted_in_minutes() -> None:
    item = make_item(1, "00142", "827", quantity={"value": 61, "code": "min"}, modifier=[make_concept("", "QK")])
    assert find(segments(make_source(make_claim(item))), "SV1") == ["SV1*HC:00142:QK*827*MJ*61***1"]


@pytest.mark.parametrize(
    ("unit", "x12"), [("mL", "ML"), ("g", "GR"), ("mg", "ME"), ("[iU]", "F2"), ("{tablet}", "UN"), ("ML", "ML")]
)
def test_a_drug_has_its_code_and_quantity(unit: str, x12: str) -> None:
    detail = {
        "productOrService": make_concept(codes.NDC, "00026-0635-12"),
        "quantity": {"value": Decimal("10.50"), "code": unit},
    }
    lines = segments(make_source(make_claim(make_item(1, "J1550", "53.37", detail=[detail]))))
    assert lines[lines.index("REF*6R*L1") + 1 :][:2] == ["LIN**N4*00026063512", f"CTP****10.5*{x12}"]


def test_dates_attachments_and_amounts_of_the_claim() -> None:
    information = [
        {"category": make_concept("", "onset"), "timingDate": "2026-01-02"},
        {"category": make_concept("", "hospitalized"), "timingPeriod": {"start": "2026-01-03", "end": "2026-01-05"}},
        {
            "category": make_concept("", "employmentimpacted"),
            "timingPeriod": {"start": "2026-01-03", "end": "2026-01-09"},
        },
        {"category": make_concept("", "patient-paid"), "valueQuantity": {"value": 20.5}},
        {"category": make_concept("", "info"), "valueString": "Zoë: see ~chart*"},
        {"category": make_concept("", "attachment"), "code": make_concept("", "OZ"), "valueString": "A1"},
    ]
    lines = segments(make_source({**make_skeleton(), "supportingInfo": information}))
    start = next(place for place, line in enumerate(lines) if line.startswith("CLM"))
    assert lines[start + 1 : start + 9] == [
        "DTP*431*D8*20260102", "DTP*435*D8*20260103", "DTP*096*D8*20260105", "DTP*314*RD8*20260103-20260109",
        "PWK*OZ*EL***AC*A1", "AMT*F5*20.5", "REF*G1*PA77", "NTE*ADD*ZOE SEE CHART",
    ]  # fmt: skip


def test_providers_of_claim_and_line() -> None:
    team = [("primary", "smith"), ("referring", "pine"), ("supervisor", "pine"), ("ordering", "pine")]
    claim = make_claim(make_item(1, "99213", "10", careTeamSequence=[4]), facility=reference("Location/ward"))
    claim["careTeam"] = [
        {"sequence": n, "provider": reference(f"Practitioner/{who}"), "role": make_concept("", role)}
        for n, (role, who) in enumerate(team, 1)
    ]
    lines = segments(make_source(claim))
    assert find(lines, "NM1")[5:] == [
        "NM1*DN*1*PINE*RUTH*ANN**JR*XX*1700000023",
        "NM1*82*1*SMITH*ADAM****XX*1700000015",
        "NM1*DQ*1*PINE*RUTH*ANN**JR*XX*1700000023",
        "NM1*77*2*NORTH SURGERY CENTER*****XX*1700000023",
        "NM1*DK*1*PINE*RUTH*ANN**JR*XX*1700000023",
    ]


def test_who_is_the_billing_provider_and_where_it_works_is_not_repeated() -> None:
    own = {
        "resourceType": "Practitioner",
        "id": "solo",
        "name": [{"family": "Solo", "given": ["Han"]}],
        "identifier": [npi("1700000015"), {"system": codes.SSN, "value": "123-45-6789"}],
        "address": [
            address("1 Main St", "Boston", "MA", "021081234"),
            address("PO Box 7", "Boston", "MA", "021080007", use="billing"),
        ],
    }
    place = {"resourceType": "Location", "id": "own", "name": "Office", "address": own["address"][0]}
    claim = {**make_skeleton(), "provider": reference("Practitioner/solo"), "facility": reference("Location/own")}
    lines = segments(make_source(claim, own, place))
    assert find(lines, "NM1*82") == find(lines, "NM1*77") == []
    assert "REF*SY*123456789" in lines
    assert lines[lines.index("NM1*87*1") + 1 :][:2] == ["N3*PO BOX 7", "N4*BOSTON*MA*021080007"]


def test_a_line_tells_its_place_only_where_it_differs() -> None:
    other = make_item(2, "99213", "10", locationCodeableConcept=make_concept(codes.POS, "22"))
    lines = segments(make_source(make_claim(make_item(1, "99213", "10"), other)))
    assert find(lines, "SV1") == ["SV1*HC:99213*10*UN*1***1", "SV1*HC:99213*10*UN*1*22**1"]


def test_a_laboratory_line_brings_the_clia_number() -> None:
    claim = {**make_skeleton(), "facility": reference("Location/ward")}
    assert "REF*X4*22D1234567" in segments(make_source(claim))


def make_secondary(response: dict[str, Any] | None, *items: dict[str, Any]) -> ClaimSource:
    claim = make_claim(*(items or (make_item(1, "99213", "100"),)))
    first = {"sequence": 1, "focal": False, "coverage": reference("Coverage/first")}
    resources = [make_coverage("first", payer="best"), make_coverage("cov")]
    if response is not None:
        first["claimResponse"] = reference("ClaimResponse/r1")
        resources.append(response)
    claim["insurance"] = [first, {"sequence": 2, "focal": True, "coverage": reference("Coverage/cov")}]
    return make_source(claim, *resources)


def test_a_secondary_claim_tells_what_the_primary_decided_for_each_line() -> None:
    claim = make_claim(make_item(1, "99213", "100"))
    lines = segments(make_secondary(make_response(claim)))
    assert find(lines, "SBR") == ["SBR*S*18*GRP1******CI", "SBR*P*18*GRP1******CI"]
    start = lines.index("SBR*P*18*GRP1******CI")
    assert lines[start + 1 :] == [
        "AMT*D*60", "AMT*EAF*20", "OI***Y***Y",
        "NM1*IL*1*DOE*JANE****MI*MEM123", "N3*2 ELM ST", "N4*BOSTON*MA*02109",
        "NM1*PR*2*BEST INSURANCE*****PI*67890", "REF*F8*ICN1",
        "LX*1", "SV1*HC:99213*100*UN*1***1", "DTP*472*D8*20260110", "REF*6R*L1",
        "SVD*67890*60*HC:99213**1", "CAS*CO*45*20", "CAS*PR*2*20", "DTP*573*D8*20260119",
        "SE*40*0001", "GE*1*1", "IEA*1*000000001",
    ]  # fmt: skip


def test_a_decision_for_the_whole_claim_stands_at_the_claim_and_zero_is_written() -> None:
    response = {
        "resourceType": "ClaimResponse",
        "id": "r1",
        "created": "2026-01-20",
        "payment": {"amount": {"value": 0}},
        "adjudication": [adjudicate("PR", str(n), Decimal(10)) for n in range(1, 8)]
        + [adjudicate("CO", "45", Decimal(30))],
    }
    written = write(make_secondary(response))
    lines = written.text.split("~")
    assert find(lines, "CAS") == ["CAS*PR*1*10**2*10**3*10**4*10**5*10**6*10", "CAS*PR*7*10", "CAS*CO*45*30"]
    assert find(lines, "AMT") == ["AMT*D*0", "AMT*EAF*70"]
    assert find(lines, "DTP*573") == ["DTP*573*D8*20260120"]
    (fault,) = written.faults[0]
    assert (fault.severity, fault.place.path) == ("warning", "2330B/REF/02")


def test_a_decision_that_does_not_add_up_refuses_the_claim_alone() -> None:
    """B9: a line of 100, paid 60, adjusted by 30: 10 missing."""
    response = make_response(make_claim(make_item(1, "99213", "100")))
    response["item"][0]["adjudication"][1]["amount"]["value"] = Decimal(10)
    written = write(make_secondary(response), make_source(numbered(make_skeleton(), "PCN2")))
    assert {(fault.place.path, fault.sentence) for fault in written.faults[0]} == {
        ("2320/AMT/02", "Payer `67890` paid 60 and adjusted 30 of a claim of 100: 10 missing."),
        ("2430/SVD/02", "The line charges 100, was paid 60 and adjusted by 30: 10 missing."),
    }
    assert [line.split("*")[1] for line in find(written.text.split("~"), "CLM")] == ["PCN2"]


def test_a_second_claim_of_a_control_number_is_refused() -> None:
    written = write(make_source(), make_source())
    assert written.text.count("~CLM*") == 1
    assert [fault.expression for fault in written.faults[1]] == ["Claim.identifier"]


@pytest.mark.parametrize("delimiters", [Delimiters(), Delimiters("|", ">", "!", "'", "")])
def test_no_content_can_end_a_segment(delimiters: Delimiters) -> None:
    """Each delimiter stands in a name, in codes and in an extension."""
    strange = "O'B~R*I:A^N|Z>!"
    jane = {**make_resources()["Patient/jane"], "name": [{"family": strange, "given": ["Ann"]}]}
    claim = {**make_skeleton(), "related": [{"reference": {"value": strange}}]}
    claim["diagnosis"][0]["diagnosisCodeableConcept"] = make_concept(codes.ICD_10_CM, "E1~1*9")
    partner = Partner(Envelope("A", "B", delimiters=delimiters), PARTNER.submitter, PARTNER.receiver)
    written = write(make_source(claim, jane, frequency="7"), partner=partner)
    assert written.faults == ((),)
    terminator = delimiters.terminator
    assert written.text.count(terminator) == len(SKELETON.split("\n")[1:-1]) + 1


def test_what_the_payer_bundled_or_unbundled_is_told_by_its_own_codes() -> None:
    """One line of 100 that the first payer decided as two, of 60 and 40."""
    added = [
        {
            "itemSequence": [1],
            "productOrService": make_concept(codes.CPT, code),
            "adjudication": [
                {"category": make_concept(codes.ADJUDICATION, "benefit"), "amount": {"value": Decimal(paid)}},
                adjudicate("CO", "45", Decimal(adjusted)),
            ],
        }
        for code, paid, adjusted in (("99211", 50, 10), ("36415", 30, 10))
    ]
    response = {
        **make_response(make_claim()),
        "payment": {"amount": {"value": 80}, "date": "2026-01-19"},
        "addItem": added,
    }
    lines = segments(make_secondary(response))
    assert find(lines, "SVD") == ["SVD*67890*50*HC:99211**1", "SVD*67890*30*HC:36415**1"]
    assert find(lines, "AMT*D") == ["AMT*D*80"]


def test_a_payer_that_is_passed_over_has_its_noncovered_amount() -> None:
    source = make_secondary(None)
    extension = {"url": codes.NONCOVERED, "valueMoney": {"value": 100, "currency": "USD"}}
    source.claim["insurance"][0]["extension"] = [extension]
    assert find(segments(source), "AMT") == ["AMT*A8*100"]


def test_two_payers_before_this_one() -> None:
    """The first decided by line, the second for the claim as a whole: each date stands at its own level."""
    source = make_secondary(make_response(make_claim(make_item(1, "99213", "100"))))
    second = {
        "resourceType": "ClaimResponse",
        "id": "r2",
        "identifier": [{"value": "ICN2"}],
        "payment": {"amount": {"value": 20}, "date": "2026-01-25"},
        "adjudication": [adjudicate("OA", "23", Decimal(80))],
    }
    third = {"sequence": 3, "focal": True, "coverage": reference("Coverage/third")}
    insurance = [dict(each) for each in source.claim["insurance"]]
    insurance[1] |= {"focal": False, "claimResponse": reference("ClaimResponse/r2")}
    resources = {**source.resources, "ClaimResponse/r2": second, "Coverage/third": make_coverage("third")}
    lines = segments(ClaimSource({**source.claim, "insurance": [*insurance, third]}, resources))
    assert [line[:5] for line in find(lines, "SBR")] == ["SBR*T", "SBR*P", "SBR*S"]
    assert find(lines, "DTP*573") == ["DTP*573*D8*20260125", "DTP*573*D8*20260119"]
    assert find(lines, "SVD") == ["SVD*67890*60*HC:99213**1"]


def test_many_claims_go_in_several_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim_to_837p, "CLAIMS_PER_SET", 2)
    lines = segments(*(make_source(numbered(make_skeleton(), f"PCN{n}")) for n in range(5)))
    assert [line.split("*")[2] for line in find(lines, "ST")] == ["0001", "0002", "0003"]
    assert find(lines, "GE") == ["GE*3*1"]
    assert len({line.split("*")[3] for line in find(lines, "BHT")}) == 3


def test_a_primary_that_has_not_decided_is_told() -> None:
    written = write(make_secondary(None))
    assert written.text
    assert [fault.expression for fault in written.faults[0]] == ["Claim.insurance[0].claimResponse"]


def test_medicare_as_second_payer_needs_its_reason() -> None:
    source = make_secondary(make_response(make_claim(make_item(1, "99213", "100"))))
    coverage = make_coverage("cov", type=make_concept("", "1"))
    resources = {**source.resources, "Coverage/cov": coverage}
    refused = write(ClaimSource(source.claim, resources))
    assert [fault.place.path for fault in refused.faults[0]] == ["2000B/SBR/05"]
    coverage["extension"] = [{"url": codes.SECONDARY_TYPE, "valueCode": "12"}]
    assert "SBR*S*18*GRP1**12****MB" in segments(ClaimSource(source.claim, resources))


def without(path: str) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    def remove(claim: dict[str, Any], resources: dict[str, Any]) -> None:
        key, *steps, last = path.split(".")
        place: Any = claim if key == "Claim" else resources[key]
        for step in steps:
            place = place[int(step) if step.isdigit() else step]
        del place[last]

    return remove


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("Claim.identifier", "2300/CLM/01"),
        ("Claim.provider", "2010AA/NM1/03"),
        ("Claim.insurance", "2000B/SBR/01"),
        ("Claim.diagnosis", "2300/HI/01"),
        ("Claim.item", "2400/LX/01"),
        ("Claim.item.0.productOrService", "2400/SV1/01"),
        ("Claim.item.0.net", "2400/SV1/02"),
        ("Claim.item.0.servicedDate", "2400/DTP/03"),
        ("Claim.item.0.diagnosisSequence", "2400/SV1/07"),
        ("Claim.item.0.locationCodeableConcept", "2300/CLM/05"),
        ("Patient/jane.address", "2010BA/N3/01"),
        ("Patient/jane.birthDate", "2010BA/DMG/02"),
        ("Patient/jane.name", "2010BA/NM1/03"),
        ("Coverage/cov.subscriberId", "2010BA/NM1/09"),
        ("Coverage/cov.payor", "2010BB/NM1/09"),
        ("Organization/clinic.identifier", "2010AA/REF/02"),
        ("Organization/clinic.address", "2010AA/N3/01"),
        ("Practitioner/smith.name", "2310B/NM1/03"),
    ],
)
def test_what_is_missing_refuses_the_claim_with_path_and_loop(path: str, place: str) -> None:
    claim, resources = copy.deepcopy((make_skeleton(), make_resources()))
    without(path)(claim, resources)
    written = write(ClaimSource(claim, resources), make_source(numbered(make_skeleton(), "PCN2")))
    assert place in {fault.place.path for fault in written.faults[0]}
    assert all(fault.expression and fault.sentence.endswith(".") for fault in written.faults[0])
    assert [line.split("*")[1] for line in find(written.text.split("~"), "CLM")] == ["PCN2"]


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"total": {"value": 151}}, "2300/CLM/02"),
        ({"item": [make_item(n, "99213", "3") for n in range(1, 52)], "total": None}, "2400/LX/01"),
        ({"item": [make_item(1, "J3490", "150")]}, "2400/SV1/01"),
        ({"item": [make_item(1, "99213", "150", modifier=[make_concept("", "25")] * 5)]}, "2400/SV1/01"),
        ({"item": [make_item(1, "99213", "150", diagnosisSequence=[3])]}, "2400/SV1/07"),
    ],
)
def test_what_an_837p_cannot_hold_refuses_the_claim(change: dict[str, Any], place: str) -> None:
    written = write(make_source({**make_skeleton(), **change}))
    assert written.text == ""
    assert place in {fault.place.path for fault in written.faults[0]}


@pytest.mark.parametrize("number", ["", "pcn1", "PCN-1", "A" * 18])
def test_a_control_number_that_would_not_come_back_is_refused(number: str) -> None:
    """B18."""
    written = write(make_source(numbered(make_skeleton(), number)))
    assert [fault.place.path for fault in written.faults[0]] == ["2300/CLM/01"]


@pytest.mark.parametrize(
    ("more", "expression"),
    [
        ({"procedure": [{"sequence": 1}]}, "Claim.procedure"),
        ({"supportingInfo": [{"category": make_concept("", "missingtooth")}]}, "Claim.supportingInfo[0]"),
        ({"supportingInfo": [{"category": make_concept("", "info"), "valueString": "X" * 81}]}, "Claim.supportingInfo"),
    ],
)
def test_what_is_not_sent_is_told(more: dict[str, Any], expression: str) -> None:
    written = write(make_source({**make_skeleton(), **more}))
    assert written.text
    assert [(fault.severity, fault.expression) for fault in written.faults[0]] == [("warning", expression)]


def test_a_code_for_what_has_no_code_is_described() -> None:
    item = make_item(1, "J3490", "10")
    item["productOrService"]["text"] = "Compounded cream: 5%"
    assert find(segments(make_source(make_claim(item))), "SV1") == ["SV1*HC:J3490:::::COMPOUNDED CREAM 5*10*UN*1***1"]


def test_control_numbers_of_lines_are_unique_even_where_the_items_have_none() -> None:
    first, second = make_item(1, "99213", "10"), make_item(2, "99213", "10")
    del first["id"], second["id"]
    assert find(segments(make_source(make_claim(first, second))), "REF*6R") == ["REF*6R*PCN1L1", "REF*6R*PCN1L2"]
