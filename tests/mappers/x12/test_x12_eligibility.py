"""270 out and 271 in (005010X279A1; traps B24)."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest

from fhir_server.app import Knowledge
from mappers.x12 import codes
from mappers.x12.eb_to_insurance import EligibilityContext, answer_to_response
from mappers.x12.eligibility import EligibilityAnswer, read_271
from mappers.x12.envelope import TransactionSet, read_interchanges
from mappers.x12.reader import read_set
from mappers.x12.request_to_270 import EligibilitySource, write_270
from mappers.x12.resource import find_code, make_concept
from tests.mappers.x12.test_x12_loops import read_sample
from tests.mappers.x12.test_x12_tokenizer import isa
from tests.mappers.x12.x12_claims import NUMBERS, PARTNER, make_coverage, make_resources, reference

CONTEXT = EligibilityContext("CoverageEligibilityRequest/1", "Patient/1", "Organization/1", "Coverage/1", "2026-02-01")


def make_request(**more: Any) -> dict[str, Any]:
    return {
        "resourceType": "CoverageEligibilityRequest",
        "status": "active",
        "purpose": ["benefits"],
        "patient": reference("Patient/jane"),
        "created": "2026-01-15",
        "provider": reference("Organization/clinic"),
        "insurer": reference("Organization/acme"),
        "insurance": [{"focal": True, "coverage": reference("Coverage/cov")}],
        **more,
    }


def write(request: dict[str, Any], *more: dict[str, Any]) -> list[str]:
    source = EligibilitySource(request, make_resources(*more), "TRACE1", date(2026, 1, 20))
    written = write_270(source, PARTNER, NUMBERS, "0001")
    assert (written.check, written.faults) == ((), ())
    return written.text.split("~")[1:-1]


def test_a_270_for_the_subscriber() -> None:
    assert write(make_request()) == [
        "GS*HS*SUBMITTER01*RECEIVER01*20260115*1200*1*X*005010X279A1",
        "ST*270*0001*005010X279A1",
        "BHT*0022*13*TRACE1*20260115*1200",
        "HL*1**20*1",
        "NM1*PR*2*ACME HEALTH*****PI*12345",
        "HL*2*1*21*1",
        "NM1*1P*2*GOOD CLINIC*****XX*1700000007",
        "HL*3*2*22*0",
        "TRN*1*TRACE1*9SUBMITTER",
        "NM1*IL*1*DOE*JANE****MI*MEM123",
        "DMG*D8*19800102*F",
        "DTP*291*D8*20260120",
        "EQ*30",
        "SE*13*0001",
        "GE*1*1",
        "IEA*1*000000001",
    ]


def test_a_270_for_a_dependent_asks_below_the_subscriber() -> None:
    coverage = make_coverage("cov", patient="bo", relationship=make_concept("", "child"))
    lines = write(make_request(servicedDate="2026-03-01"), coverage)
    start = lines.index("HL*3*2*22*1")
    assert lines[start + 1 : start + 8] == [
        "NM1*IL*1*DOE*JANE****MI*MEM123", "HL*4*3*23*0", "TRN*1*TRACE1*9SUBMITTER", "NM1*03*1*DOE*BO",
        "DMG*D8*20120304*M", "DTP*291*D8*20260301", "EQ*30",
    ]  # fmt: skip


def test_a_270_asks_for_each_item() -> None:
    items = [
        {"category": make_concept(codes.SERVICE_TYPE, "98")},
        {"productOrService": make_concept(codes.CPT, "99213"), "modifier": [make_concept("", "25")]},
    ]
    lines = write(make_request(item=items, servicedPeriod={"start": "2026-03-01", "end": "2026-03-31"}))
    assert [line for line in lines if line.startswith(("EQ", "DTP"))] == [
        "DTP*291*RD8*20260301-20260331", "EQ*98", "EQ**HC:99213:25",
    ]  # fmt: skip


def test_a_270_that_lacks_something_is_not_written() -> None:
    request = make_request(provider=reference("Organization/none"), insurance=[])
    written = write_270(EligibilitySource(request, {}, "T", date(2026, 1, 20)), PARTNER, NUMBERS, "0001")
    assert written.text == ""
    assert {fault.place.path for fault in written.faults} >= {"2100B/NM1/09", "2100C/NM1/09", "2100A/NM1/09"}


def make_271(people: str) -> tuple[EligibilityAnswer, ...]:
    body = (
        "BHT*0022*11*1*20260115*1200~HL*1**20*1~NM1*PR*2*ACME*****PI*12345~HL*2*1*21*1~"
        f"NM1*1P*2*GOOD CLINIC*****XX*1700000007~{people}"
    )
    text = f"{isa()}GS*HB*A*B*20260116*1200*1*X*005010X279A1~ST*271*0001*005010X279A1~{body}"
    text += f"SE*{body.count('~') + 2}*0001~GE*1*1~IEA*1*000000001~"
    (received,) = [event for event in read_interchanges(text) if isinstance(event, TransactionSet)]
    loops = read_set(received)
    assert loops is not None
    assert loops.faults == ()
    return read_271(loops)


ADA = "HL*3*2*22*1~TRN*2*OTHER*9000000001~NM1*IL*1*REED*ADA****MI*M1~"
BO = "HL*4*3*23*0~TRN*2*TRACE1*9000000001~NM1*03*1*REED*BO~DMG*D8*20120304*M~"
SELF = "HL*3*2*22*0~TRN*2*TRACE1*9000000001~NM1*IL*1*REED*ADA****MI*M1~"


def items_of(people: str) -> list[dict[str, Any]]:
    (answer,) = make_271(people)
    return list(answer_to_response(answer, CONTEXT)["insurance"][0].get("item", []))


def test_what_stands_below_a_dependent_is_the_dependents() -> None:
    """B24: two items of 25.00 for Bo."""
    (answer,) = make_271(ADA + BO + "EB*B**98^33*HM**27*25*****Y~")
    assert (answer.person.given, answer.dependent, answer.traces, answer.subscriber.given) == (
        "BO",
        True,
        ("TRACE1",),
        "ADA",
    )
    items = answer_to_response(answer, CONTEXT)["insurance"][0]["item"]
    assert [find_code(item["category"]) for item in items] == ["98", "33"]
    assert [item["benefit"][0]["allowedMoney"]["value"] for item in items] == [Decimal(25), Decimal(25)]
    assert {find_code(item["network"]) for item in items} == {"in"}


def test_the_sample(shared: Path, known: Knowledge) -> None:
    """In force, and two copays for ten service types: 10.00 in the network, 30.00 outside."""
    _, loops = read_sample(shared / "data" / "x12" / "271_005010X279A1_subscriber-health-benefit-check.271")
    (answer,) = read_271(loops)
    assert (answer.traces, answer.person.id, answer.birth_date) == (("93175-012547",), "123456789", date(1963, 5, 19))
    response = answer_to_response(answer, CONTEXT)
    (insurance,) = response["insurance"]
    assert (insurance["inforce"], insurance["benefitPeriod"]) == (True, {"start": "2006-01-01"})
    copays = [item for item in insurance["item"] if find_code(item["benefit"][0]["type"]) == "copay"]
    found = {(find_code(i["network"]), i["benefit"][0]["allowedMoney"]["value"]) for i in copays}
    assert (len(copays), found) == (20, {("in", Decimal(10)), ("out", Decimal(30))})
    assert any(item.get("provider", {}).get("display") == "MARCUS JONES" for item in insurance["item"])
    assert known.validator.find_issues(orjson.loads(orjson.dumps(response, default=float))) == ()


@pytest.mark.parametrize(
    ("eb", "active"),
    [
        ("EB*1**30~", True),
        ("EB*6**30~", False),
        ("EB*1~", True),
        ("EB*6**35~EB*1**30~", True),
        ("EB*6**35~", None),
        ("EB*C**30~", None),
    ],
)
def test_in_force_is_told_by_type_30_or_none_only(eb: str, active: bool | None) -> None:
    (answer,) = make_271(SELF + eb)
    assert answer.active is active


def test_what_remains_says_what_is_used() -> None:
    _, remaining = items_of(SELF + "EB*C*IND*30***23*500*****Y~EB*C*IND*30***29*120*****Y~")
    assert remaining["benefit"][0]["allowedMoney"]["value"] == 500
    assert remaining["benefit"][0]["usedMoney"]["value"] == 380
    assert (find_code(remaining["term"]), find_code(remaining["unit"])) == ("annual", "individual")


@pytest.mark.parametrize(
    ("eb", "path", "expected"),
    [
        ("EB*A**30*****.2~", "benefit.0.allowedString", "20%"),
        ("EB*F**33***23***VS*20~", "benefit.0.allowedUnsignedInt", 20),
        ("EB*F**33***23***VS*20~", "benefit.0.type.text", "VS"),
        ("EB*I**33~", "excluded", True),
        ("EB*B**33****10****Y~", "authorizationRequired", True),
        ("EB*B**33****10****N~", "authorizationRequired", False),
        ("EB*G*FAM*30***32*5000~", "term.coding.0.code", "lifetime"),
        ("EB*G*FAM*30***32*5000~", "unit.coding.0.code", "family"),
        ("EB*B******10****N*W*HC:99213:25~", "productOrService.coding.0.code", "99213"),
        ("EB*B******10****N**HC:99213:25~", "modifier.0.coding.0.code", "25"),
        ("EB*B**33****10~MSG*PAID BY THE PATIENT~MSG*AT THE DESK~", "description", "PAID BY THE PATIENT; AT THE DESK"),
        ("EB*1**30**GOLD PLAN~", "name", "GOLD PLAN"),
    ],
)
def test_each_detail_of_a_benefit_has_its_place(eb: str, path: str, expected: object) -> None:
    value: Any = items_of(SELF + eb)[0]
    for step in path.split("."):
        value = value[int(step) if step.isdigit() else step]
    assert value == expected


def test_authorization_and_network_that_are_unknown_are_absent() -> None:
    (item,) = items_of(SELF + "EB*B**33****10****U*W~")
    assert "authorizationRequired" not in item
    assert "network" not in item


@pytest.mark.parametrize(
    "people",
    [
        "HL*3*2*22*0~TRN*2*TRACE1*9000000001~NM1*IL*1*REED*ADA****MI*M1~AAA*N**75*C~",
        ADA + BO.replace("DMG", "AAA*N**75*C~DMG"),
        SELF + "EB*1**30~AAA*N**75*C~",
    ],
)
def test_a_rejection_is_an_error_with_its_reason(people: str) -> None:
    (answer,) = make_271(people)
    response = answer_to_response(answer, CONTEXT)
    assert response["outcome"] == "error"
    assert [find_code(error["code"]) for error in response["error"]] == ["75"]
    assert response["error"][0]["code"]["text"].endswith("follow-up action C")


def test_a_rejection_above_the_subscriber_is_an_answer_too() -> None:
    body = "BHT*0022*11*1*20260115*1200~HL*1**20*0~AAA*N**42*R~NM1*PR*2*ACME*****PI*12345~"
    text = f"{isa()}GS*HB*A*B*20260116*1200*1*X*005010X279A1~ST*271*0001*005010X279A1~{body}SE*6*0001~"
    text += "GE*1*1~IEA*1*000000001~"
    (received,) = [event for event in read_interchanges(text) if isinstance(event, TransactionSet)]
    loops = read_set(received)
    assert loops is not None
    (answer,) = read_271(loops)
    assert [(each.reason, each.follow_up) for each in answer.rejections] == [("42", "R")]
